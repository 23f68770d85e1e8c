"""The networks of an adaptation together: two generators, two discriminators, a segmenter where labels are kept."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from gigascope.errors import UserError
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.discriminator import Discriminator
from gigascope.synthesis.adaptation.generator import Generator
from gigascope.synthesis.adaptation.segmenter import Segmenter

# Names of the published checkpoint: G_A maps A to B, and D_A, its partner, judges images that look like B.
PUBLISHED = {
    "to_b": "netG_A_state_dict",
    "to_a": "netG_B_state_dict",
    "judge_b": "netD_A_state_dict",
    "judge_a": "netD_B_state_dict",
}


class Networks(nn.ModuleDict):
    """Generators `to_a`, `to_b`, discriminators `judge_a`, `judge_b`, and `segmenter` where labels are kept.

    Parameters
    ----------
    architecture : of generators and discriminators
    segmenter : there is one
    seed : of the first weights
    """

    def __init__(self, architecture: Architecture, *, segmenter: bool, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            parts: dict[str, nn.Module] = {
                "to_a": Generator(architecture),
                "to_b": Generator(architecture),
                "judge_a": Discriminator(architecture),
                "judge_b": Discriminator(architecture),
            }
            if segmenter:
                parts["segmenter"] = Segmenter(flat=architecture.strides[0][0] == 1)
        super().__init__(parts)
        self.architecture = architecture

    def generators(self) -> list[nn.Parameter]:
        """Their parameters."""
        return [p for name in ("to_a", "to_b") for p in self[name].parameters()]

    def discriminators(self) -> list[nn.Parameter]:
        """Their parameters."""
        return [p for name in ("judge_a", "judge_b") for p in self[name].parameters()]

    def averages(self) -> dict[str, Generator]:
        """Copies of the generators, for running means of their weights."""
        found: dict[str, Generator] = {}
        for name in ("to_a", "to_b"):
            found[name] = deepcopy(self[name]).requires_grad_(False)  # type: ignore[assignment]
        return found

    def states(self) -> dict[str, Any]:
        """State of each."""
        return {name: module.state_dict() for name, module in self.items()}

    def load_states(self, states: dict[str, Any]) -> None:
        """Take over the state of each that is there."""
        for name, module in self.items():
            if name in states:
                module.load_state_dict(states[name])


def load_published(networks: Networks, states: dict[str, Any], where: str) -> None:
    """Take over the weights of the published program, by the order of its layers, whatever their names.

    Parameters
    ----------
    states : what its `models.pth` holds
    where : the file

    Raises
    ------
    UserError : networks of another size or kind
    """
    for name, published in PUBLISHED.items():
        mine = networks[name].state_dict()
        theirs = [value for value in states[published].values() if torch.is_tensor(value)]
        shapes = [tuple(value.shape) for value in mine.values()], [tuple(value.shape) for value in theirs]
        if shapes[0] != shapes[1]:
            at = next((n for n, pair in enumerate(zip(*shapes)) if pair[0] != pair[1]), min(map(len, shapes)))
            found = [f"{len(s)} arrays, number {at + 1} is {s[at] if at < len(s) else 'missing'}" for s in shapes]
            what = f"{published} is of another architecture: {found[1]}; {found[0]} here."
            do = "Set train.preset: paper, and train.arch and width as it was trained."
            raise UserError(what, where=where, do=do)
        networks[name].load_state_dict(dict(zip(mine, theirs)))
