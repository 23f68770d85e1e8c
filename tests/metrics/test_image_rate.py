"""Bjontegaard delta-rate: against curves whose difference is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.metrics.rate import delta_rate, front, quality_at, rate_at

CURVE = [(10.0, 30.0), (21.0, 33.0), (39.0, 35.5), (83.0, 38.0), (150.0, 40.0)]


def test_a_codec_against_itself_saves_nothing() -> None:
    found = delta_rate(CURVE, CURVE)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert (found.low, found.high) == (30.0, 40.0)


@pytest.mark.parametrize("factor", [0.5, 0.9, 2.0])
def test_a_constant_factor_of_the_rate_is_found(factor: float) -> None:
    scaled = [(factor * rate, quality) for rate, quality in CURVE]
    assert delta_rate(CURVE, scaled).value == pytest.approx(factor - 1.0)
    assert delta_rate(scaled, CURVE).value == pytest.approx(1.0 / factor - 1.0)


def test_other_points_of_the_same_smooth_curve_make_no_difference() -> None:
    # rate = exp(quality / 4): straight in ln(rate), which PCHIP reproduces exactly
    a, b = ([(math.exp(q / 4), q) for q in points] for points in ((28, 31, 34, 40), (29.5, 33, 36, 41)))
    found = delta_rate(a, b)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert (found.low, found.high) == (29.5, 40.0)


def test_the_mean_is_over_the_overlap_and_the_interval() -> None:
    # ln(rate ratio) grows linearly from 0 at 30 dB to ln 2 at 40 dB: mean ln 2 / 2 over all, 3/4 ln 2 over 35 to 40
    anchor = [(math.exp(q), q) for q in (30.0, 35.0, 40.0)]
    test = [(math.exp(q) * 2 ** ((q - 30) / 10), q) for q in (30.0, 35.0, 40.0)]
    assert delta_rate(anchor, test).value == pytest.approx(2**0.5 - 1)
    assert delta_rate(anchor, test, (35.0, 60.0)).value == pytest.approx(2**0.75 - 1)


def test_curves_that_do_not_meet_have_no_number() -> None:
    assert math.isnan(delta_rate(CURVE, [(1.0, 10.0), (2.0, 20.0)]).value)
    assert math.isnan(delta_rate(CURVE, [(1.0, 33.0)]).value)
    assert math.isnan(delta_rate(CURVE, CURVE, (50.0, 60.0)).value)


def test_points_beaten_in_both_are_left_out(rng: np.random.Generator) -> None:
    # the quality against a clean volume falls once the noise is coded
    falling = [*CURVE, (300.0, 39.0), (25.0, 32.0), (500.0, math.inf), (1.0, math.nan)]
    rng.shuffle(falling)
    assert np.array_equal(front(falling), CURVE)
    assert delta_rate(CURVE, falling).value == pytest.approx(0.0, abs=1e-12)


def test_quality_at_a_rate_and_rate_at_a_quality_go_through_the_points() -> None:
    for rate, quality in CURVE:
        assert quality_at(CURVE, rate) == pytest.approx(quality)
        assert rate_at(CURVE, quality) == pytest.approx(rate)
    # a straight line of ln(rate) over the quality is met between the points too
    assert rate_at([(math.exp(q), q) for q in (1.0, 2.0, 4.0)], 3.1) == pytest.approx(math.exp(3.1))
    assert math.isnan(rate_at(CURVE, 41.0))
    assert 30.0 < quality_at(CURVE, 15.0) < 33.0
    assert math.isnan(quality_at(CURVE, 9.0))
