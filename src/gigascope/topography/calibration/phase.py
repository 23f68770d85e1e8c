"""Displacement of pairs of image blocks by phase correlation, to a few hundredths of a pixel, many at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gigascope.errors import ShapeError

# Width of the Gaussian that weighs the phases, pixels in the correlation: a Gaussian peak, whose logarithm is a
# parabola. Noise and the colour mosaic lie at high frequencies: with 0.6, 0.8 and 1.2 px tie points of the synthetic
# instrument scatter by 0.10, 0.07 and 0.05 px.
PEAK_PX = 1.2
# Whitening stops at this share of the mean amplitude, so that empty frequencies do not count like full ones.
WHITENING = 0.05
# Share of each side that the cosine edge takes.
EDGE = 0.25


def taper(shape: tuple[int, int], edge: float = EDGE, device: torch.device | str = "cpu") -> Tensor:
    """(rows, cols) float32 window that falls to 0 as a cosine over a share of each side."""
    sides = []
    for n in shape:
        distance = torch.minimum(torch.arange(n), n - 1 - torch.arange(n)) + 0.5
        sides.append(0.5 - 0.5 * torch.cos(math.pi * (distance / (edge * n)).clamp(max=1.0)))
    return (sides[0][:, None] * sides[1][None]).float().to(device)


def phase_correlation(fixed: Tensor, moving: Tensor, *, pad: bool = False, peak_px: float = PEAK_PX) -> Tensor:
    """Correlation of the phases of pairs of blocks, weighted by a Gaussian.

    Parameters
    ----------
    fixed, moving : (n, rows, cols) float32
    pad : with zeros to twice the size, so that displacements do not wrap
    peak_px : width of the peak, see PEAK_PX

    Returns
    -------
    (n, rows, cols), or twice that: value at displacement d (modulo the size), moving(x + d) ~ fixed(x). 1 where the
    blocks are alike up to d

    Notes
    -----
    Kuglin and Hines, Proc. IEEE Conf. Cybernetics and Society (1975), 163.
    """
    if fixed.shape != moving.shape or fixed.ndim != 3:
        raise ShapeError(f"phase_correlation: expected two of (n, rows, cols), got {fixed.shape} and {moving.shape}")
    rows, cols = fixed.shape[1:]
    window = taper((rows, cols), device=fixed.device)
    shape = (2 * rows, 2 * cols) if pad else (rows, cols)
    spectra = []
    for block in (fixed, moving):
        mean = (block * window).sum((1, 2), keepdim=True) / window.sum()
        spectra.append(torch.fft.rfft2((block - mean) * window, s=shape))
    cross = spectra[1] * spectra[0].conj()
    size = cross.abs()
    floor = WHITENING * size.mean((1, 2), keepdim=True) + 1e-20
    ky = torch.fft.fftfreq(shape[0], device=fixed.device)[:, None]
    kx = torch.fft.rfftfreq(shape[1], device=fixed.device)[None]
    weight = torch.exp(-2.0 * (math.pi * peak_px) ** 2 * (ky**2 + kx**2))
    # a peak of 1 for identical blocks
    scale = 2.0 * math.pi * peak_px**2
    return torch.fft.irfft2(cross / (size + floor) * weight, s=shape) * scale


def peaks(correlation: Tensor, guess: Tensor, reach: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Largest value near a guess, to a fraction of a pixel.

    Parameters
    ----------
    correlation : (n, rows, cols) of :func:`phase_correlation`
    guess : (n, 2) expected displacement, pixels
    reach : largest departure from it along rows and columns

    Returns
    -------
    displacement : (n, 2) float64
    height : (n,) of the peak
    contrast : (n,) how many standard deviations of the values looked at the peak stands above them
    """
    n, rows, cols = correlation.shape
    device = correlation.device
    centre = guess.round().to(device)
    half = [min(math.ceil(r), (size - 3) // 2) for r, size in zip(reach, (rows, cols))]
    dy, dx = (torch.arange(-h - 1, h + 2, device=device) for h in half)
    index_y = (centre[:, :1].long() + dy[None]) % rows
    index_x = (centre[:, 1:].long() + dx[None]) % cols
    near = correlation[torch.arange(n, device=device)[:, None, None], index_y[:, :, None], index_x[:, None]]
    inner = near[:, 1:-1, 1:-1]
    height, flat = inner.reshape(n, -1).max(1)
    i, j = flat // inner.shape[2] + 1, flat % inner.shape[2] + 1
    which = torch.arange(n, device=device)
    offset = []
    for before, after in (
        (near[which, i - 1, j], near[which, i + 1, j]),
        (near[which, i, j - 1], near[which, i, j + 1]),
    ):
        low, mid, high = (v.double().clamp(min=1e-9).log() for v in (before, height, after))
        bend = (2.0 * mid - low - high).clamp(min=1e-9)
        offset.append((0.5 * (high - low) / bend).clamp(-0.6, 0.6))
    found = centre.double() + torch.stack((i - 1 - half[0] + offset[0], j - 1 - half[1] + offset[1]), 1)
    spread = inner.reshape(n, -1).std(1).clamp(min=1e-12)
    return found, height, height / spread
