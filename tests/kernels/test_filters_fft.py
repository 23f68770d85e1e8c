"""Properties of the convolution that varies along z and of area sampling on a CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import scipy.signal
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import filters
from gigascope.kernels.filters import cpu_fft, reference_fft

# float32 transforms of a few thousand samples, relative to the largest value
TOLERANCE = 2e-6
# volume, kernel, transform: less, as much and more than one vector of columns; one plane, row and column
CASES = [
    ((9, 14, 17), (5, 3, 7), (12, 15, 20)),
    ((1, 5, 6), (1, 3, 3), (1, 5, 6)),
    ((6, 1, 9), (3, 1, 5), (8, 1, 15)),
    ((7, 8, 1), (3, 3, 1), (7, 9, 1)),
    ((20, 30, 40), (7, 9, 11), (20, 30, 40)),
]


def slabwise(volume: np.ndarray, kernels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum by its definition in space, same size as the volume: direct convolution of every term in float64."""
    terms = (
        scipy.signal.convolve(volume * w[:, None, None], k, mode="same", method="direct")
        for k, w in zip(kernels.astype(float), weights.astype(float))
    )
    return sum(terms)


@pytest.mark.parametrize(("shape", "kernel", "fft_shape"), CASES)
@pytest.mark.parametrize("n_k", [1, 3])
def test_convolve_agrees_with_the_reference(rng, draw, distance, shape, kernel, fft_shape, n_k):
    volume, weights = draw(*shape), draw(n_k, shape[0])
    spectra = filters.spectra(draw(n_k, *kernel), fft_shape)
    start = tuple(int(rng.integers(0, n)) for n in fft_shape)
    size = tuple(int(rng.integers(1, n - s + 1)) for n, s in zip(fft_shape, start))
    for box in ((start, size), ((0, 0, 0), fft_shape)):
        found = filters.convolve(volume, weights, spectra, fft_shape, *box)
        whole = reference_fft.convolve(volume, weights, spectra, fft_shape, (0, 0, 0), fft_shape)
        expected = reference_fft.convolve(volume, weights, spectra, fft_shape, *box)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < TOLERANCE * whole.abs().max()


