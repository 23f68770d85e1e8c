"""What is measured in the tiles of a set of images: counts of intensities, spectra, features, patches, noise.

A set of any size is measured in a number of tiles spread evenly over what is spheroid; all that is kept of a tile are
sums, so that memory does not grow with the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.metrics.kernel_distance import RandomFeatures
from gigascope.metrics.patches import PATCH, take_patches
from gigascope.metrics.photon_transfer import PhotonTransfer
from gigascope.metrics.spectrum import ring_power
from gigascope.metrics.wasserstein import FOREGROUND, INNER, NEITHER, OUTER
from gigascope.synthesis.evaluation.segmenting import Classical
from gigascope.synthesis.evaluation.surroundings import Surroundings, surroundings
from gigascope.synthesis.evaluation.volumes import ImageSet, Region, lattice

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
Progress = Callable[..., Iterable[Any]]
# Intensities are counted from -1.5 to 3 in steps of 1/256, where -1 and 1 are the percentiles of the set.
LOWEST, HIGHEST, PER_UNIT = -1.5, 3.0, 256
BINS = int((HIGHEST - LOWEST) * PER_UNIT)
# Depths are counted in steps of this, up to the last.
DEPTH_UM, N_DEPTHS = 10.0, 50
N_REGIONS = 3
# A tile is used with this share of spheroid.
LEAST_SHARE = 0.2
# Each set is to hold so many tiles that do not overlap, as long as they are no smaller than this (z, y, x).
LEAST_TILES, LEAST_TILE = 4, (8, 32, 32)
PERCENTILES = (0.1, 99.9)
# Noise is measured this many pixels from the border of a nucleus, where the image bends less than it scatters.
EDGE = 4
_IN_PLANE = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[None]


@dataclass(frozen=True)
class Grey:
    """Grey values that become -1 and 1."""

    low: float
    high: float

    def __call__(self, image: NDArray) -> F32:
        """Grey values of a set as numbers about -1 to 1."""
        return ((np.asarray(image, np.float32) - self.low) * (2.0 / (self.high - self.low)) - 1.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Tile:
    """A piece of a volume that is measured."""

    volume: int
    region: Region
    half: int


@dataclass(eq=False)
class SetMeasures:
    """What was measured of a set.

    Attributes
    ----------
    tiles : that it was measured in
    grey : its scale
    counts : (tiles, regions, BINS) int32, by region OUTER, INNER, FOREGROUND less one
    by_depth : (2, depths, regions, BINS) int64, by half of the set
    power : (tiles, z frequencies, rings) float64
    features : (tiles, 256) float32
    patches : (tiles, n, voxels) float32
    noise : photon transfer inside nuclei, in grey values of the file
    """

    tiles: list[Tile]
    grey: Grey
    counts: NDArray[np.int32]
    by_depth: NDArray[np.int64]
    power: F64
    features: F32
    patches: F32
    noise: PhotonTransfer

    @property
    def halves(self) -> NDArray[np.int64]:
        """(tiles,) half of the set that each belongs to: images dealt out in turn, or the sides of a single one."""
        return np.array([t.half for t in self.tiles], np.int64)


@dataclass(eq=False)
class Measured:
    """A set with where its spheroids are and how it is segmented."""

    images: ImageSet
    around: list[Surroundings]
    segmenter: Classical
    _thresholds: dict[int, F64] = field(default_factory=dict)

    def thresholds(self, number: int) -> F64:
        """Of the slices of a volume without labels."""
        if number not in self._thresholds:
            self._thresholds[number] = self.segmenter.thresholds(self.images.volumes[number])
        return self._thresholds[number]

    def foreground(self, number: int, region: Region, image: NDArray) -> NDArray[np.bool_]:
        """Where nuclei are: by the labels, or by the threshold of each slice."""
        volume = self.images.volumes[number]
        if volume.labels is not None:
            return np.asarray(volume.read_labels(region) > 0)
        thresholds = self.thresholds(number)[region[0]]
        return self.segmenter.foreground(image, volume.voxel_um, thresholds)


def look_around(images: ImageSet, closing_um: float, segmenter: Classical) -> Measured:
    """Find the spheroids of a set."""
    return Measured(images, [surroundings(v, closing_um) for v in images.volumes], segmenter)


def tile_size(sets: Sequence[ImageSet], wanted: Sequence[int]) -> tuple[int, int, int]:
    """Voxels (z, y, x) of the tiles of all sets: as wanted, less where images are smaller or hold too few of them.

    Halves of a set are compared with each other, and intervals are drawn over its tiles: a set of a single small image
    needs several. Sides are halved in the plane first, down to LEAST_TILE.
    """
    size = [min(w, *(v.shape[k] for s in sets for v in s.volumes)) for k, w in enumerate(wanted)]
    for axes in ((1, 2), (0,), (1, 2)):
        least = min(sum(math.prod(n // t for n, t in zip(v.shape, size)) for v in s.volumes) for s in sets)
        if least >= LEAST_TILES or any(size[k] // 2 < LEAST_TILE[k] for k in axes):
            continue
        for k in axes:
            size[k] //= 2
    z, y, x = size
    return (z, y, x)


def choose_tiles(measured: Measured, size: Sequence[int], most: int) -> list[Tile]:
    """Tiles of one size evenly spread over the spheroids of a set, at least one of each volume.

    Parameters
    ----------
    size : voxels (z, y, x); no volume is smaller
    most : tiles
    """
    volumes = measured.images.volumes
    found = []
    for n, (volume, around) in enumerate(zip(volumes, measured.around)):
        boxes = lattice(volume.shape, size)
        share = [around.share(b) for b in boxes]
        kept = [b for b, s in zip(boxes, share) if s >= LEAST_SHARE] or [boxes[int(np.argmax(share))]]
        centre = volume.shape[2] / 2
        halves = [n % 2 if len(volumes) > 1 else int((b[2].start + b[2].stop) / 2 > centre) for b in kept]
        if len(volumes) == 1 and len(set(halves)) == 1:
            halves = [k % 2 for k in range(len(kept))]
        found += [Tile(n, b, h) for b, h in zip(kept, halves)]
    if len(found) > most:
        found = [found[int(k)] for k in np.linspace(0, len(found) - 1, most).round()]
    return found


def grey_scale(images: ImageSet, tiles: Sequence[Tile]) -> Grey:
    """Percentiles of all voxels of the tiles."""
    counts = np.zeros(2**16, np.int64)
    for tile in tiles:
        counts += np.bincount(images.volumes[tile.volume].read(tile.region).ravel(), minlength=2**16)
    total = np.cumsum(counts)
    low, high = (int(np.searchsorted(total, q / 100 * total[-1])) for q in PERCENTILES)
    return Grey(float(low), float(max(high, low + 1)))


def measure_set(
    measured: Measured,
    tiles: list[Tile],
    grey: Grey,
    *,
    patches: int,
    random: np.random.Generator,
    device: torch.device,
    progress: Progress = lambda items, **_: items,
) -> SetMeasures:
    """Read every tile once.

    Parameters
    ----------
    tiles : of :func:`choose_tiles`
    grey : scale of the set
    patches : that are taken of all tiles together
    random : draws them
    """
    network = RandomFeatures().to(device).eval()
    each = max(1, -(-patches // len(tiles)))
    rows = []
    depths = np.zeros((2, N_DEPTHS, N_REGIONS, BINS), np.int64)
    noise = PhotonTransfer(grey.low, grey.high)
    what = f"measuring {measured.images.title} images"
    for tile in progress(tiles, what=what, unit="tile"):
        volume = measured.images.volumes[tile.volume]
        image = volume.read(tile.region)
        inside, depth = measured.around[tile.volume].of(tile.region)
        nuclei = measured.foreground(tile.volume, tile.region, image)
        regions = np.where(nuclei, FOREGROUND, np.where(inside, INNER, OUTER)).astype(np.int64)
        regions[_beside(nuclei)] = NEITHER
        values = grey(image)
        counted = _counts(values, regions, depth)
        depths[tile.half] += counted
        noise.add(image, ndimage.binary_erosion(nuclei, _IN_PLANE, iterations=EDGE))
        size = np.minimum(image.shape, values.shape)
        patch = (min(PATCH[0], int(size[0])), PATCH[1], PATCH[2])
        with torch.no_grad():
            features = network(torch.from_numpy(values).to(device)[None, None])[0].cpu().numpy()
        rows.append(
            (
                counted.sum(axis=0).astype(np.int32),
                ring_power(values),
                features,
                take_patches(values, each, random, patch),
            )
        )
    counts, power, features, taken = (np.stack(part) for part in zip(*rows))
    return SetMeasures(tiles, grey, counts, depths, power, features, taken, noise)


def _beside(nuclei: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Background next to nuclei, whose light it has a part of: two steps, as in the reference system."""
    return np.asarray(ndimage.binary_dilation(nuclei, iterations=2) & ~nuclei)


def _counts(values: F32, regions: NDArray[np.int64], depth: F32) -> NDArray[np.int64]:
    """(depths, regions, BINS) voxels of a tile."""
    use = regions != NEITHER
    bins = np.clip((values[use] - LOWEST) * PER_UNIT, 0, BINS - 1).astype(np.int64)
    deep = np.clip(depth[use] / DEPTH_UM, 0, N_DEPTHS - 1).astype(np.int64)
    flat = (deep * N_REGIONS + regions[use] - 1) * BINS + bins
    return np.bincount(flat, minlength=N_DEPTHS * N_REGIONS * BINS).reshape(N_DEPTHS, N_REGIONS, BINS)
