"""Images of one domain, real or simulated, opened to be read piece by piece."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gigascope.errors import UserError
from gigascope.store.open import StoreReader, open_store

if TYPE_CHECKING:
    import zarr

    from gigascope.store.plan import Region

LABELS = "nuclei"
# Edges of voxels may differ by this much between the domains.
VOXEL_TOLERANCE = 0.05
# Crops that do not overlap, of all images of a domain together.
LEAST_CROPS = 4


@dataclass(frozen=True, eq=False)
class Volume:
    """One image.

    Attributes
    ----------
    name : in its store
    image : (z, y, x) or (1, z, y, x), uint8 or uint16
    labels : (z, y, x), or none
    """

    name: str
    image: zarr.Array
    labels: zarr.Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        z, y, x = self.image.shape[-3:]
        return (z, y, x)

    def read(self, region: Region) -> np.ndarray:
        """Grey values of (z, y, x) slices."""
        whole = (slice(0, 1), *region) if self.image.ndim == 4 else region
        return np.asarray(self.image[whole]).reshape([r.stop - r.start for r in region])

    def read_labels(self, region: Region) -> np.ndarray:
        """Labels of (z, y, x) slices."""
        if self.labels is None:
            raise RuntimeError(f"{self.name} has no labels")
        return np.asarray(self.labels[region])


@dataclass(frozen=True)
class Place:
    """Where the images of a domain stand, so that another process opens the same ones.

    Attributes
    ----------
    path : of the store
    kind : A is real, B naive ones that were given; cultures say nothing of this, and are there as a whole
    use : for training or inference
    """

    path: Path
    kind: Literal["A", "B"] = "A"
    use: Literal["train", "inference"] = "train"

    def holds(self, attrs: Mapping[str, Any]) -> bool:
        """Whether an image with these attributes is one of them."""
        return attrs.get("domain", "A") == self.kind and attrs.get("use", "train") == self.use

    def open(self, *, labelled: bool = False) -> Domain:
        """See :meth:`Domain.open`."""
        return Domain.open(self.path, self.kind, self.use, labelled=labelled)


def naive_place(cultures: Path | None, real: Path | None, use: Literal["train", "inference"]) -> Place:
    """Where the naive images stand: cultures where there are any, else those that were given beside the real images.

    What is adapted are those for inference; where none are, those that were trained on.

    Parameters
    ----------
    cultures, real : stores; one of them at least

    Raises
    ------
    UserError : neither
    """
    if cultures is not None:
        return Place(cultures)
    if real is None:
        raise UserError("there are neither simulated images nor naive ones.", do="Give --input cultures=PATH.")
    store = open_store(real)
    chosen = Place(real, "B", use)
    there = any(chosen.holds(store.image(name).attrs) for name in store.images)
    return chosen if there else Place(real, "B")


@dataclass(frozen=True, eq=False)
class Domain:
    """All images of a store that belong together.

    Attributes
    ----------
    place : their store, and which of it they are
    volumes : its images
    voxel_um : edges (z, y, x)
    dtype : of the images
    """

    place: Place
    volumes: tuple[Volume, ...]
    voxel_um: tuple[float, float, float]
    dtype: np.dtype

    @staticmethod
    def open(
        path: Path,
        kind: Literal["A", "B"] = "A",
        use: Literal["train", "inference"] = "train",
        *,
        labelled: bool = False,
    ) -> Domain:
        """From the ensemble at `path`: cultures, or those of the real images that are for training.

        Parameters
        ----------
        kind, use : see :class:`Place`
        labelled : labels are needed

        Raises
        ------
        UserError : no images, or such as cannot be trained on
        """
        store = open_store(path)
        if not store.images:
            raise UserError("holds no images.", where=path, do="Give an ensemble of images, as ingest writes it.")
        place = Place(path, kind, use)
        chosen = [name for name in store.images if place.holds(store.image(name).attrs)]
        if not chosen and kind == "B":
            what = f"holds {len(store.images)} images, none of which is a naive one."
            raise UserError(what, where=path, do="Put naive images into trainB, or leave it empty: they are simulated.")
        if not chosen:
            what = f"holds {len(store.images)} images, none of which is for training."
            raise UserError(what, where=path, do="Set use: train for some of the images under inputs.real.")
        images = [store.image(name) for name in chosen]
        volumes = tuple(_volume(image, name, labelled) for image, name in zip(images, chosen))
        voxels = [_voxel(image) for image in images]
        dtypes = {volume.image.dtype for volume in volumes}
        for name, voxel in zip(chosen, voxels):
            if not _alike(voxel, voxels[0]):
                what = f"{name} has voxels of {_edges(voxel)}, {chosen[0]} of {_edges(voxels[0])} micrometres."
                raise UserError(what, where=path, do="Images of one domain need one voxel size: resample them.")
        if len(dtypes) > 1:
            names = " and ".join(sorted(dtype.name for dtype in dtypes))
            what = f"has images of {names}, whose grey values mean different things."
            raise UserError(what, where=path, do="Give images of one bit depth.")
        return Domain(place, volumes, voxels[0], dtypes.pop())

    @property
    def path(self) -> Path:
        """Of the store."""
        return self.place.path

    @property
    def n_voxels(self) -> int:
        """Of all images."""
        return sum(int(np.prod(volume.shape)) for volume in self.volumes)

    def smallest(self) -> tuple[int, int, int]:
        """(z, y, x) that every image has."""
        z, y, x = np.min([volume.shape for volume in self.volumes], axis=0).tolist()
        return (z, y, x)


def check_domains(real: Domain, cultures: Domain, crop: tuple[int, int, int], least: tuple[int, int, int]) -> None:
    """Refuse what no network can learn from.

    Parameters
    ----------
    crop : (z, y, x) voxels
    least : crop of which a discriminator can say anything

    Raises
    ------
    UserError : voxels of different size, crops that are too small, images smaller than a crop, too few crops
    """
    given = cultures.place.kind == "B"
    if not _alike(real.voxel_um, cultures.voxel_um):
        raise UserError(
            f"has voxels of {_edges(real.voxel_um)} micrometres, the {'naive' if given else 'simulated'} images of "
            f"{_edges(cultures.voxel_um)}: a network would learn to change the size of nuclei.",
            where=real.path,
            do="Set ingest.output_voxel_um, to which all are resampled." if given else
            "Set simulate.grid.output_voxel_um to the real voxel size.",
        )
    if any(c < n for c, n in zip(crop, least)):
        what = f"crops of {_sides(crop)} voxels are too small: a discriminator sees {_sides(least)} at least."
        smallest = _sides(tuple(min(pair) for pair in zip(real.smallest(), cultures.smallest())))
        do = f"Set a larger train.crop (the smallest image has {smallest}), or train.discriminator: pixel."
        raise UserError(what, where="train.crop", do=do)
    for domain in (real, cultures):
        check_crops({volume.name: volume.shape for volume in domain.volumes}, crop, domain.path)


def check_crops(shapes: Mapping[str, tuple[int, int, int]], crop: tuple[int, int, int], where: Path | str) -> None:
    """Refuse images that are smaller than a crop, or that hold too few of them.

    Parameters
    ----------
    shapes : (z, y, x) of each image of a domain, by its name
    crop : (z, y, x) voxels
    where : store or file, for messages

    Raises
    ------
    UserError : such images
    """
    for name, shape in shapes.items():
        if any(n < c for n, c in zip(shape, crop)):
            smallest = [min(sides) for sides in zip(*shapes.values())]
            what = f"{name} has {_sides(shape)} voxels, a crop {_sides(crop)}."
            do = f"Set train.crop to [{', '.join(map(str, smallest))}] or less, or leave the image out."
            raise UserError(what, where=where, do=do)
    n = sum(math.prod(side // c for side, c in zip(shape, crop)) for shape in shapes.values())
    if n < LEAST_CROPS:
        what = f"holds {n} separate crops of {_sides(crop)} voxels; {LEAST_CROPS} are needed to learn a look."
        raise UserError(what, where=where, do="Give more or larger images, or set a smaller train.crop.")


def check_voxels(cultures: Domain, voxel_um: tuple[float, float, float], network: Path) -> None:
    """Refuse images of other voxels than a network was trained on.

    Raises
    ------
    UserError : they are others
    """
    if not _alike(cultures.voxel_um, voxel_um):
        what = f"was trained on voxels of {_edges(voxel_um)} micrometres, these are {_edges(cultures.voxel_um)}."
        raise UserError(what, where=network, do="Train on such images, or simulate with the voxels of the training.")


def _volume(image: StoreReader, name: str, labelled: bool) -> Volume:
    array = image.array()
    where = image.path
    if image.axes[-3:] != ("z", "y", "x") or array.ndim not in (3, 4):
        raise UserError(f"has the axes {', '.join(image.axes)}; z, y, x are needed.", where=where)
    if array.ndim == 4 and array.shape[0] != 1:
        what = f"has {array.shape[0]} channels; the adaptation takes one."
        raise UserError(what, where=where, do="Choose the channel of the nuclei at ingest.")
    if array.dtype not in (np.uint8, np.uint16):
        what = f"holds {array.dtype}; the adaptation takes images of 8 or 16 bits."
        raise UserError(what, where=where, do="Convert the images.")
    if labelled and LABELS not in image.labels:
        raise UserError("has no labels `nuclei`, which the label term needs.", where=where,
                        do="Set train.weights.label: 0, or give images with labels.")  # fmt: skip
    return Volume(name, array, image.label(LABELS) if LABELS in image.labels else None)


def _voxel(image: StoreReader) -> tuple[float, float, float]:
    try:
        z, y, x = (float(image.spacing[axis]) for axis in ("z", "y", "x"))
    except KeyError as error:
        raise UserError(f"says nothing of its voxel size along {error.args[0]}.", where=image.path,
                        do="Give the voxel size at ingest.") from None  # fmt: skip
    return (z, y, x)


def _alike(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) <= VOXEL_TOLERANCE * b for a, b in zip(one, other))


def _edges(voxel: tuple[float, ...]) -> str:
    return " x ".join(f"{edge:.4g}" for edge in voxel)


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
