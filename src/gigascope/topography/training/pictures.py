"""What a network makes of some patches, at one step of its training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.topography.network.batch import Batch, height_slices
from gigascope.topography.network.losses import select
from gigascope.topography.network.model import HeightNetwork
from gigascope.topography.network.training import look
from gigascope.topography.streaming.crops import Crops

# Patches of a picture, one of each mosaic position.
MOST = 4
# Share of the values at each end that become black, or white.
TAILS = 0.005


@dataclass(frozen=True, eq=False)
class Picture:
    """p patches.

    Attributes
    ----------
    step : that were done
    view : (p,) int64, number of each patch's view
    corner : (p, 2) int64, its first (row, column)
    slice : (p, h, w) float32, counts of the slice in which most of the patch is in focus
    in_focus : (p, h, w) float32, counts at the network's index
    prior, network : (p, h, w) float32, heights in steps of the stage
    """

    step: int
    view: Tensor
    corner: Tensor
    slice: Tensor
    in_focus: Tensor
    prior: Tensor
    network: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Picture:
        """From :meth:`to_dict`."""
        return Picture(**values)


@torch.no_grad()
def take_picture(network: HeightNetwork, batch: Batch, crops: Crops, step: int) -> Picture:
    """Look at the first view of each mosaic position of a batch that has its evidence."""
    if batch.evidence is None:
        raise ValueError("a picture needs a batch with evidence")
    first = [int((batch.group == group).nonzero()[0, 0]) for group in range(min(MOST, batch.n_groups))]
    index = look(network, batch.stacks, batch.evidence).index.float()[first]
    prior, stacks = batch.evidence.prior[first], _floats(batch.stacks[first])
    middle = prior.flatten(1).median(dim=1).values.round().clamp(0, batch.n_z - 1)
    heights = [_heights(batch, first, values) for values in (prior, index)]
    return Picture(
        step,
        torch.from_numpy(crops.view[first]),
        torch.from_numpy(crops.corner[first]),
        select(stacks, middle[:, None, None].expand_as(index)).cpu(),
        select(stacks, index).cpu(),
        *(values.cpu() for values in heights),
    )


def strips(picture: Picture) -> dict[str, NDArray[np.uint8]]:
    """Grey pictures by patch: one slice, all in focus, and heights of prior and network, the higher the brighter."""
    pairs = ((picture.slice, picture.in_focus), (picture.prior, picture.network))
    return {
        f"patch {n + 1}": np.hstack([_grey(values[n], pair[0][n]) for pair in pairs for values in pair])
        for n in range(len(picture.slice))
    }


def _grey(values: Tensor, like: Tensor) -> NDArray[np.uint8]:
    """Values as grey, black and white being those of another picture."""
    low, high = np.quantile(like.numpy(), (TAILS, 1 - TAILS))
    share = (values.numpy() - low) / max(float(high - low), 1e-12)
    return np.asarray(np.clip(255 * share, 0, 255).round(), np.uint8)


def _heights(batch: Batch, which: list[int], index: Tensor) -> Tensor:
    whole = batch.datum_mm.new_zeros(batch.datum_mm.shape)
    whole[which] = index
    return height_slices(batch, whole)[which]


def _floats(stacks: Tensor) -> Tensor:
    # torch computes little on uint16
    return stacks.float() if stacks.dtype != torch.uint16 else stacks.to(torch.int32).float()
