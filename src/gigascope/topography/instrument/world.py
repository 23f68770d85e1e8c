"""The simulated specimen: a height field and an albedo without edges, evaluated by windows.

Albedo is white noise, hashed from its place, under a filter of finite support. Two windows that overlap therefore agree
(heights to the bit, albedo to the rounding of a transform), a gigapixel specimen costs no memory, and no texture
repeats, as it would with tiles: registration then has no second match.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import ndtri

from gigascope.topography.instrument.heights import Component, Window, bodies, edge_profile
from gigascope.topography.instrument.noise import key, white_noise

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Half the support of the albedo's filter, pixels; structure of twice this length and more is flattened.
REACH = 128


@dataclass(frozen=True)
class TextureFree:
    """Discs in which the albedo loses its contrast: focus cannot be told there."""

    seed: int
    pitch_px: float = 420.0
    radius_px: float = 44.0
    edge_px: float = 8.0
    probability: float = 0.5

    def fade(self, mask: F64, window: Window) -> None:
        """Multiply `mask` (rows, cols) by the contrast that is left, 0 to 1."""
        for box, rows, cols, random in bodies(self.seed, "texture", self.pitch_px, self.probability, window):
            radius = self.radius_px * random.uniform(0.7, 1.0)
            mask[box] *= 1.0 - edge_profile(radius - np.hypot(rows, cols), self.edge_px)


@dataclass(frozen=True)
class Albedo:
    """Log-normal noise of amplitude spectrum 1/f^exponent; three colours, correlated.

    Attributes
    ----------
    contrast : standard deviation of the logarithm
    correlation : of the logarithms of two colours; 1 for a grey print
    glints : bright points per pixel, `glint_level` times white: they saturate
    """

    seed: int
    mean: float = 0.4
    contrast: float = 0.35
    exponent: float = 0.8
    correlation: float = 0.8
    low: float = 0.02
    high: float = 1.0
    glints: float = 0.0
    glint_level: float = 6.0
    texture_free: TextureFree | None = None


@dataclass(frozen=True)
class World:
    """A specimen: the sum of its components, with the middle of their range at height 0, and its albedo."""

    components: tuple[Component, ...]
    surface: Albedo
    _middle: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = self._sums()
        object.__setattr__(self, "_middle", 0.5 * (low + high))

    @property
    def range_um(self) -> tuple[float, float]:
        """Lowest and highest height that the components can reach, um; symmetric about 0."""
        low, high = self._sums()
        return low - self._middle, high - self._middle

    def heights(self, window: Window) -> F32:
        """Height (rows, cols) float32, um, at the lattice points of a window; bilinear between them."""
        out = np.full(window.shape, -self._middle)
        for component in self.components:
            component.add(out, window)
        return out.astype(np.float32)

    def texture(self, window: Window) -> F32:
        """Contrast (rows, cols) float32 that the albedo keeps: 1 textured, 0 not."""
        mask = np.ones(window.shape)
        if self.surface.texture_free is not None:
            self.surface.texture_free.fade(mask, window)
        return mask.astype(np.float32)

    def albedo(self, window: Window) -> F32:
        """Albedo (3, rows, cols) float32, R, G, B, at the lattice points of a window."""
        surface = self.surface
        wide = window.grown(REACH)
        origin, shape = (wide.row, wide.col), wide.shape
        padded = (fft.next_fast_len(shape[0], real=True), fft.next_fast_len(shape[1], real=True))
        transfer = _transfer(surface.exponent, padded)
        texture = self.texture(window)
        shared = white_noise(origin, shape, key(surface.seed, "albedo", "shared")) * np.float32(
            math.sqrt(surface.correlation)
        )
        out = np.empty((3, *window.shape), np.float32)
        for colour in range(3):
            noise = shared
            if surface.correlation < 1.0:
                own = white_noise(origin, shape, key(surface.seed, "albedo", colour))
                noise = shared + own * np.float32(math.sqrt(1.0 - surface.correlation))
            elif colour > 0:
                out[colour] = out[0]
                continue
            smooth = fft.irfft2(fft.rfft2(noise, s=padded) * transfer, s=padded)
            # circular convolution: the first 2 REACH samples of each axis are wrapped, the rest is as without edges
            field_ = smooth[2 * REACH : 2 * REACH + window.rows, 2 * REACH : 2 * REACH + window.cols]
            level = np.exp(np.float32(surface.contrast) * texture * field_ - np.float32(0.5 * surface.contrast**2))
            out[colour] = np.clip(np.float32(surface.mean) * level, surface.low, surface.high)
        if surface.glints > 0.0:
            rare = white_noise((window.row, window.col), window.shape, key(surface.seed, "glints"))
            out[:, rare > _upper_quantile(surface.glints)] = surface.glint_level
        return out

    def _sums(self) -> tuple[float, float]:
        bounds = [component.bounds() for component in self.components]
        return sum(low for low, _ in bounds), sum(high for _, high in bounds)


def bilinear(values: F32, window: Window, rows: F64, cols: F64) -> F64:
    """Bilinear value of a window's lattice at points; points outside take the nearest border."""
    y = np.clip(rows - window.row, 0.0, window.rows - 1.0)
    x = np.clip(cols - window.col, 0.0, window.cols - 1.0)
    i = np.minimum(y.astype(np.int64), window.rows - 2)
    j = np.minimum(x.astype(np.int64), window.cols - 2)
    a, b = y - i, x - j
    upper = values[i, j] * (1.0 - b) + values[i, j + 1] * b
    lower = values[i + 1, j] * (1.0 - b) + values[i + 1, j + 1] * b
    return np.asarray(upper * (1.0 - a) + lower * a, dtype=np.float64)


@functools.cache
def _kernel(exponent: float) -> F64:
    """Filter (2 REACH + 1, 2 REACH + 1) of unit power with amplitude spectrum 1/f^exponent, tapered to its border."""
    n = 2 * REACH + 1
    f = np.hypot(fft.fftfreq(n)[:, None], fft.fftfreq(n)[None])
    amplitude = np.maximum(f, 1.0 / n) ** -exponent
    kernel = np.real(fft.fftshift(fft.ifft2(amplitude)))
    offset = np.arange(n) - REACH
    radius = np.hypot(offset[:, None], offset[None]) / (REACH + 1)
    kernel *= 0.5 + 0.5 * np.cos(math.pi * np.minimum(radius, 1.0))
    return np.asarray(kernel / np.linalg.norm(kernel), dtype=np.float64)


@functools.lru_cache(maxsize=4)
def _transfer(exponent: float, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Transform of the albedo's filter on a grid of `shape`."""
    return np.asarray(fft.rfft2(_kernel(exponent), s=shape), dtype=np.complex64)


def _upper_quantile(probability: float) -> float:
    return float(-ndtri(probability))
