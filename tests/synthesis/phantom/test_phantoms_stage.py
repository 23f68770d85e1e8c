"""The stage of the phantoms: what it leaves, parts, keys, distributions, masks, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import tifffile

from gigascope.config.dataset import SynthesisDataset, load_dataset, merge
from gigascope.config.section import dump
from gigascope.config.synthesis_phantoms import Phantoms, Population, RegionMask
from gigascope.errors import UserError
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.synthesis.phantom.plan import estimate_phantoms, estimate_phantoms_job
from gigascope.synthesis.phantom.recipe import recipe_of
from gigascope.synthesis.phantom.source import read_mask, settings_of
from gigascope.synthesis.phantom.spheroid import build_spheroid, spheroid_seed
from gigascope.synthesis.phantom.stored import n_spheroids, read_phantom

from ...stage_runs import StageRuns, write_dataset
from ..keys import leaves

RUNS = StageRuns("synthesis", {})
TINY: dict[str, Any] = {
    "pipeline": "synthesis",
    "name": "tiny",
    "seed": 3,
    "phantoms": {
        "n_spheroids": 2,
        "region": {"semi_axes_um": {"dist": "uniform", "low": 14, "high": 18}},
        "placement": {"volume_fraction": {"dist": "choice", "values": [0.2, 0.3]}},
    },
}


def run(folder: Path, **keys: Any) -> Path:
    RUNS.run(write_dataset(folder, TINY, {"phantoms": keys}), folder, "phantoms")
    return folder / "phantoms.zarr"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    run(folder)
    return folder


def test_a_spheroid_does_not_depend_on_how_many_there_are(tiny: Path, tmp_path: Path) -> None:
    """L5: spheroid 1 of 2 is spheroid 1 of 4; ids are unique and compact."""
    more = open_store(run(tmp_path, n_spheroids=4))
    two = open_store(tiny / "phantoms.zarr")
    assert (n_spheroids(two), n_spheroids(more)) == (2, 4)
    sizes = set()
    for number in range(2):
        one, other = read_phantom(two, number), read_phantom(more, number)
        assert one.facts == other.facts
        for mine, theirs in zip(one.table[:-1], other.table[:-1]):
            assert np.array_equal(mine, theirs)
        for name, values in one.columns.items():
            assert np.array_equal(values, other.columns[name]), name
        assert np.array_equal(one.columns["label_id"], np.arange(1, one.table.n + 1))
        assert len(np.unique(one.columns["seed"])) == one.table.n
        sizes.add(one.facts["settings"]["region"]["semi_axes_um"][0])
    # drawn for each apart, from the range that was given
    assert len(sizes) == 2
    assert all(14 <= size <= 18 for size in sizes)


@pytest.mark.parametrize("parts", [3, 8])
def test_parts_make_no_difference(parts: int, tiny: Path, tmp_path: Path) -> None:
    """Some of them have nothing to do."""
    config = write_dataset(tmp_path, TINY, {"phantoms": {"parts": parts}})
    RUNS.run_in_parts(config, tmp_path, "phantoms", tmp_path, parts)
    RUNS.assert_same(tmp_path, tiny, "phantoms")


def test_what_is_read_back_is_what_was_built(tiny: Path) -> None:
    dataset = load_dataset(tiny / "data.yaml")
    assert isinstance(dataset, SynthesisDataset)
    seed = spheroid_seed(3, 1)
    settings = settings_of(dataset.phantoms, seed)
    arrays, _ = build_spheroid(recipe_of(settings), seed, settings)
    found = read_phantom(open_store(tiny / "phantoms.zarr"), 1)
    assert np.array_equal(found.table.harmonics, arrays["columns.harmonics"])
    assert found.facts["seed"] == seed
    assert found.facts["settings"] == settings
    assert found.facts["n_nuclei"] == found.table.n
    inside = found.region.distance(found.table.centre.numpy())
    assert inside.max() < 0
    assert np.all(found.table.centre.numpy() < found.region.field_um)
    columns, units = read_tsv(tiny / "placed_nuclei.tsv")
    assert len(columns["label_id"]) == sum(read_phantom(open_store(tiny / "phantoms.zarr"), n).table.n for n in (0, 1))
    assert units["volume_um3"] == "um^3"
    of_one = columns["spheroid"] == 1
    # the same rows for programs, with all digits
    exact = pyarrow.parquet.read_table(tiny / "placed.parquet")
    assert exact.column_names == list(columns)
    assert exact.field("volume_um3").metadata == {b"unit": b"um^3"}
    assert np.array_equal(exact["centroid_z"].to_numpy()[of_one], found.columns["centroid_z"])
    assert np.array_equal(exact["seed"].to_numpy()[of_one], found.columns["seed"])
    assert np.allclose(columns["centroid_z"][of_one], found.columns["centroid_z"], atol=1e-4)


def test_a_mask_is_the_region(tmp_path: Path) -> None:
    mask = np.zeros((16, 40, 40), np.uint8)
    mask[2:14, 6:34, 6:34] = 7
    mask[2:4, :3, :3] = 9
    tifffile.imwrite(tmp_path / "mask.tif", mask, photometric="minisblack")
    region = {"kind": "mask", "mask": {"path": str(tmp_path / "mask.tif"), "label": 7, "voxel_um": [2, 1, 1]}}
    values = merge(TINY, {"phantoms": {"n_spheroids": 1}})
    values["phantoms"]["region"] = region
    RUNS.run(write_dataset(tmp_path, values), tmp_path, "phantoms")
    found = read_phantom(open_store(tmp_path / "phantoms.zarr"), 0)
    assert abs(found.region.volume_um3 / (24 * 28 * 28) - 1) < 0.05
    assert found.region.distance(found.table.centre.numpy()).max() < 0


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"region": {"kind": "mask", "mask": {"path": "EMPTY"}}}, ["empty.tif", "no voxel is inside"]),
    ({"region": {"kind": "mask", "mask": {"path": "EMPTY", "label": 3}}}, ["empty.tif", "no voxel has the value 3"]),
    ({"region": {"kind": "mask", "mask": {"path": "nowhere.tif"}}}, ["nowhere.tif", "no such file"]),
    ({"region": {"kind": "mask"}}, ["kind mask and mask.path belong together"]),
    ({"region": {"kind": {"dist": "choice", "values": ["ellipsoid", "mask"]}}}, ["ellipsoid and clusters only"]),
    ({"region": {"semi_axes_um": [10, 20]}}, ["one number or three"]),
    ({"placement": {"volume_fraction": 0.8}}, ["placement.volume_fraction", "at most 0.5", "0.8"]),
    ({"placement": {"volume_fraction": {"dist": "gauss", "mean": 0.3}}}, ["dist is 'gauss'", "normal"]),
    ({"nuclei": {"classes": {"pyknotic": 0.7, "ghost": 0.4}}}, ["pyknotic + ghost", "at most 1"]),
    ({"nuclei": {"axis_ratio_b": [1.0, 0.5]}}, ["axis_ratio_b", "rising"]),
    ({"nuclei": {"classes": {"pyknotic": {"dist": "uniform", "low": 0.7, "high": 0.7}, "ghost": 0.4}}},
     ["values drawn for a spheroid do not go together", "phantoms.nuclei.classes"]),
    ({"region": {"semi_axes_um": 2.0}, "placement": {"method": "rsa"}}, ["finds room"]),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "words"), BAD, ids=[words[0] for _, words in BAD])
def test_bad_input_is_refused_and_nothing_written(keys: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((6, 8, 8), np.uint8), photometric="minisblack")
    if keys.get("region", {}).get("mask", {}).get("path") == "EMPTY":
        mask = {**keys["region"]["mask"], "path": str(tmp_path / "empty.tif"), "voxel_um": [1, 1, 1]}
        keys = {**keys, "region": {**keys["region"], "mask": mask}}
    values = {**TINY, "phantoms": {"n_spheroids": 1, "region": {"semi_axes_um": 15.0}, **keys}}
    with pytest.raises(UserError) as error:
        RUNS.run(write_dataset(tmp_path, values), tmp_path, "phantoms")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "phantoms.zarr").exists()
    assert not (tmp_path / "placed_nuclei.tsv").exists()


def test_a_density_that_is_not_reached_is_warned_of(tmp_path: Path) -> None:
    placement = {"method": "rsa", "volume_fraction": 0.5, "rsa_max_failures": 50}
    store = open_store(run(tmp_path, n_spheroids=1, placement=placement))
    (warning,) = store.provenance["warnings"]
    reached = read_phantom(store, 0).facts["volume_fraction"]
    assert 0.1 < reached < 0.4
    assert f"spheroid 0: a volume fraction of 0.5 was asked for, {reached:.3g} was reached" in warning


CHANGED: list[dict[str, Any]] = [
    {"region": {"kind": "clusters"}},
    {"region": {"kind": "clusters", "clusters": {"number": 3}}},
    {"region": {"kind": "clusters", "clusters": {"radius": 0.7}}},
    {"region": {"kind": "clusters", "clusters": {"blend_um": 3}}},
    *({"region": {name: value}} for name, value in {
        "semi_axes_um": [14, 16, 18], "surface_rms": 0.1, "core_fraction": 0.7, "flat_bottom": 0.2, "margin_um": 4,
    }.items()),
    *({"nuclei": {name: value}} for name, value in {
        "diameter_um": {"mean": 8}, "axis_ratio_b": [0.9, 1], "axis_ratio_c": [0.9, 1], "superellipse_e": 2.5,
        "shape_rms": 0.02, "l_max": 3, "p": 1, "alignment": 1, "alignment_um": 4, "nucleoli_mean": 0.5,
        "intensity_cv": 0.5,
    }.items()),
    {"nuclei": {"diameter_um": {"cv": 0.3}}},
    *({"nuclei": {"texture": {name: value}}} for name, value in {
        "sigma": 0.5, "scale_um": 3, "octaves": 2, "rim": 0.3,
    }.items()),
    *({"nuclei": {"classes": {name: 0.4, "core_pyknotic": 0.1}}} for name in (
        "metaphase", "anaphase", "pyknotic", "ghost",
    )),
    *({"region": {"core_fraction": 0.8, "semi_axes_um": 22.0}, "nuclei": {"classes": classes}} for classes in (
        {}, {"core_pyknotic": 0}, {"core_ghost": 0}, {"core_ghost": 0.45},
    )),
    *({"placement": {name: value}} for name, value in {
        "method": "rsa", "volume_fraction": 0.15, "gap_um": 1, "tol_um": 1.0, "max_iter": 1,
        "voxel_um": [1, 0.5, 0.5],
    }.items()),
    {"placement": {"method": "rsa", "rsa_max_failures": 3}},
    # 5 nuclei, and 2 of them, with another brightness than those of 3 failures
    *({"placement": {"method": "rsa", "rsa_max_failures": 100}, "nuclei": {"intensity_cv": 0.3}} | more for more in (
        {}, {"placement": {"method": "rsa", "rsa_max_failures": 100, "rsa_count_outside": True}},
    )),
    {"preset": "bruch2023"},
    {"placement": {"volume_fraction": 0.45, "max_iter": 1, "max_clip": 0.02}},
    *({"populations": [{"region": region, "nuclei": {"intensity_cv": 0.6}}]} for region in (
        {"radius_um": 8}, {"radius_um": 8, "centre": [0, 0.5, 0]}, {"kind": "shell", "between": [0, 0.8]},
        {"kind": "layer"},
        {"kind": "shell", "between": [0.5, 1]}, {"kind": "noise"}, {"kind": "noise", "scale_um": 10},
        {"kind": "noise", "share": 0.6},
    )),
    {"populations": [{"fraction": 0.5, "region": {"radius_um": 14}, "nuclei": {"intensity_cv": 0.6}}]},
]  # fmt: skip


# Shown by other tests: of this file, of test_region.py and of test_prototypes_used.py.
ELSEWHERE = {"n_spheroids", "parts", "nuclei.library", "region.mask.path", "region.mask.label", "region.mask.voxel_um"}
MASK_OF_AN_IMAGE = {"region.mask.from_image", "region.mask.smooth_um", "region.mask.closing_um"}


def test_every_key_is_changed() -> None:
    found = {leaf for change in CHANGED for leaf in leaves(change) if leaf != "populations"}
    known = leaves(dump(Phantoms()))
    assert found | ELSEWHERE | MASK_OF_AN_IMAGE == known - {"populations"}
    of_populations = {leaf for change in CHANGED for one in change.get("populations", []) for leaf in leaves(one)}
    of_population = {leaf for leaf in of_populations if not leaf.startswith("nuclei.")}
    assert of_population == leaves(dump(Population())) - {"nuclei"}


def test_keys_of_a_mask_from_an_image_have_an_effect(tmp_path: Path, rng: np.random.Generator) -> None:
    """Nuclei with gaps between them, in one corner of a noisy image."""
    image = rng.poisson(5, (16, 48, 48)).astype(np.uint16)
    z, y, x = np.indices(image.shape)
    for at in [(4, 10, 10), (4, 10, 22), (10, 20, 16), (4, 22, 10), (10, 30, 30)]:
        image[(z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < 16] += 200
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")

    def volume(**keys: Any) -> float:
        given = {"path": str(tmp_path / "image.tif"), "voxel_um": [1.0, 1.0, 1.0], **keys}
        return float((read_mask(RegionMask.model_validate(given)).values < 0).sum())

    plain = {"from_image": True, "closing_um": 4.0, "smooth_um": 1.0}
    changes: list[dict[str, Any]] = [{}, {"from_image": False}, {"closing_um": 0.0}, {"smooth_um": 4.0}]
    found = [volume(**{**plain, **change}) for change in changes]
    assert len(set(found)) == len(found)


def test_every_key_has_an_effect() -> None:
    def digest(keys: dict[str, Any]) -> bytes:
        base = {"region": {"semi_axes_um": 15.0}, "placement": {"volume_fraction": 0.3}}
        settings = settings_of(Phantoms.model_validate(merge(base, keys)), 5)
        arrays, _ = build_spheroid(recipe_of(settings), 5, {})
        return b"".join(arrays[name].tobytes() for name in sorted(arrays))

    found = [digest({}), *(digest(keys) for keys in CHANGED)]
    same = [CHANGED[k - 1] for k in range(1, len(found)) if found[k] in found[:k]]
    assert not same


def test_estimate_counts_spheroids_and_parts(tiny: Path) -> None:
    dataset = load_dataset(tiny / "data.yaml")
    whole = estimate_phantoms(dataset, None)
    part = estimate_phantoms_job(dataset.model_copy(update={"phantoms": Phantoms(parts=4)}), None, "part")
    assert part.seconds < estimate_phantoms(dataset.model_copy(update={"phantoms": Phantoms()}), None).seconds
    large = Phantoms.model_validate({"region": {"semi_axes_um": 500.0}, "n_spheroids": 1})
    assert (
        3e5
        < (estimate_phantoms(dataset.model_copy(update={"phantoms": large}), None).memory - whole.memory) / 4500
        < 5e5
    )
