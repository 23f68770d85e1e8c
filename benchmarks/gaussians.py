"""Mixtures of Gaussians against the limits of the machine and against two peers; prints a table.

    python benchmarks/gaussians.py [--quick] [--device auto|cpu|cuda] [--json FILE]

The unit is the pair: one Gaussian at one voxel inside its cut. The mixture has scales of 2 voxels (log-normal, 1.2 to
4), any rotation and cuts at 3.5: 4,000 Gaussians in 64 x 128 x 128 voxels on a CPU, 20,700 in 100 x 647 x 813 on a GPU.
The limits are those of kernels.py, measured first. Counted as operations per pair: 18 forward (4 for the exponent in
coordinates that change along x only, 12 for the exponential as a polynomial, 2 for the sum) and 32 backward (another
14 for the ten sums); the share of the limit is the longer of the two times over ours. Peers: the same sums in plain
torch (boxes of a batch of Gaussians, index_add, gradients by autograd) and, on a CPU, in plain numba (loops over boxes
with math.exp, parallel over planes forward and over Gaussians backward). Their results are compared with ours first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
import torch
from kernels import Limits, measure_limits
from projector import Table, arguments, choose_device, seconds
from torch import Tensor

from gigascope.kernels import gaussians
from gigascope.kernels.gaussians.reference import rotations

FORWARD, BACKWARD = 18, 32
# Gaussians that the peer in torch evaluates at a time
BATCH = 64


@dataclass(frozen=True)
class Case:
    """A random mixture in a volume, and a target for its fit."""

    n: int
    shape: tuple[int, int, int]
    device: torch.device

    def __str__(self) -> str:
        return f"{self.n} in {self.shape[0]} x {self.shape[1]} x {self.shape[2]}"

    def mixture(self) -> list[Tensor]:
        """Means, log-scales, quaternions, amplitudes and cuts, the same in every run."""
        source = torch.Generator().manual_seed(1)
        means = torch.rand(self.n, 3, generator=source) * (torch.tensor(self.shape) - 1)
        spread = 0.3 * torch.randn(self.n, 3, generator=source) + math.log(2)
        quaternions = torch.randn(self.n, 4, generator=source)
        amplitudes = 0.2 + 0.8 * torch.rand(self.n, generator=source)
        tensors = means, spread.clamp(math.log(1.2), math.log(4)), quaternions, amplitudes, torch.full((self.n,), 3.5)
        return [tensor.to(self.device) for tensor in tensors]


class PlainTorch:
    """Boxes of a batch of Gaussians in plain torch, those of like size together."""

    def __init__(self, mixture: list[Tensor], shape: tuple[int, int, int]) -> None:
        self.shape, cuts = shape, mixture[4]
        self.order = (cuts * mixture[1].max(dim=1).values.exp()).argsort()
        self.cuts = cuts[self.order]
        self.leaves = [tensor.detach()[self.order].clone().requires_grad_() for tensor in mixture[:4]]

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """(z, y, x)."""
        out = torch.zeros(math.prod(self.shape), device=self.cuts.device)
        for begin in range(0, len(self.cuts), BATCH):
            at, values = self._values(slice(begin, begin + BATCH))
            out.index_add_(0, at.reshape(-1), values.reshape(-1))
        return out.reshape(self.shape)

    def gradients(self, upstream: Tensor) -> list[Tensor]:
        """Of the sum of upstream times the values, batch by batch so that memory holds one."""
        for leaf in self.leaves:
            leaf.grad = None
        flat = upstream.reshape(-1)
        for begin in range(0, len(self.cuts), BATCH):
            at, values = self._values(slice(begin, begin + BATCH))
            (flat[at] * values).sum().backward()
        back = self.order.argsort()
        return [leaf.grad[back] for leaf in self.leaves if leaf.grad is not None]

    def _values(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Flat indices (Gaussian, voxel) of the boxes of some Gaussians, and a phi there; 0 outside of the volume."""
        means, log_scales, quaternions, amplitudes = (leaf[rows] for leaf in self.leaves)
        cuts, scales, size = self.cuts[rows], log_scales.exp(), torch.tensor(self.shape, device=self.cuts.device)
        with torch.no_grad():
            reach = int((cuts * scales.max(dim=1).values).max().ceil())
            around = torch.arange(-reach, reach + 1, device=cuts.device)
            offsets = torch.stack(torch.meshgrid(around, around, around, indexing="ij"), dim=-1).reshape(-1, 3)
            voxels = means.round().long()[:, None] + offsets
            inside = ((voxels >= 0) & (voxels < size)).all(dim=2)
            z, y, x = voxels.clamp(min=0).minimum(size - 1).unbind(2)
        m = (((voxels - means[:, None]) @ rotations(quaternions)) / scales[:, None]).square().sum(dim=2)
        values = torch.where(inside & (m < cuts[:, None] ** 2), amplitudes[:, None] * torch.exp(-m / 2), 0.0)
        return (z * self.shape[1] + y) * self.shape[2] + x, values


