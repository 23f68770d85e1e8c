"""Fourier ring and shell correlation: how alike two images or volumes are at each spatial frequency.

Frequencies are cycles per pixel of the finest axis; sums run in float64, plane by plane, so that a volume needs no more
than its two transforms. van Heel and Schatz, J. Struct. Biol. 151 (2005) 250.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class CorrelationCurve:
    """Correlation of two images over spatial frequency.

    Parameters
    ----------
    frequency : (shell,) float64, mean frequency of the shell's samples, cycles per pixel
    correlation : (shell,) float64, -1..1; 0 where a shell holds no samples or no power
    n_samples : (shell,) int64, Fourier samples of the whole (two-sided) spectrum in the shell
    """

    frequency: F64
    correlation: F64
    n_samples: NDArray[np.int64]

    def full(self) -> CorrelationCurve:
        """2 FSC / (1 + FSC): the correlation to expect of the sum of both halves with one more such sum."""
        # at and below -1/3 the sum's estimate leaves -1..1 and means nothing
        bounded = np.maximum(self.correlation, -1.0 / 3.0)
        return CorrelationCurve(self.frequency, 2.0 * bounded / (1.0 + bounded), self.n_samples)


def frc(
    a: Tensor | NDArray[np.floating], b: Tensor | NDArray[np.floating], *, window: Tensor | None = None
) -> CorrelationCurve:
    """Fourier ring correlation of two images, or of stacks of images ring by ring over the whole stack.

    Parameters
    ----------
    a, b : (h, w) or (n, h, w), any float dtype; the mean under the window is removed from each image
    window : (h, w) or (n, h, w) weights 0..1 that both are multiplied with; default :func:`taper_window`

    Returns
    -------
    CorrelationCurve, one entry per ring of one sample of the longer axis, up to 0.5 cycles per pixel

    Raises
    ------
    ShapeError : the images differ in shape, or are not 2-D
    """
    a, b = _pair(a, b, (2, 3))
    a, b = (v if v.ndim == 3 else v[None] for v in (a, b))
    window = taper_window(tuple(a.shape[1:])) if window is None else window
    window = window.to(a).expand_as(a)
    sums = _Shells(max(a.shape[1:]), a.device)
    radius = _radius(tuple(a.shape[1:]), (1.0, 1.0), a.device)
    for view_a, view_b, w in zip(a, b, window):
        f_a, f_b = (torch.fft.rfft2(_windowed(v, w)) for v in (view_a, view_b))
        sums.add(radius, f_a, f_b, a.shape[2], None)
    return sums.curve()


def fsc(
    a: Tensor | NDArray[np.floating],
    b: Tensor | NDArray[np.floating],
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    window: Tensor | None = None,
    wedge: tuple[float, float] | None = None,
    wedge_axis: int = 2,
) -> CorrelationCurve:
    """Fourier shell correlation of two volumes, on request only inside the measured double wedge of a tilt series.

    Parameters
    ----------
    a, b : volumes with z as the first axis, (z, y, x) or (z, x, y), any float dtype
    spacing : voxel sizes of the three axes relative to the finest pixel (1, 1, 1 or hz, 1, 1)
    window : weights 0..1 of the volume's shape; default :func:`taper_window`
    wedge : (lowest, highest) tilt angle in radians: only tan(lowest) <= k_z / k_x <= tan(highest) counts
    wedge_axis : axis of x, across the tilt axis: 2 for (z, y, x), 1 for (z, x, y)

    Returns
    -------
    CorrelationCurve, shells of one sample of the longest axis, up to 0.5 cycles per pixel

    Raises
    ------
    ShapeError : the volumes differ in shape, or are not 3-D
    """
    a, b = _pair(a, b, (3,))
    shape = (a.shape[0], a.shape[1], a.shape[2])
    window = taper_window(shape) if window is None else window
    f_a, f_b = (torch.fft.rfftn(_windowed(v, window.to(v))) for v in (a, b))
    k_z = torch.fft.fftfreq(shape[0], d=spacing[0], dtype=torch.float64, device=a.device)
    plane = _radius(shape[1:], spacing[1:], a.device)
    k_x = _axis_frequencies(shape[1:], spacing[1:], wedge_axis - 1, a.device)
    sums = _Shells(max(round(n * d) for n, d in zip(shape, spacing)), a.device)
    for i in range(shape[0]):
        inside = None if wedge is None else inside_wedge(k_z[i], k_x, wedge)
        sums.add(torch.sqrt(plane**2 + k_z[i] ** 2), f_a[i], f_b[i], shape[2], inside)
    return sums.curve()


def inside_wedge(k_z: Tensor, k_x: Tensor, wedge: tuple[float, float]) -> Tensor:
    """True where (k_x, k_z) lies on the central slice of a tilt angle between the two (radians); bool, broadcast.

    The slice of angle t is k_z = k_x tan t; the line k_x = k_z = 0 belongs to every one of them.
    """
    low, high = wedge
    if low <= -math.pi / 2 and high >= math.pi / 2:
        return torch.ones_like(k_z * k_x, dtype=torch.bool)
    # tangents of +-90 degrees stay finite so that 0 * tan is 0
    limit = math.pi / 2 - 1e-9
    below, above = math.tan(max(low, -limit)) * k_x, math.tan(min(high, limit)) * k_x
    return (k_z >= torch.minimum(below, above)) & (k_z <= torch.maximum(below, above))


def taper_window(shape: tuple[int, ...], taper: float = 0.12) -> Tensor:
    """Separable window: 1 inside, raised cosine over `taper` of each axis at both ends; float64 of that shape."""
    window = torch.ones(shape, dtype=torch.float64)
    for axis, n in enumerate(shape):
        edge = torch.arange(n, dtype=torch.float64)
        distance = torch.minimum(edge, n - 1 - edge) + 0.5
        profile = 0.5 - 0.5 * torch.cos(math.pi * torch.clamp(distance / max(taper * n, 1e-9), max=1.0))
        window *= profile.reshape([n if i == axis else 1 for i in range(len(shape))])
    return window


def crossing(curve: CorrelationCurve, threshold: float) -> float:
    """Frequency (cycles per pixel) at which the curve first falls below the threshold, interpolated linearly.

    The last frequency if it never does, 0.0 if it starts below it (there is no resolution to state). The mean
    (frequency 0) is not looked at.
    """
    use = (curve.n_samples > 0) & (curve.frequency > 0)
    frequency, value = curve.frequency[use], curve.correlation[use]
    below = np.flatnonzero(value < threshold)
    if below.size == 0:
        return float(frequency[-1]) if frequency.size else 0.0
    i = int(below[0])
    if i == 0:
        return 0.0
    step = (value[i - 1] - threshold) / (value[i - 1] - value[i])
    return float(frequency[i - 1] + step * (frequency[i] - frequency[i - 1]))


def resolution_length(frequency: float, pixel_size: float) -> float:
    """Resolution as a length in the unit of `pixel_size`, pixel size / frequency; infinite at frequency 0."""
    return math.inf if frequency <= 0 else pixel_size / frequency


class _Shells:
    """Sums of cross and power spectra over shells of equal width."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.n, self.n_shells = n, n // 2 + 1
        self.sums = torch.zeros((5, self.n_shells), dtype=torch.float64, device=device)

    def add(self, radius: Tensor, f_a: Tensor, f_b: Tensor, n_last: int, inside: Tensor | None) -> None:
        """Add one plane of half-spectra; `radius` in cycles per pixel, `n_last` the length of the halved axis."""
        # of a real image the halved axis holds every frequency once except 0 and the even Nyquist, which have no twin
        twice = torch.full((f_a.shape[-1],), 2.0, dtype=torch.float64, device=radius.device)
        twice[0] = 1.0
        if n_last % 2 == 0:
            twice[-1] = 1.0
        weight = twice.expand_as(radius)
        shell = torch.round(radius * self.n).long()
        keep = (shell < self.n_shells) & (radius <= 0.5 + 1e-12)
        keep = keep if inside is None else keep & inside
        shell, weight = shell[keep], weight[keep]
        f_a, f_b = (f[keep].to(torch.complex128) for f in (f_a, f_b))
        terms = ((f_a * f_b.conj()).real, f_a.abs() ** 2, f_b.abs() ** 2, radius[keep], torch.ones_like(weight))
        for row, term in zip(self.sums, terms):
            row += torch.bincount(shell, term * weight, self.n_shells)

    def curve(self) -> CorrelationCurve:
        cross, power_a, power_b, frequency, count = (row.cpu().numpy() for row in self.sums)
        power = np.sqrt(power_a * power_b)
        nominal = np.arange(self.n_shells) / self.n
        return CorrelationCurve(
            np.divide(frequency, count, out=nominal, where=count > 0),
            np.divide(cross, power, out=np.zeros_like(cross), where=power > 0),
            np.round(count).astype(np.int64),
        )


