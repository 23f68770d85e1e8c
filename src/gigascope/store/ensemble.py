"""One store of many images: an OME-Zarr image group for each member of an ensemble, committed together.

    <store>.zarr/
      zarr.json                    the completion record, names of the images, attributes of the stage
      tables/..., arrays/...       of the whole ensemble
      OME/                         the list of images, for readers of collections
      s0000/                       an image group of its own: opens in every reader of OME-Zarr 0.5
        0 1 2 ...                  image, (c) z y x
        labels/<name>/0 1 2 ...    label images, z y x
        interim/<name>             further arrays
        tables/<name>              tables
        zarr.json                  metadata, and the attributes of this image

A stage that writes one::

    ensemble = ctx.create_ensemble("cultures")
    image = ensemble.create_image("s0000", shape=shape, dtype=np.uint16, spacing={"z": 1.5, "y": 0.5, "x": 0.5})
    labels = image.create_label("nuclei", np.uint32)
    for region in image.shard_regions():              # whole shards, each from one process
        image[region], labels[region] = ...
    image.create_array("expected", shape, np.float32)[:] = ...
    image.write_table("nuclei", columns, {"volume_um3": "um^3"})
    image.attrs["seed"] = 7                           # JSON values of this image; ensemble.attrs: of all

In a scattered stage `open` creates all of this and the items write whole shards into
`ctx.work.array("cultures", "s0000/0")`, `"s0000/labels/nuclei/0"` or `"s0000/interim/expected"`; the gather completes
`ctx.written("cultures").image("s0000")` with tables and attributes. Who reads it::

    ensemble = ctx.open("cultures")
    for name in ensemble.images:
        image = ensemble.image(name)                  # a StoreReader: array, label, side, table, attrs, spacing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from gigascope.errors import ShapeError
from gigascope.store.create import (
    VERSION,
    ImageWriter,
    StoreWriter,
    image_record,
    new_array,
    new_group,
    writable_array,
)
from gigascope.store.disk import disk_errors
from gigascope.store.ngff import Channel
from gigascope.store.plan import Access, ShardPlan

if TYPE_CHECKING:
    import zarr

CHUNK = (64, 256, 256)
SHARD = (128, 512, 512)
# Viewers read all properties of a label image at once; of more objects than this the table alone has them.
MAX_PROPERTIES = 5000
# Under this key the attributes of the images lie in those of the ensemble, until they go into their own groups.
OF_IMAGES = "attributes of images"


def ensemble_plan(
    shape: Sequence[int], dtype: DTypeLike, chunk: Sequence[int] = CHUNK, shard: Sequence[int] = SHARD
) -> ShardPlan:
    """Cut of a (c) z y x array: chunks of 64 x 256 x 256 in shards of 128 x 512 x 512, less for small arrays.

    Channels have shards of their own.

    Parameters
    ----------
    shape : of the array, at least three axes
    dtype : of its samples
    chunk, shard : (z, y, x), samples

    Raises
    ------
    ValueError : shards are not made of whole chunks
    """
    spatial = tuple(int(n) for n in shape[-3:])
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise ValueError(f"shards {tuple(shard)} do not hold a whole number of chunks {tuple(chunk)}")
    chunks = tuple(min(c, n) for c, n in zip(chunk, spatial, strict=True))
    shards = tuple(min(s, -(-n // c) * c) if n >= full else c for s, n, c, full in zip(shard, spatial, chunks, chunk))
    apart = (1,) * (len(shape) - 3)
    return ShardPlan(tuple(int(n) for n in shape), np.dtype(dtype).itemsize, apart + chunks, apart + shards)


def image_name(number: int) -> str:
    """Name of the image of a spheroid: s0000, s0001, ..."""
    return f"s{number:04d}"


class MemberWriter(ImageWriter):
    """An unfinished image of an ensemble; see :class:`gigascope.store.create.ImageWriter`.

    Attributes
    ----------
    attrs : JSON values of this image
    key : its name in the ensemble
    """

    side_folder = "interim"

    def __init__(self, ensemble: EnsembleWriter, key: str, image: Mapping[str, Any]) -> None:
        group: Any = ensemble.group[key]
        super().__init__(ensemble.path, group, writable_array(group, "0"), image)
        self.key = key
        kept = ensemble.attrs.setdefault(OF_IMAGES, {}).setdefault(key, {"attrs": {}, "properties": {}})
        self.attrs = kept["attrs"]
        self.properties: dict[str, Any] = kept["properties"]

    def create_array(
        self,
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike,
        *,
        access: Access = "volume",
        plan: ShardPlan | None = None,
        spacing: Mapping[str, float] | None = None,
    ) -> zarr.Array:
        """A further array `interim/<name>` of any shape; every shard of it must be written.

        Parameters
        ----------
        access : without effect on arrays of three and more axes, which are cut as the image is
        plan : another cut
        spacing : sample to sample by axis, micrometres, kept in the array's attributes as `spacing`
        """
        if plan is None and len(shape) < 3:
            return super().create_array(name, shape, dtype, access=access)
        plan = plan or ensemble_plan(shape, dtype)
        with disk_errors(self.path):
            array = new_array(self.group, f"{self.side_folder}/{name}", plan, dtype)
            if spacing is not None:
                array.attrs["spacing"] = {axis: float(step) for axis, step in spacing.items()}
        return array

    def describe_labels(self, name: str, columns: Mapping[str, ArrayLike]) -> None:
        """Properties of each label for viewers; of more than 5000 labels they are left out, a table has them.

        Parameters
        ----------
        name : of the label image
        columns : of equal length; `label-value` is the id
        """
        rows = {key: np.asarray(values).tolist() for key, values in columns.items()}
        if "label-value" not in rows:
            raise ShapeError("properties of labels need a column label-value")
        if len(rows["label-value"]) <= MAX_PROPERTIES:
            self.properties[name] = rows


class EnsembleWriter(StoreWriter):
    """An unfinished ensemble. Tables, arrays and `attrs` are those of all; see the module's description."""

    @property
    def images(self) -> list[str]:
        """Names of the images so far, in order."""
        found = [name for name, group in self.group.groups() if "gigascope" in group.attrs]
        return sorted(found, key=lambda name: (len(name), name))

    def create_image(
        self,
        name: str,
        *,
        shape: Sequence[int],
        dtype: DTypeLike,
        axes: Sequence[str] = ("z", "y", "x"),
        spacing: Mapping[str, float] | None = None,
        unit: str = "micrometer",
        window: tuple[float, float] | None = None,
        plan: ShardPlan | None = None,
        channels: Sequence[Channel] | None = None,
        allow_nan: bool = False,
    ) -> MemberWriter:
        """A new image; see :func:`gigascope.store.create.create_image` for the parameters.

        Raises
        ------
        ShapeError : axes, shape, dtype, spacing or channels do not go together, or there is such an image
        """
        shape = tuple(int(n) for n in shape)
        image = image_record(
            shape,
            dtype,
            axes=axes,
            spacing=spacing or {},
            unit=unit,
            name=name,
            window=window,
            channels=channels,
            allow_nan=allow_nan,
        )
        if name in self.group:
            raise ShapeError(f"{self.path.name} has an image {name} already")
        with disk_errors(self.path):
            record = {"version": VERSION, "complete": False, "image": image, "ensemble": self.path.name}
            group = self.group.create_group(name, attributes={"gigascope": record})
            new_array(group, "0", plan or ensemble_plan(shape, dtype), dtype, axes)
        return self.image(name)

    def image(self, name: str) -> MemberWriter:
        """An image that was created, by this process or, in the gather, by the open job."""
        record: Any = self.group[name].attrs["gigascope"]
        return MemberWriter(self, name, record["image"])


def create_ensemble(path: Path) -> EnsembleWriter:
    """A new store for an ensemble; what an earlier attempt left at `path` is removed."""
    return EnsembleWriter(path, new_group(path, None, ensemble=True))