class PlainNumba:
    """Loops over boxes in plain numba."""

    def __init__(self, mixture: list[Tensor], shape: tuple[int, int, int]) -> None:
        self.shape = shape
        means, log_scales, quaternions, amplitudes, cuts = mixture
        turned, scales = rotations(quaternions), log_scales.exp()
        factors = (turned / scales[:, None]).transpose(1, 2).contiguous()
        halves = cuts[:, None] * (turned * scales[:, None]).square().sum(dim=2).sqrt()
        size = torch.tensor(shape)
        low, high = (means - halves).ceil().clamp(min=0), torch.minimum((means + halves).floor() + 1, size)
        self.tensors = mixture
        self.boxes = torch.stack((low, high), dim=2).reshape(-1, 6).long().numpy()
        self.arrays = [tensor.numpy() for tensor in (means, factors, amplitudes, cuts)]

    def evaluate(self) -> Tensor:
        """(z, y, x)."""
        out = np.zeros(self.shape, np.float32)
        _loop_forward(*self.arrays, self.boxes, out)
        return torch.from_numpy(out)

    def gradients(self, upstream: Tensor) -> list[Tensor]:
        """Of the sum of upstream times the values."""
        sums = np.empty((len(self.boxes), 10), np.float32)
        _loop_backward(*self.arrays, self.boxes, upstream.numpy(), sums)
        return list(gaussians.parameter_gradients(*self.tensors[1:4], torch.from_numpy(sums)))


@numba.njit(parallel=True, fastmath=True)
def _loop_forward(means, factors, amplitudes, cuts, boxes, out):  # type: ignore[no-untyped-def]
    for z in numba.prange(out.shape[0]):
        for i in range(len(boxes)):
            if z < boxes[i, 0] or z >= boxes[i, 1]:
                continue
            b, end = factors[i], cuts[i] * cuts[i]
            for y in range(boxes[i, 2], boxes[i, 3]):
                for x in range(boxes[i, 4], boxes[i, 5]):
                    d, e, f = z - means[i, 0], y - means[i, 1], x - means[i, 2]
                    u = b[0, 0] * d + b[0, 1] * e + b[0, 2] * f
                    v = b[1, 0] * d + b[1, 1] * e + b[1, 2] * f
                    w = b[2, 0] * d + b[2, 1] * e + b[2, 2] * f
                    m = u * u + v * v + w * w
                    if m < end:
                        out[z, y, x] += amplitudes[i] * math.exp(-0.5 * m)


@numba.njit(parallel=True, fastmath=True)
def _loop_backward(means, factors, amplitudes, cuts, boxes, upstream, sums):  # type: ignore[no-untyped-def]
    for i in numba.prange(len(boxes)):
        b, end = factors[i], cuts[i] * cuts[i]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = 0.0
        for z in range(boxes[i, 0], boxes[i, 1]):
            for y in range(boxes[i, 2], boxes[i, 3]):
                for x in range(boxes[i, 4], boxes[i, 5]):
                    d, e, f = z - means[i, 0], y - means[i, 1], x - means[i, 2]
                    u = b[0, 0] * d + b[0, 1] * e + b[0, 2] * f
                    v = b[1, 0] * d + b[1, 1] * e + b[1, 2] * f
                    w = b[2, 0] * d + b[2, 1] * e + b[2, 2] * f
                    m = u * u + v * v + w * w
                    if m < end:
                        g = upstream[z, y, x] * math.exp(-0.5 * m)
                        s0, s1, s2, s3 = s0 + g, s1 + g * u, s2 + g * v, s3 + g * w
                        s4, s5, s6 = s4 + g * u * u, s5 + g * v * v, s6 + g * w * w
                        s7, s8, s9 = s7 + g * v * w, s8 + g * u * w, s9 + g * u * v
        sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3], sums[i, 4] = s0, s1, s2, s3, s4
        sums[i, 5], sums[i, 6], sums[i, 7], sums[i, 8], sums[i, 9] = s5, s6, s7, s8, s9


class Fit:
    """One iteration of a fit: values, residual, sums, gradients, step."""

    def __init__(self, mixture: list[Tensor], target: Tensor) -> None:
        self.parameters, self.cuts, self.target = [tensor.clone() for tensor in mixture[:4]], mixture[4], target
        n = len(self.cuts)
        self.state = [target.new_zeros(n, 11), target.new_zeros(n, 11), target.new_zeros(n, dtype=torch.int32)]

    def gradients(self, upstream: Tensor) -> tuple[Tensor, ...]:
        """Through the ten sums, as `backward` does."""
        sums = gaussians.moments(*self.parameters[:3], self.cuts, upstream)
        return gaussians.parameter_gradients(*self.parameters[1:], sums)

    def step(self) -> None:
        """In place; rates of zero, so that every iteration has the same pairs."""
        values = gaussians.evaluate(*self.parameters, self.cuts, self.target.shape)
        gradients = self.gradients(values.sub_(self.target))
        gaussians.adam_(*self.parameters, gradients, *self.state, (0.0, 0.0, 0.0, 0.0))


