"""Blur and sampling of blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.signal
import torch

from gigascope.errors import ShapeError, UserError
from gigascope.synthesis.optics.blocks import Blur, refuse_larger, window
from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.optics.tabulate import depth_psf

VOXEL = (1.0, 0.4, 0.4)


def blurred(psf: DepthPsf, volume: torch.Tensor, start, size, ratio=(1.0, 1.0, 1.0), field_start=(0, 0, 0)):
    """One block of the coarse grid out of a volume of the fine grid, which is dark around it."""
    part = window(start, size, ratio, psf.half)
    block = torch.zeros(part.shape)
    low = [max(s, f) for s, f in zip(part.start, field_start)]
    high = [min(s + n, f + m) for s, n, f, m in zip(part.start, part.shape, field_start, volume.shape)]
    if all(a < b for a, b in zip(low, high)):
        there = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, part.start))
        block[there] = volume[tuple(slice(a - f, b - f) for a, b, f in zip(low, high, field_start))]
    return Blur(psf)(block, part, part.positions(VOXEL[0]))


@pytest.fixture
def water(optics):
    """PSFs that change quickly: water immersion, 64 µm into tissue."""
    return depth_psf(
        optics(na=0.9, n_immersion=1.33, n_sample=1.42, n_immersion_design=1.33, cap_um=(7.0, 2.8, 2.8)), VOXEL, 64.0
    )


@pytest.fixture
def phantom(rng):
    """64 cubed, random, a third of the voxels bright."""
    return torch.from_numpy(rng.random((64, 64, 64)) * (rng.random((64, 64, 64)) < 0.33)).float()


def test_sum_over_slabs_is_met_within_the_tolerance(optics, water, phantom):
    """O2"""
    keys = {"na": 0.9, "n_immersion": 1.33, "n_sample": 1.42, "cap_um": (7.0, 2.8, 2.8)}
    exact = depth_psf(optics(**keys, eig_max=1, eig_tol=1e-6), VOXEL, 64.0)
    assert (water.method, exact.method) == ("eigen", "blended")
    assert len(water.kernels) > 1
    expected = np.zeros((64, 64, 64))
    for z in range(64):
        # every plane of emitters with the PSF of its own depth, the light that it is seen by, in float64
        depth = z + 0.5
        h = exact.at(depth).astype(float) * np.interp(depth, exact.depths_um, exact.efficiency)
        spread = scipy.signal.fftconvolve(phantom[z : z + 1].double().numpy(), h, mode="full")
        half = exact.half
        for dz in range(-half[0], half[0] + 1):
            if 0 <= z + dz < 64:
                expected[z + dz] += spread[dz + half[0], half[1] : half[1] + 64, half[2] : half[2] + 64]
    for psf, tolerance in ((exact, 2e-6), (water, 0.02)):
        found = blurred(psf, phantom, (0, 0, 0), (64, 64, 64)).numpy()
        assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


def test_light_is_conserved(water, rng):
    """O1"""
    volume = torch.from_numpy(rng.random((40, 30, 32))).float()
    margin = water.half
    size = [n + 2 * m for n, m in zip(volume.shape, margin)]
    found = blurred(water, volume, [-m for m in margin], size).double()
    light = np.interp(np.arange(40) + 0.5, water.depths_um, water.efficiency)
    emitted = (volume.double() * torch.from_numpy(light)[:, None, None]).sum()
    assert light.min() < 0.95
    assert float(found.sum()) == pytest.approx(float(emitted), rel=1e-4)


def test_blocks_equal_the_whole(water, phantom):
    """O7"""
    ratio = (1.5, 2.0, 1.6663)
    size = (42, 32, 38)
    whole = blurred(water, phantom, (0, 0, 0), size, ratio)
    assert whole.max() > 0
    for cuts in (((0, 17, 42), (0, 11, 32), (0, 20, 38)), ((0, 10, 30, 42), (0, 32), (0, 7, 38))):
        found = torch.empty(size)
        spans = [list(itertools.pairwise(c)) for c in cuts]
        for z in spans[0]:
            for y in spans[1]:
                for x in spans[2]:
                    box = z, y, x
                    part = blurred(water, phantom, [a for a, _ in box], [b - a for a, b in box], ratio)
                    found[tuple(slice(a, b) for a, b in box)] = part
        assert float(((found - whole).abs() / whole).max()) < 1e-4


def test_three_equal_psfs_are_one(rng, phantom):
    """O5"""
    kernel = rng.random((5, 7, 7)) * np.exp(-np.arange(5))[:, None, None]
    kernel = (kernel / kernel.sum()).astype(np.float32)
    none, one = np.zeros(1), np.ones(1)
    single = DepthPsf(kernel[None], one[:, None], none, one, none)
    depths = np.array([0.0, 30.0, 60.0])
    blended = DepthPsf(np.repeat(kernel[None], 3, 0), np.eye(3), depths, np.ones(3), depths, method="blended")
    found = [blurred(psf, phantom, (0, 0, 0), (64, 64, 64)) for psf in (single, blended)]
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-6
    assert float((found[0] - found[1]).abs().max() / found[0].max()) < 2e-6


def test_tail_on_the_deep_side_stays_there():
    """O4"""
    kernel = np.zeros((1, 5, 3, 3), np.float32)
    kernel[0, 2, 1, 1], kernel[0, 4, 1, 1] = 0.75, 0.25
    none, one = np.zeros(1), np.ones(1)
    volume = torch.zeros(16, 8, 8)
    volume[7, 4, 4] = 1
    found = blurred(DepthPsf(kernel, one[:, None], none, one, none), volume, (0, 0, 0), (16, 8, 8))
    assert float(found[7, 4, 4]) == pytest.approx(0.75, abs=1e-6)
    assert float(found[9, 4, 4]) == pytest.approx(0.25, abs=1e-6)


def test_many_kernels_go_in_groups(optics, phantom, monkeypatch):
    psf = depth_psf(optics(eig_max=1, eig_tol=1e-6, depth_step_um=8), VOXEL, 64.0)
    assert len(psf.kernels) == 9
    whole = blurred(psf, phantom, (0, 0, 0), (64, 64, 64))
    monkeypatch.setattr("gigascope.synthesis.optics.blocks.AT_ONCE", 4)
    torch.testing.assert_close(blurred(psf, phantom, (0, 0, 0), (64, 64, 64)), whole, rtol=1e-5, atol=1e-6)


def test_spectra_are_kept_from_block_to_block(water, monkeypatch):
    from gigascope.kernels import filters

    calls, make = [], filters.spectra
    monkeypatch.setattr(filters, "spectra", lambda *a: calls.append(a[1]) or make(*a))
    blur, part = Blur(water), window((0, 0, 0), (8, 8, 8), (1.0, 2.0, 2.0), water.half)
    for start in ((0, 0, 0), (0, 8, 8), (8, 0, 0)):
        part = window(start, (8, 8, 8), (1.0, 2.0, 2.0), water.half)
        blur(torch.zeros(part.shape), part, part.positions(1.0))
    assert len(calls) == 1
    part = window((0, 0, 0), (9, 20, 8), (1.0, 2.0, 2.0), water.half)
    blur(torch.zeros(part.shape), part, part.positions(1.0))
    assert len(calls) == 2


def test_no_blur_is_sampling_only(optics, phantom):
    psf = depth_psf(optics(model="none"), VOXEL, 64.0)
    found = blurred(psf, phantom, (1, 2, 3), (10, 11, 12), (2.0, 4.0, 4.0))
    box = phantom[2:22, 8:52, 12:60].reshape(10, 2, 11, 4, 12, 4).mean((1, 3, 5))
    torch.testing.assert_close(found, box, rtol=1e-5, atol=1e-6)


def test_windows_hold_what_a_block_needs(rng):
    half = (3, 5, 4)
    for _ in range(20):
        ratio = tuple(rng.uniform(0.5, 4, 3))
        start, size = rng.integers(0, 50, 3), rng.integers(1, 30, 3)
        part = window(start, size, ratio, half)
        for axis in range(3):
            low, high = ratio[axis] * start[axis], ratio[axis] * (start[axis] + size[axis])
            assert part.start[axis] == math.floor(low) - half[axis]
            assert part.start[axis] + part.shape[axis] == math.ceil(high) + half[axis]
            assert part.corner[axis] == pytest.approx(low - part.start[axis])
            assert part.fft_shape[axis] >= part.shape[axis]
            rest = part.fft_shape[axis]
            for factor in (2, 3, 5):
                while rest % factor == 0:
                    rest //= factor
            assert rest == 1
    assert window((0, 0, 0), (2, 2, 2), (2.0, 4.0, 4.0), half).positions(0.5)[3] == 0.25


def test_memory_of_a_block_is_foreseen(water, rng):
    import tracemalloc

    part = window((0, 0, 0), (24, 60, 60), (1.5, 2.0, 2.0), water.half)
    volume, blur = torch.zeros(part.shape), Blur(water)
    blur(volume, part, part.positions(1.0))  # the spectra are torch's, which tracemalloc does not see
    tracemalloc.start()
    blur(volume, part, part.positions(1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + 4 * volume.numel() + blur._kept[1].nbytes <= part.bytes_of(len(water.kernels))


def test_wrong_blocks_and_psfs_larger_than_the_volume_are_refused(water):
    part = window((0, 0, 0), (8, 8, 8), (1.0, 2.0, 2.0), water.half)
    with pytest.raises(ShapeError, match=r"expected a volume of .* and a position for each plane"):
        Blur(water)(torch.zeros(3, 4, 5), part, part.positions(1.0))
    refuse_larger(water, water.kernels.shape[1:])
    with pytest.raises(UserError, match=r"the PSF is \d+ voxels .* long along x, the whole volume only 9"):
        refuse_larger(water, (64, 64, 9))
