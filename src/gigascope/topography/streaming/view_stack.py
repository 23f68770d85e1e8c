"""The z-stack of one view in memory, and its green on the full grid, whole or in parts."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.store.open import StoreReader
from gigascope.topography.capture.bayer import green_offset, pack_green
from gigascope.topography.ingest import BAYER, GREEN, RGB
from gigascope.topography.streaming.unpack import unpack_square

Kind = Literal["packed", "bayer", "rgb", "grey"]


def green_pattern(store: StoreReader) -> str | None:
    """Bayer pattern of the packed green of a store of z-stacks; none: it holds every pixel."""
    pattern: str | None = store.attrs["bayer"]
    return pattern if BAYER in _members(store) else None


class ViewStack:
    """A view's pixels as a store has them.

    Parameters
    ----------
    values : (z, r, c / 2) packed green, (z, r, c) Bayer mosaic or grey, (z, 3, r, c) colours
    kind : which of these
    pattern : Bayer pattern of packed green and of a mosaic
    """

    def __init__(self, values: NDArray, kind: Kind, pattern: str | None = None) -> None:
        self.values, self.kind, self.pattern = values, kind, pattern

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the view."""
        rows, columns = self.values.shape[-2:]
        return int(rows), int(columns) * (2 if self.kind == "packed" else 1)

    @property
    def n_z(self) -> int:
        """Slices."""
        return int(self.values.shape[0])

    @property
    def colours(self) -> int:
        """Of the view in colour: 3, or 1 where it is grey or only its green is here."""
        return 3 if self.kind in ("bayer", "rgb") else 1

    def green(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """(z, h, w) of the stack's dtype: green at every pixel of a part, whatever the part."""
        (top, bottom), (left, right) = (s.indices(n)[:2] for s, n in zip((rows, columns), self.size))
        if self.kind in ("rgb", "grey"):
            plane = self.values[:, 1] if self.kind == "rgb" else self.values
            return torch.from_numpy(np.ascontiguousarray(plane[:, top:bottom, left:right]))
        # with the neighbours that fill a site without green, in whole pairs
        first = max(0, top - 2) // 2 * 2, max(0, left - 2) // 2 * 2
        last = min(self.size[0], (bottom + 3) // 2 * 2), min(self.size[1], (right + 3) // 2 * 2)
        wide = self._packed(slice(first[0], last[0]), slice(first[1], last[1]))
        shape = last[0] - first[0], last[1] - first[1]
        out = torch.from_numpy(np.empty((self.n_z, *shape), self.values.dtype))
        chunk = torch.from_numpy(np.ascontiguousarray(wide))[None, None]
        unpack_square(chunk, (0, 0), green_offset(self.pattern or ""), out)
        return out[:, top - first[0] : bottom - first[0], left - first[1] : right - first[1]].contiguous()

    def _packed(self, rows: slice, columns: slice) -> NDArray:
        """Packed green of a part that begins at an even row and column."""
        if self.kind == "packed":
            return self.values[:, rows, columns.start // 2 : columns.stop // 2]
        return pack_green(self.values[:, rows, columns], self.pattern or "")


def read_green(store: StoreReader, view: tuple[int, int]) -> ViewStack:
    """Green of a view, the least that focus needs.

    Parameters
    ----------
    store : `raw` or `registered`
    view : (view row, view column)
    """
    pattern = green_pattern(store)
    return ViewStack(_read(store, GREEN, view), "grey" if pattern is None else "packed", pattern)


def read_colours(store: StoreReader, view: tuple[int, int]) -> ViewStack:
    """A view with its colours, where it has any."""
    members = _members(store)
    if BAYER in members:
        return ViewStack(_read(store, BAYER, view), "bayer", store.attrs["bayer"])
    return ViewStack(_read(store, RGB, view), "rgb") if RGB in members else ViewStack(_read(store, GREEN, view), "grey")


def _members(store: StoreReader) -> set[str]:
    return {name for name in (GREEN, BAYER, RGB) if (store.path / name / "zarr.json").is_file()}


def _read(store: StoreReader, name: str, view: tuple[int, int]) -> NDArray:
    return np.asarray(store.member(name)[view])
