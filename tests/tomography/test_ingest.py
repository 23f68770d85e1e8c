"""One tilt series in three formats becomes one store; what the config says by hand counts."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from gigascope.config.dataset import TomographyDataset
from gigascope.runtime.run import run_stage
from gigascope.store.open import StoreReader, open_store
from gigascope.store.table import read_tsv
from gigascope.store.writers.aln import write_aln
from gigascope.store.writers.portal import write_portal_json
from gigascope.store.writers.xf import write_tlt, write_xf
from gigascope.tomography.raw import raw_files
from gigascope.tomography.series import Series

TILT = np.linspace(-48.0, 48.0, 9)


@pytest.fixture
def stack(rng: np.random.Generator) -> np.ndarray:
    """(tilt, y, x) uint16, y up, with structure and a dark border that tells the axes apart."""
    views = rng.poisson(200, (9, 40, 56)).astype(np.uint16)
    views[:, 10:18, 20:44] += 150
    return views


def ingest(folder: Path, source: Path, extra: str = "", inputs: str = "") -> StoreReader:
    angles = ", ".join(f"{t:g}" for t in TILT)
    (folder / "data.yaml").write_text(
        f"pipeline: tomography\nname: data\ninputs:\n  tilt_series: {source}\n{inputs}"
        f"ingest:\n  pixel_size_nm: 1.5\n  tilt_deg: [{angles}]\n  signal: linear\n{extra}"
    )
    output = folder / "out" / "tilt_series.zarr"
    run_stage("tomography.ingest", folder / "data.yaml", {}, {"tilt_series": output})
    return open_store(output)


def write_mrc(path: Path, stack: np.ndarray) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(stack)
    return path


def test_mrc_tiff_and_ome_zarr_of_one_series_give_the_same_store(stack: np.ndarray, tmp_path: Path) -> None:
    for name in ("mrc", "tiff", "files", "again"):
        (tmp_path / name).mkdir()
    first = ingest(tmp_path / "mrc", write_mrc(tmp_path / "series.st", stack))
    np.testing.assert_array_equal(first.array()[:], stack)
    tifffile.imwrite(tmp_path / "series.tif", stack[:, ::-1])
    folder = tmp_path / "views"
    folder.mkdir()
    for i, view in enumerate(stack):
        tifffile.imwrite(folder / f"view_{i}.tif", view[::-1])
    others = [
        ingest(tmp_path / "tiff", tmp_path / "series.tif"),
        ingest(tmp_path / "files", folder),
        ingest(tmp_path / "again", tmp_path / "mrc" / "out" / "tilt_series.zarr"),
    ]
    for other in others:
        np.testing.assert_array_equal(other.array()[:], stack)
        np.testing.assert_array_equal(other.table("views")["tilt_deg"], TILT)
        assert other.attrs["pixel_size_nm"] == 1.5
        assert other.attrs["signal"] == first.attrs["signal"]


def test_what_is_set_by_hand_counts(stack: np.ndarray, tmp_path: Path) -> None:
    source = write_mrc(tmp_path / "series.mrc", stack)
    reader = ingest(
        tmp_path, source, "  tilt_axis_deg: 85.3\n  tilt_sign: -1\n  y_up: false\n  exclude: [2]\n  extent: section\n"
    )
    series = Series(reader)
    np.testing.assert_array_equal(reader.array()[:], stack[:, ::-1])
    np.testing.assert_array_equal(reader.table("views")["tilt_deg"], -TILT)
    assert reader.attrs["tilt_axis_deg"] == 85.3
    assert reader.attrs["tilt_sign"] == -1
    assert series.extent == "section"
    assert list(reader.table("views")["excluded"]) == [i == 2 for i in range(9)]
    np.testing.assert_array_equal(np.diff(series.tilt) > 0, True)
    assert not series.use[list(series.order).index(2)]


def test_values_that_are_not_finite_are_masked_in_excluded_views(stack: np.ndarray, tmp_path: Path) -> None:
    broken = stack.astype(np.float32)
    broken[5, 3, 4] = np.nan
    reader = ingest(tmp_path, write_mrc(tmp_path / "series.mrc", broken), "  exclude: [5]\n")
    mask = np.asarray(reader.side("mask")[:])
    assert mask[5, 3, 4] == 0
    assert mask.sum() == mask.size - 1


@pytest.mark.parametrize("name", ["shifts.xf", "shifts.aln", "shifts.json"])
def test_a_given_alignment_stands_in_for_prealigns_own(
    name: str, stack: np.ndarray, rng: np.random.Generator, tmp_path: Path
) -> None:
    given, axis = rng.uniform(-4, 4, (9, 2)), 5.0
    excluded = np.arange(9) == 3
    path = tmp_path / name
    if name.endswith(".xf"):
        write_xf(path, given, axis, excluded=excluded)
    elif name.endswith(".aln"):
        write_aln(path, given, TILT, axis, raw_shape=(40, 56), excluded=excluded)
    else:
        write_portal_json(path, given, TILT, axis, volume_angstrom=(1, 1, 1), excluded=excluded)
    reader = ingest(tmp_path, write_mrc(tmp_path / "series.st", stack), inputs=f"  alignment: {path}\n")
    assert reader.attrs["tilt_axis_deg"] == pytest.approx(axis, abs=1e-4)
    assert list(reader.table("views")["excluded"]) == list(excluded)
    out = tmp_path / "out"
    run_stage(
        "tomography.prealign",
        tmp_path / "data.yaml",
        {"tilt_series": out / "tilt_series.zarr"},
        {"prealigned": out / "prealigned.zarr", "shifts": out / "prealign_shifts.tsv", "xf": out / "prealign.xf"},
    )
    table, _ = read_tsv(out / "prealign_shifts.tsv")
    found = np.stack([table["f_s_px"], table["f_y_px"]], axis=1)
    np.testing.assert_allclose(found[~excluded], given[~excluded], atol=1e-3)
    assert list(table["flag"]) == ["excluded" if out else "" for out in excluded]
    assert open_store(out / "prealigned.zarr").attrs["method"] == f"given by {name}"


def test_an_alignment_is_a_raw_file_of_its_dataset(stack: np.ndarray, tmp_path: Path) -> None:
    """A change in it makes ingest run again."""
    write_xf(tmp_path / "a.xf", np.zeros((9, 2)), 0.0)
    write_tlt(tmp_path / "a.tlt", TILT)
    values = {
        "pipeline": "tomography",
        "name": "data",
        "inputs": {"tilt_series": str(write_mrc(tmp_path / "s.st", stack)), "alignment": str(tmp_path / "a.xf")},
        "ingest": {"pixel_size_nm": 1.5},
    }
    assert {tmp_path / "a.xf", tmp_path / "a.tlt"} <= set(raw_files(TomographyDataset.model_validate(values)))


def test_doubts_about_a_series_are_warnings_of_its_store(rng: np.random.Generator, tmp_path: Path) -> None:
    """Half of the views dark, and no contrast in the others: ingest goes on, and says both."""
    flat = rng.poisson(300, (40, 48, 48)).astype(np.int16)
    flat[1::2] = rng.poisson(3, (20, 48, 48))
    write_mrc(tmp_path / "flat.st", flat)
    np.savetxt(tmp_path / "flat.tlt", np.linspace(-39, 39, 40))
    text = f"pipeline: tomography\nname: flat\ninputs: {{tilt_series: {tmp_path / 'flat.st'}}}\n"
    text += "ingest: {pixel_size_nm: 1}\nreconstruct: {thickness_nm: 16, iterations: 5, align: {outer: 3}}\n"
    (tmp_path / "data.yaml").write_text(text)
    out = tmp_path / "out"
    run_stage("tomography.ingest", tmp_path / "data.yaml", {}, {"tilt_series": out / "tilt_series.zarr"})
    reader = open_store(out / "tilt_series.zarr")
    said = "\n".join(reader.provenance["warnings"])
    assert "20 of 40 views are too dark" in said
    assert "Only 20 of 40 views can be used, from -39° to 37°" in said
    assert "Nothing to align by was seen" in said
    assert list(reader.table("views")["excluded"]) == [False, True] * 20
    notes = "\n".join(reader.attrs["notes"])
    assert "the sign of the tilt angles is that of flat.tlt" in notes
    inputs = {"tilt_series": out / "tilt_series.zarr"}
    outputs = {name: out / file for name, file in (("prealigned", "p.zarr"), ("shifts", "p.tsv"), ("xf", "p.xf"))}
    run_stage("tomography.prealign", tmp_path / "data.yaml", inputs, outputs)
    table, _ = read_tsv(out / "p.tsv")
    assert np.isfinite(table["f_s_px"]).all()
    assert np.abs(table["f_s_px"]).max() < 48
