"""Occupancy network: an MLP from encoded coordinates to the probability that a place holds signal.

The gate of VolMicro with its faults mended: coordinates are isotropic, the finest period of the encoding is 4 to 8
voxels on every axis, voxel centres are at ``i + 0.5`` in training and in inference, half of each batch comes from the
occupied voxels and their shell, and weights make the expectation that of uniform sampling.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gigascope.compression.gating.gate import dilated, inside
from gigascope.store.plan import Region

# Voxels around the occupied ones that count as their shell.
SHELL = 3
# Voxels of a frame that the points of the batches are drawn from, of each of the two kinds: every batch has its own
# points, but out of these. Smaller frames give all of their voxels.
POOL = 1 << 22
LEAST_POOL = 1 << 12
# The finest period of the encoding is between this many voxels and twice as many.
FINEST = 4
# Learning rate at the end over that at the start.
DECAY = 0.01
# Voxels evaluated at once: 2^17 x 256 activations of float32 are 128 MiB.
CHUNK = 1 << 17
THRESHOLDS = np.linspace(0.01, 0.99, 99)


@dataclass(frozen=True)
class Settings:
    """Of the network and its training: see :class:`gigascope.config.compression.GateNetwork`."""

    steps: int = 2000
    batch: int = 65536
    width: int = 256
    depth: int = 5
    lr: float = 1e-3


def octaves(shape: Sequence[int], voxel_size: Sequence[float]) -> list[int]:
    """Octaves of the encoding along each axis, ``1 + floor(log2(S / (4 voxel)))`` with the longest side S."""
    longest = max(n * v for n, v in zip(shape, voxel_size))
    return [max(1, 1 + math.floor(math.log2(longest / (FINEST * v)) + 1e-9)) for v in voxel_size]


class OccupancyNetwork(nn.Module):
    """Logit of the occupancy of places in a frame.

    Parameters
    ----------
    shape : (z, y, x) voxels
    voxel_size : (z, y, x), any unit of length
    width : neurons of a hidden layer
    depth : linear layers, the output one included
    """

    scale: Tensor

    def __init__(self, shape: Sequence[int], voxel_size: Sequence[float], width: int = 256, depth: int = 5) -> None:
        super().__init__()
        longest = max(n * v for n, v in zip(shape, voxel_size))
        self.octaves = octaves(shape, voxel_size)
        # not saved: it follows from the shape
        self.register_buffer("scale", torch.tensor([v / longest for v in voxel_size]), persistent=False)
        sizes = [3 + 2 * sum(self.octaves), *[width] * (depth - 1), 1]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def encode(self, places: Tensor) -> Tensor:
        """(n, 3) voxels, (z, y, x), centre of voxel i at i -> (n, 3 + 2 octaves): coordinates, sines, cosines."""
        x = (places + 0.5) * self.scale
        angles = [
            2 * math.pi * x[:, axis : axis + 1] * 2.0 ** torch.arange(n, device=x.device, dtype=x.dtype)
            for axis, n in enumerate(self.octaves)
        ]
        phase = torch.cat(angles, dim=1)
        return torch.cat([x, phase.sin(), phase.cos()], dim=1)

    def forward(self, places: Tensor) -> Tensor:
        """(n, 3) voxels -> (n,) logits, float32."""
        with _bf16(places.device):
            return self.layers(self.encode(places)).squeeze(1).float()

    @torch.no_grad()
    def occupied(self, box: Region, tau: float) -> NDArray[np.bool_]:
        """Whether the probability at the voxel centres of a box is above `tau`."""
        device = self.scale.device
        n_z, n_y, n_x = (b.stop - b.start for b in box)
        out = np.empty(n_z * n_y * n_x, bool)
        limit = math.log(tau / (1 - tau))
        for start in range(0, out.size, CHUNK):
            flat = torch.arange(start, min(out.size, start + CHUNK), device=device)
            place = torch.stack([flat // (n_y * n_x), flat // n_x % n_y, flat % n_x], dim=1)
            place = place + torch.tensor([b.start for b in box], device=device)
            out[start : start + CHUNK] = (self(place.float()) > limit).cpu().numpy()
        return out.reshape(n_z, n_y, n_x)


def new_network(shape: Sequence[int], voxel_size: Sequence[float], settings: Settings, seed: int) -> OccupancyNetwork:
    """An untrained network on the CPU, its weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OccupancyNetwork(shape, voxel_size, settings.width, settings.depth)


def _bf16(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in bfloat16 on CUDA, with weights in float32; float32 on the CPU."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def sample_region(
    gate: NDArray[np.uint8], around: Region, box: Region, quota: int, rng: np.random.Generator
) -> dict[str, NDArray]:
    """Voxels of a region to train with: some of its occupied voxels and their shell, some of all.

    Parameters
    ----------
    gate : (z, y, x) labels of the box `around`, which has a margin of `SHELL` voxels around the region
    around, box : of the gate, and of the region
    quota : voxels of each kind at most

    Returns
    -------
    near, far : (k, 3) int32 voxels; near_label, far_label : whether they are occupied; far_near : whether one of all is
    near an occupied one; n_near, n_all : (1,) how many there are of each kind
    """
    own = inside(box, around)
    label, near = gate[own].astype(bool).ravel(), dilated(gate, (SHELL,) * 3)[own].astype(bool).ravel()
    shape = [b.stop - b.start for b in box]
    corner = np.array([b.start for b in box])
    there = np.flatnonzero(near)
    picked = [_some(there, quota, rng), _some(np.arange(near.size), quota, rng)]
    places = [(np.stack(np.unravel_index(p, shape), axis=1) + corner).astype(np.int32) for p in picked]
    return {
        "near": places[0],
        "near_label": label[picked[0]],
        "far": places[1],
        "far_label": label[picked[1]],
        "far_near": near[picked[1]],
        "n_near": np.array([there.size]),
        "n_all": np.array([near.size]),
    }


