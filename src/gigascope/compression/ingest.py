"""Volumes into their store, slab by slab, with what every later stage needs to know of them.

One pass: while the planes of a frame (one time, one channel) go by, its range, the background and statistics of its
cells, its noise model and the digest of its voxels are collected. Only a slab is held.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.background import (
    CELL,
    background_level,
    cell_columns,
    windows,
)
from gigascope.compression.noise import NoiseModel, PhotonTransfer
from gigascope.compression.slabs import Slab, frames
from gigascope.errors import UserError
from gigascope.store.readers.volume import VolumeSource

AXES = ("t", "c", "z", "y", "x")
CELL_COLUMNS = ("minimum", "maximum", "mean", "sd", "background", "spread")
# More saturated voxels than this share are worth a warning: what is cut off there cannot come back.
SATURATED = 1e-4

NotFinite = Literal["refuse", "background"]


@dataclass(frozen=True)
class FrameFacts:
    """What is known of a frame when all its planes have gone by.

    Attributes
    ----------
    lowest, highest : grey values
    saturated : share of the voxels at the largest value of an integer type
    noise : its noise model
    cells : (6, nz, ny, nx) float32, statistics of the cells: see `CELL_COLUMNS`
    """

    lowest: float
    highest: float
    saturated: float
    noise: NoiseModel
    cells: NDArray[np.float32]

    @property
    def background(self) -> NDArray[np.float32]:
        """(nz, ny, nx) background level of the cells, grey values."""
        return self.cells[CELL_COLUMNS.index("background")]


def kept_axes(shape: tuple[int, ...]) -> dict[str, int]:
    """Axes and sizes that a volume of (t, c, z, y, x) is stored with: time and channel only where there are several."""
    return {axis: n for axis, n in zip(AXES, shape, strict=True) if axis in "zyx" or n > 1}


def mend(slab: Slab, source: VolumeSource, not_finite: NotFinite) -> None:
    """Fill values of a slab that are not finite with the background of their cell, in place, or refuse them.

    Raises
    ------
    UserError : there are such values and they are to be refused, or there are no others
    """
    voxels = slab.voxels
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return
    bad = ~np.isfinite(voxels)
    z, y, x = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    where = _where(source, slab.t, slab.c)
    if not_finite == "refuse":
        at = f"z {slab.z.start + z}, y {slab.y.start + y}, x {x}"
        raise UserError(
            f"holds values that are not finite (NaN or infinite), the first at {at}.",
            where=where,
            do="Repair the file, or set ingest.not_finite: background to fill them.",
        )
    fine = np.sort(voxels[~bad])
    if not fine.size:
        raise UserError(f"holds no finite value in planes {slab.z.start} to {slab.z.stop - 1}.", where=where)
    whole = background_level(fine).centre
    for box in itertools.product(*(windows(n, cell) for n, cell in zip(voxels.shape, CELL))):
        inside = bad[box]
        if inside.any():
            values = np.sort(voxels[box][~inside])
            voxels[box][inside] = background_level(values).centre if values.size else whole


def _where(source: VolumeSource, t: int, c: int) -> str:
    named = [f"{axis} {i}" for axis, i, n in zip(("time", "channel"), (t, c), source.shape) if n > 1]
    return ", ".join([str(source.path), *named])


class FrameReader:
    """Collects the facts of one frame from its slabs.

    Parameters
    ----------
    shape : (z, y, x)
    dtype : of the voxels
    """

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        self._limit = float(np.iinfo(dtype).max) if dtype.kind in "iu" else None
        self._noise = PhotonTransfer(shape, integer=dtype.kind in "iu", limit=self._limit)
        # (6, nz, ny, nx) of the layer that is incomplete, band by band, and of the layers that are complete
        self._bands: list[NDArray[np.float32]] = []
        self._layers: list[NDArray[np.float32]] = []
        self._shape, self._saturated = shape, 0

    def add(self, slab: Slab) -> None:
        """The next slab, finite."""
        voxels = slab.voxels
        self._bands.append(np.stack([cell_columns(voxels[w]) for w in windows(len(voxels), CELL[0])], axis=1))
        if slab.y.stop == self._shape[1]:
            self._layers.append(np.concatenate(self._bands, axis=2))
            self._bands.clear()
        self._noise.add(voxels)
        if self._limit is not None:
            self._saturated += int(np.count_nonzero(voxels == self._limit))

    def facts(self) -> FrameFacts:
        """When all slabs have been added."""
        cells = np.concatenate(self._layers, axis=1)
        low, high = float(cells[0].min()), float(cells[1].max())
        return FrameFacts(low, high, self._saturated / math.prod(self._shape), self._noise.fit(), cells)


class VolumeFacts:
    """Collects the facts of all frames of a volume, and the digest of its voxels.

    Attributes
    ----------
    frames : facts of the frames that are complete
    """

    def __init__(self, source: VolumeSource) -> None:
        self.frames: list[FrameFacts] = []
        self._shape, self._dtype = source.shape, source.dtype
        self._reader: FrameReader | None = None
        self._digest = hashlib.sha256(f"{list(source.shape)} {source.dtype.name}\n".encode())

    def seen(self, planes: NDArray) -> None:
        """The next planes as they stand in the file, in the order (t, c, z)."""
        self._digest.update(np.ascontiguousarray(planes, dtype=self._dtype.newbyteorder("<")).data)

    def add(self, slab: Slab) -> None:
        """The next slab, finite, in the order of :func:`gigascope.compression.slabs.slabs`."""
        if self._reader is None:
            self._reader = FrameReader(self._shape[2:], self._dtype)
        self._reader.add(slab)
        if (slab.z.stop, slab.y.stop) == self._shape[2:4]:
            self.frames.append(self._reader.facts())
            self._reader = None

    @property
    def digest(self) -> str:
        """SHA-256 of shape, type and voxels, in the order (t, c, z, y, x), hexadecimal."""
        return self._digest.hexdigest()


def background_array(found: list[FrameFacts], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Background levels of all frames, ([t, c,] nz, ny, nx)."""
    grids = np.stack([facts.background for facts in found])
    return grids.reshape([n for n in shape[:2] if n > 1] + list(grids.shape[1:]))


