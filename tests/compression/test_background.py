"""Background: the level of what is not signal, and its interpolation between cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import interpolate as scipy_interpolate

from gigascope.compression.background import (
    CELL,
    background_level,
    cell_columns,
    filled_cells,
    grid_shape,
    interpolate,
    lower_half_median,
    windows,
    without_objects,
)
from gigascope.compression.bench_volume import BACKGROUND_ELECTRONS, GAIN, OFFSET, BenchVolume


@pytest.fixture
def grid(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.normal(100, 20, (3, 2, 4)).astype(np.float32))


def test_centre_of_a_cell_has_its_value_and_the_outermost_hold_beyond(grid: torch.Tensor) -> None:
    centres = interpolate(grid, CELL, origin=(15.5, 15.5, 15.5), shape=grid.shape, spacing=(32, 32, 32))
    torch.testing.assert_close(centres, grid)
    outside = interpolate(grid, CELL, origin=(-500, -500, -500), shape=(1, 1, 1))
    assert outside.item() == grid[0, 0, 0].item()


def test_interpolation_is_trilinear(grid: torch.Tensor, rng: np.random.Generator) -> None:
    axes = [32 * np.arange(n) + 15.5 for n in grid.shape]
    reference = scipy_interpolate.RegularGridInterpolator(axes, grid.double().numpy())
    origin, spacing = rng.uniform(16, 20, 3), rng.uniform(0.3, 2.0, 3)
    found = interpolate(grid, CELL, tuple(origin), (9, 10, 11), tuple(spacing)).numpy()
    places = np.meshgrid(*(o + s * np.arange(n) for o, s, n in zip(origin, spacing, found.shape)), indexing="ij")
    limits = [a[-1] for a in axes]
    inside = np.clip(np.stack(places, axis=-1), 15.5, limits)
    # three float32 interpolations of values near 100
    np.testing.assert_allclose(found, reference(inside), atol=6 * 150 * np.finfo(np.float32).eps)


def test_a_voxel_has_the_same_bits_in_every_piece(grid: torch.Tensor, rng: np.random.Generator) -> None:
    whole = interpolate(grid)
    assert whole.shape == (96, 64, 128)
    for _ in range(20):
        corner = [int(rng.integers(0, n - 1)) for n in whole.shape]
        size = [int(rng.integers(1, n - c + 1)) for n, c in zip(whole.shape, corner)]
        piece = interpolate(grid, CELL, tuple(map(float, corner)), size)
        assert torch.equal(piece, whole[tuple(slice(c, c + n) for c, n in zip(corner, size))])


def test_planes_in_the_cache_have_the_bits_of_the_differentiable_field(
    grid: torch.Tensor, rng: np.random.Generator
) -> None:
    origin, spacing = tuple(rng.uniform(-20, 40, 3)), tuple(rng.uniform(0.3, 3.0, 3))
    fast = interpolate(grid, CELL, origin, (13, 21, 17), spacing)
    assert torch.equal(fast, interpolate(grid.clone().requires_grad_(), CELL, origin, (13, 21, 17), spacing).detach())


def test_interpolation_is_differentiable_in_the_grid(grid: torch.Tensor) -> None:
    double = grid[:2, :2, :2].clone().requires_grad_()
    total = interpolate(double, CELL, (3.0, 20.0, 11.0), (8, 7, 30)).sum()
    (gradient,) = torch.autograd.grad(total, double)
    # weights of a sample sum to one
    assert float(gradient.sum()) == pytest.approx(8 * 7 * 30, rel=1e-5)


def test_grid_of_a_volume() -> None:
    assert grid_shape((100, 320, 400)) == (4, 10, 13)
    assert grid_shape((1, 32, 33)) == (1, 1, 2)


@pytest.mark.parametrize("background", [1.0, 0.7, 0.4])
def test_level_is_that_of_the_background_among_signal(rng: np.random.Generator, background: float) -> None:
    n = 20_000
    values = rng.normal(100, 5, n)
    signal = rng.random(n) > background
    values[signal] += rng.exponential(300, signal.sum())
    found = background_level(np.sort(values))
    # signal within 2.5 spreads of the level cannot be told from noise: an exponential of 300 puts 12 / 300 of it there
    assert found.centre == pytest.approx(100, abs=0.3 + 5 * 0.06 * (1 - background) / background)
    assert found.spread == pytest.approx(5, rel=0.1)
    assert lower_half_median(values) < found.centre + 5


def test_a_background_without_noise_has_no_spread() -> None:
    values = np.sort(np.concatenate([np.zeros(600), np.arange(1, 401)]))
    found = background_level(values)
    assert (found.centre, found.spread, found.fraction) == (0.0, 0.0, 0.6)


def test_less_than_a_photon_per_voxel_is_not_lost(rng: np.random.Generator) -> None:
    """The median of the voxels is the level without light; that of block means has the light."""
    light = 0.2
    layer = (700 + 1500 * rng.poisson(light, (32, 64, 64))).astype(np.uint16)
    levels = cell_columns(layer)[4]
    assert np.median(layer) == 700
    # 6.4 photons in a block: steps of one, and the clipping from above takes half a step of a skewed distribution
    np.testing.assert_allclose(levels, 700 + 1500 * light, atol=1500 * 2 / 32)


def test_cells_of_the_bench_volume_are_at_the_level_of_its_haze(bench: BenchVolume) -> None:
    cells = np.stack([cell_columns(bench.volume[w]) for w in windows(100, 32)], axis=1)
    found = interpolate(torch.from_numpy(cells[4]), shape=bench.volume.shape).numpy()
    haze = bench.clean < OFFSET + GAIN * (1.5 * BACKGROUND_ELECTRONS) + 0.5
    error = (found - bench.clean)[haze]
    # noise there is 8 DN; the lower half's median is 5 DN too low
    assert abs(float(np.median(error))) < 1.0
    assert cells[0].min() == bench.volume.min()
    assert cells[1].max() == bench.volume.max()


def test_last_windows_reach_back_where_a_cell_is_cut() -> None:
    assert windows(70, 32) == [slice(0, 32), slice(32, 64), slice(38, 70)]
    assert windows(20, 32) == [slice(0, 20)]


def test_cells_that_an_object_fills_are_found_and_bridged(rng: np.random.Generator) -> None:
    levels = rng.normal(100, 2, (3, 4, 4)).astype(np.float32)
    spreads = rng.uniform(8, 14, levels.shape).astype(np.float32)
    levels[1, 2, 1], spreads[1, 2, 1] = 900, 500
    filled = filled_cells(levels, spreads, np.full_like(levels, 8.0))
    assert list(zip(*np.nonzero(filled))) == [(1, 2, 1)]
    mended = without_objects(levels, filled)
    assert 90 < mended[1, 2, 1] < 110
    np.testing.assert_array_equal(mended[~filled], levels[~filled])


def test_texture_of_a_tissue_is_no_object(rng: np.random.Generator) -> None:
    levels = np.full((2, 5, 5), 300, np.float32)
    spreads = rng.uniform(40, 70, levels.shape).astype(np.float32)
    assert not filled_cells(levels, spreads, np.full_like(levels, 3.0)).any()
