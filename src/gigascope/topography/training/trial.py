"""Whether a network was worth training: its heights and the prior's beside what other views find, without any truth.

The teacher of a pixel is the mean of what all other views find there with a small window. Its noise is not in the view
that is judged, so it adds the same to the error of everything that is judged by it: the smaller residual is the smaller
error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gigascope.topography.network.batch import Batch, height_slices
from gigascope.topography.network.consensus import canvas, from_others
from gigascope.topography.network.losses import LEAST_VARIANCE
from gigascope.topography.network.model import HeightNetwork
from gigascope.topography.network.training import look

# A residual counts for no more than this, slices: where views see different things, nothing is learned of either.
MOST = 1.0
# Only teachers that are known to half a slice.
LEAST_WEIGHT = 4.0


@dataclass(frozen=True)
class Trial:
    """RMS distances from what the other views find, in slices, over the same pixels.

    Attributes
    ----------
    network, prior : of their heights
    pixels : that were compared, all of cells that were kept from training
    """

    network: float
    prior: float
    pixels: int

    @property
    def network_is_better(self) -> bool:
        """The network is to be used."""
        return self.pixels > 0 and self.network < self.prior

    def words(self) -> str:
        """For a person."""
        if not self.pixels:
            return "nowhere do two views find their focus, so there is nothing to judge it by"
        return (
            f"it is {self.network:.4f} slices from what other views find, the focus prior {self.prior:.4f}, RMS over "
            f"{self.pixels} pixels that were kept from training"
        )


@torch.no_grad()
def judge(network: HeightNetwork, batches: Iterable[Batch]) -> Trial:
    """Compare a network and the prior on batches that have their evidence, where pixels are held out."""
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for batch in batches:
        squares, valid = _squares(network, batch)
        sums += torch.stack([s[valid].double().sum().cpu() for s in squares])
        count += int(valid.sum())
    network_rms, prior_rms = ((s / max(1, count)) ** 0.5 for s in sums.tolist())
    return Trial(network_rms, prior_rms, count)


def _squares(network: HeightNetwork, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """Squared residuals of network and prior, and where they count, (n, h, w) each."""
    evidence = batch.evidence
    if evidence is None or batch.held is None:
        raise ValueError("a batch without evidence and held-out pixels cannot be judged")
    coords, shape = canvas(batch.coords, batch.group, batch.n_groups)
    placed = replace(batch, coords=coords)
    weight = 1.0 / evidence.fine_variance.clamp_min(LEAST_VARIANCE)
    mean, total = from_others(height_slices(placed, evidence.fine), weight, coords, batch.group, batch.n_groups, shape)
    found = (look(network, batch.stacks, evidence).index.float(), evidence.prior)
    residuals = [(height_slices(placed, index) - mean).abs().clamp_max(MOST) ** 2 for index in found]
    return residuals, (total > LEAST_WEIGHT) & batch.held
