"""Blocks of an image: they fit together, light is conserved, labels go with what is drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import erf

from gigascope.kernels.cells.light import attenuate_
from gigascope.kernels.cells.noise import Sensor
from gigascope.synthesis.simulation.attenuation import Attenuating
from gigascope.synthesis.simulation.geometry import blocks, image_grid
from gigascope.synthesis.simulation.scene import Exposure, window_of
from gigascope.synthesis.simulation.shard import psf_on_image, simulate_shard

from .scenes import BALL, FIELD, VOXEL, gaussian_psf, scene_of, settings, some_nuclei

DIM = Attenuating(haze_fraction=0.0, mu_ex=0.03)


def whole(scene):
    return tuple(slice(0, n) for n in scene.image.shape)


def random_cut(rng, shape):
    """Blocks of random size that cover an image."""
    edges = [sorted({0, n, int(rng.integers(1, n)), int(rng.integers(1, n))}) for n in shape]
    for z in zip(edges[0], edges[0][1:], strict=False):
        for y in zip(edges[1], edges[1][1:], strict=False):
            for x in zip(edges[2], edges[2][1:], strict=False):
                yield slice(*z), slice(*y), slice(*x)


@pytest.mark.parametrize("ratio", [(2.0, 2.0, 2.0), (1.6663, 1.3, 2.0)])
def test_blocks_fit_together(rng, ratio):
    """O7: expected electrons agree to 1e-4 across cuts, also at block borders; labels and region are the same bits."""
    scene = scene_of(some_nuclei(rng), ratio)
    expected, labels, inside = (f(whole(scene)) for f in (scene.expected, scene.labels, scene.inside))
    assert float(expected.max()) > 30
    assert labels.unique().numel() > 4
    for block in random_cut(rng, scene.image.shape):
        assert torch.allclose(scene.expected(block), expected[block], rtol=1e-4, atol=1e-4)
        assert torch.equal(scene.labels(block), labels[block])
        assert torch.equal(scene.inside(block), inside[block])


def test_all_light_arrives(rng):
    """O1: the sum of what is expected is that of the dimmed density; sizes of voxels apart."""
    scene = scene_of(some_nuclei(rng), how=DIM, exposure=Exposure(150.0, 0.0, Sensor(), 1))
    view = window_of(scene.image, scene.psf, whole(scene))
    density = scene.density(view.start, view.shape)
    plain = float(density.double().sum())
    attenuate_(density, scene.light.tau, view.start, *scene.light.grid.places(scene.image.fine_um))
    emitted = float((density.double().sum((1, 2)) * torch.from_numpy(scene.psf.light_of(view.positions(0.75)))).sum())
    assert emitted < 0.95 * plain
    expected = scene.expected(whole(scene)).double()
    assert float(expected.sum()) == pytest.approx(150 * emitted / np.prod(scene.image.ratio), rel=1e-4)


def test_haze_and_background_add(rng):
    nuclei = some_nuclei(rng)
    hazy = scene_of(nuclei, how=replace(DIM, haze_fraction=0.3, haze=3.0))
    clear = scene_of(nuclei, how=DIM, exposure=replace(hazy.exposure, background=0.0))
    more = hazy.expected(whole(hazy)) - clear.expected(whole(clear)) - 5.1
    added = more.double().sum() * np.prod(VOXEL)
    arriving = (hazy.light.haze / 0.3).double().sum() * hazy.light.grid.spacing**3
    assert float(added) == pytest.approx(0.3 * 200 * float(arriving), rel=0.05)
    assert float(more.min()) > -1e-3


def test_a_part_of_the_field_shows_the_same_nuclei(rng):
    nuclei = some_nuclei(rng)
    full, part = scene_of(nuclei), scene_of(nuclei, shown=(15.0, 12.0, 13.0))
    assert part.image.shape == (10, 24, 26)
    place = tuple(slice(f, f + n) for f, n in zip(part.image.first, part.image.shape, strict=True))
    assert torch.equal(part.labels(whole(part)), full.labels(place))
    assert torch.allclose(part.expected(whole(part)), full.expected(place), rtol=1e-4, atol=1e-4)


def test_nucleus_of_median_brightness_has_the_peak_electrons(rng):
    """Without blur, attenuation, haze and texture."""
    nuclei = some_nuclei(rng)
    zero = torch.zeros_like(nuclei.rim)
    nuclei = nuclei._replace(texture_sigma=zero, rim=zero)
    median = float(nuclei.intensity.median())
    none = Attenuating(model="none", haze_fraction=0.0)
    psf = gaussian_psf((0.75, 0.25, 0.25))
    one = replace(psf, kernels=np.ones((1, 1, 1, 1), np.float32), shares=np.ones((len(psf.depths_um), 1)))
    scene = scene_of(nuclei, how=none, psf=one, exposure=Exposure(200.0 / median, 0.0, Sensor(), 1))
    expected = scene.expected(whole(scene))
    row = int((nuclei.intensity == nuclei.intensity.median()).nonzero()[0, 0])
    assert float(expected[scene.labels(whole(scene)) == row + 1].median()) == pytest.approx(200.0, rel=1e-3)


def test_stretched_optics_stretch_image_and_labels(rng):
    nuclei = some_nuclei(rng)
    psf = gaussian_psf((0.75, 0.25, 0.25))
    plain = scene_of(nuclei, psf=psf)
    longer = replace(plain.image, shape=(24, *plain.image.shape[1:]))
    stretched = replace(plain, image=longer, psf=replace(psf, axial_stretch=1.2))
    # a plane of the stretched image shows what lies 1.2 times less deep
    for depth in (8, 10, 12):
        first, second = stretched.labels(whole(stretched)), plain.labels(whole(plain))
        here, there = first[depth], second[round((depth + 0.5) / 1.2 - 0.5)]
        assert float((here == there).float().mean()) > 0.85
    assert int((stretched.labels(whole(stretched)) > 0).sum()) == pytest.approx(
        1.2 * int((plain.labels(whole(plain)) > 0).sum()), rel=0.1
    )


def test_shards_fit_together(rng):
    """C4: image, labels and products of two shards are those of one; the same expected gives the same grey values."""
    scene = scene_of(some_nuclei(rng))
    asked = {"boundary": True, "distance": True, "blurred": True}
    given = settings(labels=asked, store={"keep_density": True}, grid={"block": (8, 20, 30)})
    columns = {f"centroid_{axis}": scene.nuclei.centre[:, k].numpy() for k, axis in enumerate("zyx")}
    columns["volume_um3"] = 4 / 3 * np.pi * scene.nuclei.semi_axes.prod(1).numpy()
    psf = psf_on_image(scene.psf.at(10.0), scene.image.ratio)
    one = simulate_shard(scene, whole(scene), given, columns, psf)
    assert set(one) == {
        "image", "nuclei", "spheroid", "expected", "boundary", "distance", "nuclei_blurred", "density"
    }  # fmt: skip
    n_z, n_y, n_x = scene.image.shape
    cut = int(rng.integers(8, n_z - 8))
    for z in ((0, cut), (cut, n_z)):
        region = (slice(*z), slice(0, n_y), slice(0, n_x))
        part = simulate_shard(scene, region, given, columns, psf)
        for name in ("nuclei", "spheroid", "boundary", "distance"):
            assert (part[name] == one[name][region]).all(), name
        fine = slice(2 * z[0], 2 * z[1])
        assert (part["density"] == one["density"][fine]).all()
        assert np.allclose(part["expected"], one["expected"][region], rtol=1e-4, atol=1e-4)
        again = scene.photograph(torch.from_numpy(part["expected"]), region).numpy()
        assert (part["image"] == again).all()
        assert (part["image"] == one["image"][region]).mean() > 0.999
        assert (part["nuclei_blurred"] == one["nuclei_blurred"][region]).mean() > 0.9999
    assert one["image"].dtype == np.uint16
    assert (one["nuclei_blurred"] > 0).sum() > (one["nuclei"] > 0).sum()
    eight = simulate_shard(scene, whole(scene), settings(camera={"bits": 8}), columns)
    assert eight["image"].dtype == np.uint8


def integrated(values: np.ndarray, axis: int, ratio: float, n: int) -> np.ndarray:
    """Integrals over n voxels, `ratio` samples long, around the same middle: differences of the running integral."""
    values = np.moveaxis(values.astype(float), axis, -1)
    edges = np.arange(values.shape[-1] + 1) - values.shape[-1] / 2
    running = np.concatenate([np.zeros((*values.shape[:-1], 1)), values.cumsum(-1)], -1)
    at = (np.arange(n + 1) - n / 2) * ratio
    lines = [np.interp(at, edges, line) for line in running.reshape(-1, len(edges))]
    return np.moveaxis(np.diff(np.array(lines)).reshape(*values.shape[:-1], n), -1, axis)


@pytest.mark.parametrize("ratio", [(2.0, 2.0, 2.0), (1.6663, 4.0, 3.0), (1.0, 1.0, 1.0), (5.0, 2.5, 7.3)])
def test_psf_on_the_voxels_of_the_image(rng, ratio):
    kernel = rng.random((5, 7, 9)).astype(np.float32)
    kernel /= kernel.sum()
    found = psf_on_image(kernel, ratio)
    assert all(n % 2 for n in found.shape)
    expected = kernel
    for axis, r in enumerate(ratio):
        expected = integrated(expected, axis, r, found.shape[axis])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.sum() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 1.6663, 2.0, 3.0, 4.0, 5.5, 8.0])
def test_psf_on_the_voxels_of_the_image_is_as_wide_as_it_was(ratio):
    """The second moment is that of the light and of the wider voxel.

    In fine voxels^2 it may have three times 1/12 more: the light of a fine voxel is in its middle, is spread evenly
    over it, and is cut where coarse voxels begin.
    """
    sigma = 1.2 * max(ratio, 1.5)
    n = 2 * math.ceil(6 * sigma) + 1
    edges = (np.arange(n + 1) - n / 2) / (math.sqrt(2) * sigma)
    line = np.diff(erf(edges)) / 2
    found = psf_on_image(line[:, None, None].astype(np.float32), (ratio, 1.0, 1.0))[:, 0, 0].astype(float)
    at = (np.arange(len(found)) - len(found) // 2) * ratio
    width = sigma**2 + ratio**2 / 12
    assert (found * at).sum() == pytest.approx(0, abs=1e-5 * sigma)
    assert width - 1e-3 * sigma**2 <= (found * at**2).sum() <= width + 1 / 4 + 1e-3 * sigma**2


def test_image_covers_the_field_and_blocks_the_shard(rng):
    image = image_grid(FIELD, VOXEL, (2.0, 2.0, 2.0))
    assert image.shape == (20, 52, 56)
    assert image_grid(FIELD, (4.0, 3.0, 5.0), (1, 1, 1)).shape == (8, 9, 6)
    region = (slice(4, 37), slice(0, 10), slice(5, 70))
    count = np.zeros((40, 20, 80), int)
    for block in blocks(region, (16, 32, 20)):
        count[block] += 1
        assert all(b.stop - b.start <= n for b, n in zip(block, (16, 32, 20), strict=True))
    assert (count[region] == 1).all()
    assert count.sum() == count[region].sum()
    assert BALL.distance(BALL.middle[None]) == -BALL.radius
