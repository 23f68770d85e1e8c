"""The bench volume: simulated neurons under a confocal microscope with known truth, for rate against distortion.

Somata with tapering random-walk neurites and spines, blurred by the microscope, over haze, with the shot and read noise
of a camera. The same seed gives the same voxels; the noise-free volume is known. Used by the benchmarks, the tests and
the demo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import ShapeError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U16 = NDArray[np.uint16]

SHAPE = (100, 320, 400)
SEED = 20240607
N_CELLS = 42
GAIN, OFFSET, READ_ELECTRONS = 2.2, 100.0, 1.6
BACKGROUND_ELECTRONS = 12.0
# PSF of the simulated microscope, standard deviation in voxels
BLUR = (1.3, 0.9, 0.9)
# an object is stamped out to this many radii, where it is at 5 % of its level
REACH = 1.5
FLATNESS = 0.6


@dataclass(frozen=True)
class BenchVolume:
    """A simulated volume with its truth.

    Attributes
    ----------
    volume : (z, y, x) uint16, 12 significant bits, camera units (DN)
    clean : (z, y, x) float32, the mean of `volume` over the noise, DN
    gain : DN per photo-electron; the variance at mean v is ``gain (v - offset) + read^2`` (and 1/12 of rounding)
    offset : DN without light
    read : standard deviation of the read noise, DN
    """

    volume: U16
    clean: F32
    gain: float = GAIN
    offset: float = OFFSET
    read: float = GAIN * READ_ELECTRONS

    def foreground(self) -> float:
        """Fraction of the voxels above 10 % of the range."""
        low, high = int(self.volume.min()), int(self.volume.max())
        return float(np.mean(self.volume > low + 0.1 * (high - low)))

    def crop(self, corner: tuple[int, int, int], shape: tuple[int, int, int]) -> BenchVolume:
        """The box of that shape (z, y, x) at a corner, as contiguous arrays."""
        box = tuple(slice(c, c + n) for c, n in zip(corner, shape))
        volume, clean = np.ascontiguousarray(self.volume[box]), np.ascontiguousarray(self.clean[box])
        return BenchVolume(volume, clean, self.gain, self.offset, self.read)


def bench_volume(
    shape: tuple[int, int, int] = SHAPE, seed: int = SEED, peak: float = 1500.0, cells: int | None = None
) -> BenchVolume:
    """Simulate neurons and their image.

    Parameters
    ----------
    shape : (z, y, x) voxels, each axis at least 12
    seed : of the generator
    peak : mean photo-electrons at the brightest voxel of the signal; 150 is the dim variant
    cells : number of neurons; none: as dense as 42 in 100 x 320 x 400, at least one

    Raises
    ------
    ShapeError : an axis is too short for a soma
    """
    if len(shape) != 3 or min(shape) < 12:
        raise ShapeError(f"a bench volume has three axes of at least 12 voxels, not {shape}")
    rng = np.random.default_rng(seed)
    if cells is None:
        cells = max(1, round(N_CELLS * math.prod(shape) / math.prod(SHAPE)))
    signal = np.zeros(shape, np.float32)
    _stamp(signal, np.concatenate([_cell(rng, shape) for _ in range(cells)]))
    signal = ndimage.gaussian_filter(signal, BLUR)
    signal /= signal.max()
    mean = (BACKGROUND_ELECTRONS * (0.5 + _haze(rng, shape)) + peak * signal).astype(np.float32)
    electrons = rng.poisson(mean) + rng.normal(0.0, READ_ELECTRONS, shape)
    volume = np.clip(np.rint(OFFSET + GAIN * electrons), 0, 4095).astype(np.uint16)
    return BenchVolume(volume, OFFSET + np.float32(GAIN) * mean)


def bench_crop(
    bench: BenchVolume | None = None, shape: tuple[int, int, int] = (64, 128, 128), foreground: float = 0.109
) -> BenchVolume:
    """The box of the bench volume whose foreground, above 10 % of its own range, is nearest to a fraction.

    Corners on a grid of 4 voxels; of equally good ones the first. The default shape has 10 to 12 % of foreground;
    (32, 64, 64) is the demo's.

    Raises
    ------
    ShapeError : the box is larger than the volume
    """
    bench = bench_volume() if bench is None else bench
    whole = bench.volume.shape
    if any(n > w for n, w in zip(shape, whole)):
        raise ShapeError(f"a box of {shape} does not fit into a volume of {whole}")
    low, high = float(bench.volume.min()), float(bench.volume.max())
    counts = _box_sums(bench.volume > low + 0.1 * (high - low), shape)[::4, ::4, ::4]
    target = foreground * math.prod(shape)
    best: tuple[float, BenchVolume] | None = None
    # The range of the whole volume ranks the boxes, then their own range decides: 64 boxes hold one that serves.
    for flat in np.argsort(np.abs(counts - target), axis=None, kind="stable")[:64]:
        corner = [4 * int(i) for i in np.unravel_index(flat, counts.shape)]
        box = bench.crop((corner[0], corner[1], corner[2]), shape)
        distance = abs(box.foreground() - foreground)
        if best is None or distance < best[0]:
            best = distance, box
    assert best is not None  # a box that fits has a corner
    return best[1]


def _box_sums(mask: NDArray[np.bool_], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Number of true voxels in every box of a shape, by summed areas; (z - bz + 1, ...) int64."""
    sums = np.pad(mask.astype(np.int64), ((1, 0),) * 3).cumsum(0).cumsum(1).cumsum(2)
    for axis, n in enumerate(shape):
        length = sums.shape[axis] - n
        sums = np.take(sums, range(n, n + length), axis) - np.take(sums, range(length), axis)
    return sums


