"""No key of the optics is read and ignored: each, set to another value, changes what the stage photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from gigascope.config.dataset import merge
from gigascope.config.synthesis_optics import Optics
from gigascope.errors import UserError
from gigascope.store.open import open_store
from gigascope.synthesis.phantom.stored import read_phantom

from ...stage_runs import write_dataset
from ..optics.keys import EFFECTS, MEASURED
from .tiny import RUNS, TINY

# A few voxels; nothing beside the optics reads their keys, as the cone of the light does.
SMALL: dict[str, Any] = {
    "grid": {"field_um": [9.0, 5.0, 5.0]},
    "attenuation": {"cone_rays": 1, "haze_fraction": 0.0},
    "store": {"chunk": [8, 16, 32], "shard": [16, 32, 64]},
}
CAP = {"cap_um": [6.0, 3.0, 3.0]}
PLAIN = {"model": "gibson_lanni", **CAP}
# For stacks of beads a and b at voxels of 0.75 x 0.25 x 0.25 micrometres.
TWO = {"paths": ["a.tif", "b.tif"], "path_depths_um": [0.0, 20.0]}
STACKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paths": ({"paths": ["a.tif"]}, {"paths": ["b.tif"]}),
    "path_depths_um": (TWO, {**TWO, "path_depths_um": [0.0, 40.0]}),
    "path_voxel_um": ({"paths": ["a.tif"]}, {"paths": ["a.tif"], "path_voxel_um": [0.75, 0.3, 0.25]}),
    "symmetrise": ({"paths": ["a.tif"]}, {"paths": ["a.tif"], "symmetrise": True}),
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder with the store of one phantom, which is read once for all runs."""
    folder = tmp_path_factory.mktemp("phantom")
    values = merge(TINY, {"phantoms": {"n_spheroids": 1}})
    RUNS.run(write_dataset(folder, values), folder, "phantoms")
    read = read_phantom(open_store(folder / "phantoms.zarr"), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gigascope.synthesis.phantom.stored.read_phantom", lambda *_: read)
        yield folder


def expected(folder: Path, phantoms: Path, optics: dict[str, Any]) -> bytes:
    """Electrons of the image, without noise."""
    values = {**TINY, "simulate": {**SMALL, "optics": optics}}
    RUNS.run(write_dataset(folder, values), folder, "simulate", phantoms)
    store = open_store(folder / "cultures.zarr")
    found = store.image("s0000").side("expected")[...]
    return str(found.shape).encode() + found.tobytes()


@pytest.mark.slow
def test_every_key_changes_the_image(phantom: Path, tmp_path: Path) -> None:
    plain: dict[str, bytes] = {}
    for number, (key, (value, beside)) in enumerate(EFFECTS.items()):
        base = {**PLAIN, **beside}
        if str(base) not in plain:
            plain[str(base)] = expected(tmp_path / f"plain{number}", phantom, base)
        assert expected(tmp_path / str(number), phantom, {**base, key: value}) != plain[str(base)], key


def write_beads(folder: Path, rng: np.random.Generator) -> None:
    """Two stacks of (7, 9, 9) voxels that are brightest in their middle, and not symmetric."""
    for name in "ab":
        stack = np.zeros((7, 9, 9), np.float32)
        stack[1:-1, 1:-1, 1:-1] = rng.random((5, 7, 7))
        stack[3, 4, 4] = 5
        metadata = {"spacing": 0.75, "unit": "um", "axes": "ZYX"}
        tifffile.imwrite(folder / f"{name}.tif", stack, imagej=True, resolution=(4, 4), metadata=metadata)


def test_keys_of_measured_stacks_change_the_image(
    phantom: Path, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_beads(tmp_path, rng)
    monkeypatch.chdir(tmp_path)
    assert STACKS.keys() == MEASURED
    assert STACKS.keys() | EFFECTS.keys() == Optics.model_fields.keys()
    for key, both in STACKS.items():
        one, other = (
            expected(tmp_path / f"{key}{n}", phantom, {"model": "measured", **CAP, **of}) for n, of in enumerate(both)
        )
        assert one != other, key


def test_psf_that_is_larger_than_the_volume_is_refused(phantom: Path, tmp_path: Path) -> None:
    optics = {"model": "gaussian", "sigma_um": [9.0, 0.2, 0.2]}
    with pytest.raises(UserError, match=r"the PSF is \d+ voxels of the finer grid long along z, the whole volume only"):
        expected(tmp_path, phantom, optics)
    assert not (tmp_path / "cultures.zarr").exists()


def test_warnings_of_the_psf_are_those_of_the_stage(phantom: Path, tmp_path: Path) -> None:
    expected(tmp_path, phantom, {**PLAIN, "na": 0.8, "n_sample": 1.33, "eig_max": 1, "eig_tol": 0.001})
    said = open_store(tmp_path / "cultures.zarr").provenance["warnings"]
    assert any("is ill-chosen for a sample of index 1.33" in line for line in said)


def test_psf_is_kept_for_the_next_run(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIGASCOPE_PSF_CACHE", str(tmp_path / "kept"))
    first = expected(tmp_path / "0", phantom, PLAIN)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    monkeypatch.setattr("gigascope.synthesis.optics.cache.depth_psf", lambda *_: 1 / 0)
    assert expected(tmp_path / "1", phantom, PLAIN) == first
