"""Decoding: the definition, regions against the whole, coarser resolutions, points, rounding."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from gigascope.compression.decoding import resolution
from gigascope.compression.decoding.decode import Decoder, decode_region, to_dtype
from gigascope.compression.gmix.container import Gmix
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError

from .compressed import CELL, InMemory, dense_sum, random_file, random_mixture, write_file

SHAPE = (70, 100, 130)


def whole(shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x


def random_region(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    z, y, x = (slice(*sorted(rng.choice(n + 1, 2, replace=False).tolist())) for n in shape)
    return z, y, x


def block_mean(volume: np.ndarray, factor: tuple[int, int, int]) -> np.ndarray:
    """Means of whole boxes; what is left at the ends is cut off."""
    n = [s // f for s, f in zip(volume.shape, factor)]
    cut = volume[tuple(slice(0, k * f) for k, f in zip(n, factor))].astype(np.float64)
    return cut.reshape(n[0], factor[0], n[1], factor[1], n[2], factor[2]).mean((1, 3, 5))


def psnr(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    return float(20 * np.log10(peak / np.sqrt(np.mean((a.astype(np.float64) - b) ** 2))))


def background_by_definition(grid: np.ndarray, cell: tuple[int, int, int], places: list[np.ndarray]) -> np.ndarray:
    for axis, (c, p) in enumerate(zip(cell, places)):
        centres = c * np.arange(grid.shape[axis]) + (c - 1) / 2
        grid = np.apply_along_axis(lambda v, p=p, centres=centres: np.interp(p, centres, v), axis, grid)
    return grid


def test_volume_is_background_plus_truncated_gaussians(rng: np.random.Generator) -> None:
    file = random_file(rng, shape=SHAPE)
    places = [np.arange(n, dtype=np.float64) for n in SHAPE]
    mixture = Decoder(file).whole(0)
    expected = dense_sum(mixture, mixture.cuts(3.5, 1e-3), places)
    expected += background_by_definition(file.backgrounds[0].double().numpy(), CELL, places)
    intensity = file.header.intensity[0]
    decoded = decode_region(file, 0, whole(SHAPE)).double().numpy()
    # float32 sums of some ten terms below 1, and the value itself
    assert np.abs(decoded - (intensity.offset + intensity.scale * expected)).max() <= 1e-5 * intensity.scale


@pytest.mark.parametrize("factor", [(1, 1, 1), (2, 2, 2), (3, 3, 3), (1, 2, 4)])
def test_region_is_the_crop_of_the_whole_to_the_last_bit(
    rng: np.random.Generator, factor: tuple[int, int, int]
) -> None:
    file = random_file(rng, shape=SHAPE)
    decoder = Decoder(file)
    shape = decoder.coarse_shape(factor)
    all_of_it = decoder.region(0, whole(shape), factor)
    for _ in range(25):
        roi = random_region(rng, shape)
        assert torch.equal(decode_region(file, 0, roi, factor=factor), all_of_it[roi])


def test_gaussians_across_the_corner_of_eight_bricks_reach_all_of_them() -> None:
    corner = Mixture(
        torch.tensor([[31.75, 47.75, 63.75]]), torch.full((1, 3), 1.0), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1)
    )
    file = InMemory([corner], (64, 96, 128), torch.zeros(1, 2, 3, 4))
    decoder = Decoder(file)
    for side in itertools.product((0, 1), repeat=3):
        z, y, x = (slice(b * s, b * (s + 1)) for b, s in zip((32, 48, 64), side))
        assert float(decoder.region(0, (z, y, x)).max()) > 90 + 0.5 * 3000


def test_coarser_volume_is_the_mean_over_boxes(rng: np.random.Generator) -> None:
    """A8 on a synthetic mixture as narrow as neurites are fitted: analytic 2x at 55 dB, 4x at 50 dB, 8 above naive."""
    shape = (64, 96, 128)
    mixture = random_mixture(rng, 700, shape, sigma=(0.7, 4.0), amplitude=(0.02, 0.8))
    file = InMemory([mixture], shape, torch.full((1, 2, 3, 4), 0.05), eps=5e-4)
    decoder = Decoder(file)
    fine = decoder.region(0, whole(shape)).numpy()
    for factor, floor in (((2, 2, 2), 55.0), ((4, 4, 4), 50.0), ((1, 2, 4), 50.0)):
        true = block_mean(fine, factor)
        coarse = decoder.region(0, whole(true.shape), factor).numpy()
        naive = fine[tuple(slice(0, n * f, f) for n, f in zip(true.shape, factor))]
        found = psnr(coarse, true, 3000)
        assert found >= floor
        assert found >= psnr(naive, true, 3000) + 8


def test_faint_gaussians_are_left_out_of_coarse_volumes_and_nothing_shows(rng: np.random.Generator) -> None:
    shape, eps, factor = (64, 96, 128), 4e-3, (8, 8, 8)
    mixture = random_mixture(rng, 3000, shape, sigma=(0.5, 1.0), amplitude=(0.005, 0.3))
    file = InMemory([mixture], shape, torch.full((1, 2, 3, 4), 0.05), eps=eps)
    decoder = Decoder(file)
    kept = len(decoder.mixture(0, whole((8, 12, 16)), factor)[0])
    assert kept < 0.9 * len(mixture)
    wide = resolution.coarser(mixture, factor)
    centres = [8 * (np.arange(n) + 0.5) - 0.5 for n in (8, 12, 16)]
    all_of_them = dense_sum(wide, wide.cuts(8.0, 1e-9), centres)
    found = (decoder.region(0, whole((8, 12, 16)), factor).numpy() - 90) / 3000 - 0.05
    # the noise of a mean over 512 voxels is 4 eps / sqrt(512)
    assert np.sqrt(np.mean((found - all_of_them) ** 2)) < 4 * eps / np.sqrt(512)


def test_means_of_the_background_are_means(rng: np.random.Generator) -> None:
    grid = torch.from_numpy(rng.random((3, 4, 2)).astype(np.float32))
    places = [np.arange(n, dtype=np.float64) for n in (96, 128, 64)]
    fine = background_by_definition(grid.double().numpy(), CELL, places)
    for factor in ((1, 1, 1), (2, 2, 2), (3, 5, 48), (96, 1, 2)):
        n = tuple(s // f for s, f in zip(fine.shape, factor))
        found = resolution.background_means(grid, CELL, (0, 0, 0), n, factor)
        assert np.abs(found.numpy() - block_mean(fine, factor)).max() < 1e-6


def test_equal_and_unequal_factors_agree_where_they_meet(rng: np.random.Generator) -> None:
    mixture = random_mixture(rng, 50, (40, 40, 40))
    equal = resolution.coarser(mixture, (3, 3, 3))
    widened = resolution.covariances(mixture) + torch.eye(3) * (8 / 12)
    general, _ = resolution.with_covariances(mixture, widened)
    assert torch.allclose(resolution.covariances(equal), resolution.covariances(general), rtol=1e-5, atol=1e-5)
    thirds = resolution.coarser(mixture, (3, 1, 2))
    expected = resolution.covariances(mixture) + torch.diag(torch.tensor([8, 0, 3.0]) / 12)
    assert torch.allclose(resolution.covariances(thirds), expected, rtol=1e-5, atol=1e-5)
    masses = [m.amplitudes.double() * m.log_scales.double().sum(1).exp() for m in (mixture, thirds, equal)]
    assert torch.allclose(masses[0], masses[1], rtol=1e-5)
    assert torch.allclose(masses[0], masses[2], rtol=1e-5)


def test_points_are_the_field_between_voxels(rng: np.random.Generator) -> None:
    file = random_file(rng, shape=SHAPE)
    decoder = Decoder(file)
    fine = decoder.region(0, whole(SHAPE))
    at = np.stack([rng.integers(0, n, 200) for n in SHAPE], 1)
    values = decoder.points(0, torch.from_numpy(at.astype(np.float32)))
    scale = file.header.intensity[0].scale
    assert np.abs(values.numpy() - fine[tuple(at.T)].numpy()).max() <= 1e-5 * scale
    between = (rng.random((40, 3)) * np.array(SHAPE) - 0.5).astype(np.float32)
    mixture = decoder.whole(0)
    for place, value in zip(between, decoder.points(0, torch.from_numpy(between)).numpy()):
        lines = [np.array([p], np.float64) for p in place]
        expected = dense_sum(mixture, mixture.cuts(3.5, 1e-3), lines)
        expected = expected + background_by_definition(file.backgrounds[0].double().numpy(), CELL, lines)
        assert abs(value - (90 + scale * float(expected.item()))) <= 1e-5 * scale


def test_values_are_rounded_half_to_even_and_clipped() -> None:
    values = torch.tensor([-3.0, 0.5, 1.5, 2.4999, 254.5, 255.5, 70000.0])
    assert to_dtype(values, np.uint8).tolist() == [0, 0, 2, 2, 254, 255, 255]
    assert to_dtype(values, np.uint16).tolist() == [0, 0, 2, 2, 254, 256, 65535]
    assert to_dtype(values, np.int16).tolist() == [-3, 0, 2, 2, 254, 256, 32767]
    assert to_dtype(torch.tensor([5e9]), np.uint32).tolist() == [2**32 - 1]
    assert to_dtype(values, np.float32).tolist() == values.tolist()


def test_regions_that_do_not_exist_are_refused(rng: np.random.Generator) -> None:
    decoder = Decoder(random_file(rng, n=5, shape=SHAPE))
    for frame, roi in (
        (1, whole(SHAPE)),
        (-1, whole(SHAPE)),
        (0, (slice(0, 71), slice(0, 1), slice(0, 1))),
        (0, (slice(3, 3), slice(0, 1), slice(0, 1))),
        (0, (slice(0, 8, 2), slice(0, 1), slice(0, 1))),
    ):
        with pytest.raises(ShapeError):
            decoder.region(frame, roi)
    with pytest.raises(ShapeError, match="integers of at least 1"):
        decoder.region(0, whole(SHAPE), (0, 1, 1))
    with pytest.raises(ShapeError, match="outside the volume"):
        decoder.points(0, torch.tensor([[1.0, 2.0, 130.0]]))


def test_a_frame_without_gaussians_is_its_background() -> None:
    file = InMemory([Mixture.empty()], (40, 40, 40), torch.full((1, 2, 2, 2), 0.25))
    assert torch.equal(decode_region(file, 0, whole((40, 40, 40))), torch.full((40, 40, 40), 90 + 0.25 * 3000))
    assert Decoder(file).points(0, torch.zeros(2, 3)).tolist() == [840.0, 840.0]


def test_a_region_reads_the_chunks_of_the_bricks_that_reach_it(rng: np.random.Generator, tmp_path: Path) -> None:
    """A7: of 64 bricks of some kilobytes at most 27, rounded up to whole chunks."""
    path = write_file(tmp_path / "a.gmix", rng, 40_000, (128, 192, 256), "zyx")
    chunk = 32_768
    for _ in range(5):
        gmix = Gmix(path)
        corner = [int(rng.integers(0, n - 16)) for n in (128, 192, 256)]
        z, y, x = (slice(c, c + 16) for c in corner)
        before = gmix.bytes_read
        decode_region(gmix, 0, (z, y, x))
        touched = gmix.touching(0, (z, y, x))
        assert 0 < len(touched) <= 27
        allowed = sum((-(-(gmix.payload_bytes(0, index) - 1) // chunk) + 1) * chunk for index in touched)
        assert 0 < gmix.bytes_read - before <= allowed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: run it where torch sees one")
@pytest.mark.parametrize("factor", [(1, 1, 1), (2, 2, 2), (1, 2, 4)])
def test_gpu_decodes_regions_as_the_whole_and_as_the_cpu(
    rng: np.random.Generator, factor: tuple[int, int, int]
) -> None:
    file = random_file(rng, shape=SHAPE)
    shape = Decoder(file).coarse_shape(factor)
    there = Decoder(file, "cuda").region(0, whole(shape), factor)
    for _ in range(10):
        roi = random_region(rng, shape)
        assert torch.equal(decode_region(file, 0, roi, factor=factor, device="cuda"), there[roi])
    here = Decoder(file).region(0, whole(shape), factor)
    assert (there.cpu() - here).abs().max() <= 1e-5 * file.header.intensity[0].scale
    points = torch.rand(100, 3) * (torch.tensor(SHAPE) - 1)
    values = [Decoder(file, device).points(0, points).cpu() for device in ("cpu", "cuda")]
    assert (values[0] - values[1]).abs().max() <= 1e-5 * file.header.intensity[0].scale
