"""The sensor of the synthetic instrument: shading, shot and read noise, colour mosaic, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.instrument.heights import Window
from gigascope.topography.instrument.noise import expose, generator, key

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

PATTERNS = ("GBRG", "GRBG", "RGGB", "BGGR")
GREEN = 1


@dataclass(frozen=True)
class Sensor:
    """Photometry of a camera.

    Attributes
    ----------
    pattern : colours of the top-left 2 x 2 block by rows, or None for a camera without colour mosaic
    colours : 1 (green) or 3, where there is no mosaic
    snr : signal over shot and read noise at albedo 0.4
    read_electrons : standard deviation of the read noise
    white : counts of albedo 1 under even light, low enough that gains do not saturate it
    vignetting : loss at the corner, falling with the square of the radius
    gain : standard deviation of the cameras' gains
    gradient : change of the illumination across the field, in a direction of each camera's own
    """

    pattern: str | None = "GBRG"
    colours: int = 1
    snr: float = 55.0
    read_electrons: float = 2.0
    white: float = 235.0
    vignetting: float = 0.15
    gain: float = 0.03
    gradient: float = 0.05

    def __post_init__(self) -> None:
        if self.pattern is not None and self.pattern not in PATTERNS:
            raise UserError(f"no Bayer pattern {self.pattern!r}, expected one of {', '.join(PATTERNS)} or none")
        if self.colours not in (1, 3):
            raise UserError(f"a camera has 1 or 3 colours, not {self.colours}")

    @property
    def n_channels(self) -> int:
        """Values per pixel: 1 with a mosaic."""
        return self.colours if self.pattern is None else 1

    @property
    def electrons_per_count(self) -> float:
        """From the signal-to-noise ratio q at albedo 0.4: N / sqrt(N + read^2) = q."""
        q2 = self.snr**2
        electrons = 0.5 * (q2 + np.sqrt(q2 * q2 + 4.0 * q2 * self.read_electrons**2))
        return float(electrons / (0.4 * self.white))

    def seen(self, block: Window) -> list[NDArray[np.int8]]:
        """Colour (rows, cols) int8 that each pixel of a block sees, one array per value of a pixel."""
        if self.pattern is None:
            channels = [GREEN] if self.colours == 1 else [0, 1, 2]
            return [np.full(block.shape, channel, np.int8) for channel in channels]
        tile = np.array(["RGB".index(letter) for letter in self.pattern], np.int8).reshape(2, 2)
        rows, cols = block.row + np.arange(block.rows), block.col + np.arange(block.cols)
        return [tile[rows[:, None] % 2, cols[None] % 2]]

    def shading(self, size: int, camera: tuple[int, int], seed: int, block: Window) -> F32:
        """Factor (rows, cols) float32 of a camera's vignetting, gain and illumination, 1 without them."""
        random = generator(seed, "sensor", *camera)
        gain, angle = 1.0 + self.gain * random.standard_normal(), random.uniform(0.0, 2.0 * np.pi)
        rows, cols = block.axes()
        y, x = (rows - size / 2) / size, (cols - size / 2) / size
        light = 1.0 + self.gradient * (y * np.sin(angle) + x * np.cos(angle))
        return np.asarray(gain * light * (1.0 - self.vignetting * 2.0 * (y * y + x * x)), dtype=np.float32)

    def expose(self, radiance: F32, shade: F32, seed: int, purpose: tuple[str | int, ...], block: Window) -> U8:
        """Counts (n_z, rows, cols) uint8 of a block of a view; a pixel's noise depends on its place, not on the block.

        Parameters
        ----------
        radiance : (n_z, rows, cols) float32
        shade : (rows, cols) float32, see :meth:`shading`
        purpose : what tells the view and the channel from others
        """
        out = np.empty(radiance.shape, np.uint8)
        expose(
            radiance,
            shade,
            out,
            key(seed, "exposure", *purpose),
            origin=(block.row, block.col),
            counts=self.white,
            electrons=self.electrons_per_count,
            read=self.read_electrons,
        )
        return out
