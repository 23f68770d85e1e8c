"""Convolution that varies along z, by FFT, and sampling to a coarser grid: signatures, checks, meta functions."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check_positive
from gigascope.kernels.filters.overlaps import reach
from gigascope.kernels.library import define


def spectra(kernels: Tensor, fft_shape: Sequence[int]) -> Tensor:
    """Spectra of centred kernels, as :func:`convolve` takes them.

    Parameters
    ----------
    kernels : (K, z, y, x) float32, odd sizes, the middle sample is offset 0
    fft_shape : (z, y, x) of the transform, at least the size of the kernels

    Returns
    -------
    (K, z, y, x // 2 + 1) complex64, on the device of `kernels`

    Raises
    ------
    ShapeError : even sizes, another rank or dtype, a transform smaller than the kernels
    """
    if kernels.ndim != 4 or kernels.dtype != torch.float32 or any(n % 2 == 0 for n in kernels.shape[1:]):
        found = f"{tuple(kernels.shape)} {kernels.dtype}"
        raise ShapeError(f"spectra: kernels: expected (K, z, y, x) torch.float32 of odd sizes, got {found}")
    if len(fft_shape) != 3 or any(f < n for f, n in zip(fft_shape, kernels.shape[1:])):
        raise ShapeError(f"spectra: a transform of {tuple(fft_shape)} is smaller than {tuple(kernels.shape[1:])}")
    size, half = tuple(fft_shape), [n // 2 for n in kernels.shape[1:]]
    at = [torch.arange(-h, h + 1, device=kernels.device) % f for h, f in zip(half, size)]
    along_z = _implementation(kernels).transform_z_
    out = torch.zeros(len(kernels), *size[:2], size[2] // 2 + 1, dtype=torch.complex64, device=kernels.device)
    for spectrum, kernel in zip(out, kernels):
        # a kernel is small: its zeros are not transformed along x and y
        rows = kernel.new_zeros(*kernel.shape[:2], size[2]).index_copy_(2, at[2], kernel)
        rows = torch.fft.rfft(rows)
        planes = rows.new_zeros(len(rows), size[1], rows.shape[2]).index_copy_(1, at[1], rows)
        spectrum.index_copy_(0, at[0], torch.fft.fft(planes, dim=1))
        along_z(spectrum)
    return out


def convolve(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
) -> Tensor:
    """Sum over k of kernel k convolved with (weights of k along z times the volume), a box of the circular result.

    Parameters
    ----------
    volume : (z, y, x) float32; zeros follow up to `fft_shape`
    weights : (K, z) float32
    spectra : (K, *, *, *) complex64 of :func:`spectra`
    fft_shape : (z, y, x) of the transform
    start, shape : (z, y, x) of the box, inside `fft_shape`

    Returns
    -------
    `shape` float32, on the device of `volume`

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or the box leaves the transform

    Notes
    -----
    The weights depend on z only, so one transform along y and x serves every k; only those along z are repeated.
    Overlap-save: with kernels of half sizes h, the box from h to the size of the volume less h equals that of an
    endless volume. No gradient.
    """
    lists = list(fft_shape), list(start), list(shape)
    return torch.ops.gigascope.filters_convolve(volume, weights, spectra, *lists)


def area_sample(volume: Tensor, ratio: Sequence[float], start: Sequence[float], shape: Sequence[int]) -> Tensor:
    """Mean of the volume over each voxel of another grid, with exact fractional overlap.

    Parameters
    ----------
    volume : (z, y, x) float32
    ratio : (z, y, x) size of an output voxel in input voxels, > 0
    start : (z, y, x) corner of the first output voxel, in input voxels from the corner of the first; need not be whole
    shape : (z, y, x) of the result

    Returns
    -------
    `shape` float32, on the device of `volume`

    Raises
    ------
    ShapeError : another rank or dtype, or output voxels that leave the volume

    Notes
    -----
    No gradient.
    """
    return torch.ops.gigascope.filters_area_sample(volume, list(ratio), list(start), list(shape))


def convolve_sampled(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Sequence[int],
    ratio: Sequence[float],
    start: Sequence[float],
    shape: Sequence[int],
) -> Tensor:
    """:func:`area_sample` of the circular result of :func:`convolve`, which is never held as a whole.

    Parameters
    ----------
    volume, weights, spectra, fft_shape : as for :func:`convolve`
    ratio, start, shape : as for :func:`area_sample`, inside `fft_shape`

    Returns
    -------
    `shape` float32, on the device of `volume`

    Raises
    ------
    ShapeError : as those two
    """
    lists = list(fft_shape), list(ratio), list(start), list(shape)
    return torch.ops.gigascope.filters_convolve_sampled(volume, weights, spectra, *lists)


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.filters import cpu_fft

        return cpu_fft
    if chosen == "cuda":
        from gigascope.kernels.filters import cuda_fft

        return cuda_fft
    from gigascope.kernels.filters import reference_fft

    return reference_fft


def _check_volume(op: str, volume: Tensor) -> None:
    if volume.ndim != 3 or volume.dtype != torch.float32 or volume.numel() == 0:
        found = f"{tuple(volume.shape)} {volume.dtype}"
        raise ShapeError(f"{op}: volume: expected (z, y, x) torch.float32, got {found}")


def _check_spectra(op: str, volume: Tensor, weights: Tensor, spectra: Tensor, fft_shape: Sequence[int]) -> None:
    _check_volume(op, volume)
    if len(fft_shape) != 3 or any(f < n for f, n in zip(fft_shape, volume.shape)):
        raise ShapeError(f"{op}: a transform of {tuple(fft_shape)} is smaller than {tuple(volume.shape)}")
    n_k = weights.shape[0] if weights.ndim == 2 else 0
    if n_k == 0 or weights.shape[1] != volume.shape[0] or weights.dtype != torch.float32:
        found = f"{tuple(weights.shape)} {weights.dtype}"
        raise ShapeError(f"{op}: weights: expected (K, {volume.shape[0]}) torch.float32, got {found}")
    half = (n_k, fft_shape[0], fft_shape[1], fft_shape[2] // 2 + 1)
    if tuple(spectra.shape) != half or spectra.dtype != torch.complex64:
        found = f"{tuple(spectra.shape)} {spectra.dtype}"
        raise ShapeError(f"{op}: spectra: expected {half} torch.complex64, got {found}")
    if weights.device != volume.device or spectra.device != volume.device:
        devices = f"{volume.device}, weights on {weights.device}, spectra on {spectra.device}"
        raise ShapeError(f"{op}: volume on {devices}")


def _check_sampling(
    op: str, inside: Sequence[int], ratio: Sequence[float], start: Sequence[float], shape: Sequence[int]
) -> None:
    if not len(ratio) == len(start) == len(shape) == 3 or any(n < 1 for n in shape):
        raise ShapeError(f"{op}: expected three ratios, starts and sizes, got {ratio}, {start}, {shape}")
    check_positive(op, **{f"ratio of {axis}": r for axis, r in zip("zyx", ratio)})
    for axis, size, r, s, n in zip("zyx", inside, ratio, start, shape):
        low, high = reach(r, s, n)
        if low < 0 or high > size:
            raise ShapeError(f"{op}: reads {low} to {high} along {axis}, where there are 0 to {size}")


@define(
    "filters_convolve",
    "(Tensor volume, Tensor weights, Tensor spectra, int[] fft_shape, int[] start, int[] shape) -> Tensor",
)
def _convolve(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
) -> Tensor:
    _check_spectra("convolve", volume, weights, spectra, fft_shape)
    _check_sampling("convolve", fft_shape, (1.0, 1.0, 1.0), start, shape)
    arrays = volume.contiguous(), weights.contiguous(), spectra.contiguous()
    return _implementation(volume).convolve(*arrays, tuple(fft_shape), tuple(start), tuple(shape))


@_convolve.register_fake
def _convolve_meta(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
) -> Tensor:
    return volume.new_empty(tuple(shape))


@define("filters_area_sample", "(Tensor volume, float[] ratio, float[] start, int[] shape) -> Tensor")
def _area_sample(volume: Tensor, ratio: Sequence[float], start: Sequence[float], shape: Sequence[int]) -> Tensor:
    _check_volume("area_sample", volume)
    _check_sampling("area_sample", volume.shape, ratio, start, shape)
    return _implementation(volume).area_sample(volume.contiguous(), tuple(ratio), tuple(start), tuple(shape))


@_area_sample.register_fake
def _area_sample_meta(volume: Tensor, ratio: Sequence[float], start: Sequence[float], shape: Sequence[int]) -> Tensor:
    return volume.new_empty(tuple(shape))


@define(
    "filters_convolve_sampled",
    "(Tensor volume, Tensor weights, Tensor spectra, int[] fft_shape, float[] ratio, float[] start, int[] shape)"
    " -> Tensor",
)
def _convolve_sampled(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Sequence[int],
    ratio: Sequence[float],
    start: Sequence[float],
    shape: Sequence[int],
) -> Tensor:
    _check_spectra("convolve_sampled", volume, weights, spectra, fft_shape)
    _check_sampling("convolve_sampled", fft_shape, ratio, start, shape)
    arrays = volume.contiguous(), weights.contiguous(), spectra.contiguous()
    sampling = tuple(ratio), tuple(start), tuple(shape)
    return _implementation(volume).convolve_sampled(*arrays, tuple(fft_shape), *sampling)


@_convolve_sampled.register_fake
def _convolve_sampled_meta(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Sequence[int],
    ratio: Sequence[float],
    start: Sequence[float],
    shape: Sequence[int],
) -> Tensor:
    return volume.new_empty(tuple(shape))
