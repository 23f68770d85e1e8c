"""The Gaussians of a fit with their optimiser's state, so that density control takes both along.

Survivors keep their moments and their own step counter; new ones start at zero with a counter of their own. An Adam
that is made anew at each event costs 5 dB for tens of iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gigascope.compression.mixture import Mixture


@dataclass(frozen=True)
class Population:
    """N Gaussians in the course of a fit.

    Attributes
    ----------
    mixture : the parameters
    first, second : (N, 11) float32, Adam's moments, columns in the order of the mixture's
    steps : (N,) int32, updates that each has had
    ids : (N,) int64, of each for as long as it lives
    next_id : of the next one
    """

    mixture: Mixture
    first: Tensor
    second: Tensor
    steps: Tensor
    ids: Tensor
    next_id: int

    @staticmethod
    def start(mixture: Mixture) -> Population:
        """New Gaussians; copies, since the optimiser moves them where they lie."""
        mixture = Mixture(*(column.clone() for column in mixture.tensors))
        n, device = len(mixture), mixture.means.device
        first, second = (torch.zeros(n, 11, device=device) for _ in range(2))
        steps = torch.zeros(n, dtype=torch.int32, device=device)
        return Population(mixture, first, second, steps, torch.arange(n, device=device), n)

    def __len__(self) -> int:
        return len(self.mixture)

    def select(self, rows: Tensor) -> Population:
        """Those of a mask or of indices."""
        return replace(
            self,
            mixture=self.mixture[rows],
            first=self.first[rows],
            second=self.second[rows],
            steps=self.steps[rows],
            ids=self.ids[rows],
        )

    def append(self, mixture: Mixture) -> Population:
        """With new Gaussians behind the others."""
        if len(mixture) == 0:
            return self
        new = Population.start(mixture)
        return Population(
            Mixture.concatenate([self.mixture, new.mixture]),
            torch.cat([self.first, new.first]),
            torch.cat([self.second, new.second]),
            torch.cat([self.steps, new.steps]),
            torch.cat([self.ids, new.ids + self.next_id]),
            self.next_id + len(mixture),
        )

    def state_dict(self) -> dict[str, Any]:
        """As tensors and plain values."""
        names = ("first", "second", "steps", "ids", "next_id")
        return {"mixture": self.mixture.tensors, **{name: getattr(self, name) for name in names}}

    @staticmethod
    def from_state(state: dict[str, Any], device: torch.device | str) -> Population:
        """What :meth:`state_dict` gave."""
        first, second, steps, ids = (state[name].to(device) for name in ("first", "second", "steps", "ids"))
        return Population(Mixture(*state["mixture"]).to(device), first, second, steps, ids, state["next_id"])
