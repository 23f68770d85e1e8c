"""Evidence of crops, cut out of that of whole views where there is memory for it.

Measured on preset XS, two cores: a crop is seen in 35 steps before all of the mosaic was, and finding its evidence is
half of a step. Cut out of its view it also has no border where the view goes on, as at inference.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gigascope.store.open import StoreReader
from gigascope.topography.network.batch import Batch
from gigascope.topography.network.evidence import CHANNELS, Evidence, evidence_in_tiles, find_evidence
from gigascope.topography.streaming.crops import Crops
from gigascope.topography.streaming.view_stack import read_green

# Channels in half, everything else in single precision: what is of order 1 needs no more.
BYTES_PER_PIXEL = 2 * CHANNELS + 4 * 4
TILE = 1024


def evidence_bytes(n_views: int, size: tuple[int, int]) -> int:
    """Memory for the evidence of whole views."""
    return n_views * size[0] * size[1] * BYTES_PER_PIXEL


class ViewEvidence:
    """Finds the evidence of batches.

    Parameters
    ----------
    stacks : store of the z-stacks
    grid : (view rows, view columns)
    n_views : that are there
    budget_bytes : for the evidence of whole views; all of them, or none is kept
    device : where it is found and kept
    """

    def __init__(
        self, stacks: StoreReader, grid: tuple[int, int], size: tuple[int, int], n_views: int, budget_bytes: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.whole = evidence_bytes(n_views, size) <= budget_bytes
        self._stacks, self._grid, self._device = stacks, grid, device
        self._slots: dict[int, int] = {}
        # one block for all views: each in a block of its own would leave holes between them as large as they are
        whole = (n_views, *size) if self.whole else (0, 0, 0)
        channels = torch.empty((whole[0], CHANNELS, *whole[1:]), dtype=torch.float16, device=device)
        kept = [torch.empty(whole, dtype=torch.float32, device=device) for _ in range(4)]
        self._kept = Evidence(kept[0], kept[1], channels, kept[2], kept[3])

    def add_to(self, batch: Batch, crops: Crops) -> Batch:
        """The batch with its evidence."""
        if not self.whole:
            return replace(batch, evidence=find_evidence(batch.stacks))
        side = batch.stacks.shape[-1]
        parts: list[tuple[Tensor, ...]] = []
        for view, (row, col) in zip(crops.view.tolist(), crops.corner.tolist()):
            cut = (self._slot(view), ..., slice(row, row + side), slice(col, col + side))
            parts.append(tuple(part[cut].float() for part in self._kept))
        return replace(batch, evidence=Evidence(*map(torch.stack, zip(*parts))))

    def _slot(self, view: int) -> int:
        """Place of a view in the block, where its evidence is found when it is first asked for."""
        if view not in self._slots:
            stack = read_green(self._stacks, divmod(view, self._grid[1]))
            found = evidence_in_tiles(lambda *part: stack.green(*part).to(self._device), stack.size, TILE)
            slot = len(self._slots)
            for to, part in zip(self._kept, found):
                to[slot] = part[0]
            self._slots[view] = slot
        return self._slots[view]
