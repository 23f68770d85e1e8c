"""Simulated series of the acceptance tests, prepared and aligned once for all tests of a session."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gigascope.tomography.alignment import Alignment, AlignParameters
from gigascope.tomography.joint import JointSolver
from gigascope.tomography.phantom import TiltSeriesSim, object_phantom, section_phantom, simulate
from gigascope.tomography.prealign import prealign
from gigascope.tomography.signal import SignalModel, SignalSettings
from gigascope.tomography.signal_estimate import estimate_signal
from gigascope.tomography.views import prepared_views

PHANTOMS = {"object": object_phantom, "section": section_phantom}
N_Z = 64
LARGEST_BIN = 4


@dataclass(frozen=True)
class PreparedSeries:
    """A simulated series behind the chain's own signal estimate and prealignment."""

    sim: TiltSeriesSim
    model: SignalModel
    views: torch.Tensor
    valid: torch.Tensor
    start: NDArray[np.float64]

    @property
    def raw(self) -> NDArray[np.float32]:
        """(tilt, y, x), as a store holds it."""
        return np.ascontiguousarray(self.sim.views.swapaxes(1, 2))

    def solver(self, start: NDArray[np.float64] | None = None, *, n_z: int = N_Z, hz: float = 1.0, **parameters):
        """A joint solve, from the prealignment if no start is given."""
        return JointSolver(
            self.views,
            self.valid,
            self.sim.tilt,
            self.start if start is None else start,
            n_z=n_z,
            hz=hz,
            extent=self.model.extent,
            noise=self.model.relative_noise,
            use=self.model.good,
            parameters=AlignParameters(**parameters),
        )

    def at(self, shifts: NDArray[np.float64], factor: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Aligned views and masks at a bin, one resampling from the raw pixels."""
        return prepared_views(
            self.raw, self.model, tilt_axis=0.0, bin=factor, largest_bin=LARGEST_BIN, shifts=shifts, spline=3
        )


def prepare(sim: TiltSeriesSim) -> PreparedSeries:
    """The chain up to the prealignment."""
    raw = np.ascontiguousarray(sim.views.swapaxes(1, 2))
    model = estimate_signal(raw, sim.tilt, SignalSettings())
    views, valid = prepared_views(raw, model, tilt_axis=0.0, largest_bin=LARGEST_BIN)
    found = prealign(views, valid, sim.tilt, model.extent, good=model.good)
    return PreparedSeries(sim, model, views, valid, found.shifts)


@pytest.fixture(scope="session")
def prepared() -> Callable[..., PreparedSeries]:
    """kind, seed, snr -> the series of acceptance tests 6 to 12: 61 views of 128 x 128, -60..60 degrees."""

    @functools.cache
    def make(kind: str, seed: int, snr: float = 1.0) -> PreparedSeries:
        return prepare(simulate(PHANTOMS[kind](seed), seed=seed, snr=snr))

    return make


@pytest.fixture(scope="session")
def prepare_series() -> Callable[[TiltSeriesSim], PreparedSeries]:
    """Any simulated series -> the same behind signal estimate and prealignment."""
    return prepare


@pytest.fixture(scope="session")
def aligned(prepared: Callable[..., PreparedSeries]) -> Callable[..., Alignment]:
    """kind, seed, snr -> the joint solve of that series from its prealignment."""

    @functools.cache
    def solve(kind: str, seed: int, snr: float = 1.0) -> Alignment:
        return prepared(kind, seed, snr).solver().run()

    return solve


@pytest.fixture(scope="session")
def prepare_turned() -> Callable[[str, float], tuple]:
    """kind, tilt axis in degrees -> series of seed 0 at SNR 1, views and masks in its axis' frame, and its start."""

    def make(kind: str, axis_deg: float) -> tuple:
        axis = float(np.deg2rad(axis_deg))
        sim = simulate(PHANTOMS[kind](0), seed=0, tilt_axis=axis)
        raw = np.ascontiguousarray(sim.views.swapaxes(1, 2))
        model = estimate_signal(raw, sim.tilt, SignalSettings(), tilt_axis=axis)
        views, valid = prepared_views(raw, model, tilt_axis=axis, largest_bin=LARGEST_BIN, spline=3)
        return sim, views, valid, prealign(views, valid, sim.tilt, model.extent, good=model.good).shifts

    return make
