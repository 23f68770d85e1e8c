"""How far a decoded volume is from the original: PSNR by region, noise ceilings, residual over intensity, projections.

Volumes are anything with a shape that gives numpy arrays when it is sliced (numpy, a memory map, a Zarr array): they
are read box by box and never held whole. Sums run in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Box = tuple[slice, slice, slice]
# (values in the units of the file) -> their variance by noise
Variance = Callable[[F64], Any]

# 64 MiB of float32 per array of a box
BOX_VOXELS = 2**24


class Voxels(Protocol):
    """A volume (z, y, x) that is read by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Above:
    """Where a volume exceeds a threshold, as a volume of booleans that is never held whole."""

    volume: Voxels
    threshold: float

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x)."""
        return self.volume.shape

    def __getitem__(self, key: Any, /) -> NDArray[np.bool_]:
        return np.asarray(self.volume[key]) > self.threshold


def boxes(shape: tuple[int, ...], limit: int = BOX_VOXELS) -> Iterator[Box]:
    """Cut a volume into boxes of at most `limit` voxels: whole planes, or whole rows of x where a plane is larger.

    Depths above 64 are multiples of 64, since bricks in the stores are 64 planes deep.
    """
    n_z, n_y, n_x = shape
    rows = max(1, min(n_y, limit // n_x))
    depth = max(1, min(n_z, limit // (rows * n_x)))
    if depth > 64:
        depth -= depth % 64
    for z in range(0, n_z, depth):
        for y in range(0, n_y, rows):
            yield slice(z, min(z + depth, n_z)), slice(y, min(y + rows, n_y)), slice(0, n_x)


def value_range(volume: Voxels) -> tuple[float, float]:
    """Smallest and largest value."""
    low, high = math.inf, -math.inf
    for box in boxes(volume.shape):
        values = np.asarray(volume[box])
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def psnr(
    reference: Voxels, test: Voxels, peak: float, regions: Mapping[str, Voxels | None] | None = None
) -> dict[str, float]:
    """10 log10(peak^2 / mean squared difference), in dB, over regions of two volumes.

    Parameters
    ----------
    reference, test : (z, y, x), any real dtype, same unit
    peak : the value that counts as full scale, above 0; for 11.1's definition max - min of the original
    regions : name to mask of the same shape, none for all voxels; default {"whole": None}

    Returns
    -------
    dB by name of region; infinite where nothing differs, NaN for a region without voxels

    Raises
    ------
    ShapeError : the volumes or masks differ in shape
    """
    regions = {"whole": None} if regions is None else regions
    _same_shape(reference, test, *regions.values())
    errors, counts = dict.fromkeys(regions, 0.0), dict.fromkeys(regions, 0)
    for box in boxes(reference.shape):
        squared = (np.asarray(test[box], np.float64) - np.asarray(reference[box], np.float64)) ** 2
        _add_means(squared, box, regions, errors, counts)
    return {name: _decibel(peak, errors[name], counts[name]) for name in regions}


def noise_ceiling(
    volume: Voxels, variance: Variance, peak: float, regions: Mapping[str, Voxels | None] | None = None
) -> dict[str, float]:
    """PSNR in dB that the noise-free volume itself would have against the noisy one, by region.

    Parameters
    ----------
    volume : the noisy original; its noise averages out of the mean variance, which is linear in the value
    variance : of the noise at a value, in the units of the file
    peak, regions : as in :func:`psnr`
    """
    regions = {"whole": None} if regions is None else regions
    _same_shape(volume, *regions.values())
    sums, counts = dict.fromkeys(regions, 0.0), dict.fromkeys(regions, 0)
    for box in boxes(volume.shape):
        noise = np.asarray(variance(np.asarray(volume[box], np.float64)), np.float64)
        _add_means(noise, box, regions, sums, counts)
    return {name: _decibel(peak, sums[name], counts[name]) for name in regions}


@dataclass(frozen=True)
class ResidualCurve:
    """Residual in units of the noise, by intensity of the decoded volume.

    Attributes
    ----------
    edges : (n + 1,) float64, lower edges of equal steps of the range and the last upper edge, units of the file
    n_voxels : (n,) int64
    sd : (n,) float64, root mean square of residual / noise sd, NaN without voxels; at 1 nothing but noise is lost
    mean : (n,) float64, mean of residual / noise sd
    beyond : (n,) float64, fraction of voxels further out than 4 noise sd
    """

    edges: F64
    n_voxels: NDArray[np.int64]
    sd: F64
    mean: F64
    beyond: F64

    def extremes(self, least: int = 1000) -> tuple[float, float]:
        """Smallest and largest sd among steps with at least so many voxels; NaN if there is none."""
        sd = self.sd[self.n_voxels >= least]
        return (float(sd.min()), float(sd.max())) if sd.size else (math.nan, math.nan)


def residual_curve(
    volume: Voxels,
    decoded: Voxels,
    variance: Variance,
    value_range: tuple[float, float],
    *,
    steps: int = 10,
    region: Voxels | None = None,
) -> ResidualCurve:
    """Normalised residual in every tenth of the intensity range.

    Voxels are sorted by their *decoded* value, and the noise is that of the decoded value: sorted by the noisy value,
    each step would select the noise that put its voxels there.

    Parameters
    ----------
    volume, decoded : (z, y, x), units of the file
    variance : of the noise at a value
    value_range : (min, max) of the original; decoded values outside count in the first or last step
    region : only voxels inside
    """
    _same_shape(volume, decoded, region)
    low, high = value_range
    count, first, second, far = np.zeros((4, steps))
    for box in boxes(volume.shape):
        values, original = np.asarray(decoded[box], np.float64), np.asarray(volume[box], np.float64)
        if region is not None:
            inside = np.asarray(region[box], bool)
            values, original = values[inside], original[inside]
        step = np.clip((values - low) / max(high - low, 1e-300) * steps, 0, steps - 1).astype(np.intp).ravel()
        # a constant without noise has variance 0 and residual 0: 0 / tiny stays 0
        sd = np.sqrt(np.maximum(np.asarray(variance(values), np.float64), 1e-24))
        ratio = ((original - values) / sd).ravel()
        count += np.bincount(step, minlength=steps)
        first += np.bincount(step, ratio, minlength=steps)
        second += np.bincount(step, ratio * ratio, minlength=steps)
        far += np.bincount(step, np.abs(ratio) > 4.0, minlength=steps)
    some = np.where(count > 0, count, np.nan)
    edges = np.linspace(low, high, steps + 1)
    return ResidualCurve(edges, count.astype(np.int64), np.sqrt(second / some), first / some, far / some)


def maximum_projections(volume: Voxels) -> tuple[F32, F32, F32]:
    """Maximum along z, y and x: (y, x), (z, x), (z, y) float32."""
    n_z, n_y, n_x = volume.shape
    along_z, along_y, along_x = (np.full(s, -np.inf, np.float32) for s in ((n_y, n_x), (n_z, n_x), (n_z, n_y)))
    for box in boxes(volume.shape):
        values = np.asarray(volume[box], np.float32)
        z, y, _ = box
        np.maximum(along_z[y], values.max(0), out=along_z[y])
        np.maximum(along_y[z], values.max(1), out=along_y[z])
        along_x[z, y] = values.max(2)
    return along_z, along_y, along_x


def fraction(region: Voxels) -> float:
    """Share of the voxels inside a mask."""
    inside = sum(int(np.count_nonzero(np.asarray(region[box]))) for box in boxes(region.shape))
    return inside / math.prod(region.shape)


def _add_means(
    values: F64,
    box: Box,
    regions: Mapping[str, Voxels | None],
    sums: dict[str, float],
    counts: dict[str, int],
) -> None:
    for name, region in regions.items():
        if region is None:
            inside = values
        else:
            inside = values[np.asarray(region[box], bool)]
        sums[name] += float(inside.sum())
        counts[name] += inside.size


def _decibel(peak: float, total: float, count: int) -> float:
    if count == 0:
        return math.nan
    return math.inf if total == 0 else 10.0 * math.log10(peak * peak * count / total)


def _same_shape(first: Voxels, *others: Voxels | None) -> None:
    if len(first.shape) != 3:
        raise ShapeError(f"a volume has three axes (z, y, x), not shape {tuple(first.shape)}")
    for other in others:
        if other is not None and tuple(other.shape) != tuple(first.shape):
            raise ShapeError(f"volumes and masks of one comparison have one shape, not {first.shape} and {other.shape}")