def _some(places: NDArray[np.int64], quota: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return places if places.size <= quota else np.sort(rng.choice(places, quota, replace=False))


def quota(n_regions: int) -> int:
    """Voxels of each kind that a region gives, of a frame of so many regions."""
    return max(LEAST_POOL, POOL // n_regions)


class Points:
    """Points of a frame to train with, near the occupied voxels and all over.

    Parameters
    ----------
    regions : what :func:`sample_region` found in each
    """

    def __init__(self, regions: Sequence[Mapping[str, NDArray]], device: torch.device) -> None:
        def column(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([r[name] for r in regions])).to(device)

        self.n_near = sum(int(r["n_near"][0]) for r in regions)
        self.n_all = sum(int(r["n_all"][0]) for r in regions)
        self._near, self._near_label = column("near").float(), column("near_label")
        self._far, self._far_label, self._far_near = column("far").float(), column("far_label"), column("far_near")
        self._near_sum = _shares([(len(r["near"]), int(r["n_near"][0])) for r in regions]).to(device)
        self._far_sum = _shares([(len(r["far"]), int(r["n_all"][0])) for r in regions]).to(device)

    def batch(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """`n` points, (n, 3) voxels, whether they are occupied, and their weights, of mean 1 over the frame."""
        half = n // 2 if self.n_near else 0
        i = _draw(self._near_sum, half, generator)
        j = _draw(self._far_sum, n - half, generator)
        places = torch.cat([self._near[i], self._far[j]])
        label = torch.cat([self._near_label[i], self._far_label[j]])
        near = torch.cat([torch.ones(half, dtype=torch.bool, device=label.device), self._far_near[j]])
        # density of the points over that of uniform ones
        density = torch.full_like(places[:, 0], (n - half) / n) + near * (half / n * self.n_all / max(1, self.n_near))
        jitter = torch.rand(places.shape, generator=generator, device=places.device) - 0.5
        return places + jitter, label, 1 / density

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every point of the pool once, as :meth:`batch` gives them."""
        share = torch.cat(
            [
                torch.diff(self._near_sum, prepend=self._near_sum.new_zeros(1)),
                torch.diff(self._far_sum, prepend=self._far_sum.new_zeros(1)),
            ]
        )
        weight = share.float()
        # voxels near occupied ones stand in both parts: the first speaks for them
        weight[len(self._near) :] *= torch.where(self._far_near, 0.0, 1.0)
        return torch.cat([self._near, self._far]), torch.cat([self._near_label, self._far_label]), weight


def _shares(kept_of: Sequence[tuple[int, int]]) -> Tensor:
    """Running sum of the voxels that each point stands for."""
    each = [np.full(kept, total / kept) for kept, total in kept_of if kept]
    return torch.from_numpy(np.cumsum(np.concatenate([*each, np.zeros(0)])))


def _draw(running: Tensor, n: int, generator: torch.Generator) -> Tensor:
    if n == 0:
        return torch.zeros(0, dtype=torch.int64, device=running.device)
    u = torch.rand(n, generator=generator, device=running.device, dtype=torch.float64) * running[-1]
    return torch.searchsorted(running, u, right=True).clamp(max=len(running) - 1)


class Training:
    """Training of the network of one frame; can be stopped between two steps.

    Parameters
    ----------
    network : on the device to train on
    points : on the same device
    seed : of all random numbers
    """

    def __init__(self, network: OccupancyNetwork, points: Points, settings: Settings, seed: int) -> None:
        self.network = network
        self.points = points
        self.settings = settings
        self.step = 0
        self._optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
        self._generator = torch.Generator(network.scale.device).manual_seed(seed)

    def updates(self) -> Iterator[str]:
        """Go on to the end; each update is the loss in words."""
        while self.step < self.settings.steps:
            share = 0.5 * (1 + math.cos(math.pi * self.step / self.settings.steps))
            for group in self._optimiser.param_groups:
                group["lr"] = self.settings.lr * (DECAY + (1 - DECAY) * share)
            places, label, weight = self.points.batch(self.settings.batch, self._generator)
            logits = self.network(places)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, label.float(), weight)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self._optimiser.step()
            self.step += 1
            yield f"loss {loss.item():.4f}"

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "random": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["random"])


@torch.no_grad()
def best_threshold(network: OccupancyNetwork, points: Points) -> float:
    """Probability above which voxels have the best F1 against the labels, of hundredths."""
    places, label, weight = points.all()
    found = torch.cat([network(part) for part in places.split(CHUNK)]).sigmoid()
    occupied = (weight * label).sum()
    scores = []
    for tau in THRESHOLDS:
        above = weight * (found > tau)
        scores.append(float(2 * (above * label).sum() / (above.sum() + occupied).clamp(min=1e-12)))
    return float(THRESHOLDS[int(np.argmax(scores))])


def weights_of(network: OccupancyNetwork) -> dict[str, NDArray[np.float32]]:
    """Parameters as arrays, by name."""
    return {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}


def load_weights(network: OccupancyNetwork, weights: Mapping[str, NDArray]) -> OccupancyNetwork:
    """Take over parameters from arrays."""
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return network
