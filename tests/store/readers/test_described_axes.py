"""DM, HyperSpy, EMD, Data Exchange and MATLAB: the same series from each, angles and pixel size from its axes."""

from __future__ import annotations

import builtins
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from gigascope.errors import UserError
from gigascope.store.readers.tilt_series import find_tilt_series, open_tilt_series

TILT = np.array([-30.0, -20, -10, 0, 10, 20, 31])


@pytest.fixture
def stack(rng: np.random.Generator) -> np.ndarray:
    """(view, y, x) uint16, the top row first; 7 views of 8 x 5 px."""
    return rng.integers(0, 999, (7, 5, 8)).astype(np.uint16)


def hyperspy(path: Path, stack: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("Experiments/series")
        group["data"] = stack
        for k, (name, unit, scale, offset) in enumerate(
            [("tilt", "degrees", 1.0, 0.0), ("y", "µm", 0.002, 0.0), ("x", "µm", 0.002, 0.0)]
        ):
            axis = group.create_group(f"axis-{k}")
            axis.attrs.update({"name": name, "units": unit, "scale": scale, "offset": offset, "size": stack.shape[k]})
        group["axis-0/axis"] = TILT  # not evenly spaced


def emd(path: Path, stack: np.ndarray) -> None:
    """Berkeley's: the views last, units in brackets with underscores."""
    with h5py.File(path, "w") as file:
        group = file.create_group("data/series")
        group.attrs["emd_group_type"] = 1
        group["data"] = stack.transpose(1, 2, 0)
        for k, (name, unit, values) in enumerate(
            [("y", "[n_m]", 2.0 * np.arange(5)), ("x", "[n_m]", 2.0 * np.arange(8)), ("t", "[deg]", TILT)]
        ):
            group[f"dim{k + 1}"] = values
            group[f"dim{k + 1}"].attrs.update({"name": np.bytes_(name), "units": np.bytes_(unit)})


def exchange(path: Path, stack: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["exchange/data"] = stack
        file["exchange/data"].attrs["element_size_um"] = [1.0, 0.002, 0.002]
        file["exchange/data_white"] = stack[:2]
        file["exchange/theta"] = np.radians(TILT)
        file["exchange/theta"].attrs["units"] = "rad"


def matlab_5(path: Path, stack: np.ndarray) -> None:
    savemat(path, {"stack": stack.transpose(1, 2, 0), "angles": TILT, "note": "x"})


def matlab_73(path: Path, stack: np.ndarray) -> None:
    """As MATLAB writes it: a header of its own first, and every array transposed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["stack"] = stack.transpose(1, 2, 0).T
        file["stack"].attrs["MATLAB_class"] = np.bytes_("uint16")
        file["angles"] = TILT[:, None]
        file["angles"].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


WRITERS = {"a.hspy": hyperspy, "a.emd": emd, "a.h5": exchange, "old.mat": matlab_5, "new.mat": matlab_73}


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_every_format_gives_the_same_series(name: str, write: Callable, stack: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / name, stack)
    matlab = name.endswith(".mat")
    found = open_tilt_series(tmp_path / name, pixel_size_nm=2.0 if matlab else None)
    assert found.shape == (7, 5, 8)
    assert found.pixel_size_nm == pytest.approx(2.0)
    np.testing.assert_allclose(found.tilt_deg, TILT)
    for i in (0, 6):
        np.testing.assert_array_equal(found.read(i), stack[i, ::-1])
    assert found.read(2).dtype == np.uint16
    np.testing.assert_array_equal(find_tilt_series(tmp_path / name, y_up=True).read(1), stack[1])


def test_angles_beside_a_file_agree_with_its_own_or_are_refused(stack: np.ndarray, tmp_path: Path) -> None:
    hyperspy(tmp_path / "a.hspy", stack)
    np.savetxt(tmp_path / "a.tlt", TILT + 0.1)
    assert open_tilt_series(tmp_path / "a.hspy").origin["tilt_deg"] == "a.tlt"
    np.savetxt(tmp_path / "a.tlt", -TILT)
    with pytest.raises(UserError, match="opposite sign"):
        open_tilt_series(tmp_path / "a.hspy")


@pytest.mark.parametrize("version", [matlab_5, matlab_73])
def test_one_of_several_arrays_is_named_after_its_file(version: Callable, stack: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    if version is matlab_5:
        savemat(path, {"raw": stack.transpose(1, 2, 0), "aligned": stack.transpose(1, 2, 0) + 1})
    else:
        matlab_73(path, stack)
        with h5py.File(path, "r+") as file:
            file["aligned"] = file["stack"][:] + 1
            file["aligned"].attrs["MATLAB_class"] = np.bytes_("uint16")
    with pytest.raises(UserError, match=r"Name one in inputs\.tilt_series"):
        find_tilt_series(path)
    np.testing.assert_array_equal(find_tilt_series(path / "aligned").read(3), stack[3, ::-1] + 1)
    with pytest.raises(UserError, match="nothing"):
        find_tilt_series(path / "nothing")


def test_doubles_are_kept_as_float32_and_complex_numbers_refused(stack: np.ndarray, tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"stack": stack.transpose(1, 2, 0) / 7})
    found = find_tilt_series(tmp_path / "a.mat")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.read(4), (stack[4, ::-1] / 7).astype(np.float32))
    assert any("kept as float32" in note for note in found.notes)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["stack"] = stack * 1j
    with pytest.raises(UserError, match="complex"):
        find_tilt_series(tmp_path / "a.h5")


def test_what_is_no_series_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["image"] = np.zeros((4, 4))
    with pytest.raises(UserError, match="has the datasets: none"):
        find_tilt_series(tmp_path / "flat.h5")
    with h5py.File(tmp_path / "four.h5", "w") as file:
        file["scan"] = np.zeros((4, 4, 3, 3))
    with pytest.raises(UserError, match="three axes"):
        find_tilt_series(tmp_path / "four.h5")
    with pytest.raises(UserError, match="no such file"):
        find_tilt_series(tmp_path / "none.mat")


def test_real_dm3_is_the_series_of_its_mrc(shared_data: Path) -> None:
    """The MRC of the same values was written with the top row first."""
    pytest.importorskip("rsciio", reason="rosettasciio is not installed: pip install rosettasciio")
    folder = shared_data / "tomo" / "nist_haadf_needle"
    found = open_tilt_series(folder / "HAADF.dm3")
    mrc = open_tilt_series(folder / "needle.mrc")
    assert found.shape == mrc.shape
    np.testing.assert_allclose(found.tilt_deg, mrc.tilt_deg)
    assert found.pixel_size_nm == pytest.approx(mrc.pixel_size_nm, rel=1e-3)
    for i in (0, 45, 90):
        np.testing.assert_array_equal(found.read(i), mrc.read(i)[::-1])


def test_dm3_without_its_package_says_what_to_install(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("rsciio"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="rosettasciio"):
        find_tilt_series(shared_data / "tomo" / "nist_haadf_needle" / "HAADF.dm3")


def test_damaged_dm3_never_raises_anything_but_user_errors(
    shared_data: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    pytest.importorskip("rsciio", reason="rosettasciio is not installed: pip install rosettasciio")
    path = tmp_path / "a.dm3"
    shutil.copyfile(shared_data / "tomo" / "nist_haadf_needle" / "HAADF.dm3", path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        find_tilt_series(path)
    for _ in range(6):
        broken = bytearray(whole)
        for at in rng.integers(4, 3000, 20):
            broken[at] = int(rng.integers(256))
        path.write_bytes(broken)
        with contextlib.suppress(UserError):
            find_tilt_series(path).read(0)
