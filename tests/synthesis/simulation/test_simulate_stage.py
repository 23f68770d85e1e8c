"""The stage that makes images: what it leaves, in parts, every key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v05
import pytest
import zarr

from gigascope.config.dataset import load_dataset, merge
from gigascope.config.section import dump
from gigascope.config.synthesis_phantoms import Region
from gigascope.config.synthesis_simulate import Simulate
from gigascope.errors import UserError
from gigascope.store.checksum import verify
from gigascope.store.open import open_store
from gigascope.synthesis.simulation import plan
from gigascope.synthesis.simulation.stages import resolved

from ...stage_runs import write_dataset
from ..keys import leaves
from .tiny import RUNS, TINY


def cultures(folder: Path) -> Any:
    return open_store(folder / "cultures.zarr")


def test_images_labels_and_arrays_are_there(simulated):
    store = cultures(simulated)
    assert store.images == ["s0000", "s0001"]
    for name in store.images:
        image = store.image(name)
        assert image.axes == ("z", "y", "x")
        assert image.spacing == {"z": 1.5, "y": 0.5, "x": 0.5}
        assert image.dtype == np.uint16
        assert set(image.labels) == {"nuclei", "spheroid", "boundary"}
        assert set(image.sides) == {"expected", "tau"}
        grey, expected = image.array()[...].astype(float), image.side("expected")[...]
        assert grey.shape == expected.shape == image.label("nuclei").shape
        # grey values are the electrons, an offset, and noise
        assert abs((grey - 100 - expected).mean()) < 0.1
        assert ((grey - 100 - expected) ** 2 / (expected + 1.5**2 + 1 / 12)).mean() == pytest.approx(1, abs=0.03)
        # nuclei are bright, and inside the spheroid
        labels, spheroid = image.label("nuclei")[...], image.label("spheroid")[...]
        assert grey[labels > 0].mean() > 1.5 * grey[labels == 0].mean()
        assert spheroid[labels > 0].mean() > 0.9
        assert set(np.unique(spheroid)) == {0, 1}
        tau = image.side("tau")
        assert tau.attrs["spacing"] == {"z": 2.0, "y": 2.0, "x": 2.0}
        assert float(tau[...].max()) > 0.1
    assert not verify(store.path)


def test_ids_are_compact_and_the_table_is_what_the_voxels_say(simulated, phantoms):
    """L3, L5: ids 1..N; centroid and volume from voxels equal the tables of the image and of the phantom."""
    from gigascope.synthesis.phantom.stored import read_phantom

    store = cultures(simulated)
    for number, name in enumerate(store.images):
        labels, table = store.image(name).label("nuclei")[...], store.image(name).table("nuclei")
        placed = read_phantom(open_store(phantoms / "phantoms.zarr"), number)
        ids = np.unique(labels[labels > 0])
        assert (ids == np.arange(1, len(ids) + 1)).all()
        assert len(ids) == len(placed.columns["label_id"]) == len(table["label_id"])
        voxel = np.array([1.5, 0.5, 0.5])
        for row, value in enumerate(ids):
            place = np.argwhere(labels == value)
            assert table["n_voxels"][row] == len(place)
            volume = len(place) * voxel.prod()
            assert volume == pytest.approx(table["volume_um3"][row], rel=1e-9)
            assert volume == pytest.approx(placed.columns["volume_um3"][row], rel=1e-3)
            centre = (place.mean(0) + 0.5) * voxel
            for k, axis in enumerate("zyx"):
                assert centre[k] == pytest.approx(table[f"centroid_{axis}"][row], abs=1e-9)
                assert centre[k] == pytest.approx(placed.columns[f"centroid_{axis}"][row], abs=0.1 * voxel[k])


def test_store_is_valid_and_label_pyramids_hold_existing_ids(simulated):
    """Z1."""
    store = cultures(simulated)
    root = zarr.open_group(store.path, mode="r")
    ome_zarr_models.v05.BioFormats2Raw.from_zarr(root)
    for name in store.images:
        image = store.image(name)
        levels = ome_zarr_models.v05.Image.from_zarr(root[name]).ome_attributes.multiscales[0].datasets
        scale = levels[0].coordinateTransformations[0].scale
        assert [float(s) for s in scale] == [1.5, 0.5, 0.5]
        for label in image.labels:
            ome_zarr_models.v05.ImageLabel.from_zarr(root[f"{name}/labels/{label}"])
            present = set(np.unique(image.label(label)[...]))
            for level in range(1, image.n_levels):
                assert set(np.unique(image.label(label, level)[...])) <= present


@pytest.mark.parametrize("parts", [3, 8])
def test_parts_give_the_same_bits(parts, simulated, phantoms, tmp_path):
    """Z2: one job, three and eight."""
    config = write_dataset(tmp_path, TINY, {"simulate": {"parts": parts}})
    RUNS.run_in_parts(config, tmp_path, "simulate", phantoms, parts)
    RUNS.assert_same(tmp_path, simulated, "simulate")


def test_a_spheroid_is_the_same_however_many_there_are(simulated, phantoms, tmp_path):
    """L5. Of two spheroids every shard is an item, with light of the open job; of four each spheroid is one."""
    config = write_dataset(tmp_path, TINY, {"phantoms": {"n_spheroids": 4}})
    RUNS.run(config, tmp_path, "phantoms")
    RUNS.run(config, tmp_path, "simulate")
    two, four = cultures(simulated), cultures(tmp_path)
    assert [store.provenance["scatter"]["items"] for store in (two, four)] == [[8], [4]]
    for name in two.images:
        one, other = two.image(name), four.image(name)
        for mine, theirs in zip(arrays_of(one), arrays_of(other), strict=True):
            assert (mine[...] == theirs[...]).all()
        for column, values in one.table("nuclei").items():
            assert np.array_equal(values, other.table("nuclei")[column], equal_nan=True)


def arrays_of(image: Any) -> list[Any]:
    """All arrays of an image at full resolution."""
    return [image.array(), *map(image.label, image.labels), *map(image.side, image.sides)]


# The published chain in its own right; the preset sets it too.
PUBLISHED: dict[str, Any] = {"chain": "published", "attenuation": {"haze_fraction": 0.0}, "camera": {"bits": 8}}
# Another value for each key; of those of `optics` see test_optics_keys.py.
CHANGES: list[dict[str, Any]] = [
    {"preset": "fast"},
    {"grid": {"output_voxel_um": [1.5, 0.6, 0.5]}},
    {"grid": {"oversample": [2.0, 1.5, 2.0]}},
    {"grid": {"field_um": [12.0, 10.0, 11.0]}},
    {"grid": {"block": [8, 32, 64]}},
    {"attenuation": {"model": "power"}},
    {"attenuation": {"mu_ex": 0.03}},
    {"attenuation": {"mu_em": 0.03}},
    {"attenuation": {"mu_nuc": 0.03}},
    {"attenuation": {"model": "power", "power": {"length_um": 100.0}}},
    {"attenuation": {"model": "power", "power": {"exponent": 3.0}}},
    {"attenuation": {"model": "power", "power": {"start_um": 5.0}}},
    {"attenuation": {"cone_rays": 1}},
    {"attenuation": {"grid_um": 3.0}},
    {"attenuation": {"illumination": "lightsheet_left"}},
    {"attenuation": {"illumination": "lightsheet_both", "fusion": "max"}},
    {"attenuation": {"stain_depth_um": 10.0}},
    {"attenuation": {"stain_depth_um": 10.0, "stain_floor": 0.6}},
    {"attenuation": {"haze_fraction": 0.4}},
    {"attenuation": {"haze_um": 5.0}},
    {"optics": {"model": "none"}},
    {"camera": {"peak_electrons": 400.0}},
    {"camera": {"background_electrons": 9.0}},
    {"camera": {"dark_electrons": 3.0}},
    {"camera": {"excess_noise": 1.4}},
    {"camera": {"read_noise_e": 4.0}},
    {"camera": {"gain_adu_per_e": 2.0}},
    {"camera": {"offset_adu": 50.0}},
    {"camera": {"bits": 8}},
    {"camera": {"full_well_e": 150.0}},
    {"camera": {"n_average": 2}},
    {"camera": {"fixed_pattern": True}},
    {"labels": {"subsample": 1}},
    {"labels": {"boundary": False}},
    {"labels": {"distance": True}},
    {"labels": {"blurred": True}},
    {"labels": {"blurred": True, "blurred_threshold": 0.4}},
    {"store": {"chunk": [16, 16, 32]}},
    {"store": {"shard": [16, 64, 64]}},
    {"store": {"keep_expected": False}},
    {"store": {"keep_density": True}},
    PUBLISHED,
    merge(PUBLISHED, {"published": {"poisson_factor": 0.5}}),
    merge(PUBLISHED, {"published": {"gauss": 3.0}}),
    merge(PUBLISHED, {"published": {"gauss_absolute": 3.0}}),
]


def test_every_key_is_changed_below():
    known = {leaf for leaf in leaves(dump(Simulate())) if not leaf.startswith("optics.")} - {"parts"}
    assert {leaf for change in CHANGES for leaf in leaves(change)} - {"optics.model"} == known


@pytest.mark.slow
def test_every_key_has_an_effect(phantoms, tmp_path):
    """One spheroid; each change gives a store of its own content."""
    base = merge(copy.deepcopy(TINY), {"phantoms": {"n_spheroids": 1}})
    folder = tmp_path / "one"
    RUNS.run(write_dataset(folder, base), folder, "phantoms")
    digests = {}
    for number, change in enumerate([{}, *CHANGES]):
        here = tmp_path / str(number)
        RUNS.run(write_dataset(here, base, {"simulate": change}), here, "simulate", folder)
        store = cultures(here)
        image = store.image("s0000")
        arrays = [
            image.array(),
            image.label("nuclei"),
            *(image.side(n) for n in ("distance", "density", "expected") if n in image.sides),
        ]
        blurred = [image.label(n) for n in image.labels if n == "nuclei_blurred"]
        words = [(a.shape, a.chunks, a.shards, hash(a[...].tobytes())) for a in [*arrays, *blurred]]
        found = (tuple(words), tuple(image.labels), tuple(image.sides), store.image("s0000").side("tau")[...].tobytes())
        same = [other for other, seen in digests.items() if seen == found]
        assert not same, f"{change} gives what {same[0]} gives"
        digests[str(change)] = found


def test_keys_may_be_distributions():
    given = {"camera": {"peak_electrons": {"dist": "uniform", "low": 100, "high": 300}}}
    section = Simulate.model_validate(given)
    drawn = [resolved(section, 3, number)["camera"]["peak_electrons"] for number in range(20)]
    assert len(set(drawn)) == 20
    assert all(100 <= value <= 300 for value in drawn)
    assert drawn[5] == resolved(section, 3, 5)["camera"]["peak_electrons"]


def test_presets_give_way_to_what_is_written():
    plain, preset = Simulate(), Simulate.model_validate({"preset": "bruch2023", "camera": {"n_average": 3}})
    assert preset.attenuation.model == "power" != plain.attenuation.model
    assert preset.camera.n_average == 3
    assert (preset.chain, preset.camera.bits, preset.camera.offset_adu) == ("published", 8, 15)
    other = Simulate.model_validate({"preset": "bruch2023", "chain": "physical", "camera": {"bits": 12}})
    assert (other.chain, other.camera.bits) == ("physical", 12)


def test_density_needs_whole_numbers(phantoms, tmp_path):
    change = {"grid": {"oversample": [1.7, 2.0, 2.0]}, "store": {"keep_density": True}}
    config = write_dataset(tmp_path, TINY, {"simulate": change})
    with pytest.raises(UserError, match="whole numbers"):
        RUNS.run(config, tmp_path, "simulate", phantoms)
    assert not (tmp_path / "cultures.zarr").exists()


def test_stacks_of_a_measured_psf_are_files_of_the_stage(tmp_path):
    given = {"optics": {"model": "measured", "paths": [str(tmp_path / "psf.tif")]}}
    section = Simulate.model_validate(given)
    with pytest.raises(UserError, match="no such file"):
        plan.psf_files(section)
    (tmp_path / "psf.tif").touch()
    assert plan.psf_files(section) == (tmp_path / "psf.tif",)


def test_estimate_covers_what_is_written(simulated, phantoms):
    dataset = load_dataset(simulated / "data.yaml")
    estimate = plan.estimate_simulate(dataset, None)
    written = [p.stat().st_size for p in (simulated / "cultures.zarr").rglob("*") if p.is_file()]
    shapes = [cultures(simulated).image(name).shape for name in ("s0000", "s0001")]
    field = plan.field_of(dataset)
    assert all(n * v <= f + 2 * v for shape in shapes for n, v, f in zip(shape, (1.5, 0.5, 0.5), field, strict=True))
    assert sum(written) < 1.2 * estimate.disk + 1e6
    assert 0.4 * estimate.files < len(written) < 2 * estimate.files
    jobs = [plan.estimate_simulate_job(dataset, None, job) for job in ("open", "part", "gather")]
    assert all(job.memory > 0 and job.seconds > 0 for job in jobs)


def test_a_part_of_a_large_spheroid_needs_what_one_of_a_smaller_does(repository):
    """T3, by the estimate: shards are as large, and light is that of the open job."""
    large = load_dataset(repository / "config" / "datasets" / "large" / "spheroid.yaml")
    smaller = large.phantoms.model_copy(update={"region": Region(semi_axes_um=(300.0,))})
    both = [large, large.model_copy(update={"phantoms": smaller})]
    memory = {
        job: [plan.estimate_simulate_job(dataset, None, job).memory for dataset in both] for job in ("open", "part")
    }
    assert memory["part"][0] == memory["part"][1]
    assert memory["open"][0] > memory["open"][1]
    jobs = [plan.estimate_simulate_job(large, None, job) for job in ("open", "part", "gather")]
    disk = plan.estimate_simulate(large, None).disk
    assert jobs[0].disk + large.simulate.parts * jobs[1].disk + jobs[2].disk == pytest.approx(disk, rel=1e-3)
    # in air, PSFs of a millimetre differ too much for eigen-PSFs
    assert plan.n_kernels(Simulate(), 100.0) <= 4 < Simulate().optics.eig_max < plan.n_kernels(Simulate(), 1100.0)


def test_items_count_spheroids_or_their_shards_one_after_the_other():
    cut = [{"n_shards": 3, "whole": False}, {"n_shards": 2, "whole": True}, {"n_shards": 2, "whole": False}]
    found = [(number, list(shards)) for number, shards in (plan.locate(cut, item) for item in range(6))]
    assert found == [(0, [0]), (0, [1]), (0, [2]), (1, [0, 1]), (2, [0]), (2, [1])]
    with pytest.raises(ValueError, match="no such item"):
        plan.locate(cut, 6)


def test_many_small_spheroids_are_items_and_few_large_ones_are_not():
    assert plan.is_whole(1, 1)
    assert plan.is_whole(8, 100)
    assert not plan.is_whole(9, 100)
    assert not plan.is_whole(2, 1)
