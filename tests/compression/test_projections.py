"""Projections against the decoded voxels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gigascope.compression.decoding.decode import Decoder
from gigascope.compression.decoding.projections import max_projection, sum_projection, view_projection
from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError

from .compressed import InMemory, random_file, random_mixture

SHAPE = (70, 100, 130)
AXES = {"z": 0, "y": 1, "x": 2}


def single(mean: list[float], sigma: list[float], turn: list[float], amplitude: float = 1.0) -> Mixture:
    columns = [mean], np.log([sigma]), [turn], [amplitude]
    return Mixture(*(torch.from_numpy(np.asarray(c, np.float32)) for c in columns))


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_maximum_is_that_of_the_decoded_voxels(rng: np.random.Generator, axis: str) -> None:
    volume = GaussianVolume.of(Decoder(random_file(rng, shape=SHAPE)))
    assert np.array_equal(volume.max_projection(axis), np.asarray(volume).max(AXES[axis]))
    coarse = volume.at_level((1, 2, 3))
    assert np.array_equal(coarse.max_projection(axis), np.asarray(coarse).max(AXES[axis]))


@pytest.mark.parametrize("axis", ["z", "y", "x"])
@pytest.mark.parametrize("sigma", [(0.45, 0.7), (0.7, 4.0)])
def test_sum_is_that_of_the_decoded_voxels(rng: np.random.Generator, axis: str, sigma: tuple[float, float]) -> None:
    """Means outside and at the faces too, where a part of each Gaussian is not in the volume."""
    mixture = random_mixture(rng, 800, SHAPE, sigma=sigma)
    decoder = Decoder(InMemory([mixture], SHAPE, torch.full((1, 3, 4, 5), 0.05)))
    box = (slice(0, 70), slice(0, 100), slice(0, 130))
    true = decoder.region(0, box).double().sum(AXES[axis]).numpy()
    found = sum_projection(decoder, 0, axis)
    error = np.sqrt(np.mean((found - true) ** 2))
    # 60 dB of the picture's own range: what Poisson's sum formula and the ends at the cuts leave
    assert error < 1e-3 * (true.max() - true.min())
    roi = (slice(5, 41), slice(17, 80), slice(33, 100))
    part = decoder.region(0, roi).double().sum(AXES[axis]).numpy()
    assert np.sqrt(np.mean((sum_projection(decoder, 0, axis, roi) - part) ** 2)) < 1e-3 * (part.max() - part.min())


def test_uncut_gaussian_projects_to_its_marginal() -> None:
    """Height ``a sqrt(2 pi / (Sigma^-1)_zz)`` and the marginal covariance, far from faces and cuts."""
    mixture = single([40.25, 40.5, 39.75], [3.0, 1.5, 2.2], [0.8, 0.3, -0.4, 0.2])
    file = InMemory([mixture], (81, 81, 81), torch.zeros(1, 3, 3, 3), eps=1e-12, c_max=7.0)
    file.header.intensity = (SimpleNamespace(offset=0.0, scale=1.0),)
    sigma = mixture.covariances()[0].double().numpy()
    marginal, height = sigma[1:, 1:], np.sqrt(2 * np.pi / np.linalg.inv(sigma)[0, 0])
    d = np.stack(np.meshgrid(np.arange(81) - 40.5, np.arange(81) - 39.75, indexing="ij"), -1)
    expected = height * np.exp(-0.5 * np.einsum("yxi,ij,yxj->yx", d, np.linalg.inv(marginal), d))
    assert np.abs(sum_projection(Decoder(file), 0, "z") - expected).max() < 1e-4 * height


def test_mean_is_the_sum_over_the_voxels_of_a_line(rng: np.random.Generator) -> None:
    volume = GaussianVolume.of(Decoder(random_file(rng, shape=(2, 2, 40, 50, 60), axes="tczyx")))
    sums = volume.sum_projection("y")
    assert sums.shape == (2, 2, 40, 60)
    assert np.allclose(volume.mean_projection("y") * 50, sums, rtol=1e-6)
    assert volume.max_projection("x").shape == (2, 2, 40, 50)
    assert np.array_equal(volume.max_projection("x")[1, 0], np.asarray(volume[1, 0]).max(2))


def test_view_along_an_axis_is_the_maximum_along_it(rng: np.random.Generator) -> None:
    """Cubic voxels: turned by 0 and by 90 degrees the lines of sight meet the voxels."""
    file = random_file(rng, shape=(40, 50, 60), voxel_size_um=(0.3, 0.3, 0.3))
    decoder = Decoder(file)
    decoded = decoder.region(0, (slice(0, 40), slice(0, 50), slice(0, 60))).numpy()
    tolerance = 1e-4 * file.header.intensity[0].scale
    assert np.abs(view_projection(decoder, 0, 0.0) - decoded.max(0)).max() < tolerance
    side = view_projection(decoder, 0, 90.0)
    assert side.shape == (50, 40)
    assert np.abs(side - decoded.max(2).T).max() < tolerance
    top = view_projection(decoder, 0, 0.0, 90.0)
    assert top.shape == (40, 60)
    assert np.abs(top[::-1] - decoded.max(1)).max() < tolerance


def test_oblique_view_shows_a_gaussian_where_it_is() -> None:
    """A bright spot in a flat voxel grid, seen at 30 degrees: its place is that of the turned physical position."""
    mixture = single([10.0, 20.0, 42.0], [1.2, 1.2, 1.2], [1, 0, 0, 0])
    file = InMemory([mixture], (21, 41, 61), torch.zeros(1, 1, 2, 2), voxel_size_um=(0.6, 0.2, 0.2))
    picture = view_projection(Decoder(file), 0, 30.0)
    row, column = np.unravel_index(int(picture.argmax()), picture.shape)
    # 12 voxels of 0.2 um from the centre along x are 12 cos(30) pixels of 0.2 um
    centre = (np.array(picture.shape) - 1) / 2
    assert abs(row - centre[0]) <= 0.5
    assert abs(column - (centre[1] + 12 * np.cos(np.pi / 6))) <= 1.0
    assert picture.max() == pytest.approx(90 + 3000, rel=0.02)


def test_axes_that_do_not_exist_are_refused(rng: np.random.Generator) -> None:
    decoder = Decoder(random_file(rng, n=3, shape=(20, 20, 20)))
    for project in (max_projection, sum_projection):
        with pytest.raises(ShapeError, match="z, y or x"):
            project(decoder, 0, "t")
