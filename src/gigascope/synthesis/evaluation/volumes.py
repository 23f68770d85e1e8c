"""Images that are compared: real, simulated and adapted ones, read piece by piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

Region = tuple[slice, slice, slice]
NUCLEI = "nuclei"
REAL, NAIVE, ADAPTED = "real", "naive", "adapted"
TITLES = {REAL: "real", NAIVE: "simulated", ADAPTED: "adapted"}


@dataclass(frozen=True, eq=False)
class Volume:
    """One image and its labels.

    Attributes
    ----------
    name : in its store
    image : (z, y, x) or (c, z, y, x), unsigned integers of up to 16 bits; an array of numpy or Zarr
    labels : (z, y, x) integers, or none
    voxel_um : edges (z, y, x)
    """

    name: str
    image: Any
    labels: Any
    voxel_um: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        z, y, x = self.image.shape[-3:]
        return (int(z), int(y), int(x))

    def read(self, region: Region) -> NDArray:
        """(z, y, x) grey values of the first channel."""
        whole = (0, *region) if len(self.image.shape) == 4 else region
        return np.asarray(self.image[whole])

    def read_labels(self, region: Region) -> NDArray:
        """(z, y, x) labels; there must be some."""
        return np.asarray(self.labels[region])

    def whole(self) -> Region:
        """All of it."""
        z, y, x = self.shape
        return (slice(0, z), slice(0, y), slice(0, x))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one kind.

    Attributes
    ----------
    key : REAL, NAIVE or ADAPTED
    volumes : at least one
    """

    key: str
    volumes: tuple[Volume, ...]

    @property
    def title(self) -> str:
        """For people."""
        return TITLES[self.key]

    @property
    def voxel_um(self) -> tuple[float, float, float]:
        """Of the first image."""
        return self.volumes[0].voxel_um

    @property
    def labelled(self) -> list[Volume]:
        """Images with labels."""
        return [v for v in self.volumes if v.labels is not None]

    def smallest(self) -> tuple[int, int, int]:
        """(z, y, x) that every image has."""
        z, y, x = np.min([v.shape for v in self.volumes], axis=0).tolist()
        return (z, y, x)


def open_set(key: str, store: StoreReader, names: Sequence[str] | None = None) -> ImageSet:
    """All images of an ensemble, or some.

    Raises
    ------
    UserError : none at all, or such as are not unsigned integers of up to 16 bits
    """
    found = []
    for name in store.images if names is None else names:
        image = store.image(name)
        array = image.array()
        if array.dtype.kind != "u" or array.dtype.itemsize > 2:
            what = f"{name} holds {array.dtype}; unsigned integers of 8 or 16 bits are compared."
            raise UserError(what, where=store.path, do="Convert the image before ingest.")
        labels = image.label(NUCLEI) if NUCLEI in image.labels else None
        voxel = (float(image.spacing["z"]), float(image.spacing["y"]), float(image.spacing["x"]))
        found.append(Volume(name, array, labels, voxel))
    if not found:
        raise UserError("holds no images that can be compared.", where=store.path)
    return ImageSet(key, tuple(found))


def paired(naive: ImageSet, adapted: ImageSet) -> ImageSet:
    """Adapted images with the labels of the simulated ones of their names, which they were made from.

    Raises
    ------
    UserError : another shape than the simulated image
    """
    by_name = {v.name: v for v in naive.volumes}
    found = []
    for volume in adapted.volumes:
        origin = by_name.get(volume.name)
        labels = volume.labels
        if origin is not None:
            if origin.shape != volume.shape:
                what = f"the adapted image {volume.name} has {volume.shape} voxels, the simulated one {origin.shape}."
                raise UserError(what, do="Run snakemake again: it runs the stage that adapts images.")
            labels = origin.labels
        found.append(Volume(volume.name, volume.image, labels, volume.voxel_um))
    return ImageSet(adapted.key, tuple(found))


def lattice(shape: Sequence[int], size: Sequence[int]) -> list[Region]:
    """Boxes of one size beside each other, as many as fit whole, in the middle of a volume; smaller axes are one."""
    steps = [min(n, s) for n, s in zip(shape, size)]
    ranges = [range((n - n // s * s) // 2, n - s + 1, s) for n, s in zip(shape, steps)]
    return [
        (slice(z, z + steps[0]), slice(y, y + steps[1]), slice(x, x + steps[2]))
        for z in ranges[0]
        for y in ranges[1]
        for x in ranges[2]
    ]


def middle(volume: Volume, most: int) -> Region:
    """All slices of a window in the middle of a volume, of at most so many voxels and at least 32 x 32."""
    z, y, x = volume.shape
    share = min(1.0, math.sqrt(most / (z * y * x)))
    rows, cols = (min(n, max(32, int(n * share))) for n in (y, x))
    top, left = (y - rows) // 2, (x - cols) // 2
    return (slice(0, z), slice(top, top + rows), slice(left, left + cols))


def slabs(volume: Volume, depth: int = 16) -> list[Region]:
    """The volume slab by slab along z."""
    _, rows, cols = volume.whole()
    return [(slice(k, min(k + depth, volume.shape[0])), rows, cols) for k in range(0, volume.shape[0], depth)]
