"""Where along the stack every pixel is sharpest, to a fraction of a slice, and how far that can be trusted.

A sharpness volume S (z, r, c) is reduced to four maps: index, sharpness, curvature, confidence. Five estimators differ
in the curve they lay through the samples about the largest one; :func:`estimate_peak` says what each assumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gigascope.errors import ShapeError

Method = Literal["argmax", "parabola", "log_parabola", "centroid", "lens"]
METHODS: tuple[Method, ...] = ("argmax", "parabola", "log_parabola", "centroid", "lens")

# S of a volume that is exactly constant is 0 and any rounding would count as a peak: a contrast of 0.2 % per pixel,
# half of what rounding to 8 bits at mid-grey makes (1.742 * 0.29 / 128).
SMALLEST_NOISE = 2e-3
# Relative fluctuation of S on pure noise times sigma: measured 0.24 for white noise, 0.39 after a blur of one pixel, as
# demosaicing makes; up to twice that along the borders, where the window sees less.
FLUCTUATION = 0.3
# The least of n noisy samples lies below the mean noise level; 0.9 was the best of 0.8 to 0.95 on simulated stacks.
FLOOR_FRACTION = 0.9
# Gradient energy of a texture with an amplitude spectrum f^-p under a Gaussian blur s goes as s^-(4 - 2p): S^-m is a
# parabola in z with m = 2 / (2 - p), 1 for white texture, 1.67 for p = 0.8 as in natural surfaces.
LENS_POWER = 1.5


@dataclass(frozen=True)
class FocusPeak:
    """The peak of every pixel's sharpness curve.

    Parameters
    ----------
    index : (r, c) float32, fractional slice 0..n_z - 1
    sharpness : (r, c) float32, largest S of the pixel
    curvature : (r, c) float32, -d2 ln S / dk2 at the largest sample, per slice squared; 0 where there is no peak
    confidence : (r, c) float32, 0 (nothing there) to 1
    """

    index: Tensor
    sharpness: Tensor
    curvature: Tensor
    confidence: Tensor


def estimate_peak(volume: Tensor, method: Method = "lens", *, sigma: float = 8.0) -> FocusPeak:
    """Sub-slice focus of every pixel from its sharpness curve.

    Parameters
    ----------
    volume : (z, r, c) floating point, S >= 0 of :func:`gigascope.kernels.filters.sharpness`; NaN counts as 0
    method : argmax, the slice of the largest S;
        parabola, through S of that slice and its two neighbours;
        log_parabola, the same through ln S (S a Gaussian of z);
        centroid, mean of the five slices about the largest, weights (S - min S)^2;
        lens, parabola through T^-1.5 with T^2 = S^2 - noise^2: what defocus of a thin lens makes of a texture whose
        spectrum falls as a power of frequency
    sigma : radius in pixels of the window that made `volume`; sets how much noise the confidence expects

    Returns
    -------
    FocusPeak, on the device of `volume`. A curve that rises to an end of the stack has its index there or
    within one slice of it, and a confidence of P / 2: its focus may lie outside

    Raises
    ------
    ShapeError : not three axes, fewer than three slices, or not floating point
    ValueError : another method

    Notes
    -----
    Confidence is P / (1 + (e / 0.25)^2): e is the standard deviation of the index in slices that noise would cause,
    propagated through the vertex of the parabola, and P rises from 0 to 1 while the contrast (max S - min S) goes from
    6 to 12 times the fluctuation expected of S in noise, more than the range of n_z noisy samples. The noise level is
    the least S of the pixel, so that nothing has to be known of the camera. Subbarao and Choi, IEEE Trans. PAMI 17, 266
    (1995) for focus from curves; Pertuz et al., Pattern Recognition 46, 1415 (2013) for the comparison of measures.
    """
    if volume.ndim != 3 or volume.shape[0] < 3 or not volume.is_floating_point():
        raise ShapeError(
            f"estimate_peak: expected (z >= 3, r, c) floating point, got {tuple(volume.shape)} {volume.dtype}"
        )
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    volume = torch.nan_to_num(volume.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0.0)
    last = volume.shape[0] - 1
    top, best = volume.max(0)
    least = volume.amin(0)
    middle = best.clamp(1, last - 1)
    three = tuple(volume.gather(0, (middle + d)[None])[0] for d in (-1, 0, 1))
    curves = _lens_values(three, least)
    if method == "argmax":
        index = best.float()
    elif method == "centroid":
        index = _centroid(volume, best, least)
    else:
        offset, peaked = _vertex(_curve(method, three, curves))
        index = torch.where(peaked > 0.0, middle + offset, best.float())
    index = index.clamp(0.0, float(last))
    curvature = _vertex(_curve("log_parabola", three, curves))[1]
    present, certain = _trust(three, curves, top, least, sigma)
    ends = (best == 0) | (best == last)
    confidence = torch.where(ends, 0.5 * present, present * certain)
    nothing = top <= 0.0
    # no texture at all: the middle of the stack is the guess with the smallest largest error
    index = torch.where(nothing, index.new_tensor(0.5 * last), index)
    return FocusPeak(index.float(), top, torch.where(nothing, torch.zeros_like(top), curvature), confidence)


_Three = tuple[Tensor, ...]


def _lens_values(three: _Three, least: Tensor) -> _Three:
    """T / T_middle of the three samples, T^2 = S^2 - noise^2, never below 2 %."""
    noise2 = (FLOOR_FRACTION * least) ** 2
    signal = [(s**2 - noise2).clamp_min(0.0).sqrt() for s in three]
    scale = torch.stack(signal).amax(0).clamp_min(1e-12)
    return tuple((s / scale).clamp_min(0.02) for s in signal)


def _curve(method: str, three: _Three, lens: _Three) -> _Three:
    """The samples in the scale in which the method takes them for a parabola."""
    if method == "parabola":
        return three
    if method == "log_parabola":
        return tuple(s.clamp_min(1e-6).log() for s in three)
    return tuple(-(t**-LENS_POWER) for t in lens)


def _vertex(y: _Three) -> tuple[Tensor, Tensor]:
    """Offset of the top of a parabola through three samples, within one slice, and its curvature (0: no top)."""
    curvature = 2.0 * y[1] - y[0] - y[2]
    peaked = curvature > 0.0
    offset = torch.where(peaked, 0.5 * (y[2] - y[0]) / curvature.clamp_min(1e-12), torch.zeros_like(curvature))
    return offset.clamp(-1.0, 1.0), curvature.clamp_min(0.0)


def _centroid(volume: Tensor, best: Tensor, least: Tensor) -> Tensor:
    total, moment = torch.zeros_like(least), torch.zeros_like(least)
    for d in range(-2, 3):
        slices = best + d
        inside = (slices >= 0) & (slices < volume.shape[0])
        weight = (volume.gather(0, slices.clamp(0, volume.shape[0] - 1)[None])[0] - least) ** 2 * inside
        total += weight
        moment += d * weight
    return best + torch.where(total > 0, moment / total.clamp_min(1e-30), torch.zeros_like(total))


def _trust(three: _Three, lens: _Three, top: Tensor, least: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """P and 1 / (1 + (e / 0.25)^2) of :func:`estimate_peak`."""
    noise = least.clamp_min(SMALLEST_NOISE)
    fluctuation = FLUCTUATION / max(sigma, 1.0) * noise
    present = (((top - least) / fluctuation - 6.0) / 6.0).clamp(0.0, 1.0)
    y = _curve("lens", three, lens)
    offset, curvature = _vertex(y)
    scale = torch.stack(three).amax(0).clamp_min(1e-12)
    # y = -t^-m, dy = m t^-(m+1) dt, dt = (S / T) dS / scale
    errors = [
        LENS_POWER * t ** -(LENS_POWER + 1.0) * (s / scale / t) * fluctuation / scale
        for s, t in zip(three, lens, strict=True)
    ]
    before, at, after = (e**2 for e in errors)
    variance = (before + after) * (0.25 + offset**2) + 4.0 * at * offset**2
    # a single sharp sample between two of noise cannot be off by more than a uniform half slice
    spread = (variance.sqrt() / curvature.clamp_min(1e-6)).clamp_max(1e3)
    spread = torch.where(curvature > 2.0, spread.clamp_max(0.29), spread)
    return present, 1.0 / (1.0 + (spread / 0.25) ** 2)
