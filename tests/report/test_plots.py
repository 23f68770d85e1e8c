"""Properties of the plots: round ticks, gaps, nothing drawn outside, words for those who do not see."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gigascope.report.plots import Axis, Mark, Series, plot, ticks


def drawn(*series: Series, **more) -> str:
    return plot(series, Axis("x"), more.pop("y", Axis("y")), title="t", description="what it shows", **more)


def test_ticks_are_round_and_inside(rng):
    for _ in range(200):
        low = float(rng.normal(0, 10.0 ** rng.integers(-6, 7)))
        high = low + float(10.0 ** rng.uniform(-6, 6))
        places = ticks(low, high)
        assert 2 <= len(places) <= 9
        assert min(places) >= low - 1e-6 * (high - low)
        assert max(places) <= high + 1e-6 * (high - low)
        step = places[1] - places[0]
        mantissa = step / 10.0 ** np.floor(np.log10(step) + 1e-9)
        # far from 0 the difference of two places has lost digits
        lost = 4 * np.finfo(float).eps * max(abs(low), abs(high)) / step
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3 + 10 * lost


def test_curve_breaks_where_a_value_is_missing():
    svg = drawn(Series("a", np.arange(6.0), [1, 2, np.nan, 3, 4, np.inf]))
    path = re.search(r'd="([^"]*)" class="line', svg)[1]
    assert path.count("M") == 2
    assert "nan" not in svg
    assert "inf" not in svg


def test_band_has_a_gap_where_nothing_was_learnt():
    svg = drawn(Series("a", np.arange(5.0), np.zeros(5), band=[1, 1, np.inf, 1, 1]))
    assert svg.count('class="band') == 2


def test_everything_stays_in_the_drawing(rng):
    svg = drawn(
        Series("a", rng.normal(size=40), rng.normal(size=40) * 100, band=np.full(40, 1e9), style="linedots"),
        marks=[Mark("y", 500.0, "limit"), Mark("x", 0.0)],
        height=250,
    )
    numbers = [float(v) for d in re.findall(r' d="([^"]*)"', svg) for v in re.findall(r"-?\d+\.\d", d)]
    assert min(numbers) >= 0
    assert max(numbers) <= 440


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_nothing_to_draw_draws_nothing(values):
    assert drawn(Series("a", values, values)) == ""


def test_constant_and_single_values_can_be_drawn():
    for values in ([3.0], [3.0, 3.0], [0.0, 0.0]):
        assert "<svg" in drawn(Series("a", np.arange(len(values)), values, style="dots"))


def test_logarithmic_axis_leaves_out_what_has_no_logarithm():
    svg = drawn(Series("a", np.arange(4.0), [1.0, 0.0, 0.1, 0.01]), y=Axis("y", log=True))
    assert "nan" not in svg
    assert ">0.1<" in svg


def test_equal_axes_have_equal_units():
    svg = drawn(Series("", [0.0, 10.0], [0.0, 1.0], style="dots"), equal=True)
    (x1, y1), (x2, y2) = [(float(a), float(b)) for a, b in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert (x2 - x1) / 10 == pytest.approx(y1 - y2, abs=0.2)


def test_plot_has_words_and_names_of_points():
    svg = drawn(Series("a", [0.0, 1.0], [2.0, 3.0], style="dots", names=["view <1>", "view 2"]))
    assert 'role="img"' in svg
    assert "what it shows" in svg
    assert "<title>view &lt;1&gt;</title>" in svg
