"""Normalisations of the generators, in float32 whatever the rest computes in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-5


class ChannelNorm(nn.Module):
    """Each voxel's channels have mean 0 and variance 1, then a learned scale and offset.

    No statistics of the image: a tile gives what the whole gives.

    Parameters
    ----------
    channels : of the input
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) to the same."""
        # channels last: where the memory is laid out so already nothing is copied
        values = x.movedim(1, -1).float()
        values = functional.layer_norm(values, self.weight.shape, self.weight, self.bias, EPS)
        return values.to(x.dtype).movedim(-1, 1)


class InstanceNorm(nn.Module):
    """Each channel of each image has mean 0 and variance 1; nothing is learned.

    Attributes
    ----------
    statistics : own, of what comes in, as published; measure, own, and they are summed; frozen, what was summed
    sums : (3, channels) float64: count, sum and sum of squares of each channel; none: nothing was summed
    """

    def __init__(self) -> None:
        super().__init__()
        self.statistics: Literal["own", "measure", "frozen"] = "own"
        self.sums: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) to the same."""
        values, over = x.float(), tuple(range(2, x.ndim))
        if self.statistics == "measure":
            self._add(values)
        if self.statistics == "frozen":
            mean, variance = self._known(x)
        else:
            mean, variance = values.mean(over, keepdim=True), values.var(over, correction=0, keepdim=True)
        return ((values - mean) * torch.rsqrt(variance + EPS)).to(x.dtype)

    def _add(self, values: Tensor) -> None:
        flat = values.detach().double().movedim(1, 0).flatten(1)
        count = torch.full((len(flat),), float(flat.shape[1]), dtype=torch.float64, device=flat.device)
        found = torch.stack([count, flat.sum(1), flat.square().sum(1)]).cpu()
        self.sums = found if self.sums is None else self.sums + found

    def _known(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.sums is None:
            raise RuntimeError("instance normalisation: no statistics were measured")
        count, total, squares = self.sums
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        shape = (1, -1, *[1] * (x.ndim - 2))
        return mean.float().to(x.device).view(shape), variance.float().to(x.device).view(shape)


def instance_norms(network: nn.Module) -> list[InstanceNorm]:
    """All of a network, in the order of its layers."""
    return [module for module in network.modules() if isinstance(module, InstanceNorm)]
