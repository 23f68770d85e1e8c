"""Guards of the joint solve: going back to the best shifts, flags, views between neighbours."""

from __future__ import annotations

import numpy as np

from gigascope.tomography import guards
from gigascope.tomography.alignment import SolveState

TILT = np.deg2rad(np.linspace(-60, 60, 31))


def settled(rng: np.random.Generator) -> SolveState:
    state = SolveState.at(rng.normal(size=(31, 2)), beta=0.5)
    state.sigma = np.full((31, 2), 0.1)
    state.residual = 0.4 + 0.2 * np.abs(np.sin(TILT)) + rng.normal(0, 0.01, 31)
    return state


def test_two_rises_well_above_the_best_go_back_and_calm_the_steps(rng):
    state = settled(rng)
    best = state.shifts.copy()
    assert not guards.fall_back(state, 0.5)
    for rho in (0.56, 0.62):
        state.shifts = state.shifts + 1.0
        back = guards.fall_back(state, rho)
    assert back
    assert np.array_equal(state.shifts, best)
    assert (state.step, state.beta) == (0.5, 0.0)


def test_a_single_rise_or_a_slow_swing_is_let_be(rng):
    state = settled(rng)
    for rho in (0.5, 0.6, 0.55, 0.6, 0.52, 0.53, 0.54, 0.548):
        assert not guards.fall_back(state, rho)
    assert state.beta == 0.5


def test_healthy_views_are_not_flagged(rng):
    assert set(guards.suspicious(settled(rng), TILT, 3.0)) == {""}


def test_each_reason_flags_its_view(rng):
    state = settled(rng)
    state.shifts = state.level_start.copy()
    state.shifts[4, 1] += 12.0
    state.sigma[9, 0] = 1.5
    state.residual[20] = 1.1
    state.residual[25] = np.nan
    flags = guards.suspicious(state, TILT, 3.0)
    assert {i: flag for i, flag in enumerate(flags) if flag} == {4: "shift", 9: "sigma", 20: "residual", 25: "residual"}


def test_level_without_information_is_hopeless():
    sigma = np.full((10, 2), 0.2)
    sigma[:6, 1] = 0.7
    assert guards.hopeless(sigma)
    sigma[5, 1] = 0.2
    assert not guards.hopeless(sigma)


def test_flagged_views_lie_between_their_neighbours():
    values = np.stack([np.arange(7.0), np.arange(7.0) ** 2], axis=1)
    good = np.ones(7, dtype=bool)
    good[[0, 3]] = False
    filled = guards.interpolated(values, good)
    assert np.array_equal(filled[good], values[good])
    np.testing.assert_allclose(filled[3], [3.0, 10.0])
    np.testing.assert_allclose(filled[0], values[1])


def test_when_most_views_are_flagged_the_volume_keeps_all(rng):
    state = settled(rng)
    state.flags = ["sigma"] * 20 + [""] * 11
    assert state.in_volume.all()
    state.flags = ["sigma"] * 5 + [""] * 26
    assert state.in_volume.sum() == 26
