"""Fit one frame brick by brick: rounds over the bricks, what each brick sees of its neighbours, and the finish.

The first round fits every brick alone, on itself and its halo, and keeps the Gaussians whose means lie in the brick.
The rounds after it mend the seams: bricks of one colour at a time, each against the frozen Gaussians of its neighbours.
In the last pass over the colours each brick is also thinned to the rate that was asked for, and its parameters are
rounded as the file will hold them while the rest adapts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from gigascope.compression.background import interpolate
from gigascope.compression.fitting import density
from gigascope.compression.fitting.amplitudes import solve_amplitudes
from gigascope.compression.fitting.brick_solver import FINISH_RATE, BrickSolver, FitSettings
from gigascope.compression.fitting.bricks import N_COLOURS, BrickGrid, Index, Span, colour
from gigascope.compression.fitting.region import Region, Truncation, bounds
from gigascope.compression.gmix.quantise import (
    Symbols,
    bits_per_gaussian,
    dequantise,
    quantise,
    straight_through,
    with_amplitudes,
)
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.mixture import Mixture
from gigascope.compression.noise import NoiseModel

Weight = Literal["psnr", "fg", "ml", "edge"]
# Iterations of the least squares for the amplitudes.
SOLVE = 8
# Of the background in the mode `fg`.
OUTSIDE = 0.1
# Sobel weight of the mode `edge`, as VolMicro's.
EDGE_BOOST = 3.0
HUBER_SD = 4.0
# Means may cross the seam by this much in the passes that mend it, voxels.
SEAM_MARGIN = 1.0
SEAM_RATE = 0.5
# Of one Gaussian in the file, about: `python benchmarks/container.py`. It scales lambda and nothing else.
BITS = 60.0
# Voxels around a brick in which signal makes it worth a fit: more than the reach of the narrowest Gaussian.
NEAR = 2


@dataclass(frozen=True)
class Round:
    """One pass over bricks: which, and what is done.

    Attributes
    ----------
    seam : against the neighbours' Gaussians; else each brick alone
    finish : the last pass of a brick
    colour : of the bricks that have their turn; None: all
    """

    seam: bool
    finish: bool
    colour: int | None = None

    def includes(self, index: Index) -> bool:
        """Whether a brick has its turn."""
        return self.colour is None or colour(index) == self.colour


def rounds(sweeps: int) -> list[Round]:
    """The rounds of a fit with so many passes over the seams; without one, all bricks are finished at once."""
    if sweeps == 0:
        return [Round(False, False), Round(True, True)]
    return [Round(False, False), *(Round(True, s == sweeps - 1, c) for s in range(sweeps) for c in range(N_COLOURS))]


@dataclass(frozen=True)
class FrameModel:
    """What is known of a frame as a whole; intensities are `offset + scale * v`.

    Attributes
    ----------
    shape : (z, y, x)
    offset, scale : of the values
    noise : in the units of the values
    background : grid of v, one value per `cell` voxels
    noise_variance : at the mean value of the gate, units of v squared
    signal_variance : the same, but at least what an eye can tell: the unit of the distortion
    eps : contribution at which a Gaussian ends, units of v
    anisotropy : voxel size (z, y, x) over that of x
    """

    shape: Index
    offset: float
    scale: float
    noise: NoiseModel
    background: Tensor
    cell: Index
    noise_variance: float
    signal_variance: float
    eps: float
    anisotropy: tuple[float, float, float]

    def normalised(self, values: Tensor) -> Tensor:
        """Values of the file as v, float32."""
        return (values.float() - self.offset) / self.scale


@dataclass(frozen=True)
class FitPlan:
    """How a frame is fitted; see :class:`gigascope.config.compression.Fit`.

    Attributes
    ----------
    rate : lambda, signal variances of squared error per bit
    quantiser : how parameters are rounded
    amplitude_scale : of the fixed law
    """

    rate: float
    quantiser: Quantiser
    amplitude_scale: float = 2.0
    iterations: int = 400
    sweep_iterations: int = 50
    finish_iterations: int = 40
    halo: int = 16
    c_max: float = 3.5
    weight: Weight = "psnr"
    robust: bool = False
    nonneg: bool = False

    @property
    def price(self) -> float:
        """Of one Gaussian, in the unit of the weighted squared error."""
        return self.rate * BITS


@dataclass(frozen=True)
class FrameData:
    """Access to a frame: both functions take (first, last + 1) along z, y and x."""

    values: Callable[[Span], Tensor]
    gate: Callable[[Span], Tensor]


class FrameFit:
    """Fits the bricks of one frame.

    Parameters
    ----------
    device : to compute on
    """

    def __init__(
        self,
        model: FrameModel,
        plan: FitPlan,
        grid: BrickGrid,
        data: FrameData,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.plan = plan
        self.grid = grid
        self.data = data
        self.device = device

    def solver(
        self, region: Region, round_: Round, own: Mixture | None, growth_price: float | None = None
    ) -> BrickSolver:
        """The resumable fit of one brick in one round.

        Parameters
        ----------
        own : its Gaussians from the round before
        growth_price : in a pass over the seams, what a Gaussian must save for more to come; None: none come or go
        """
        if not round_.seam or own is None:
            return BrickSolver(region, self._settings(self.plan.iterations))
        settings = self._settings(self.plan.sweep_iterations)
        change: dict[str, Any] = {"density": False} if growth_price is None else {"price": growth_price}
        return BrickSolver(
            region, replace(settings, **change, mean_margin=SEAM_MARGIN, rate=SEAM_RATE), own.to(self.device)
        )

    def finishing(self, index: Index, region: Region, thinned: Mixture) -> BrickSolver:
        """The resumable end of a brick's fit: with its parameters rounded as in the file."""
        settings = self._settings(self.plan.finish_iterations)

        def rounded(mixture: Mixture) -> Mixture:
            return self._moved(straight_through(self._moved(mixture, index, -1), *self._law), index, 1)

        return BrickSolver(
            region, replace(settings, density=False, mean_margin=0.0, rate=FINISH_RATE), thinned, rounded
        )

    def finished(self, index: Index, region: Region, mixture: Mixture) -> tuple[Symbols, Mixture]:
        """Integers of a brick's Gaussians, and what they decode to: amplitudes solved for the rounded geometry."""
        symbols, _ = quantise(self._moved(mixture, index, -1).to("cpu"), *self._law)
        decoded = self._moved(dequantise(symbols, *self._law), index, 1).to(self.device)
        solved = solve_amplitudes(region, decoded, SOLVE, self.plan.nonneg)
        quantiser, scale = self._law[1:]
        symbols = with_amplitudes(symbols, solved.amplitudes, quantiser, scale)
        return symbols, self._moved(dequantise(symbols, *self._law), index, 1)

    def thinned(self, region: Region, mixture: Mixture, price: float) -> Mixture:
        """Without the Gaussians that are not worth `price`, the amplitudes of the others solved again; twice."""
        for _ in range(2):
            if len(mixture) == 0:
                break
            mixture = solve_amplitudes(region, mixture[self.costs(region, mixture) >= price], SOLVE, self.plan.nonneg)
        return mixture

    def costs(self, region: Region, mixture: Mixture) -> Tensor:
        """(N,) weighted squared error that each Gaussian alone saves."""
        return density.removal_costs(region, mixture, region.render(mixture) - region.target)

    def bits(self, index: Index, mixture: Mixture) -> float:
        """About what a brick's Gaussians take in the file."""
        return float(bits_per_gaussian(self._moved(mixture, index, -1), *self._law).sum()) if len(mixture) else 0.0

    @property
    def _law(self) -> tuple[Index, Quantiser, float]:
        return self.grid.brick, self.plan.quantiser, self.plan.amplitude_scale

    def _moved(self, mixture: Mixture, index: Index, sign: int) -> Mixture:
        """Positions from the brick's first voxel to the volume's (1) or back (-1)."""
        return mixture.moved([float(sign * i * b) for i, b in zip(index, self.grid.brick)])

    def region(self, index: Index, current: Mapping[Index, Mixture]) -> Region:
        """What a brick sees, with the Gaussians of its neighbours (those in `current`) taken off."""
        model, seen = self.model, self._seen(index)
        low, shape = [a for a, _ in seen], [b - a for a, b in seen]
        values = model.normalised(self.data.values(seen).to(self.device))
        background = interpolate(model.background.to(self.device), model.cell, low, shape)
        gate = self.data.gate(seen).to(self.device)
        z, y, x = low
        truncation = Truncation(self.plan.c_max, model.eps)
        region = Region(
            values - background, self._weight(values, gate), gate, (z, y, x), self.grid.span(index), truncation
        )
        others = [current[n].to(self.device) for n in self.grid.neighbours(index) if n in current]
        frozen = Mixture.concatenate(others)
        if len(frozen) == 0:
            return region
        return replace(region, target=region.target - region.render(frozen))

    def _seen(self, index: Index) -> Span:
        z, y, x = bounds(self.grid.span(index), self.plan.halo, self.grid.shape)
        return z, y, x

    def _settings(self, iterations: int) -> FitSettings:
        sd = math.sqrt(self.model.signal_variance)
        return FitSettings(
            iterations=iterations,
            price=self.plan.price,
            max_sigma=self.plan.halo / self.plan.c_max,
            anisotropy=self.model.anisotropy,
            nonneg=self.plan.nonneg,
            huber=HUBER_SD * sd if self.plan.robust else math.inf,
        )

    def _weight(self, values: Tensor, gate: Tensor) -> Tensor:
        """Of the squared error; the mean of the signal has about weight one over its noise variance."""
        unit = 1 / self.model.signal_variance
        if self.plan.weight == "psnr":
            return torch.tensor(unit, dtype=torch.float32, device=values.device)
        if self.plan.weight == "fg":
            return torch.where(gate, unit, OUTSIDE * unit)
        if self.plan.weight == "edge":
            return unit * edge_weight(values, gate)
        smooth = self.model.offset + self.model.scale * local_mean(values)
        return (self.model.scale**2 / self.model.noise.variance(smooth)).float()