def test_spectra_are_those_of_the_shifted_kernels(draw, distance):
    for kernel, fft_shape in (((5, 3, 7), (5, 6, 9)), ((1, 3, 1), (4, 3, 8)), ((3, 5, 5), (10, 12, 15))):
        kernels = draw(2, *kernel)
        padded = torch.nn.functional.pad(
            kernels.double(), [x for n, f in zip(kernel, fft_shape) for x in (f - n, 0)][::-1]
        )
        expected = torch.fft.rfftn(padded.roll([-(n // 2) for n in kernel], (1, 2, 3)), dim=(1, 2, 3))
        found = filters.spectra(kernels, fft_shape)
        assert found.dtype == torch.complex64
        assert distance(torch.view_as_real(found), torch.view_as_real(expected)) < 1e-6


def test_one_kernel_equals_direct_convolution(rng):
    """O3"""
    volume, kernel = rng.random((24, 30, 35)).astype(np.float32), rng.random((7, 9, 11)).astype(np.float32)
    fft_shape = (30, 40, 45)
    spectra = filters.spectra(torch.from_numpy(kernel[None]), fft_shape)
    one = torch.ones(1, len(volume))
    found = filters.convolve(torch.from_numpy(volume), one, spectra, fft_shape, (0, 0, 0), volume.shape)
    expected = scipy.signal.convolve(volume.astype(float), kernel.astype(float), mode="same", method="direct")
    assert np.abs(found.numpy() - expected).max() <= 2e-5 * expected.max()


def test_several_kernels_equal_their_sum_in_space(draw, distance):
    volume, kernels, weights = draw(11, 12, 13), draw(3, 5, 3, 7), draw(3, 11)
    fft_shape = (16, 15, 20)
    found = filters.convolve(volume, weights, filters.spectra(kernels, fft_shape), fft_shape, (0, 0, 0), volume.shape)
    expected = slabwise(volume.numpy(), kernels.numpy(), weights.numpy())
    assert distance(found, torch.from_numpy(expected)) < TOLERANCE


def test_lobe_at_plus_two_voxels_appears_at_plus_two():
    """O4"""
    for axis in range(3):
        kernel = torch.zeros(1, 7, 7, 7)
        kernel[0, 3, 3, 3] = 0.75
        at = [3, 3, 3]
        at[axis] += 2
        kernel[(0, *at)] = 0.25
        volume = torch.zeros(16, 16, 16)
        volume[8, 8, 8] = 1
        spectra = filters.spectra(kernel, volume.shape)
        found = filters.convolve(volume, torch.ones(1, 16), spectra, volume.shape, (0, 0, 0), volume.shape)
        place = [8, 8, 8]
        place[axis] += 2
        assert float(found[tuple(place)]) == pytest.approx(0.25, abs=1e-6)
        assert float(found[8, 8, 8]) == pytest.approx(0.75, abs=1e-6)
        assert float(found.sum()) == pytest.approx(1, abs=1e-5)


def test_overlap_save_blocks_equal_the_whole(draw, distance):
    kernels, volume, weights = draw(2, 3, 5, 7), draw(12, 20, 24), draw(2, 12)
    fft_shape, half = (15, 25, 32), (1, 2, 3)
    spectra = filters.spectra(kernels, fft_shape)
    whole = filters.convolve(volume, weights, spectra, fft_shape, (0, 0, 0), volume.shape)
    box = tuple(slice(a, b) for a, b in ((2, 11), (3, 15), (1, 20)))
    block = volume[box]
    spectra = filters.spectra(kernels, block.shape)
    size = tuple(n - 2 * h for n, h in zip(block.shape, half))
    found = filters.convolve(block, weights[:, 2:11], spectra, block.shape, half, size)
    inner = tuple(slice(s.start + h, s.stop - h) for s, h in zip(box, half))
    assert (found - whole[inner]).abs().max() < TOLERANCE * whole.abs().max()


def test_results_do_not_depend_on_the_number_of_threads_or_rows_at_once(draw, thread_counts, monkeypatch):
    volume, weights, fft_shape = draw(12, 21, 33), draw(2, 12), (15, 24, 36)
    spectra = filters.spectra(draw(2, 3, 5, 7), fft_shape)
    results = []
    for n_threads in thread_counts:
        numba.set_num_threads(n_threads)
        found = filters.convolve(volume, weights, spectra, fft_shape, (1, 2, 3), (10, 20, 30))
        sampled = filters.convolve_sampled(
            volume, weights, spectra, fft_shape, (2.0, 2.5, 3.3), (1, 1.5, 0), (5, 7, 10)
        )
        results.append((found, sampled, filters.area_sample(volume, (2.0, 2.5, 3.3), (1, 1.5, 0), (5, 7, 10))))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    monkeypatch.setattr(cpu_fft, "SLAB_BYTES", 1)
    again = filters.convolve(volume, weights, spectra, fft_shape, (1, 2, 3), (10, 20, 30))
    torch.testing.assert_close(again, results[0][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "start", "shape"),
    [
        ((1.6663, 4.0, 4.0), (0.0, 0.0, 0.0), (6, 3, 4)),
        ((2.5, 1.6663, 1.2), (0.3, 1.0, 2.2), (3, 6, 9)),
        ((0.4, 1.0, 0.7), (0.5, 0.0, 3.1), (20, 14, 9)),
        ((11.0, 14.0, 17.0), (0.0, 0.0, 0.0), (1, 1, 1)),
    ],
)
def test_area_sample_agrees_with_the_reference(draw, ratio, start, shape):
    volume = draw(11, 14, 17)
    # of many voxels the mean is small
    error = (
        filters.area_sample(volume, ratio, start, shape) - reference_fft.area_sample(volume, ratio, start, shape)
    ).abs()
    assert error.max() < 1e-6 * volume.abs().max()


def test_constant_and_ramp_are_sampled_exactly(rng):
    """C6"""
    ratio, start, n = 1.6663, float(rng.uniform(0, 1)), 9
    ramps = torch.arange(20.0) + 0.5  # value of a voxel: mean of the ramp over it
    for axis in range(3):
        view = [20 if a == axis else 1 for a in range(3)]
        volume = ramps.reshape(view).expand(20, 20, 20).contiguous()
        ratios, starts, shape = [1.0] * 3, [0.0] * 3, [20] * 3
        ratios[axis], starts[axis], shape[axis] = ratio, start, n
        constant = filters.area_sample(torch.full((20, 20, 20), 3.7), ratios, starts, shape)
        assert float((constant / 3.7 - 1).abs().max()) < 1e-6
        found = filters.area_sample(volume, ratios, starts, shape).movedim(axis, 0)[:, 3, 4].double()
        edges = start + ratio * torch.arange(n + 1, dtype=torch.float64)
        # inside a voxel the volume is flat: the mean of the ramp plus what the parts of two voxels at the edges miss
        inside = edges - edges.floor()
        primitive = edges.floor().square() / 2 + (edges.floor() + 0.5) * inside
        expected = primitive.diff() / ratio
        assert float((found / expected - 1).abs().max()) < 1e-6
    # to whole voxels the ramp itself comes out
    whole = filters.area_sample(ramps.reshape(1, 1, 20), (1.0, 1.0, 4.0), (0, 0, 0), (1, 1, 5))
    torch.testing.assert_close(whole.flatten(), 4 * torch.arange(5.0) + 2, rtol=1e-6, atol=0)


def test_area_sample_keeps_the_sum(draw):
    volume = draw(10, 15, 25).abs()
    shape = (4, 9, 7)
    ratio = tuple(n / m for n, m in zip(volume.shape, shape))
    found = filters.area_sample(volume, ratio, (0, 0, 0), shape)
    assert float(found.double().sum() * math.prod(ratio)) == pytest.approx(float(volume.double().sum()), rel=1e-6)


def test_ratios_that_are_whole_but_for_rounding_read_no_voxel_behind_the_end(draw):
    volume = draw(3, 6, 6)
    found = filters.area_sample(volume, (0.3 / 0.1, 0.75 / 0.25, 1.0), (0, 0, 0), (1, 2, 6))
    torch.testing.assert_close(found[0], volume.mean(0).reshape(2, 3, 6).mean(1), rtol=1e-5, atol=1e-6)


def test_sampling_on_the_way_equals_sampling_afterwards(draw, distance):
    volume, weights, fft_shape = draw(12, 21, 33), draw(2, 12), (15, 24, 36)
    spectra = filters.spectra(draw(2, 3, 5, 7), fft_shape)
    for sampling in (((2.0, 2.5, 3.3), (1, 1.5, 0.2), (5, 7, 10)), ((1.0, 1.0, 1.0), (14, 0, 0), (1, 24, 36))):
        whole = filters.convolve(volume, weights, spectra, fft_shape, (0, 0, 0), fft_shape)
        found = filters.convolve_sampled(volume, weights, spectra, fft_shape, *sampling)
        assert distance(found, filters.area_sample(whole, *sampling)) < TOLERANCE
        assert distance(found, reference_fft.convolve_sampled(volume, weights, spectra, fft_shape, *sampling)) < 4e-6


def test_ops_keep_the_rules_of_torch_library(draw):
    ops, volume, weights, fft_shape = torch.ops.gigascope, draw(4, 6, 7), draw(2, 4), [6, 8, 9]
    spectra = filters.spectra(draw(2, 3, 3, 3), fft_shape)
    torch.library.opcheck(ops.filters_convolve, (volume, weights, spectra, fft_shape, [1, 1, 1], [2, 4, 5]))
    sampling = [2.0, 1.5, 1.0], [0.0, 0.5, 1.0], [2, 3, 4]
    torch.library.opcheck(ops.filters_area_sample, (volume, *sampling))
    torch.library.opcheck(ops.filters_convolve_sampled, (volume, weights, spectra, fft_shape, *sampling))


def test_wrong_arguments_name_what_was_expected_and_found():
    volume, weights, fft_shape = torch.ones(4, 6, 7), torch.ones(2, 4), (6, 8, 9)
    kernels = torch.ones(2, 3, 3, 3)
    spectra = filters.spectra(kernels, fft_shape)
    box = (0, 0, 0), (1, 1, 1)
    with pytest.raises(ShapeError, match=r"kernels: expected .* of odd sizes, got"):
        filters.spectra(torch.ones(2, 3, 4, 3), fft_shape)
    with pytest.raises(ShapeError, match=r"a transform of \(2, 8, 9\) is smaller than \(3, 3, 3\)"):
        filters.spectra(kernels, (2, 8, 9))
    with pytest.raises(ShapeError, match=r"volume: expected \(z, y, x\) torch.float32, got .*float64"):
        filters.convolve(volume.double(), weights, spectra, fft_shape, *box)
    with pytest.raises(ShapeError, match=r"a transform of \(3, 8, 9\) is smaller than \(4, 6, 7\)"):
        filters.convolve(volume, weights, spectra, (3, 8, 9), *box)
    with pytest.raises(ShapeError, match=r"weights: expected \(K, 4\) torch.float32, got \(2, 3\)"):
        filters.convolve(volume, weights[:, :3], spectra, fft_shape, *box)
    with pytest.raises(ShapeError, match=r"spectra: expected \(2, 6, 8, 5\) torch.complex64, got \(1, 6, 8, 5\)"):
        filters.convolve(volume, weights, spectra[:1], fft_shape, *box)
    with pytest.raises(ShapeError, match="reads 4 to 7 along z, where there are 0 to 6"):
        filters.convolve(volume, weights, spectra, fft_shape, (4, 0, 0), (3, 1, 1))
    with pytest.raises(ShapeError, match="ratio of y: expected a number above 0, got 0"):
        filters.area_sample(volume, (1.0, 0.0, 1.0), *box)
    with pytest.raises(ShapeError, match="reads -1 to 1 along x, where there are 0 to 7"):
        filters.area_sample(volume, (1.0, 1.0, 1.5), (0, 0, -0.5), (1, 1, 1))
