"""Fit a mixture to one region: full-batch Adam with density control, then the finish with quantised parameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gigascope.compression.fitting import density
from gigascope.compression.fitting.amplitudes import solve_amplitudes
from gigascope.compression.fitting.population import Population
from gigascope.compression.fitting.region import Region
from gigascope.compression.mixture import Mixture
from gigascope.kernels import gaussians

# Learning rates of means (voxels), log-scales, quaternions and amplitudes (of the scale); constant for the first half,
# then falling exponentially to this fraction.
RATES = (0.1, 0.05, 0.05, 0.01)
LAST_RATE = 0.04
MIN_SIGMA = 0.45
# With quantised parameters, relative to the above.
FINISH_RATE = 0.1
# Density control: every so many iterations, in the first part of the run.
EVENT_EVERY = 25
EVENT_PART = 0.6
EVENT_PRUNE_ONLY = 0.75
FIRST_ROUNDS = 2
# Iterations of the least squares for the amplitudes, at the start and after an event.
FIRST_SOLVE = 16
EVENT_SOLVE = 5


@dataclass(frozen=True)
class FitSettings:
    """How one region is fitted.

    Attributes
    ----------
    iterations : of the main fit
    price : weighted squared error that one Gaussian's bits are worth
    max_sigma : largest standard deviation, voxels
    anisotropy : voxel size (z, y, x) over that of x
    max_count : Gaussians at most, from the memory
    nonneg : amplitudes stay positive
    huber : residual (absolute, units of the scale) beyond which it counts linearly; inf: squares throughout
    density : Gaussians come and go
    mean_margin : voxels that means may leave the brick by; None: they may be anywhere in brick and halo
    """

    iterations: int
    price: float
    max_sigma: float
    anisotropy: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_count: int = 200_000
    nonneg: bool = False
    huber: float = math.inf
    density: bool = True
    mean_margin: float | None = None
    rate: float = 1.0


@dataclass(frozen=True)
class FitUpdate:
    """State after one iteration.

    Attributes
    ----------
    iteration : from 1
    count : Gaussians
    psnr : in the gate of the brick, decibels; to find it takes a tenth of an iteration, and a GPU has to be waited for
    """

    iteration: int
    count: int
    psnr: Callable[[], float]

    def summary(self) -> str:
        """For a line of progress."""
        return f"{self.psnr():.1f} dB, {self.count} Gaussians"


class BrickSolver:
    """Fit of one region, resumable between two iterations.

    Parameters
    ----------
    region : what is fitted
    settings : how
    start : Gaussians to begin with; None: found by matched filtering
    quantised : the mixture as a file would give it back, rows unchanged; then gradients are taken there (the
        straight-through estimator, Bengio et al. 2013, arXiv 1308.3432)
    """

    def __init__(
        self,
        region: Region,
        settings: FitSettings,
        start: Mixture | None = None,
        quantised: Callable[[Mixture], Mixture] | None = None,
    ) -> None:
        self.region = region
        self.settings = settings
        self.quantised = quantised
        self.iteration = 0
        self.trials: list[density.Split] = []
        self.population = Population.start(self._first() if start is None else start)

    @property
    def mixture(self) -> Mixture:
        """The Gaussians now."""
        return self.population.mixture

    def run(self) -> Mixture:
        """All iterations at once."""
        for _ in self.updates():
            pass
        return self.mixture

    def updates(self) -> Iterator[FitUpdate]:
        """Go on from the present state, one iteration at a time."""
        total = self.settings.iterations
        while self.iteration < total:
            residual = self._step()
            self.iteration += 1
            if self._is_event():
                self._event(residual)
            yield FitUpdate(self.iteration, len(self.population), functools.partial(self.region.psnr, residual))
        self._settle(self._residual())

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {"iteration": self.iteration, "trials": self.trials, "population": self.population.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.iteration, self.trials = state["iteration"], state["trials"]
        self.population = Population.from_state(state["population"], self.region.target.device)

    # one iteration

    def _step(self) -> Tensor:
        region, population = self.region, self.population
        mixture = population.mixture if self.quantised is None else self.quantised(population.mixture)
        cuts = region.truncation.cuts(mixture)
        residual = region.render(mixture, cuts) - region.target
        if len(population) == 0:
            return residual
        pull = (
            residual if math.isinf(self.settings.huber) else residual.clamp(-self.settings.huber, self.settings.huber)
        )
        columns = (mixture.means, mixture.log_scales, mixture.quaternions)
        sums = gaussians.moments(*columns, cuts, region.weight * pull, region.corner)
        gradients = gaussians.parameter_gradients(mixture.log_scales, mixture.quaternions, mixture.amplitudes, sums)
        rate = self._rate()
        gaussians.adam_(
            *population.mixture.tensors,
            gradients,
            population.first,
            population.second,
            population.steps,
            [rate * r for r in RATES],
            log_scale_range=(math.log(MIN_SIGMA), math.log(self.settings.max_sigma)),
            mean_range=self._mean_range(),
        )
        if self.settings.nonneg:
            population.mixture.amplitudes.clamp_min_(0)
        return residual

    def _rate(self) -> float:
        done = self.iteration / self.settings.iterations
        return self.settings.rate * (1.0 if done < 0.5 else LAST_RATE ** (2 * done - 1))

    def _mean_range(self) -> tuple[list[float], list[float]]:
        region, margin = self.region, self.settings.mean_margin
        if margin is None:
            spans = [(o - 0.5, o + n - 0.5) for o, n in zip(region.origin, region.shape)]
        else:
            spans = [(a - 0.5 - margin, b - 0.5 + margin) for a, b in region.core]
        return [low for low, _ in spans], [high for _, high in spans]

    # density control

    def _is_event(self) -> bool:
        done = self.iteration / self.settings.iterations
        return self.settings.density and self.iteration % EVENT_EVERY == EVENT_EVERY - 1 and done < EVENT_PRUNE_ONLY

    def _event(self, residual: Tensor) -> None:
        """Settle earlier splits, prune, merge, add, split; amplitudes by least squares after it."""
        region, settings = self.region, self.settings
        residual = self._residual()
        population = density.settle_splits(region, self.population, residual, self.trials, settings.price)
        self.trials = []
        population = density.prune(region, population, residual, settings.price)
        population = density.merge(population, self._mean_weight(), settings.price)
        start = None
        if self.iteration / settings.iterations < EVENT_PART:
            self.population = population
            residual = self._residual()
            room = max(settings.max_count - len(population), 0)
            limit = min(room, max(8, int(density.ADD_FRACTION * len(population))))
            population, self.trials = density.split(region, population, residual, limit)
            known = len(population)
            population = self._added(population, residual, limit)
            # new ones come in with what least squares gives them, so that no event makes the fit worse
            start = population.mixture.amplitudes.clone()
            start[known:] = 0
        mixture = solve_amplitudes(region, population.mixture, EVENT_SOLVE, settings.nonneg, start)
        self.population = replace(population, mixture=mixture)

    def _added(self, population: Population, residual: Tensor, limit: int, rounds: int = 1) -> Population:
        settings = self.settings
        return density.add(
            self.region,
            population,
            residual,
            settings.price,
            anisotropy=settings.anisotropy,
            max_sigma=settings.max_sigma,
            limit=limit,
            nonneg=settings.nonneg,
            rounds=rounds,
        )

    def _first(self) -> Mixture:
        """Seeds of the target itself, spaced, with least-squares amplitudes."""
        empty = Population.start(Mixture.empty(self.region.target.device))
        found = self._added(empty, -self.region.target, self.settings.max_count, FIRST_ROUNDS).mixture
        return solve_amplitudes(
            self.region, found, FIRST_SOLVE, self.settings.nonneg, torch.zeros_like(found.amplitudes)
        )

    def _settle(self, residual: Tensor) -> None:
        self.population = density.settle_splits(
            self.region, self.population, residual, self.trials, self.settings.price
        )
        self.trials = []

    def _residual(self) -> Tensor:
        return self.region.render(self.mixture) - self.region.target

    def _mean_weight(self) -> float:
        return float(self.region.weight.mean())