def local_mean(values: Tensor) -> Tensor:
    """Mean over 3^3 voxels: the expectation that a noise variance is read from."""
    padded = torch.nn.functional.pad(values[None, None], (1,) * 6, mode="replicate")
    return torch.nn.functional.avg_pool3d(padded, 3, stride=1)[0, 0]


def edge_weight(values: Tensor, gate: Tensor) -> Tensor:
    """1 + 3 times the relative Sobel gradient, smoothed, of mean 1 in the gate (VolMicro's edge boost)."""
    from gigascope.compression.fitting.matched_filter import separable

    derivative, smooth = values.new_tensor([-1.0, 0.0, 1.0]), values.new_tensor([1.0, 2.0, 1.0])
    padded = torch.nn.functional.pad(values[None, None], (1,) * 6, mode="replicate")
    squares = torch.zeros_like(values)
    for axis in range(3):
        gradient = padded
        for k in range(3):
            shape = [1, 1, 1, 1, 1]
            shape[2 + k] = 3
            gradient = torch.nn.functional.conv3d(gradient, (derivative if k == axis else smooth).view(shape))
        squares = squares + gradient[0, 0].square()
    relative = squares.sqrt()
    relative = relative / relative.max().clamp_min(1e-12)
    weight = 1 + EDGE_BOOST * separable(relative, [1.0] * 3) / (2 * math.pi) ** 1.5
    return weight / weight[gate].mean() if bool(gate.any()) else weight
