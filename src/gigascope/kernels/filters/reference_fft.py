"""Definition of the convolution that varies along z and of area sampling in plain torch, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from gigascope.kernels.filters.overlaps import overlaps

Three = tuple[int, int, int]
ThreeFloats = tuple[float, float, float]


def convolve(volume: Tensor, weights: Tensor, spectra: Tensor, fft_shape: Three, start: Three, shape: Three) -> Tensor:
    """Box of the inverse transform of sum_k S_k F(w_k f)."""
    box = tuple(slice(a, a + n) for a, n in zip(start, shape))
    return _circular(volume, weights, spectra, fft_shape)[box].float()


def area_sample(volume: Tensor, ratio: ThreeFloats, start: ThreeFloats, shape: Three) -> Tensor:
    """Means over boxes, one axis after the other."""
    return _sampled(volume.double(), ratio, start, shape).float()


def convolve_sampled(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Three,
    ratio: ThreeFloats,
    start: ThreeFloats,
    shape: Three,
) -> Tensor:
    """One after the other."""
    return _sampled(_circular(volume, weights, spectra, fft_shape), ratio, start, shape).float()


def transform_z_(planes: Tensor) -> None:
    """In place, transform (z, y, x) complex64 along z."""
    planes.copy_(torch.fft.fft(planes.to(torch.complex128), dim=0))


def _circular(volume: Tensor, weights: Tensor, spectra: Tensor, fft_shape: Three) -> Tensor:
    total = torch.zeros_like(spectra[0], dtype=torch.complex128)
    for weight, spectrum in zip(weights, spectra):
        total += spectrum * torch.fft.rfftn(weight.double()[:, None, None] * volume.double(), s=fft_shape)
    return torch.fft.irfftn(total, s=fft_shape)


def _sampled(volume: Tensor, ratio: ThreeFloats, start: ThreeFloats, shape: Three) -> Tensor:
    for axis in range(3):
        first, shares = (part.to(volume.device) for part in overlaps(ratio[axis], start[axis], shape[axis]))
        at = first[:, None] + torch.arange(shares.shape[1], device=volume.device)
        matrix = torch.zeros(shape[axis], volume.shape[axis], dtype=torch.float64, device=volume.device)
        matrix.scatter_add_(1, at.clamp_max(volume.shape[axis] - 1), shares)
        volume = torch.movedim(torch.tensordot(matrix, volume, dims=([1], [axis])), 0, axis)
    return volume