def add_rows(
    table: Table,
    case: Case,
    name: str,
    run: Callable[[], object],
    pairs: int,
    flops: float,
    limits: Limits,
    n_runs: int,
) -> float:
    """Time, pairs per second and share of the limit of one op; the seconds."""
    taken = seconds(run, case.device, n_runs)
    n_bytes = 4 * math.prod(case.shape) + 48 * case.n
    least = max(n_bytes / limits.n_bytes, flops * pairs / limits.n_flops)
    row = f"{name} [{case}]"
    table.add(row, case.device.type, "time", taken, "s")
    table.add(row, case.device.type, "rate", pairs / taken / 1e6, "M pairs/s")
    table.add(row, case.device.type, "share of the measured limit", 100 * least / taken, "%")
    return taken


def add_peer(
    table: Table, case: Case, name: str, peer: str, run: Callable[[], object], pairs: int, ours: float
) -> None:
    """Time and pairs per second of a peer."""
    theirs = seconds(run, case.device, 3)
    row = f"{name} [{case}]"
    table.add(row, peer, "time", theirs, "s")
    table.add(row, peer, "rate", pairs / theirs / 1e6, "M pairs/s")
    table.add(row, peer, "peer time / ours", theirs / ours, "")


def compare(table: Table, case: Case, limits: Limits, n_runs: int) -> None:
    """Forward and backward beside the peers, then the other ops."""
    mixture, upstream = case.mixture(), torch.randn(case.shape, device=case.device)
    geometry = (*mixture[:3], mixture[4])
    pairs, fit = gaussians.count_pairs(*geometry, case.shape), Fit(mixture, upstream)
    table.add(f"mixture [{case}]", case.device.type, "pairs", pairs, "")
    peers: list[tuple[str, PlainTorch | PlainNumba]] = [("plain torch", PlainTorch(mixture, case.shape))]
    if case.device.type == "cpu":
        peers.append(("plain numba, math.exp", PlainNumba(mixture, case.shape)))
    values, slopes = gaussians.evaluate(*mixture, case.shape), fit.gradients(upstream)
    for name, peer in peers:
        difference = (peer.evaluate() - values).abs().max()
        table.add(f"evaluate [{case}]", name, "largest difference", float(difference), "")
        apart = max(float((a - b).norm() / b.norm()) for a, b in zip(peer.gradients(upstream), slopes, strict=True))
        table.add(f"moments, gradients [{case}]", name, "relative L2 difference", apart, "")
    forward = lambda: gaussians.evaluate(*mixture, case.shape)  # noqa: E731
    ours = add_rows(table, case, "evaluate", forward, pairs, FORWARD, limits, n_runs)
    for name, peer in peers:
        add_peer(table, case, "evaluate", name, peer.evaluate, pairs, ours)
    ours = add_rows(table, case, "moments, gradients", lambda: fit.gradients(upstream), pairs, BACKWARD, limits, n_runs)
    for name, peer in peers:
        add_peer(table, case, "moments, gradients", name, lambda peer=peer: peer.gradients(upstream), pairs, ours)
    squares = lambda: gaussians.squared_sums(*geometry, upstream)  # noqa: E731
    add_rows(table, case, "squared_sums", squares, pairs, FORWARD, limits, n_runs)
    add_rows(table, case, "iteration of a fit", fit.step, 2 * pairs, (FORWARD + BACKWARD) / 2, limits, n_runs)
    voxels = some_voxels(case)
    points = lambda: gaussians.evaluate_points(*mixture, voxels)  # noqa: E731
    add_rows(table, case, "evaluate_points, 1 of 8 voxels", points, pairs // 8, FORWARD, limits, min(n_runs, 5))
    project = lambda: gaussians.max_projection(*mixture, None, case.shape, 0)  # noqa: E731
    add_rows(table, case, "max_projection along z", project, pairs, FORWARD, limits, n_runs)


def some_voxels(case: Case) -> Tensor:
    """(P, 3) every eighth voxel along x, shuffled."""
    flat = torch.arange(0, math.prod(case.shape), 8)
    flat = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(2))]
    return torch.stack(torch.unravel_index(flat, case.shape), dim=1).float().to(case.device)


def main() -> None:
    """Measure the limits, then every op."""
    options = arguments(__doc__)
    device = choose_device(options.device)
    gpu = device.type == "cuda"
    case = Case(20700, (100, 647, 813), device) if gpu else Case(4000, (64, 128, 128), device)
    if options.quick:
        case = Case(300, (16, 48, 48), device)
    limits = measure_limits(device, 1 << 24, 8192 if gpu else 512 if options.quick else 2048)
    table = Table()
    name = torch.cuda.get_device_name() if gpu else f"cpu, {torch.get_num_threads()} threads"
    table.add("limit", name, "copy", limits.n_bytes / 1e9, "GB/s")
    table.add("limit", name, "float32 matrix product", limits.n_flops / 1e9, "GFLOP/s")
    compare(table, case, limits, 5 if options.quick else 20)
    table.write(options.json)


if __name__ == "__main__":
    main()
