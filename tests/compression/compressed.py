"""Compressed volumes made in memory: random Gaussians on the lattice of stored positions, over a random background."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gigascope.compression.gmix.container import Header, Intensity, split, write_compact
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.mixture import Mixture

CELL = (32, 32, 32)


def random_mixture(
    rng: np.random.Generator,
    n: int,
    shape: Sequence[int],
    *,
    sigma: tuple[float, float] = (0.6, 4.0),
    amplitude: tuple[float, float] = (0.05, 0.8),
) -> Mixture:
    """Gaussians with means inside a volume on a lattice of 1/16 voxel, 15 % of them negative."""
    means = np.floor(rng.uniform(0, 1, (n, 3)) * np.array(shape) * 16) / 16 - 0.5 + 1 / 32
    signs = np.where(rng.random(n) < 0.15, -1, 1)
    scales = np.exp(rng.uniform(*np.log(sigma), (n, 3)))
    columns = (means, np.log(scales), rng.normal(size=(n, 4)), signs * np.exp(rng.uniform(*np.log(amplitude), n)))
    return Mixture(*(torch.from_numpy(c.astype(np.float32)) for c in columns))


class InMemory:
    """What the decoder asks of an open compressed file, kept in memory."""

    residual = None

    def __init__(
        self,
        frames: Sequence[Mixture],
        shape: Sequence[int],
        backgrounds: Tensor,
        *,
        axes: Sequence[str] = ("z", "y", "x"),
        dtype: str = "uint16",
        brick: tuple[int, int, int] = (32, 48, 64),
        eps: float = 1e-3,
        c_max: float = 3.5,
        voxel_size_um: tuple[float, float, float] = (0.5, 0.2, 0.2),
    ) -> None:
        intensity = tuple(SimpleNamespace(offset=90.0 + f, scale=3000.0 + 100 * f) for f in range(len(frames)))
        self.header = SimpleNamespace(
            axes=tuple(axes),
            shape=tuple(shape),
            dtype=dtype,
            voxel_size_um=voxel_size_um,
            brick=brick,
            halo=16,
            c_max=c_max,
            eps=(eps,) * len(frames),
            intensity=intensity,
            cell=CELL,
        )
        self.backgrounds = backgrounds
        self.counts = [-(-n // b) for n, b in zip(shape[-3:], brick)]
        self._bricks: dict[tuple[int, tuple[int, int, int]], Mixture] = {}
        self._boxes: dict[tuple[int, tuple[int, int, int]], tuple[np.ndarray, np.ndarray]] = {}
        for frame, mixture in enumerate(frames):
            home = torch.round(mixture.means).long().clamp_min(0) // torch.tensor(brick)
            for index in itertools.product(*map(range, self.counts)):
                own = mixture[(home == torch.tensor(index)).all(1)]
                if len(own):
                    extents = own.extents(own.cuts(c_max, eps))
                    self._bricks[frame, index] = own
                    self._boxes[frame, index] = (
                        (own.means - extents).amin(0).numpy(),
                        (own.means + extents).amax(0).numpy(),
                    )

    def bricks(self, frame: int) -> list[tuple[int, int, int]]:
        return [index for f, index in self._bricks if f == frame]

    def read_brick(self, frame: int, index: tuple[int, int, int]) -> Mixture:
        return self._bricks.get((frame, index), Mixture.empty())

    def touching(self, frame: int, roi: Sequence[slice]) -> list[tuple[int, int, int]]:
        found = []
        for (f, index), (low, high) in self._boxes.items():
            if f == frame and all(a <= r.stop - 1 and b >= r.start for a, b, r in zip(low, high, roi)):
                found.append(index)
        return found[::-1]  # in no order that anyone may rely on

    def background(self, frame: int) -> Tensor:
        return self.backgrounds[frame]


def random_file(
    rng: np.random.Generator, n: int = 400, shape: Sequence[int] = (70, 100, 130), **options: object
) -> InMemory:
    """A file of one frame, or of as many as the axes before the last three give."""
    n_frames = math.prod(shape[:-3])
    grid = [-(-n // c) for n, c in zip(shape[-3:], CELL)]
    backgrounds = torch.from_numpy(rng.uniform(0.02, 0.12, (n_frames, *grid)).astype(np.float32))
    frames = [random_mixture(rng, n, shape[-3:]) for _ in range(n_frames)]
    return InMemory(frames, shape, backgrounds, **options)  # type: ignore[arg-type]


def dense_sum(mixture: Mixture, cuts: Tensor, places: Sequence[np.ndarray]) -> np.ndarray:
    """Definition: float64 sum at the outer product of places along z, y and x, one Gaussian after the other."""
    exact = Mixture(*(column.double() for column in mixture.tensors))
    whiten = (exact.rotations() / exact.log_scales.exp()[:, None, :]).transpose(1, 2).numpy()
    grid = np.stack(np.meshgrid(*places, indexing="ij"), -1).astype(np.float64)
    total = np.zeros(grid.shape[:-1])
    for mean, b, a, cut in zip(exact.means.numpy(), whiten, exact.amplitudes.numpy(), cuts.double().numpy()):
        # only the box: the rest is beyond the cut
        half = cut * np.sqrt((np.linalg.inv(b) ** 2).sum(1)) + 1
        box = tuple(slice(*np.searchsorted(p, (m - h, m + h))) for p, m, h in zip(places, mean, half))
        m2 = (((grid[box] - mean) @ b.T) ** 2).sum(-1)
        total[box] += np.where(m2 < cut**2, a * np.exp(-m2 / 2), 0)
    return total


def write_file(
    path: Path,
    rng: np.random.Generator,
    n: int = 150,
    shape: Sequence[int] = (2, 3, 40, 50, 70),
    axes: Sequence[str] = ("t", "c", "z", "y", "x"),
    **options: Any,
) -> Path:
    """A real compressed file of random frames with small bricks."""
    n_frames = math.prod(shape[:-3])
    header = Header(
        axes=tuple(axes),
        shape=tuple(shape),
        intensity=tuple(Intensity(90.0 + f, 3000.0 + 100 * f) for f in range(n_frames)),
        eps=(1e-3,) * n_frames,
        brick=(32, 48, 64),
        **{"dtype": "uint16", "voxel_size_um": (0.5, 0.2, 0.2), "quantiser": Quantiser(), **options},
    )
    bricks: dict[tuple[int, int, int, int], Mixture] = {}
    for frame in range(n_frames):
        bricks |= split(random_mixture(rng, n, shape[-3:]), header, frame)
    backgrounds = rng.uniform(0.02, 0.12, (n_frames, *header.background_shape)).astype(np.float32)
    write_compact(path, header, bricks, backgrounds)
    return path
