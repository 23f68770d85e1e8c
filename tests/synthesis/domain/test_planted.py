"""A planted domain: phantoms like the dataset's, another microscope, and a truth that is kept apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gigascope.config.dataset import parse_dataset
from gigascope.config.section import dump
from gigascope.config.synthesis_phantoms import Phantoms
from gigascope.config.synthesis_simulate import Simulate
from gigascope.errors import UserError
from gigascope.runtime.context import Context
from gigascope.stage import DECLARED
from gigascope.store.open import open_store
from gigascope.synthesis.domain import plan
from gigascope.synthesis.domain.planted import Gap, planted_image, tone_curve
from gigascope.synthesis.domain.stages import ingest
from gigascope.synthesis.domain.stored import domain_images

SAME = Gap(1.0, 0.1, 1.0, 1.0, 1.0, 1.0)
PHANTOMS = {"region": {"semi_axes_um": [11, 11, 11]}, "nuclei": {"diameter_um": {"mean": 7.0}}, "n_spheroids": 3}
SIMULATE = {"preset": "fast", "grid": {"field_um": [18, 16, 16]}, "camera": {"peak_electrons": 150}}


@pytest.fixture(scope="module")
def make():
    phantoms, simulate = dump(Phantoms.model_validate(PHANTOMS)), dump(Simulate.model_validate(SIMULATE))
    return lambda gap, seed=5, number=0: planted_image(number, seed, phantoms, simulate, gap, torch.device("cpu"))


@pytest.fixture(scope="module")
def plain(make):
    return make(SAME)


@pytest.mark.parametrize(
    ("key", "value"),
    [("widen", 1.8), ("haze_fraction", 0.4), ("gamma", 0.8), ("photons", 0.5), ("gain", 2.0), ("attenuation", 1.6)],
)
def test_each_part_of_the_gap_changes_the_image_and_not_the_truth(make, plain, key, value):
    changed = make(Gap(**{**vars(SAME), key: value}))
    np.testing.assert_array_equal(changed.labels, plain.labels)
    np.testing.assert_array_equal(changed.spheroid, plain.spheroid)
    assert not np.array_equal(changed.voxels, plain.voxels)
    inside, offset = plain.labels > 0, 100.0
    light = [float(image.voxels[inside].mean()) - offset for image in (plain, changed)]
    signal = light[1] / light[0]
    if key in ("photons", "gain"):
        # background light of 5 electrons is no part of what is halved
        assert signal == pytest.approx(value, rel=0.06)
    elif key == "attenuation":
        assert 0.7 < signal < 0.98
    elif key in ("haze_fraction", "gamma"):
        # of a ball of 11 um most of what is scattered over 20 um goes astray
        assert signal > (1.001 if key == "haze_fraction" else 1.02)
    else:
        contrast = [float(image.voxels[inside].std()) for image in (plain, changed)]
        assert contrast[1] < contrast[0]


def test_other_seeds_and_numbers_are_other_spheroids(make, plain):
    for other in (make(SAME, seed=6), make(SAME, number=1)):
        assert not np.array_equal(other.labels, plain.labels)
    np.testing.assert_array_equal(make(SAME).voxels, plain.voxels)


def test_tone_curve_keeps_offset_and_bright_values():
    grey = np.array([0, 90, 100, 101, 200, 300, 65535], np.uint16)
    found = tone_curve(grey, 100.0, 200.0, 0.8, 16)
    assert found.tolist() == [0, 90, 100, 103, 215, 300, 20652]
    assert found.dtype == np.uint16
    assert tone_curve(grey, 100.0, 200.0, 1.0, 16) is grey
    assert tone_curve(np.array([255], np.uint8), 0.0, 10.0, 2.0, 8).tolist() == [255]


def dataset_of(planted, **more):
    values = {"pipeline": "synthesis", "name": "a", "inputs": {"planted": planted}}
    return parse_dataset({**values, "phantoms": PHANTOMS, "simulate": {**SIMULATE, "parts": 4}, **more})


def run(tmp_path, dataset, seed=3):
    context = Context(
        DECLARED["synthesis.ingest"],
        dataset="a",
        inputs={},
        outputs={"real": tmp_path / "real.zarr"},
        scratch=tmp_path / "scratch",
        device="cpu",
        seed=seed,
        inputs_section=dataset.inputs,
    )
    context.scratch.mkdir(exist_ok=True)
    ingest(context, dataset.ingest)
    context.finish({"stage": "synthesis.ingest"})
    return open_store(tmp_path / "real.zarr")


def test_a_planted_domain_has_light_in_electrons_whatever_the_chain(make):
    """The published chain stretches every image, whatever its light, and has no haze."""
    given = {**SIMULATE, "preset": "bruch2023", "camera": {}, "optics": {"model": "gaussian"}}
    phantoms, simulate = dump(Phantoms.model_validate(PHANTOMS)), dump(Simulate.model_validate(given))
    assert simulate["chain"] == "published"
    bright, dark = (
        planted_image(0, 5, phantoms, simulate, Gap(1, 0, 1, photons, 1, 1), torch.device("cpu")).voxels
        for photons in (0.5, 0.125)
    )
    assert bright.dtype == np.uint8
    # the offset, and background that does not come from nuclei
    assert (bright.mean() - 20.1) / (dark.mean() - 20.1) == pytest.approx(4, rel=0.03)


def test_stage_writes_planted_images_with_their_truth(tmp_path):
    store = run(tmp_path, dataset_of({"images": 2}))
    assert store.images == ["a0000", "a0001"]
    assert (domain_images(store, use="train"), domain_images(store, use="inference")) == (["a0000"], ["a0001"])
    assert store.attrs == {"planted": True}
    image = store.image("a0000")
    assert image.labels == ["nuclei", "spheroid"]
    assert image.attrs["n_labels"] == len(image.table("nuclei")["label_id"]) > 5
    assert image.spacing == {"z": 1.5, "y": 0.5, "x": 0.5}
    gap = image.attrs["planted"]["gap"]
    assert gap == {"widen": 1.8, "haze_fraction": 0.35, "gamma": 0.8, "photons": 0.5, "gain": 2.0, "attenuation": 1.6}
    assert image.attrs["planted"]["settings"]["simulate"]["camera"]["peak_electrons"] == 75
    assert image.attrs["source_hash"] != store.image("a0001").attrs["source_hash"]
    again = run(tmp_path, dataset_of({"images": 1, "kept_out": 0}), seed=4)
    assert again.image("a0000").attrs["source_hash"] != image.attrs["source_hash"]


def test_planted_domain_has_the_sections_of_its_dataset():
    dataset = dataset_of({"photons": 0.4})
    planted = dataset.inputs.planted
    assert planted.phantoms.region == dataset.phantoms.region
    assert planted.simulate.camera == dataset.simulate.camera
    assert planted.simulate.grid == dataset.simulate.grid
    # what does not change the images is not part of it, so that it causes no rerun
    assert dataset_of({"photons": 0.4}, simulate={**SIMULATE, "parts": 2}).inputs == dataset.inputs
    own = dataset_of({"simulate": {"preset": "fast", "camera": {"bits": 8}}}).inputs.planted
    assert own.simulate.camera.bits == 8
    assert own.phantoms.region == dataset.phantoms.region
    # written out and read again it is the same
    assert parse_dataset(dump(dataset)) == dataset


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"images": 1}, "kept_out 1 leaves none of 1 images"),
        ({"phantoms": {"nuclei": {"library": "a.zarr"}}}, "procedural nuclei"),
        ({"widen": 9}, "less than or equal to 4"),
    ],
)
def test_planted_domains_that_cannot_be_are_refused(planted, words):
    with pytest.raises(UserError, match=words):
        dataset_of(planted)


def test_planted_and_real_images_exclude_each_other():
    with pytest.raises(UserError, match="found real and planted"):
        dataset_of({}, inputs={"planted": {}, "real": [{"image": "a.tif"}]})


def test_needs_of_a_planted_domain_are_those_of_a_simulation():
    dataset = dataset_of({"images": 4})

    class Header:
        domain = plan.read_domain(dataset.inputs, dataset.ingest)

    assert len(Header.domain) == 4
    assert Header.domain[0].shape == (12, 32, 32)
    found = plan.estimate_ingest(dataset, Header)
    assert found.memory > 2**28
    assert found.disk > 4 * 12 * 32 * 32 * 7
