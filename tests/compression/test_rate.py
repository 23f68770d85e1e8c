"""Meeting a target: the search of lambda on curves of known shape, the price that thins to a number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.compression.fitting import rate
from gigascope.compression.fitting.bricks import BrickGrid, colour, morton
from gigascope.compression.fitting.frame_fit import rounds
from gigascope.compression.fitting.rate import Sample


def searched(curve: object, **target: float) -> list[Sample]:
    samples: list[Sample] = []
    while len(samples) < 6 and not rate.near_enough(samples, **target):
        lam = rate.next_rate(samples, 0.25, **target)
        samples.append(curve(lam))  # type: ignore[operator]
    return samples


@pytest.mark.parametrize("exponent", [-0.3, -0.45, -0.8])
@pytest.mark.parametrize("target", [1e4, 6e4, 1.5e5])
def test_search_meets_bytes_in_few_trials(exponent: float, target: float) -> None:
    found = searched(lambda lam: Sample(lam, 1e5 * lam**exponent, 40.0), bytes=target)
    assert len(found) <= 4
    assert found[-1].bytes == pytest.approx(target, rel=0.05)


def test_search_meets_a_psnr() -> None:
    found = searched(lambda lam: Sample(lam, 1e4, 42 - 4 * math.log(lam, 4) - 0.3 * math.log(lam) ** 2), psnr=38.0)
    assert len(found) <= 5
    assert found[-1].psnr == pytest.approx(38.0, abs=0.1)


def test_search_stops_where_noise_would_be_fitted() -> None:
    found = searched(lambda lam: Sample(lam, 1e4, 42 - 4 * math.log(lam, 4)), psnr=60.0)
    assert min(sample.rate for sample in found) == 0.25


def test_thinning_keeps_the_number_asked_for(rng: np.random.Generator) -> None:
    costs = np.exp(rng.normal(2, 2, 20_000)) * 60
    counts = rate.histogram(costs, 60.0)
    for kept in (15_000, 5_000, 300):
        price = rate.thinning_price(counts, kept, 60.0)
        left = int((costs >= price).sum())
        # within a bin of an eighth of an octave, or everything above the price itself
        assert left == pytest.approx(min(kept, int((costs >= 60).sum())), rel=0.1)


def test_nothing_is_thinned_when_all_fit() -> None:
    assert rate.thinning_price(rate.histogram(np.full(10, 100.0), 60.0), 20, 60.0) == 60.0


def test_growth_only_where_the_file_came_out_small() -> None:
    assert rate.growth_price(100.0, 1000.0, 900.0) is None
    price = rate.growth_price(100.0, 500.0, 1000.0)
    assert price is not None
    assert price < 50


def test_sampled_bricks_hold_signal_and_are_spread(rng: np.random.Generator) -> None:
    signal = [0, 5, 0, 100, 20, 0, 50, 1]
    chosen = rate.sampled_bricks(signal)
    assert len(chosen) == 3
    assert all(signal[i] > 0 for i in chosen)
    assert rate.sampled_bricks([0, 0]) == []
    many = rng.integers(1, 1000, 1000).tolist()
    assert len(rate.sampled_bricks(many)) == 50


def test_bricks_cover_the_volume_once() -> None:
    grid = BrickGrid((100, 70, 130), (64, 32, 32))
    covered = np.zeros(grid.shape, int)
    for index in grid.indices():
        covered[tuple(slice(a, b) for a, b in grid.span(index))] += 1
    assert (covered == 1).all()


def test_bricks_of_one_colour_do_not_touch_and_morton_order_is_local() -> None:
    grid = BrickGrid((300, 300, 300), (64, 64, 64))
    for index in grid.indices():
        assert all(colour(n) != colour(index) for n in grid.neighbours(index))
    assert [morton(i) for i in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1), (0, 0, 2))] == [1, 2, 4, 7, 8]


@pytest.mark.parametrize("sweeps", [0, 1, 2])
def test_every_brick_is_finished_once_and_last(sweeps: int) -> None:
    grid = BrickGrid((128, 128, 192), (64, 64, 64))
    for index in grid.indices():
        turns = [r.finish for r in rounds(sweeps) if r.includes(index)]
        assert turns.count(True) == 1
        assert turns[-1]
        assert len(turns) == 1 + max(1, sweeps)


def test_touching_finds_the_bricks_of_a_box() -> None:
    grid = BrickGrid((100, 100, 100), (32, 32, 32))
    assert list(grid.touching(((0, 1), (31, 33), (99, 100)))) == [(0, 0, 3), (0, 1, 3)]