def _cell(rng: np.random.Generator, shape: tuple[int, int, int]) -> F64:
    """Objects (n, 5) of one neuron: centre z, y, x, radius, level."""
    size = np.array(shape, np.float64)
    # a short volume keeps half of each axis for the centres
    margin = np.minimum((8.0, 20.0, 20.0), size / 4)
    soma = rng.uniform(margin, size - margin)
    objects = [np.array([[*soma, rng.uniform(7, 13), rng.uniform(0.5, 1)]])]
    objects += [_neurite(rng, soma, size) for _ in range(6)]
    return np.concatenate(objects)


def _neurite(rng: np.random.Generator, start: F64, size: F64) -> F64:
    """Objects (n, 5) along one random walk away from the soma."""
    place, border = start.copy(), np.array((2.0, 3.0, 3.0))
    direction = rng.normal(size=3) * (0.35, 1.0, 1.0)
    direction /= np.linalg.norm(direction)
    radius, level = rng.uniform(1.8, 3.4), rng.uniform(0.3, 0.8)
    n_steps = int(rng.uniform(80, 260))
    turns = rng.normal(size=(n_steps, 3)) * (0.08, 0.16, 0.16)
    has_spine = rng.random(n_steps) < 0.06
    objects = []
    for turn, spine in zip(turns, has_spine):
        objects.append([*place, radius, level])
        radius = max(0.8, radius * 0.997)
        if spine:
            tip = place + rng.normal(size=3) * (0.8, 1.6, 1.6)
            objects.append([*tip, rng.uniform(0.8, 1.2), level * rng.uniform(0.6, 1.2)])
        direction += turn
        direction /= np.linalg.norm(direction)
        place = place + direction
        if np.any(place < border) or np.any(place > size - 1 - border):
            break
    return np.array(objects)


@numba.njit(cache=True)
def _stamp(signal: F32, objects: F64) -> None:
    """Combine ellipsoids `a / (1 + exp(6 (rho - 1)))`, semi-axes (0.6 r, r, r), into a volume by maximum."""
    n_z, n_y, n_x = signal.shape
    for index in range(objects.shape[0]):
        z, y, x, radius, level = objects[index]
        reach, flat = REACH * radius, FLATNESS * radius
        for k in range(max(0, math.ceil(z - FLATNESS * reach)), min(n_z - 1, math.floor(z + FLATNESS * reach)) + 1):
            for j in range(max(0, math.ceil(y - reach)), min(n_y - 1, math.floor(y + reach)) + 1):
                for i in range(max(0, math.ceil(x - reach)), min(n_x - 1, math.floor(x + reach)) + 1):
                    rho = math.sqrt(((k - z) / flat) ** 2 + ((j - y) / radius) ** 2 + ((i - x) / radius) ** 2)
                    if rho <= REACH:
                        value = np.float32(level / (1.0 + math.exp(6.0 * (rho - 1.0))))
                        signal[k, j, i] = max(signal[k, j, i], value)


def _haze(rng: np.random.Generator, shape: tuple[int, int, int]) -> F32:
    """Smooth out-of-focus light, 0 to 1."""
    grid = rng.random((6, 9, 11))
    for axis, n in enumerate(shape):
        place = np.linspace(0.0, grid.shape[axis] - 1.0, n)
        low = np.minimum(place.astype(np.int64), grid.shape[axis] - 2)
        weight = (place - low).reshape([-1 if i == axis else 1 for i in range(3)])
        grid = (1.0 - weight) * np.take(grid, low, axis) + weight * np.take(grid, low + 1, axis)
    grid -= grid.min()
    return (grid / grid.max()).astype(np.float32)
