"""Arrays of what was found in every view: one shard for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.store.create import StoreWriter
from gigascope.store.open import StoreReader
from gigascope.store.plan import ShardPlan
from gigascope.topography.focus.covered import Coverage
from gigascope.topography.focus.fuse import Mix
from gigascope.topography.inference.picture import in_focus
from gigascope.topography.inference.view_focus import find_focus
from gigascope.topography.ingest import BAYER, GREEN, RGB
from gigascope.topography.network.model import HeightNetwork
from gigascope.topography.streaming.view_stack import read_colours

INDEX, CONFIDENCE, IN_FOCUS = "index", "confidence", "aif"
CHUNK = 512


def lay_out_views(store: StoreWriter, stacks: StoreReader) -> None:
    """Create the arrays (view_row, view_col, row, col) `index` and `confidence` and, with colours, `aif`.

    Parameters
    ----------
    stacks : `raw` or `registered`
    """
    views, size, colours, dtype = _facts(stacks)
    axes = ("view_row", "view_col", "row", "col")
    for name in (INDEX, CONFIDENCE):
        store.create_member(name, _plan(views, size, (), 4), np.float32, axes=axes)
    store.create_member(IN_FOCUS, _plan(views, size, (colours,), dtype.itemsize), dtype, axes=(*axes, "c"))


def _plan(views: tuple[int, int], size: tuple[int, int], after: tuple[int, ...], itemsize: int) -> ShardPlan:
    edges = tuple(min(CHUNK, n) for n in size)
    sides = tuple(-(-n // edge) * edge for n, edge in zip(size, edges))
    return ShardPlan((*views, *size, *after), itemsize, (1, 1, *edges, *after), (1, 1, *sides, *after))


def _facts(stacks: StoreReader) -> tuple[tuple[int, int], tuple[int, int], int, np.dtype]:
    """Grid of views, size of one, its colours, and their dtype."""
    there = {name for name in (BAYER, RGB) if (stacks.path / name / "zarr.json").is_file()}
    array = stacks.member(next(iter(there), GREEN))
    rows, columns, height, width = (*array.shape[:2], *array.shape[-2:])
    return (rows, columns), (height, width), 3 if there else 1, array.dtype


@dataclass(frozen=True, eq=False)
class Inference:
    """Finds focus and picture of one view after another.

    Attributes
    ----------
    stacks : store `raw` or `registered`
    present : (view rows, view columns) bool
    network : on `device`; none: focus alone
    tile, fill, device : see :func:`..inference.view_focus.find_focus`
    mix : see :func:`..inference.picture.in_focus`
    coverage : of the slices of a registered stack
    """

    stacks: StoreReader
    present: NDArray[np.bool_]
    network: HeightNetwork | None
    tile: int
    fill: bool
    mix: Mix
    device: torch.device
    coverage: Coverage | None = None

    def arrays(self, view: tuple[int, int]) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """What is found in a view, by the name of its array, and numbers for people; nothing where it is absent."""
        if not self.present[view]:
            _, size, colours, dtype = _facts(self.stacks)
            nothing = {INDEX: np.full(size, np.nan, np.float32), CONFIDENCE: np.zeros(size, np.float32)}
            return nothing | {IN_FOCUS: np.zeros((*size, colours), dtype)}, {}
        stack = read_colours(self.stacks, view)
        how: dict[str, Any] = {"tile": self.tile, "fill": self.fill, "device": self.device}
        focus = find_focus(stack, self.network, **how, coverage=self.coverage)
        found = {INDEX: focus.index.numpy(), CONFIDENCE: focus.confidence.numpy()}
        found[IN_FOCUS] = in_focus(stack, focus.index, self.mix)
        if focus.unseen is not None:
            found[INDEX][focus.unseen.numpy()] = np.nan
        trusted = focus.confidence >= 0.5
        return found, {"trusted": float(trusted.float().mean()), "confidence": float(focus.confidence.mean())}
