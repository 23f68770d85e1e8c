"""Cultures as TIFF files: folders of the Cell Tracking Challenge, pairs of volumes, pairs of slices.

Volumes are read and written slab by slab, so that their size does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import UserError
from gigascope.synthesis.evaluation.volumes import Region, Volume, slabs

Segment = Callable[[Volume, Region], NDArray]
Progress = Callable[..., Iterable[Any]]
# Labels of the challenge have 16 bits.
MOST_LABELS = 2**16 - 1
# Rows of a volume that are held to cut slices along z out of.
ROWS = 32


def write_ctc(folder: Path, volumes: Iterable[Volume], segment: Segment | None = None) -> list[dict[str, Any]]:
    """Folders of the Cell Tracking Challenge, one sequence of a single time point for each image.

    `01/t000.tif` the image; `01_GT/SEG/man_seg000.tif` and `01_GT/TRA/man_track000.tif` its labels, with
    `man_track.txt`; `01_RES/mask000.tif` and `res_track.txt` what a segmenter finds.

    Parameters
    ----------
    folder : that is written into
    volumes : with labels
    segment : a segmenter; none: no results

    Returns
    -------
    sequence, name and number of nuclei of each image

    Raises
    ------
    UserError : more nuclei than 16 bits can number

    Notes
    -----
    Labels are numbered from 1 in the order of their ids: the layout wants 16 bits.
    """
    found = []
    for n, volume in enumerate(volumes, start=1):
        name = f"{n:02d}"
        ids = label_ids(volume)
        if len(ids) > MOST_LABELS:
            what = f"{volume.name} has {len(ids)} nuclei; files of the Cell Tracking Challenge hold {MOST_LABELS}."
            raise UserError(what, do="Export it as pairs, whose labels have 32 bits, or simulate smaller spheroids.")
        write_stack(folder / name / "t000.tif", (volume.read(r) for r in slabs(volume)), volume, volume.image.dtype)
        for part, file in (("SEG", "man_seg000.tif"), ("TRA", "man_track000.tif")):
            write_stack(folder / f"{name}_GT" / part / file, _numbered(volume, ids), volume, np.dtype(np.uint16))
        write_tracks(folder / f"{name}_GT" / "TRA" / "man_track.txt", len(ids))
        if segment is not None:
            labels = segment(volume, volume.whole())
            most = int(labels.max(initial=0))
            if most > MOST_LABELS:
                raise UserError(f"the segmenter finds {most} nuclei in {volume.name}; 16 bits hold {MOST_LABELS}.")
            write_stack(folder / f"{name}_RES" / "mask000.tif", iter([labels]), volume, np.dtype(np.uint16))
            write_tracks(folder / f"{name}_RES" / "res_track.txt", most)
        found.append({"sequence": name, "image": volume.name, "nuclei": len(ids)})
    return found


def write_pairs(folder: Path, volumes: Iterable[Volume]) -> list[dict[str, Any]]:
    """`images/<name>.tif` and `labels/<name>.tif`, OME-TIFF with voxel sizes; labels keep their ids, 16 or 32 bits.

    Of an image without labels, as given naive ones may be, only the image is written.
    """
    found: list[dict[str, Any]] = []
    for volume in volumes:
        file = f"{volume.name}.tif"
        if volume.labels is None:
            write_stack(folder / "images" / file, (volume.read(r) for r in slabs(volume)), volume, volume.image.dtype)
            found.append({"image": volume.name})
            continue
        ids = label_ids(volume)
        kind = np.dtype(np.uint16 if not len(ids) or ids[-1] <= MOST_LABELS else np.uint32)
        write_stack(folder / "images" / file, (volume.read(r) for r in slabs(volume)), volume, volume.image.dtype)
        write_stack(folder / "labels" / file, (volume.read_labels(r) for r in slabs(volume)), volume, kind)
        found.append({"image": volume.name, "nuclei": len(ids), "label_bits": 8 * kind.itemsize})
    return found


def write_slices(folder: Path, volumes: Iterable[Volume], every_um: float) -> list[dict[str, Any]]:
    """Slices across each axis at one scale: `xy/images/<name>_<number>.tif` and `xy/labels/...`, so also `xz`, `yz`.

    Along z pixels are made as large as they are in the plane: images linearly, labels by the nearest. Slices without
    labels are left out.

    Parameters
    ----------
    every_um : distance of the slices
    """
    found = []
    for volume in volumes:
        count = 0
        for plane, number, image, labels in _planes(volume, every_um):
            if not labels.any():
                continue
            kind = np.uint16 if labels.max() <= MOST_LABELS else np.uint32
            for what, values in (("images", image), ("labels", labels.astype(kind))):
                path = folder / plane / what / f"{volume.name}_{number:05d}.tif"
                _write_plane(path, values, volume.voxel_um[2])
            count += 1
        found.append({"image": volume.name, "slices": count, "pixel_um": volume.voxel_um[2]})
    return found


def label_ids(volume: Volume) -> NDArray[np.int64]:
    """Ids of a volume's labels, ascending, background left out."""
    found = np.zeros(0, np.int64)
    for region in slabs(volume):
        found = np.union1d(found, np.unique(volume.read_labels(region)).astype(np.int64))
    return found[found > 0]


