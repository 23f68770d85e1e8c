"""Band-passed cross-correlation of two images with a sub-pixel peak."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Peak:
    """Where two images agree best.

    Parameters
    ----------
    shift : (d_s, d_y), pixels; the second image's content lies by this much further along each axis
    height : correlation coefficient at the peak within the pass band, -1..1
    at_limit : the largest value found lies at the border of the search and is no peak
    """

    shift: tuple[float, float]
    height: float
    at_limit: bool = False


def band_pass(
    shape: tuple[int, int], low: float, high: float, *, half: bool = True, device: torch.device | str = "cpu"
) -> Tensor:
    """G = exp(-(k/low)^2/2) (1 - exp(-(k/high)^2/2)) on the frequencies of an FFT, k in cycles per pixel.

    Parameters
    ----------
    shape : of the image
    low, high : radii of the low-pass and the high-pass; high 0: no high-pass but the mean
    half : frequencies of `rfft2` instead of `fft2`

    Returns
    -------
    (n, m) float32
    """
    k_0 = torch.fft.fftfreq(shape[0], device=device)
    k_1 = (torch.fft.rfftfreq if half else torch.fft.fftfreq)(shape[1], device=device)
    k2 = k_0[:, None] ** 2 + k_1[None, :] ** 2
    passed = torch.exp(-k2 / (2.0 * low**2))
    if high > 0:
        return passed * (1.0 - torch.exp(-k2 / (2.0 * high**2)))
    return torch.where(k2 > 0, passed, torch.zeros_like(passed))


def edge_taper(n: int, width: float) -> Tensor:
    """1 inside, raised cosine over `width` samples at both ends; (n,) float32."""
    x = torch.arange(n, dtype=torch.float64)
    depth = torch.minimum(x, n - 1 - x) + 0.5
    inside = torch.clamp(depth / max(width, 1e-9), 0.0, 1.0)
    return (0.5 - 0.5 * torch.cos(math.pi * inside)).float()


def frame_taper(shape: tuple[int, int], taper: float, device: torch.device | str = "cpu") -> Tensor:
    """Separable raised-cosine window over `taper` of each side, of that shape, float32."""
    w_0, w_1 = (edge_taper(n, taper * n) for n in shape)
    return (w_0[:, None] * w_1[None, :]).to(device)


class Correlator:
    """Plain product of band-passed spectra (no whitening, which fails when a pixel is mostly noise).

    Parameters
    ----------
    shape : (s, y) of the images
    low_pass, high_pass : of the band, cycles per pixel
    max_shift : farthest peak looked for along each axis, pixels
    """

    def __init__(
        self, shape: tuple[int, int], low_pass: float, high_pass: float, max_shift: float, device: torch.device | str
    ) -> None:
        self.shape = shape
        self.filter = band_pass(shape, low_pass, high_pass, device=device)
        twice = torch.full((shape[1] // 2 + 1,), 2.0, device=device)
        twice[0] = 1.0
        if shape[1] % 2 == 0:
            twice[-1] = 1.0
        self.twice = twice
        self.lags = [torch.fft.fftfreq(n, d=1.0 / n, device=device) for n in shape]
        self.allowed = (self.lags[0].abs()[:, None] <= max_shift) & (self.lags[1].abs()[None, :] <= max_shift)

    def spectrum(self, image: Tensor, weight: Tensor) -> Tensor:
        """Band-passed spectrum of an image under a window, its weighted mean removed."""
        total = torch.clamp(weight.sum(dtype=torch.float64), min=1e-12)
        mean = ((image * weight).sum(dtype=torch.float64) / total).float()
        return torch.fft.rfft2((image - mean) * weight) * self.filter

    def peak(self, reference: Tensor, image: Tensor) -> Peak:
        """Peak of the correlation of two spectra of :meth:`spectrum`, refined by a parabola along each axis."""
        surface = torch.fft.irfft2(reference.conj() * image, s=self.shape)
        power = math.sqrt(self._power(reference) * self._power(image)) / (self.shape[0] * self.shape[1])
        if power <= 0.0:
            return Peak((0.0, 0.0), 0.0)
        best = int(torch.where(self.allowed, surface, surface.new_tensor(-math.inf)).argmax())
        i, j = divmod(best, self.shape[1])
        rows = surface[[(i - 1) % self.shape[0], i, (i + 1) % self.shape[0]], j].tolist()
        columns = surface[i, [(j - 1) % self.shape[1], j, (j + 1) % self.shape[1]]].tolist()
        shift = (float(self.lags[0][i]) + vertex(*rows), float(self.lags[1][j]) + vertex(*columns))
        return Peak(shift, rows[1] / power, rows[1] < max(rows) or columns[1] < max(columns))

    def _power(self, spectrum: Tensor) -> float:
        return float((spectrum.abs() ** 2 * self.twice).sum(dtype=torch.float64))


def vertex(left: float, middle: float, right: float) -> float:
    """Place of a parabola's top through three samples at -1, 0, 1, within half a sample; 0 if it has none."""
    curvature = left - 2.0 * middle + right
    if curvature >= 0.0:
        return 0.0
    return max(-0.5, min(0.5, 0.5 * (left - right) / curvature))
