"""Volumes into their store, slab by slab, with what every later stage needs to know of them.

One pass: while the planes of a frame (one time, one channel) go by, its range, the background and statistics of its
cells, its noise model and the digest of its voxels are collected. Only a slab of planes is held.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
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
from gigascope.errors import UserError
from gigascope.store.readers.volume import VolumeSource

AXES = ("t", "c", "z", "y", "x")
CELL_COLUMNS = ("minimum", "maximum", "mean", "sd", "background", "spread")
# More saturated voxels than this share are worth a warning: what is cut off there cannot come back.
SATURATED = 1e-4

NotFinite = Literal["refuse", "background"]


@dataclass(frozen=True)
class Slab:
    """Planes z0 to z1 - 1 of one frame, (z, y, x)."""

    t: int
    c: int
    z0: int
    z1: int
    voxels: NDArray


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


def place(shape: tuple[int, ...], t: int, c: int) -> tuple[int, ...]:
    """Index of a frame in an array with the axes that are kept."""
    return tuple(i for i, n in zip((t, c), shape) if n > 1)


def frames(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(time, channel) of every frame, in the order of their numbers."""
    return list(itertools.product(range(shape[0]), range(shape[1])))


def slab_bounds(n_z: int, depth: int) -> list[tuple[int, int]]:
    """First and last + 1 plane of slabs of whole rows of shards; a remainder thinner than a cell goes with the last."""
    starts = [z for z in range(0, n_z, depth) if z == 0 or n_z - z >= CELL[0]]
    return list(itertools.pairwise([*starts, n_z]))


def n_slabs(shape: tuple[int, ...], depth: int) -> int:
    """How many :func:`slabs` gives."""
    return len(frames(shape)) * len(slab_bounds(shape[2], depth))


def slabs(source: VolumeSource, depth: int, not_finite: NotFinite = "refuse") -> Iterator[Slab]:
    """All planes of a volume, in slabs about `depth` planes thick.

    Raises
    ------
    UserError : values that are not finite, if they are to be refused
    """
    for t, c in frames(source.shape):
        for z0, z1 in slab_bounds(source.shape[2], depth):
            voxels = source.read(t, c, z0, z1)
            if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
                _mend(voxels, not_finite, _where(source, t, c), z0)
            yield Slab(t, c, z0, z1, voxels)


def _where(source: VolumeSource, t: int, c: int) -> str:
    named = [f"{axis} {i}" for axis, i, n in zip(("time", "channel"), (t, c), source.shape) if n > 1]
    return ", ".join([str(source.path), *named])


def _mend(voxels: NDArray, not_finite: NotFinite, where: str, z0: int) -> None:
    """Fill what is not finite with the background of its cell, in place, or refuse it."""
    bad = ~np.isfinite(voxels)
    z, y, x = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    what = (
        f"holds {int(bad.sum())} values that are not finite (NaN or infinite), the first at z {z0 + z}, y {y}, x {x}."
    )
    if not_finite == "refuse":
        raise UserError(what, where=where, do="Repair the file, or set ingest.not_finite: background to fill them.")
    fine = np.sort(voxels[~bad])
    if not fine.size:
        raise UserError(f"holds no finite value in planes {z0} to {z0 + len(voxels) - 1}.", where=where)
    whole = background_level(fine).centre
    for box in itertools.product(*(windows(n, cell) for n, cell in zip(voxels.shape, CELL))):
        inside = bad[box]
        if inside.any():
            values = np.sort(voxels[box][~inside])
            voxels[box][inside] = background_level(values).centre if values.size else whole


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
        self._layers: list[NDArray[np.float32]] = []
        self._saturated, self._n = 0, 0

    def add(self, voxels: NDArray) -> None:
        """The next slab, (z, y, x), finite."""
        self._layers += [cell_columns(voxels[window]) for window in windows(len(voxels), CELL[0])]
        self._noise.add(voxels)
        self._n += voxels.size
        if self._limit is not None:
            self._saturated += int(np.count_nonzero(voxels == self._limit))

    def facts(self) -> FrameFacts:
        """When all slabs have been added."""
        cells = np.stack(self._layers, axis=1)
        low, high = float(cells[0].min()), float(cells[1].max())
        return FrameFacts(low, high, self._saturated / self._n, self._noise.fit(), cells)


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

    def add(self, slab: Slab) -> None:
        """The next slab, in the order of :func:`slabs`."""
        if self._reader is None:
            self._reader = FrameReader(self._shape[2:], self._dtype)
        self._reader.add(slab.voxels)
        self._digest.update(np.ascontiguousarray(slab.voxels, dtype=self._dtype.newbyteorder("<")).data)
        if slab.z1 == self._shape[2]:
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