def write_tracks(path: Path, n: int) -> None:
    """One line `label 0 0 0` for each object: it begins and ends at time 0 and has no parent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{k} 0 0 0\n" for k in range(1, n + 1)), encoding="ascii")


def write_stack(path: Path, blocks: Iterator[NDArray], volume: Volume, dtype: np.dtype) -> None:
    """A volume as OME-TIFF from blocks of slices, with its voxel size."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    z, y, x = volume.voxel_um
    sizes = {"PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    n_bytes = math.prod(volume.shape) * dtype.itemsize
    with tifffile.TiffWriter(path, bigtiff=n_bytes > 2**31, ome=True) as file:
        file.write(
            (np.ascontiguousarray(plane, dtype=dtype) for block in blocks for plane in block),
            shape=volume.shape,
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": "ZYX", **sizes, **units},
        )


def _numbered(volume: Volume, ids: NDArray[np.int64]) -> Iterator[NDArray]:
    known = np.concatenate([[0], ids])
    for region in slabs(volume):
        yield np.searchsorted(known, volume.read_labels(region)).astype(np.uint16)


def _planes(volume: Volume, every_um: float) -> Iterator[tuple[str, int, NDArray, NDArray]]:
    """Name of the plane, its number, image and labels."""
    steps = [max(1, round(every_um / v)) for v in volume.voxel_um]
    whole, factor = volume.whole(), volume.voxel_um[0] / volume.voxel_um[2]
    for z in range(steps[0] // 2, volume.shape[0], steps[0]):
        region = (slice(z, z + 1), *whole[1:])
        yield "xy", z, volume.read(region)[0], volume.read_labels(region)[0]
    for axis, name in ((1, "xz"), (2, "yz")):
        wanted = range(steps[axis] // 2, volume.shape[axis], steps[axis])
        for start in range(0, volume.shape[axis], ROWS):
            stop = min(start + ROWS, volume.shape[axis])
            here = [k for k in wanted if start <= k < stop]
            if not here:
                continue
            slab = slice(start, stop)
            region = (whole[0], slab, whole[2]) if axis == 1 else (whole[0], whole[1], slab)
            image, labels = volume.read(region), volume.read_labels(region)
            for k in here:
                cut = [np.take(v, k - start, axis) for v in (image, labels)]
                yield name, k, _stretched(cut[0], factor, 1), _stretched(cut[1], factor, 0)


def _stretched(plane: NDArray, factor: float, order: int) -> NDArray:
    """Rows resampled by a factor; whole numbers are rounded."""
    n = max(1, round(plane.shape[0] * factor))
    at = (np.arange(n) + 0.5) / factor - 0.5
    if order == 0:
        return plane[np.clip(np.round(at).astype(np.intp), 0, plane.shape[0] - 1)]
    lines = ndimage.map_coordinates(
        plane.astype(np.float64),
        np.meshgrid(np.clip(at, 0, plane.shape[0] - 1), np.arange(plane.shape[1]), indexing="ij"),
        order=1,
    )
    return np.round(lines).astype(plane.dtype)


def _write_plane(path: Path, values: NDArray, pixel_um: float) -> None:
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"PhysicalSizeX": pixel_um, "PhysicalSizeY": pixel_um, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(
        path, values, ome=True, photometric="minisblack", compression="zlib", metadata={"axes": "YX", **size}
    )