def _pair(
    a: Tensor | NDArray[np.floating], b: Tensor | NDArray[np.floating], ndim: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if a.shape != b.shape or a.ndim not in ndim:
        raise ShapeError(f"shapes {tuple(a.shape)} and {tuple(b.shape)}: expected two equal ones of {ndim} dimensions")
    return a, b.to(a.device)


def _windowed(image: Tensor, window: Tensor) -> Tensor:
    total = window.sum(dtype=torch.float64)
    mean = (image * window).sum(dtype=torch.float64) / torch.clamp(total, min=1e-300)
    return (image - mean.to(image.dtype)) * window


def _axis_frequencies(shape: tuple[int, ...], spacing: tuple[float, ...], axis: int, device: torch.device) -> Tensor:
    """Frequencies along one axis of a half-spectrum plane, (n, m // 2 + 1) float64, cycles per pixel."""
    full = torch.fft.fftfreq(shape[0], d=spacing[0], dtype=torch.float64, device=device)
    half = torch.fft.rfftfreq(shape[1], d=spacing[1], dtype=torch.float64, device=device)
    return (full[:, None] if axis == 0 else half[None, :]).expand(len(full), len(half))


def _radius(shape: tuple[int, ...], spacing: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.hypot(*(_axis_frequencies(shape, spacing, axis, device) for axis in (0, 1)))
