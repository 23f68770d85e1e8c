"""Simulated images as they would look real, window by window: any piece of a volume, whatever else is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.synthesis.adaptation.generator import Generator, depth_of
from gigascope.synthesis.adaptation.mapping import Mapping, grey
from gigascope.synthesis.adaptation.norms import instance_norms
from gigascope.synthesis.adaptation.windows import Lattice, lattice

CPU = torch.device("cpu")
Read = Callable[[tuple[slice, ...]], NDArray]


@dataclass(frozen=True, eq=False)
class Adapter:
    """Applies a generator to volumes.

    Attributes
    ----------
    generator : from simulated to real look; none: images stay as they are
    cultures, real : grey values that go in and come out
    scale : of what comes out, see :meth:`Mapping.invert`
    device : where it computes
    bfloat16 : the network computes in it
    """

    generator: Generator | None
    cultures: Mapping | None
    real: Mapping | None
    scale: Literal["real", "full"] = "real"
    device: torch.device = CPU
    bfloat16: bool = False

    def region(self, read: Read, windows: Lattice, region: tuple[slice, ...]) -> NDArray[np.uint16]:
        """Grey values of a region.

        Parameters
        ----------
        read : of the volume's (z, y, x) slices
        windows : of the whole volume
        region : (z, y, x) slices

        Returns
        -------
        (z, y, x) uint16; the same bits whatever the region is cut into
        """
        out = torch.zeros([r.stop - r.start for r in region], device=self.device)
        for window in windows.touching(region):
            seen, inner = windows.seen(window)
            made = self._made(read(seen), seen[0], windows.axes[0].n)[inner]
            into, part = [], []
            for axis, k, r in zip(windows.axes, window, region):
                first = int(axis.starts[k])
                low, high = max(r.start, first), min(r.stop, first + axis.size)
                into.append(slice(low - r.start, high - r.start))
                part.append(slice(low - first, high - first))
            values = made[tuple(part)]
            for n, (axis, k, p) in enumerate(zip(windows.axes, window, part)):
                weight = torch.from_numpy(axis.weights[k, p]).to(self.device)
                values = values * weight.view([-1 if n == m else 1 for m in range(3)])
            out[tuple(into)] += values
        if self.generator is None or self.real is None:
            return grey(out)
        return grey(self.real.invert(out, self.scale))

    def measure(self, read: Read, windows: Lattice) -> NDArray[np.float64]:
        """Statistics of the instance normalisations over a whole volume, in windows beside each other.

        Returns
        -------
        (layers, 3, channels) float64, padded with zeros: count, sum, sum of squares, for :meth:`freeze`
        """
        norms = [] if self.generator is None else instance_norms(self.generator)
        for norm in norms:
            norm.statistics, norm.sums = "measure", None
        shape = (windows.axes[0].n, windows.axes[1].n, windows.axes[2].n)
        size = (windows.axes[0].size, windows.axes[1].size, windows.axes[2].size)
        beside = lattice(shape, size, (0.0, 0.0, 0.0), "half_cut")
        for window in beside.touching(tuple(slice(0, n) for n in shape)):
            seen, _ = beside.seen(window)
            self._made(read(seen), seen[0], shape[0])
        sums = [norm.sums.numpy() for norm in norms if norm.sums is not None]
        widest = max((s.shape[1] for s in sums), default=0)
        return np.array([np.pad(s, ((0, 0), (0, widest - s.shape[1]))) for s in sums])

    def freeze(self, sums: NDArray[np.float64]) -> None:
        """Use these statistics from now on."""
        norms = [] if self.generator is None else instance_norms(self.generator)
        if len(sums) != len(norms):
            raise ShapeError(f"adapter: statistics of {len(sums)} layers, the generator has {len(norms)}")
        for norm, found in zip(norms, sums):
            there = found[0] > 0
            norm.statistics, norm.sums = "frozen", torch.from_numpy(found[:, there].copy())

    @torch.no_grad()
    def _made(self, values: NDArray, z: slice, n: int) -> Tensor:
        """What the generator makes of a window, (z, y, x) float32."""
        if self.generator is None or self.cultures is None:
            return torch.from_numpy(values.astype(np.float32)).to(self.device)
        image = torch.from_numpy(self.cultures.apply(values)).to(self.device)[None, None]
        depth = None
        if self.generator.architecture.depth:
            depth = depth_of(z.start, z.stop, n).view(1, 1, -1, 1, 1).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.generator(image, depth)[0, 0]


def windows_for(
    generator: Generator | None,
    shape: tuple[int, int, int],
    window: tuple[int, int, int],
    overlap: tuple[float, float, float],
    blend: Literal["cosine", "half_cut"],
    halo: tuple[int, int, int],
) -> Lattice:
    """Windows of a volume for a generator: one of slices needs no more than neighbours along z, and no overlap.

    Half cut windows begin where they begin, as published; others where the sampling of the network does.
    """
    aligned = generator is not None and blend == "cosine"
    grid = generator.architecture.reduction if generator is not None and aligned else (1, 1, 1)
    if generator is not None and generator.architecture.dimensions == 2:
        overlap = (0.0, *overlap[1:])
        halo = (max(halo[0], generator.architecture.neighbours), *halo[1:])
    return lattice(shape, window, overlap, blend, halo, grid)
