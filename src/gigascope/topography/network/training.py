"""Training of the network on batches of crops; can be stopped between two steps, and shared by several processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from gigascope.errors import ShapeError
from gigascope.topography.network.batch import Batch
from gigascope.topography.network.evidence import CHANNELS, Evidence, find_evidence
from gigascope.topography.network.losses import Objective, dithered, terms
from gigascope.topography.network.model import Architecture, Focus, HeightNetwork


@dataclass(frozen=True)
class Schedule:
    """How the weights are moved; the published one is :data:`PARITY_SCHEDULE`.

    Attributes
    ----------
    steps : in all
    lr : learning rate after `warm_up` steps, which falls along a cosine to `last_lr` of it
    weight_decay : of AdamW; 0: Adam
    clip : largest norm of all gradients together
    average : decay of the running mean of the weights, which inference uses; 0: none
    recompute : activations are computed again on the way back, for less memory
    """

    steps: int = 2000
    lr: float = 1e-3
    warm_up: int = 100
    last_lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-7
    weight_decay: float = 1e-4
    clip: float = 10.0
    average: float = 0.999
    recompute: bool = False

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))
        warm = min(1.0, (step + 1) / max(1, min(self.warm_up, self.steps)))
        return self.lr * warm * (self.last_lr + (1 - self.last_lr) * share)


PARITY_SCHEDULE = Schedule(
    steps=100_001, lr=1e-4, warm_up=0, last_lr=1.0, weight_decay=0.0, average=0.0, recompute=True
)


def recommended(n_z: int, levels: int = 3) -> Architecture:
    """The default network: corrects the focus of :mod:`evidence` from it alone, at half the resolution."""
    return Architecture(
        n_z,
        filters=(32,) * levels,
        skips=(-1,),
        input="none",
        prior="focus",
        r_max=3.0,
        evidence=CHANNELS,
        reduce=2,
    )


def look(network: HeightNetwork, stacks: Tensor, evidence: Evidence | None = None) -> Focus:
    """What a network says of stacks, with the evidence that it asks for.

    Parameters
    ----------
    stacks : (n, z, h, w) counts
    evidence : of these stacks; none: found here
    """
    if network.architecture.prior == "none":
        return network(stacks)
    found = evidence if evidence is not None else find_evidence(stacks)
    return network(stacks, found.prior, found.channels, found.log_variance)


class Training:
    """Training of one network.

    Parameters
    ----------
    network : on the device to train on
    batches : the batch of a step, a function of its number alone; with several processes each one's own groups
    objective, schedule : see there
    seed : of the dithering
    processes : every process calls this with its own batches, after `torch.distributed.init_process_group`; the step
        that all make is that of all their batches together
    """

    def __init__(
        self,
        network: HeightNetwork,
        batches: Callable[[int], Batch],
        objective: Objective,
        schedule: Schedule,
        seed: int,
        processes: bool = False,
    ) -> None:
        if objective.agreement and network.architecture.prior != "focus":
            raise ShapeError("training: agreement of views needs a network with prior focus")
        self.network, self.batches = network, batches
        self.objective, self.schedule, self.seed = objective, schedule, seed
        self.step = 0
        self.losses: dict[str, float] = {}
        self.curves: list[dict[str, float]] = []
        self._processes = processes
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        if processes:
            # one start for all
            for p in self._parameters:
                distributed.broadcast(p.data, 0)
        self._average = deepcopy(network).requires_grad_(False) if schedule.average else None
        kind = torch.optim.AdamW if schedule.weight_decay else torch.optim.Adam
        self._optimiser = kind(
            self._parameters,
            lr=schedule.lr,
            betas=schedule.betas,
            eps=schedule.eps,
            weight_decay=schedule.weight_decay,
        )

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._parameters[0].device

    @property
    def result(self) -> HeightNetwork:
        """The network for inference: the running mean of the weights, if there is one."""
        return self._average if self._average is not None else self.network

    def updates(self) -> Iterator[str]:
        """Go on to the end; each update is the losses in words."""
        self.network.train()
        self.network.recompute = self.schedule.recompute
        while self.step < self.schedule.steps:
            self._make_step()
            yield ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())

    def _make_step(self) -> None:
        schedule = self.schedule
        rate = schedule.rate(self.step)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        batch = self.batches(self.step).to(self.device)
        evidence = batch.evidence
        if evidence is None and self.network.architecture.prior == "focus":
            evidence = find_evidence(batch.stacks)
        focus = look(self.network, batch.stacks, evidence)
        if self.objective.dither:
            # keyed by the step: nothing to be saved, and alike in all processes
            batch = dithered(batch, np.random.default_rng((self.seed, self.step)))
        found = terms(batch, focus, self.objective, evidence, self.step / schedule.steps)
        sums = {name: (batch.weight * value).sum() for name, value in found.items()}
        count = self._total(batch.weight.sum())
        self._optimiser.zero_grad(set_to_none=True)
        (torch.stack(list(sums.values())).sum() / count).backward()
        self._share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, schedule.clip)
        self._optimiser.step()
        self._follow()
        values = self._total(torch.stack([s.detach() for s in sums.values()])) / count
        self.losses = {"loss": float(values.sum())} | dict(zip(sums, values.tolist()))
        self.curves.append({"step": self.step, "rate": rate, "gradient": float(norm), **self.losses})
        self.step += 1

    def _total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        values = values.detach().clone()
        if self._processes:
            distributed.all_reduce(values)
        return values

    def _share_gradients(self) -> None:
        """Sum over the processes, in one message: the network is 1 MB, there is nothing to overlap."""
        if not self._processes:
            return
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        flat = torch.cat([g.reshape(-1) for g in grads])
        distributed.all_reduce(flat)
        for p, part in zip(self._parameters, flat.split([p.numel() for p in self._parameters])):
            p.grad = part.reshape(p.shape).clone()

    def _follow(self) -> None:
        """Running mean of the weights; young ones forget their start sooner."""
        if self._average is None:
            return
        keep = min(self.schedule.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.parameters()), list(self.network.parameters()), 1 - keep)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, and to use the network."""
        return {
            "architecture": self.network.architecture.to_dict(),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "curves": list(self.curves),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises
        ------
        ShapeError : it is that of another network
        """
        saved = Architecture.from_dict(state["architecture"])
        if saved != self.network.architecture:
            raise ShapeError(f"training: the checkpoint is of {saved}, the network is {self.network.architecture}")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.curves = list(state["curves"])


def network_of(state: dict[str, Any], n_z: int) -> HeightNetwork:
    """The network for inference from a checkpoint.

    Parameters
    ----------
    state : of :meth:`Training.state_dict`
    n_z : slices of the stacks that it will see

    Raises
    ------
    ShapeError : it was trained on another number of slices and depends on it
    """
    architecture = Architecture.from_dict(state["architecture"])
    if architecture.n_z != n_z:
        if architecture.input != "none":
            raise ShapeError(f"network: trained on stacks of {architecture.n_z} slices, these have {n_z}")
        architecture = Architecture.from_dict(architecture.to_dict() | {"n_z": n_z})
    network = HeightNetwork(architecture)
    network.load_state_dict(state["average"] or state["network"])
    return network.eval().requires_grad_(False)
