"""What the page of a compressed volume is made from: its stores, the compressed file, tables and metrics."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.compression.quality.frame_view import FrameOf
from gigascope.report.evaluated import Columns, EvaluatedResult
from gigascope.report.figures import level_for, level_shapes, level_spacing

if TYPE_CHECKING:
    from gigascope.compression.gmix.header import Header
    from gigascope.store.open import StoreReader

TABLES = ("bricks", "frames", "codecs", "curves", "deciles", "components")
# Of a pyramid level that projections are made from: some seconds.
PROJECTED_VOXELS = 2**27
NM_PER_UM = 1000.0


@dataclass(frozen=True)
class Level:
    """A frame at one level of its pyramid, original and decoded.

    Attributes
    ----------
    original, decoded, gate : (z, y, x), read by slices
    spacing_nm : (z, y, x), of this level
    factors : (z, y, x), voxels of the file per sample
    """

    original: FrameOf
    decoded: FrameOf
    gate: FrameOf
    spacing_nm: tuple[float, float, float]
    factors: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples along z, y and x."""
        z, y, x = self.original.shape
        return z, y, x


@dataclass(frozen=True)
class CompressionResult(EvaluatedResult):
    """Everything the page is made from.

    Attributes
    ----------
    name : of the dataset
    stores : volume, gate, codec_pictures; decoded and gaussians where they were made
    compressed : the compressed file, open as an array
    tables : columns by name of the table; see `TABLES`
    metrics : content of metrics.json
    """

    ORDER = ("volume", "gate", "gaussians", "decoded", "codec_pictures")

    compressed: GaussianVolume

    @property
    def volume(self) -> StoreReader:
        """The original."""
        return self.stores["volume"]

    @property
    def header(self) -> Header:
        """Of the compressed file."""
        return self.compressed.header

    @property
    def simulated(self) -> bool:
        """The volume was simulated, its noise-free truth is known."""
        return "clean" in self.volume.sides

    @functools.cached_property
    def frames(self) -> list[dict[str, int]]:
        """Place of every frame along t and c, where the volume has these."""
        leading = dict(zip(self.volume.axes, self.volume.shape[:-3]))
        return [dict(zip(leading, map(int, place))) for place in np.ndindex(*leading.values())]

    def frame_name(self, number: int) -> str:
        """For people; empty where there is only one frame."""
        words = {"t": "time", "c": "channel"}
        return ", ".join(f"{words[axis]} {i}" for axis, i in self.frames[number].items())

    @property
    def looked_at(self) -> int:
        """The frame whose pictures are shown: the one that codecs are compared on."""
        return int(self.stores["codec_pictures"].attrs.get("frame", 0))

    @functools.cached_property
    def voxel_size_um(self) -> tuple[float, float, float]:
        """(z, y, x)."""
        z, y, x = self.volume.attrs["voxel_size_um"]
        return float(z), float(y), float(x)

    def level(self, frame: int, max_px: int, limit: int = PROJECTED_VOXELS) -> Level:
        """A frame at the coarsest level whose longest side is still at least `max_px`, with at most `limit` voxels."""
        shapes = level_shapes(self.volume)
        at = level_for(shapes, max_px)
        while at + 1 < len(shapes) and math.prod(shapes[at][-3:]) > limit:
            at += 1
        steps = level_spacing(self.volume, at)[-3:]
        fine = level_spacing(self.volume, 0)[-3:]
        z, y, x = (max(1, round(a / b)) for a, b in zip(steps, fine))
        dz, dy, dx = (s * NM_PER_UM for s in steps)
        index = tuple(self.frames[frame].values())
        decoded = self._decoded(at, (z, y, x))
        original, gate = self.volume.array(at), self.stores["gate"].array(at)
        return Level(FrameOf(original, index), FrameOf(decoded, index), FrameOf(gate, index), (dz, dy, dx), (z, y, x))

    def clean(self, frame: int) -> FrameOf | None:
        """The noise-free frame, where it is known."""
        return FrameOf(self.volume.side("clean"), tuple(self.frames[frame].values())) if self.simulated else None

    def _decoded(self, level: int, factors: tuple[int, int, int]) -> Any:
        """From the store where it has this level, else straight from the Gaussians."""
        store = self.stores.get("decoded")
        if store is not None and store.shape == self.volume.shape and store.n_levels == self.volume.n_levels:
            return store.array(level)
        return self.compressed.at_level(factors) if factors != (1, 1, 1) else self.compressed


def load(
    name: str, stores: Mapping[str, StoreReader], gmix: Path, metrics: Path, tables: Mapping[str, Path]
) -> CompressionResult:
    """Gather the inputs of the page; `stores` and `tables` by the names of :class:`CompressionResult`."""
    from gigascope.store.table import read_tsv

    return CompressionResult(
        name=name,
        stores=stores,
        compressed=GaussianVolume(gmix),
        tables={key: read_tsv(path)[0] for key, path in tables.items()},
        metrics=json.loads(metrics.read_text(encoding="utf-8")),
    )


def rows(table: Columns, names: Sequence[str], **where: object) -> list[tuple[Any, ...]]:
    """Rows of a table as tuples of the columns `names`, those in which other columns have given values."""
    n = len(next(iter(table.values()), []))
    keep = [i for i in range(n) if all(str(table[k][i]) == str(v) for k, v in where.items() if k in table)]
    return [tuple(_plain(table[name][i]) if name in table else None for name in names) for i in keep]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
