"""Decoded volumes as files: OME-Zarr with its pyramid, OME-TIFF, pictures of projections; little is held at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gigascope.compression.decoding.indexing import Selection, pieces
from gigascope.compression.decoding.volume import SPATIAL, GaussianVolume
from gigascope.errors import UserError
from gigascope.store.create import ImageWriter, create_image
from gigascope.store.disk import remove
from gigascope.store.plan import Region
from gigascope.store.writers.whole_file import whole_file

Report = Callable[[Sequence[Any], str], Iterable[Any]]

_CLASSIC_LIMIT = 2**32 - 2**25  # 4 GiB less room for the tags, as tifffile keeps it


def silent(items: Sequence[Any], unit: str) -> Iterable[Any]:
    """A report that says nothing; others wrap the items to show how far the work is."""
    return items


class Excerpt:
    """A part of a volume as an array of its own: what is written to a file.

    Parameters
    ----------
    volume : the whole, at the resolution wanted
    key : one integer or slice per axis; the axes of integers are gone
    """

    def __init__(self, volume: GaussianVolume, key: Sequence[int | slice] | None = None) -> None:
        self.volume = volume
        selection = Selection.of(tuple(key) if key is not None else ..., volume.shape)
        self._ranges = selection.ranges
        self._kept = [k for k in range(volume.ndim) if k not in selection.squeezed]
        self.shape = tuple(selection.counts[k] for k in self._kept)
        self.axes = tuple(volume.axes[k] for k in self._kept)
        self.dtype = volume.dtype

    @property
    def spacing(self) -> dict[str, float]:
        """Voxel size by axis, micrometres, of the spatial axes that are left."""
        return {a: s for a, s in zip(SPATIAL, self.volume.voxel_size_um) if a in self.axes}

    @property
    def origin_um(self) -> dict[str, float]:
        """Position of the centre of the first voxel in the volume, micrometres."""
        places = dict(zip(self.volume.axes, self._ranges))
        fine = self.volume.decoder.voxel_size_um
        return {
            axis: voxel * (factor * (places[axis].start + 0.5) - 0.5)
            for axis, voxel, factor in zip(SPATIAL, fine, self.volume.factor)
            if axis in self.axes
        }

    def read(self, region: Sequence[slice]) -> NDArray:
        """Decode a part of the excerpt, in the dtype of the volume."""
        key: list[int | slice] = [r.start for r in self._ranges]
        for k, part in zip(self._kept, region):
            key[k] = slice(self._ranges[k].start + part.start, self._ranges[k].start + part.stop)
        return np.asarray(self.volume[tuple(key)])


def create_decoded(path: Path, excerpt: Excerpt, name: str | None = None) -> ImageWriter:
    """A store for the decoded voxels, in scratch; its shards are to be written with :func:`write_shards`.

    Raises
    ------
    UserError : the disk is full or may not be written, or something else is in the way
    """
    writer = create_image(
        path,
        shape=excerpt.shape,
        dtype=excerpt.dtype,
        axes=excerpt.axes,
        spacing=excerpt.spacing,
        unit="micrometer",
        name=name,
    )
    writer.attrs["factor"] = list(excerpt.volume.factor)
    writer.attrs["origin_um"] = excerpt.origin_um
    return writer


def write_shards(writer: ImageWriter, excerpt: Excerpt, regions: Iterable[Region]) -> None:
    """Decode whole shards into a store; jobs that share its shards write the same bits as one."""
    for region in regions:
        writer[region] = excerpt.read(region)


def write_ome_zarr(
    path: Path, excerpt: Excerpt, provenance: Mapping[str, Any], *, name: str | None = None, report: Report = silent
) -> None:
    """Write a finished OME-Zarr with its pyramid: whole at `path`, or not at all.

    Parameters
    ----------
    path : ends in .zarr; a store that is there is replaced
    provenance : JSON values, how it was made
    report : wraps the shards

    Raises
    ------
    UserError : the disk is full or may not be written, or something is in the way
    """
    from gigascope.store.commit import finish, publish

    scratch = path.with_name(f".{path.name}.{uuid4().hex}.zarr")
    try:
        writer = create_decoded(scratch, excerpt, name or path.stem)
        write_shards(writer, excerpt, report(list(writer.shard_regions()), "shard"))
        finish(writer, provenance)
        publish([(scratch, path)])
    finally:
        if scratch.exists():
            remove(scratch)


def write_tiff(path: Path, excerpt: Excerpt, *, report: Report = silent) -> None:
    """Write OME-TIFF, one page per plane, BigTIFF where it gets larger than 4 GiB.

    Raises
    ------
    UserError : the disk is full or may not be written
    """
    # a layer of bricks at a time, of one frame
    depths = [1] * (len(excerpt.axes) - 2)
    if "z" in excerpt.axes:
        depths[-1] = excerpt.volume.chunks[-3]
    planes = [slice(0, n) for n in excerpt.shape[-2:]]
    cuts = [[p.stretch for p in pieces(range(n), d)] for n, d in zip(excerpt.shape, depths)]
    layers = list(itertools.product(*cuts))

    def pages() -> Iterator[NDArray]:
        for layer in report(layers, "layer"):
            yield from excerpt.read([*layer, *planes]).reshape(-1, *excerpt.shape[-2:])

    _write_pages(path, pages(), excerpt.shape, excerpt.dtype, excerpt.axes, excerpt.spacing)


def write_picture(path: Path, picture: NDArray, axes: Sequence[str], spacing: Mapping[str, float]) -> str:
    """Write a projection: .tif with its values, .png stretched to 16 bits of grey.

    Returns
    -------
    What a person should know of the file

    Raises
    ------
    UserError : a PNG of more than two axes, another ending, or the disk is full or may not be written
    """
    if path.suffix in (".tif", ".tiff"):
        _write_pages(path, iter(picture.reshape(-1, *picture.shape[-2:])), picture.shape, picture.dtype, axes, spacing)
        return f"{picture.dtype} values"
    if path.suffix != ".png":
        raise UserError(f"a projection is written as .tif or .png, not {path.suffix!r}.", where=path)
    if picture.ndim != 2:
        names = ", ".join(f"{n} along {a}" for a, n in zip(axes, picture.shape[:-2]))
        do = "Choose one with --time and --channel, or write .tif."
        raise UserError(f"a PNG holds one picture, this projection has {names}.", where=path, do=do)
    from imagecodecs import png_encode

    low, high = float(picture.min()), float(picture.max())
    grey = np.rint((picture.astype(np.float64) - low) * (65535 / (high - low or 1))).astype(np.uint16)
    with whole_file(path) as partial:
        partial.write_bytes(png_encode(grey))
    return f"black is {low:g}, white is {high:g}"


def _write_pages(
    path: Path,
    pages: Iterator[NDArray],
    shape: Sequence[int],
    dtype: DTypeLike,
    axes: Sequence[str],
    spacing: Mapping[str, float],
) -> None:
    import tifffile

    dtype = np.dtype(dtype).newbyteorder("<")
    n_bytes = math.prod(shape) * dtype.itemsize
    metadata: dict[str, object] = {"axes": "".join(axes).upper()}
    for axis, size in spacing.items():
        metadata |= {f"PhysicalSize{axis.upper()}": float(size), f"PhysicalSize{axis.upper()}Unit": "µm"}
    with (
        whole_file(path, n_bytes) as partial,
        tifffile.TiffWriter(partial, bigtiff=n_bytes > _CLASSIC_LIMIT, ome=True) as tiff,
    ):
        blocks = (np.ascontiguousarray(page, dtype=dtype) for page in pages)
        tiff.write(blocks, shape=tuple(shape), dtype=dtype, photometric="minisblack", metadata=metadata)