def cell_table(found: list[FrameFacts]) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Columns and units of the table of all cells: frame, place in the grid, statistics."""
    grid = found[0].cells.shape[1:]
    at = np.indices((len(found), *grid), dtype=np.int32).reshape(4, -1)
    columns: dict[str, NDArray] = dict(zip(("frame", "z", "y", "x"), at))
    cells = np.stack([facts.cells for facts in found], axis=1).reshape(len(CELL_COLUMNS), -1)
    columns |= dict(zip(CELL_COLUMNS, cells))
    return columns, dict.fromkeys(("z", "y", "x"), f"cells of {CELL[0]} voxels")


def attributes(facts: VolumeFacts, source: VolumeSource) -> Mapping[str, Any]:
    """What the store says about a volume, as JSON values."""
    found = facts.frames
    return {
        "frame_axes": [axis for axis, n in zip("tc", source.shape) if n > 1],
        "noise": [{"gain": f.noise.gain, "offset": f.noise.offset, "read": f.noise.read} for f in found],
        "range": [[f.lowest, f.highest] for f in found],
        "voxel_size_um": list(source.voxel_size_um),
        "source": str(source.path),
        "source_hash": facts.digest,
        "notes": list(source.notes),
    }


def warnings(found: list[FrameFacts], source: VolumeSource) -> list[str]:
    """What a person should know about a volume before trusting what follows, in plain words.

    Raises
    ------
    UserError : all voxels of all frames have one value
    """
    names = [_where(source, t, c).removeprefix(f"{source.path}, ") for t, c in frames(source.shape)]
    constant = [name for name, f in zip(names, found) if f.lowest == f.highest]
    if len(constant) == len(found):
        raise UserError(
            f"is constant: every voxel is {found[0].lowest:g}.",
            where=source.path,
            do="There is nothing in it to compress; was it exported before the data was written?",
        )
    lines = list(source.warnings)
    if constant:
        lines.append(f"{len(constant)} of {len(found)} frames are constant: {'; '.join(constant)}.")
    for name, f in zip(names, found):
        if f.saturated > SATURATED:
            where = f" of {name}" if len(found) > 1 else ""
            lines.append(f"{100 * f.saturated:.2f} % of the voxels{where} are saturated: their light is not known.")
    return lines
