"""Nuclei from a library of prototypes: placed by their own shapes, kept with their textures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gigascope.errors import UserError
from gigascope.kernels.cells import harmonic_scales, volume
from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import open_store
from gigascope.synthesis.phantom.nuclei import INTERPHASE, moments
from gigascope.synthesis.phantom.phantom import place_phantom
from gigascope.synthesis.phantom.recipe import (
    NucleusRecipe,
    PlacementRecipe,
    PlaceRecipe,
    PopulationRecipe,
    Recipe,
    RegionRecipe,
)
from gigascope.synthesis.phantom.stored import read_phantom
from gigascope.synthesis.prototypes.library import Library, draw_nuclei

from ...stage_runs import StageRuns, write_dataset

RUNS = StageRuns("synthesis", {})
REGION = RegionRecipe(semi_axes_um=(30, 30, 30))


def library(rng: np.random.Generator, n: int = 6, textures: bool = True) -> Library:
    """Long and rough records of 4 µm mean radius."""
    sh = rng.standard_normal((n, 81)) * harmonic_scales(0.05, 1.8, 8).numpy()
    sh[:, 6] += 0.45  # along the first axis
    texture = rng.uniform(0.5, 1.5, (n if textures else 0, 48, 48, 48)).astype(np.float16)
    axes = np.full((n, 3), 4.0, np.float32)
    return Library(sh.astype(np.float32), axes, rng.uniform(0.5, 2, n).astype(np.float32), texture)


def test_moments_of_an_ellipsoid_are_its_axes() -> None:
    volume_um3, extent, frame = moments(np.array([[3.0, 5.0, 4.0]]), np.zeros((1, 81), np.float32))
    assert extent[0] == pytest.approx([5, 4, 3], rel=1e-3)
    assert np.abs(frame[0]) == pytest.approx(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), abs=1e-6)
    assert volume_um3[0] == pytest.approx(4 / 3 * np.pi * 60, rel=1e-3)


def test_records_are_placed_by_their_own_shapes(rng: np.random.Generator) -> None:
    records = {"prototypes": library(rng)}
    recipe = Recipe(REGION, NucleusRecipe(library="prototypes"), PlacementRecipe(volume_fraction=0.35))
    phantom = place_phantom(recipe, 3, None, records)
    table, nuclei = phantom.nuclei.table, phantom.nuclei
    plain = np.flatnonzero(nuclei.cell_class == INTERPHASE)
    drawn = draw_nuclei(records["prototypes"], table.seed.numpy().view(np.uint64)[plain])
    assert np.array_equal(table.harmonics.numpy()[plain], drawn.harmonics)
    assert np.array_equal(table.intensity.numpy()[plain], drawn.intensity)
    assert np.array_equal(table.texture.numpy()[plain], drawn.texture)
    assert np.array_equal(table.gamma.numpy()[plain], drawn.gamma)
    assert np.all(np.delete(table.texture.numpy(), plain) == -1)
    own = volume(table.semi_axes, table.exponent, table.harmonics).numpy()
    assert np.allclose(nuclei.volume, own, rtol=0.01)
    assert abs(own.sum() / phantom.region.volume_um3 / 0.35 - 1) < 0.03
    assert phantom.overlap_um <= 0.02


def test_two_libraries_share_one_set_of_textures(rng: np.random.Generator) -> None:
    records = {"a": library(rng, 3), "b": library(rng, 2)}
    other = PopulationRecipe(PlaceRecipe(kind="layer", between=(0.5, 1.0)), 1.0, NucleusRecipe(library="b"))
    recipe = Recipe(REGION, NucleusRecipe(library="a"), PlacementRecipe(volume_fraction=0.2), (other,))
    nuclei = place_phantom(recipe, 3, None, records).nuclei
    plain = nuclei.cell_class == INTERPHASE
    rows = nuclei.table.texture.numpy()
    assert set(rows[plain & (nuclei.population == 0)]) <= {0, 1, 2}
    assert set(rows[plain & (nuclei.population == 1)]) <= {3, 4}
    assert torch.equal(nuclei.table.crops[3:], torch.from_numpy(records["b"].texture))


def write_records(path: Path, records: Library) -> None:
    store = create_store(path)
    for name in ("sh", "axes", "intensity", "texture"):
        values = getattr(records, name)
        store.create_array(name, values.shape, values.dtype)[...] = values
    finish(store, {})


def test_the_stage_keeps_textures_once(tmp_path: Path, rng: np.random.Generator) -> None:
    records = library(rng)
    write_records(tmp_path / "prototypes.zarr", records)
    values: dict[str, Any] = {
        "pipeline": "synthesis",
        "name": "own",
        "phantoms": {
            "n_spheroids": 2,
            "region": {"semi_axes_um": 18.0},
            "nuclei": {"library": "prototypes"},
            "placement": {"volume_fraction": 0.25},
        },
    }
    RUNS.run(write_dataset(tmp_path, values), tmp_path, "phantoms")
    store = open_store(tmp_path / "phantoms.zarr")
    for number in range(2):
        table = read_phantom(store, number).table
        assert np.array_equal(table.crops.numpy(), records.texture)
        assert int(table.texture.max()) >= 0
    # by its path it is the same library
    elsewhere = tmp_path / "elsewhere"
    values["phantoms"]["nuclei"]["library"] = str(tmp_path / "prototypes.zarr")
    RUNS.run(write_dataset(elsewhere, values), elsewhere, "phantoms")
    again = read_phantom(open_store(elsewhere / "phantoms.zarr"), 1).table
    assert np.array_equal(again.harmonics, table.harmonics)


def test_a_library_that_is_not_there_is_refused(tmp_path: Path) -> None:
    values: dict[str, Any] = {"pipeline": "synthesis", "name": "own", "phantoms": {"nuclei": {"library": "prototypes"}}}
    with pytest.raises(UserError, match="makes no library of prototypes"):
        RUNS.run(write_dataset(tmp_path, values), tmp_path, "phantoms")
    finish_me = create_store(tmp_path / "other.zarr")
    finish_me.write_table("rows", {"a": [1]})
    finish(finish_me, {})
    values["phantoms"]["nuclei"]["library"] = str(tmp_path / "other.zarr")
    with pytest.raises(UserError, match="is no library of prototypes"):
        RUNS.run(write_dataset(tmp_path, values), tmp_path, "phantoms")
    assert not (tmp_path / "phantoms.zarr").exists()
