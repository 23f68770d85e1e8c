"""Components of the simulated height field: relief, blocks, caps, pins, gauge blocks, planes; evaluated by windows.

Lengths along the surface are mosaic pixels (row, col), heights micrometres toward the cameras. Nothing is stored:
relief is a sum of plane waves, bodies stand in the cells of a lattice and are drawn from the cell's own numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from gigascope.kernels.parallel import parallel_kernel
from gigascope.topography.instrument.noise import generator

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A box of the mosaic's pixel lattice: points (row + i, col + j) for i < rows, j < cols."""

    row: int
    col: int
    rows: int
    cols: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    def grown(self, margin: int) -> Window:
        """The window with `margin` more pixels on each side."""
        return Window(self.row - margin, self.col - margin, self.rows + 2 * margin, self.cols + 2 * margin)

    def axes(self) -> tuple[F64, F64]:
        """Row (rows, 1) and column (1, cols) coordinates."""
        rows = np.arange(self.row, self.row + self.rows, dtype=np.float64)[:, None]
        return rows, np.arange(self.col, self.col + self.cols, dtype=np.float64)[None]


class Component(Protocol):
    """One additive part of the height field."""

    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value, um."""

    def add(self, heights: F64, window: Window) -> None:
        """Add to `heights` (rows, cols), um."""


@dataclass(frozen=True)
class Tilt:
    """A plane that rises by `amplitude_um` from corner to corner of a specimen of `shape`, level along its border."""

    amplitude_um: float
    shape: tuple[int, int]
    direction: float = 0.6

    def bounds(self) -> tuple[float, float]:
        return -0.5 * abs(self.amplitude_um), 0.5 * abs(self.amplitude_um)

    def add(self, heights: F64, window: Window) -> None:
        rows, cols = window.axes()
        u = np.sin(self.direction), np.cos(self.direction)
        span = abs(u[0]) * self.shape[0] + abs(u[1]) * self.shape[1]
        plane = (u[0] * (rows - self.shape[0] / 2) + u[1] * (cols - self.shape[1] / 2)) / span
        heights += self.amplitude_um * np.clip(plane, -0.5, 0.5)


@dataclass(frozen=True)
class Wedge:
    """A plane of a given angle through a centre (row, col), rising along the columns: the mount of a flat target."""

    slope_um: float
    centre: tuple[float, float]
    reach: float

    def bounds(self) -> tuple[float, float]:
        return -abs(self.slope_um) * self.reach, abs(self.slope_um) * self.reach

    def add(self, heights: F64, window: Window) -> None:
        heights += self.slope_um * (window.axes()[1] - self.centre[1])


@dataclass(frozen=True)
class Relief:
    """Band-limited random relief whose power falls with the third power of the frequency.

    A sum of plane waves of log-uniform wavelength: a wave stands for the octave share ``f df f^-3``, so its power is
    1/f. The sum g (unit variance) becomes ``amplitude tanh(g / 2) / 2``, which bounds it.
    """

    seed: int
    amplitude_um: float
    shortest_px: float = 80.0
    longest_px: float = 800.0
    n_waves: int = 160

    def bounds(self) -> tuple[float, float]:
        return -0.5 * self.amplitude_um, 0.5 * self.amplitude_um

    def add(self, heights: F64, window: Window) -> None:
        random = generator(self.seed, "relief")
        wavelength = self.shortest_px * (self.longest_px / self.shortest_px) ** random.random(self.n_waves)
        angle, phase = random.uniform(0, 2 * math.pi, (2, self.n_waves))
        weight = np.sqrt(wavelength)
        weight *= math.sqrt(2.0) / np.linalg.norm(weight)
        frequency = 2 * math.pi / wavelength
        rows, cols = window.axes()
        along_rows = np.exp(1j * (frequency * np.sin(angle) * rows + phase)) * weight
        along_cols = np.exp(1j * (frequency * np.cos(angle) * cols.T))
        total = np.empty(window.shape)
        _sum_of_waves(along_rows, along_cols, total, work=4.0 * total.size * self.n_waves)
        heights += 0.5 * self.amplitude_um * np.tanh(0.5 * total)


@dataclass(frozen=True)
class _Scattered(ABC):
    """Bodies on a jittered lattice: one in each cell of `pitch_px`, with the given probability."""

    seed: int
    amplitude_um: float
    pitch_px: float = 170.0
    probability: float = 0.7

    def bounds(self) -> tuple[float, float]:
        return min(0.0, self.amplitude_um), max(0.0, self.amplitude_um)

    def add(self, heights: F64, window: Window) -> None:
        for box, rows, cols, random in bodies(self.seed, type(self).__name__, self.pitch_px, self.probability, window):
            heights[box] += self.amplitude_um * self._profile(rows, cols, random)

    @abstractmethod
    def _profile(self, rows: F64, cols: F64, random: np.random.Generator) -> F64:
        """Height of the body, 0 to 1, at offsets (rows, 1) and (1, cols) from its centre."""


@dataclass(frozen=True)
class Blocks(_Scattered):
    """Turned boxes of different heights; edges rise as a cosine over `edge_px`, 0 for vertical ones."""

    edge_px: float = 6.0

    def _profile(self, rows: F64, cols: F64, random: np.random.Generator) -> F64:
        sides = random.uniform(0.16, 0.28, 2) * self.pitch_px
        angle, level = random.uniform(0, math.pi), random.uniform(0.4, 1.0)
        along = rows * math.sin(angle) + cols * math.cos(angle)
        across = rows * math.cos(angle) - cols * math.sin(angle)
        return (
            level
            * edge_profile(sides[0] - np.abs(along), self.edge_px)
            * edge_profile(sides[1] - np.abs(across), self.edge_px)
        )


@dataclass(frozen=True)
class Caps(_Scattered):
    """Spherical caps of height `amplitude_um` over a base circle, like the balls of a grid array."""

    radius_px: float = 40.0
    pixel_um: float = 1.302

    def _profile(self, rows: F64, cols: F64, random: np.random.Generator) -> F64:
        base, height = self.radius_px * self.pixel_um, abs(self.amplitude_um)
        ball = (base * base + height * height) / (2.0 * height)
        distance = np.minimum((rows * rows + cols * cols) * self.pixel_um**2, base * base)
        return (np.sqrt(ball * ball - distance) - (ball - height)) / height


@dataclass(frozen=True)
class Pins(_Scattered):
    """Upright cylinders, like the pins of a grid array."""

    radius_px: float = 12.0
    edge_px: float = 2.0

    def _profile(self, rows: F64, cols: F64, random: np.random.Generator) -> F64:
        return edge_profile(self.radius_px - np.hypot(rows, cols), self.edge_px)


@dataclass(frozen=True)
class Staircase:
    """Gauge blocks side by side along the columns; each is higher than the one before by the next of `steps_um`."""

    steps_um: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0, 200.0)
    width_px: float = 160.0
    edge_px: float = 0.0

    def levels(self) -> F64:
        """Heights (n_steps + 1,) of the blocks over the lowest, um."""
        return np.concatenate([[0.0], np.cumsum(self.steps_um)])

    def bounds(self) -> tuple[float, float]:
        levels = self.levels()
        return float(levels.min()), float(levels.max())

    def add(self, heights: F64, window: Window) -> None:
        levels, cols = self.levels(), window.axes()[1]
        period = len(levels) * self.width_px
        place = np.mod(cols, period)
        total = np.full_like(place, levels[0])
        for index, step in enumerate(self.steps_um, start=1):
            total += step * edge_profile(place - index * self.width_px, self.edge_px)
        # back down to the first block, where the period ends
        total -= (levels[-1] - levels[0]) * edge_profile(place - period, self.edge_px)
        heights += total


def edge_profile(inside: F64, width: float) -> F64:
    """Rise from 0 to 1 over `width` about 0, as a cosine; a step for width 0."""
    if width <= 0.0:
        return (inside >= 0.0).astype(np.float64)
    return 0.5 - 0.5 * np.cos(math.pi * np.clip(inside / width + 0.5, 0.0, 1.0))


def bodies(
    seed: int, kind: str, pitch: float, probability: float, window: Window
) -> Iterator[tuple[tuple[slice, slice], F64, F64, np.random.Generator]]:
    """Bodies of the cells that touch a window: box within it, offsets from the body's centre, the cell's numbers.

    A body stays within its cell: its centre moves by 8 % of the pitch, its radius is at most 42 % of it.
    """
    for cell_row in range(math.floor(window.row / pitch), math.floor((window.row + window.rows - 1) / pitch) + 1):
        for cell_col in range(math.floor(window.col / pitch), math.floor((window.col + window.cols - 1) / pitch) + 1):
            random = generator(seed, kind, cell_row, cell_col)
            if random.random() >= probability:
                continue
            centre = (np.array([cell_row, cell_col]) + 0.5 + random.uniform(-0.08, 0.08, 2)) * pitch
            low = (max(window.row, math.ceil(cell_row * pitch)), max(window.col, math.ceil(cell_col * pitch)))
            high = (
                min(window.row + window.rows, math.ceil((cell_row + 1) * pitch)),
                min(window.col + window.cols, math.ceil((cell_col + 1) * pitch)),
            )
            rows = np.arange(low[0], high[0], dtype=np.float64)[:, None] - centre[0]
            cols = np.arange(low[1], high[1], dtype=np.float64)[None] - centre[1]
            box = (slice(low[0] - window.row, high[0] - window.row), slice(low[1] - window.col, high[1] - window.col))
            yield box, rows, cols, random


@parallel_kernel
def _sum_of_waves(along_rows, along_cols, total):  # type: ignore[no-untyped-def]
    """Real part of a sum of separable waves. Not a matrix product: its order of summation depends on the threads."""
    n_rows, n_waves = along_rows.shape
    n_cols = along_cols.shape[0]
    for i in numba.prange(n_rows):
        for j in range(n_cols):
            value = 0.0
            for w in range(n_waves):
                a, b = along_rows[i, w], along_cols[j, w]
                value += a.real * b.real - a.imag * b.imag
            total[i, j] = value
