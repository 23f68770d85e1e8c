"""Distributions of errors, separation of two classes and pictures up to a factor: as if all samples were held."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.errors import ShapeError
from gigascope.metrics.distribution import ErrorDistribution, ScaledDifference, Separation


def test_figures_are_those_of_all_samples_however_they_come(rng: np.random.Generator) -> None:
    errors, values = rng.normal(1.5, 2.0, 20_000), rng.uniform(-3, 7, 20_000)
    whole, parts = (ErrorDistribution((-3, 7), 20.0, groups=10) for _ in range(2))
    whole.add(errors, values)
    for a, b in zip(np.array_split(errors, 7), np.array_split(values, 7)):
        parts.add(a, b)
    assert (whole.counts == parts.counts).all()
    width = 40.0 / whole.counts.shape[1]
    offset = whole.median()
    assert offset == pytest.approx(np.median(errors), abs=width)
    found = whole.spread(offset)
    assert found.n == parts.n == errors.size
    assert found.bias == pytest.approx(errors.mean() - offset)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((errors - offset) ** 2)))
    assert found.p95 == pytest.approx(np.percentile(np.abs(errors - offset), 95), abs=2 * width)
    low = values < -2
    assert whole.spread(0.0, slice(0, 1)).rmse == pytest.approx(np.sqrt(np.mean(errors[low] ** 2)))


def test_errors_beyond_the_limit_keep_their_mean_square() -> None:
    errors = ErrorDistribution((0, 1), 1.0)
    errors.add([0.0, 50.0], [0.5, 0.5])
    assert errors.spread().rmse == pytest.approx(50 / math.sqrt(2))


def test_shares_hold_about_equal_numbers_and_leave_none_out(rng: np.random.Generator) -> None:
    values = rng.normal(0, 1, 50_000)
    errors = ErrorDistribution((float(values.min()), float(values.max())), 1.0, groups=500)
    errors.add(np.zeros(values.size), values)
    found = errors.shares(10)
    counts = [errors.spread(0.0, part).n for part in found]
    assert sum(counts) == values.size
    assert len(found) == 10
    # a bin in the middle of a normal distribution of 500 bins holds up to 1.5 % of it
    assert max(abs(n - 5000) for n in counts) < 1500
    assert ErrorDistribution((0, 1), 1.0).shares(10) == []


def test_histogram_is_of_all_samples(rng: np.random.Generator) -> None:
    errors = ErrorDistribution((0, 1), 10.0)
    errors.add(rng.normal(2.0, 1.0, 10_000), np.full(10_000, 0.5))
    middles, shares = errors.histogram(2.0, 6.0, 81)
    assert shares.sum() == pytest.approx(1.0, abs=1e-3)
    assert (middles @ shares) == pytest.approx(0.0, abs=0.05)
    assert np.allclose(np.diff(middles), middles[1] - middles[0])
    assert abs(middles[-1] + middles[0]) < 0.2
    # a normal distribution, and no bin that lacks its share
    expected = np.exp(-0.5 * middles**2) / math.sqrt(2 * math.pi) * (middles[1] - middles[0])
    assert np.abs(shares - expected).max() < 6 * math.sqrt(expected.max() / 10_000)


@pytest.mark.parametrize(("span", "limit"), [((1.0, 1.0), 1.0), ((0.0, 1.0), 0.0)])
def test_an_empty_span_or_limit_is_refused(span: tuple[float, float], limit: float) -> None:
    with pytest.raises(ShapeError, match="span"):
        ErrorDistribution(span, limit)


def test_auc_is_the_chance_of_the_larger_score(rng: np.random.Generator) -> None:
    scores, positive = np.round(rng.uniform(0, 1, 300), 2), rng.uniform(0, 1, 300) > 0.4
    pairs = scores[positive][:, None] - scores[~positive][None]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    found = Separation(bins=1000)
    found.add([*scores, np.nan], [*positive, True])
    assert found.auc == pytest.approx(expected)
    assert math.isnan(Separation().auc)


def test_picture_is_compared_up_to_a_factor(rng: np.random.Generator) -> None:
    shown = rng.uniform(0.1, 1, 5000)
    noise = rng.normal(0, 2, 5000)
    found = ScaledDifference()
    found.add((180 * shown + noise)[:2000], shown[:2000])
    found.add((180 * shown + noise)[2000:], shown[2000:])
    assert found.factor == pytest.approx(180, rel=1e-2)
    assert found.psnr(255) == pytest.approx(20 * math.log10(255 / 2), abs=0.5)
    alike = ScaledDifference()
    alike.add(7 * shown, shown)
    assert alike.psnr(255) == math.inf
    assert math.isnan(ScaledDifference().psnr(255))
