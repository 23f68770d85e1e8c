"""The published chain: against its steps written down on a whole volume, its noise, its stage, the presets."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML
from scipy import ndimage

from gigascope.config.dataset import load_dataset, parse_dataset
from gigascope.config.synthesis_simulate import PRESETS, Simulate
from gigascope.kernels import cells
from gigascope.kernels.cells.light import read_out
from gigascope.store.open import open_store
from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.simulation import plan, published
from gigascope.synthesis.simulation.attenuation import Attenuating
from gigascope.synthesis.simulation.published import PublishedCamera, photographed, published_image
from gigascope.synthesis.simulation.scene import Scene, window_of

from ...stage_runs import write_dataset
from .scenes import scene_of, some_nuclei
from .tiny import RUNS, TINY

POWER = Attenuating(model="power", haze_fraction=0.0)
SILENT = PublishedCamera(poisson_factor=0.0)


def lopsided_psf() -> DepthPsf:
    """One kernel for all depths, with its tail towards larger z, y and x."""
    kernel = np.zeros((1, 5, 7, 5), np.float32)
    kernel[0, 2:, 3:, 2:] = 1 / np.arange(1, 4)[:, None, None] / np.arange(1, 5)[:, None] / np.arange(1, 4)
    one = np.ones(1)
    return DepthPsf(kernel / kernel.sum(), one[:, None], 0 * one, one, 0 * one)


def whole(scene: Scene) -> tuple[slice, slice, slice]:
    z, y, x = (slice(0, n) for n in scene.image.shape)
    return z, y, x


def by_the_book(scene: Scene, baseline: float) -> np.ndarray:
    """The steps of the specification (2.1, 2.5, 2.6, 2.7) on one volume, by other means; before noise."""
    view = window_of(scene.image, scene.psf, whole(scene))
    fine, places = scene.image.fine_um, scene.light.grid.places(scene.image.fine_um)
    density = cells.density(scene.nuclei, view.start, view.shape, fine).numpy().astype(float)
    labels = cells.labels(scene.nuclei, view.start, view.shape, fine, 0.0, 1).numpy()
    image = np.zeros(view.shape)
    for value in np.unique(labels[labels > 0]):
        inside = labels == value
        image[inside] = np.floor(255 * density[inside] / density[inside].max())
    tau = read_out(scene.light.tau, view.shape, view.start, *places).numpy().astype(float)
    dimmed = image * np.exp(-tau)
    dimmed = np.floor(dimmed * image.max() / dimmed.max() + 1e-4)
    light = ndimage.convolve(dimmed, scene.psf.kernels[0].astype(float), mode="constant")
    half = scene.psf.half
    light = light[tuple(slice(h, n - h) for h, n in zip(half, light.shape))]
    light = np.floor(255 * (light - light.min()) / (light.max() - light.min()))
    at = [(np.arange(n) + 0.5) * r - 0.5 for n, r in zip(scene.image.shape, scene.image.ratio)]
    picked = ndimage.map_coordinates(light, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    low, high = picked.min(), picked.max()
    return np.floor(baseline + (picked - low) * (high - baseline) / (high - low) + 1e-4)


@pytest.mark.parametrize("ratio", [(1.6663, 4.0, 4.0), (1.0, 1.0, 1.0)])
def test_the_chain_is_the_published_one_step_by_step(rng, ratio):
    scene = scene_of(some_nuclei(rng), ratio, how=POWER, psf=lopsided_psf())
    image, before = published_image(scene, whole(scene), SILENT, (7, 20, 17))
    expected = by_the_book(scene, 15.0)
    off = np.abs(before - expected)
    # where a value before truncation is a whole number, a last digit decides
    assert off.max() <= 2
    assert (off > 0).mean() < 0.02
    assert (image == before).all()
    assert image.dtype == np.uint8
    assert image.min() == 15
    # the largest one stays what the picked points have
    assert 150 < image.max() <= 255


def test_nuclei_lose_their_own_brightness(rng):
    nuclei = some_nuclei(rng)
    scene, brighter = (scene_of(n, how=POWER) for n in (nuclei, nuclei._replace(intensity=3 * nuclei.intensity)))
    view = window_of(scene.image, scene.psf, whole(scene))
    drawn = published.drawn(scene, view)
    assert (drawn == published.drawn(brighter, view)).mean() > 0.999
    labels = cells.labels(nuclei, view.start, view.shape, scene.image.fine_um, 0.0, 1).numpy()
    assert (ndimage.maximum(drawn, labels, np.arange(1, nuclei.n + 1)) == 255).all()
    assert not drawn[labels == 0].any()


def noisy(level: int, n: int = 400_000, **keys: Any) -> np.ndarray:
    return photographed(np.full((4, 1, n // 4), level, np.uint8), PublishedCamera(**keys), 5).astype(float)


def test_a_grey_value_is_a_photon():
    found = noisy(100)
    # 255 cuts nothing here: 15 standard deviations
    assert found.mean() == pytest.approx(100, abs=4 * 10 / np.sqrt(found.size))
    assert found.var() == pytest.approx(100, rel=4 * np.sqrt(2 / found.size))


@pytest.mark.parametrize(("factor", "bias"), [(0.5, 0.0), (4.0, 0.375)])
def test_the_factor_counts_photons_per_grey_value_and_truncation_costs_half_a_step(factor, bias):
    """A whole factor wraps around in the published program; that is left out. k / 4 loses 0, 1, 2 or 3 quarters."""
    found = noisy(100, poisson_factor=factor)
    assert found.mean() == pytest.approx(100 - bias, abs=5 * np.sqrt(100 / factor / found.size))
    assert found.var() == pytest.approx(100 / factor, rel=0.02)
    few = noisy(100, n=4000, poisson_factor=factor)
    assert (few % (1 / factor if factor < 1 else 1) == 0).all()


def test_normal_noise_is_truncated_too():
    quiet = {"poisson_factor": 0.0, "n": 400_000}
    found = noisy(100, gauss=5.0, **quiet)
    assert found.mean() == pytest.approx(99.5, abs=0.05)
    assert found.var() == pytest.approx(25 + 1 / 12, rel=0.02)
    above = noisy(100, gauss_absolute=5.0, **quiet)
    assert above.min() == 100
    assert above.mean() == pytest.approx(100 + 5 * np.sqrt(2 / np.pi) - 0.5, abs=0.05)
    # both cut at the ends of 8 bits
    assert noisy(254, gauss=20.0, **quiet).max() == 255
    assert noisy(1, gauss=20.0, **quiet).min() == 0


def test_acquisitions_are_averaged_and_truncated():
    found = noisy(100, n_acquisitions=4)
    assert found.mean() == pytest.approx(100 - 0.375, abs=0.05)
    assert found.var() == pytest.approx(25, rel=0.02)
    assert (noisy(100, n_acquisitions=2) != noisy(100)).any()


@pytest.fixture(scope="module")
def made(phantoms, tmp_path_factory):
    """The tiny spheroids by the published chain."""
    folder = tmp_path_factory.mktemp("published")
    RUNS.run(write_dataset(folder, TINY, BRUCH), folder, "simulate", phantoms)
    return folder


BRUCH = {"simulate": {"preset": "bruch2023"}}


def test_stage_makes_whole_images_of_8_bits(made, phantoms, tmp_path):
    store = open_store(made / "cultures.zarr")
    for name in store.images:
        image = store.image(name)
        assert image.spacing == pytest.approx({"z": 1.5001311, "y": 0.488759, "x": 0.488759})
        assert image.dtype == np.uint8
        before, labels = image.side("expected")[...], image.label("nuclei")[...]
        assert (before.min(), before.max() <= 255) == (15, True)
        noise = (image.array()[...] - before)[before < 150]
        assert abs(noise.mean()) < 5 * np.sqrt(before[before < 150].mean() / noise.size)
        assert before[labels > 0].mean() > 2 * before[labels == 0].mean()
        assert len(np.unique(labels)) - 1 == len(image.table("nuclei")["label_id"])
    # stretches are of the whole image, so jobs share images and not shards
    config = write_dataset(tmp_path, TINY, BRUCH, {"simulate": {"parts": 2}})
    RUNS.run_in_parts(config, tmp_path, "simulate", phantoms, 2)
    RUNS.assert_same(tmp_path, made, "simulate")


def test_drawn_voxels_are_kept_as_grey_values(phantoms, tmp_path):
    change = {"n_spheroids": 1}, {"grid": {"oversample": [2, 2, 2]}, "store": {"keep_density": True}}
    config = write_dataset(tmp_path, TINY, BRUCH, {"phantoms": change[0], "simulate": change[1]})
    RUNS.run(config, tmp_path, "phantoms")
    RUNS.run(config, tmp_path, "simulate")
    image = open_store(tmp_path / "cultures.zarr").image("s0000")
    drawn = image.side("density")[...]
    assert drawn.shape == tuple(2 * n for n in image.array().shape)
    assert (drawn.max(), (drawn % 1).max()) == (255, 0)


def test_the_published_chain_needs_memory_for_a_whole_image():
    large = {"pipeline": "synthesis", "name": "large", "phantoms": {"region": {"semi_axes_um": [100.0]}}}
    physical, other = (
        plan.estimate_simulate(parse_dataset({**large, "simulate": change}), None)
        for change in ({"preset": "bruch2023", "chain": "physical", "camera": {"bits": 8}}, {"preset": "bruch2023"})
    )
    # 232 um of 0.9 x 0.122 x 0.122 um are 0.9 Gvoxel
    assert other.memory > physical.memory + 5e9


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs(preset, phantoms, tmp_path):
    """A field of a few voxels: nothing but the preset, the size, and a PSF that is cut to fit into the phantom."""
    values = {key: value for key, value in TINY.items() if key != "simulate"}
    small = {"grid": {"field_um": [9.0, 6.0, 6.0]}, "optics": {"cap_um": [5.0, 3.0, 3.0]}}
    config = write_dataset(tmp_path, values, {"simulate": {"preset": preset, **small}})
    RUNS.run(config, tmp_path, "simulate", phantoms)
    section = load_dataset(config).simulate
    image = open_store(tmp_path / "cultures.zarr").image("s0000")
    grey = image.array()[...]
    assert list(image.spacing.values()) == pytest.approx(section.grid.output_voxel_um)
    assert grey.dtype == (np.uint8 if preset == "bruch2023" else np.uint16)
    assert grey.max() > section.camera.offset_adu + 40
    assert image.label("nuclei")[...].any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"published": {"gauss": 1.0}}, "no effect on chain physical"),
        ({"preset": "bruch2023", "camera": {"peak_electrons": 90}}, "camera.peak_electrons has no effect"),
        ({"preset": "bruch2023", "camera": {"bits": 12}}, "grey values of 8 bits"),
        ({"preset": "bruch2023", "camera": {"offset_adu": 300}}, "no grey value"),
        ({"preset": "bruch2023", "attenuation": {"haze_fraction": 0.1}}, "no scattered light"),
    ],
)
def test_keys_that_do_nothing_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Simulate.model_validate(values)


def test_guide_names_settings_that_there_are(repository):
    text = (repository / "docs" / "synthesis.md").read_text(encoding="utf-8").split("## As published\n\n")[1]
    given = YAML(typ="safe").load(textwrap.dedent(text.split("\n\n")[0]))
    dataset = parse_dataset({"pipeline": "synthesis", "name": "a", **given})
    assert (dataset.simulate.chain, dataset.phantoms.placement.method) == ("published", "rsa")
    assert (dataset.train.preset, dataset.infer.blend, dataset.evaluate.parity) == ("paper", "half_cut", True)


def test_images_of_one_value_are_possible():
    scene = scene_of(some_nuclei(np.random.default_rng(1)).rows(torch.zeros(0, dtype=torch.int64)), how=POWER)
    image, _ = published_image(scene, whole(scene), PublishedCamera(), (64, 64, 64))
    assert 14 < image.mean() < 16
