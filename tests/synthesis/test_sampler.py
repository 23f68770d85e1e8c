"""Keys that are distributions: what is refused, what is drawn, and that draws depend on nothing but seed and key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError

from gigascope.config.sampled import Distribution, Fraction, Positive, sampled, sampled_word
from gigascope.config.section import Section, dump, explain
from gigascope.synthesis.sampler import draw, resolve
from gigascope.synthesis.seeds import generator, hashed, seed_of, seeds_of, uniform

Kind = Literal["ball", "layer"]


class Keys(Section):
    """Keys of every kind."""

    size: Positive = Field(9.5, description="a length")
    share: Fraction = Field(0.5, description="a share")
    count: Annotated[int | Distribution, *sampled(ge=1, le=6, whole=True)] = Field(3, description="a count")
    kind: Annotated[Kind | Distribution, *sampled_word(Kind)] = Field("ball", description="a word")


def refused(**values: Any) -> str:
    with pytest.raises(ValidationError) as error:
        Keys.model_validate(values)
    ((path, why),) = explain(error.value, Keys)
    assert path == tuple(values)
    return why


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": {"dist": "unifrom", "low": 1, "high": 2}}, ["unifrom", "Did you mean uniform?"]),
        ({"size": {"low": 1, "high": 2}}, ["dist is None", "uniform, normal, lognormal, choice"]),
        ({"size": {"dist": "uniform", "low": 1}}, ["high", "required"]),
        ({"size": {"dist": "uniform", "low": 3, "high": 2}}, ["low 3 is above high 2"]),
        ({"size": {"dist": "uniform", "low": -3, "high": 2}}, ["above 0", "-3"]),
        ({"size": {"dist": "normal", "mean": 3, "sd": 2}}, ["sd", "Did you mean std?"]),
        ({"size": -1}, ["above 0", "-1"]),
        ({"size": "big"}, ["'big'"]),
        ({"share": {"dist": "choice", "values": [0.5, 1.5]}}, ["at most 1", "1.5"]),
        ({"share": {"dist": "choice", "values": [0.5, 0.6], "weights": [1]}}, ["2 numbers"]),
        ({"share": {"dist": "normal", "mean": 0.5, "std": 1, "low": 0.8, "high": 0.2}}, ["nothing lies between"]),
        ({"count": 2.5}, ["whole number", "2.5"]),
        ({"kind": "shell"}, ["ball, layer", "shell"]),
        ({"kind": {"dist": "choice", "values": ["ball", "sphere"]}}, ["sphere"]),
        ({"kind": {"dist": "uniform", "low": 0, "high": 1}}, ["only a choice"]),
    ],
)
def test_a_wrong_distribution_is_refused_with_the_reason(values: dict[str, Any], words: list[str]) -> None:
    why = refused(**values)
    assert all(word in why for word in words), why


def test_what_is_drawn_is_validated_by_the_same_section_again() -> None:
    keys = Keys.model_validate(
        {
            "size": {"dist": "lognormal", "mean": 9, "cv": 0.2},
            "share": {"dist": "normal", "mean": 0.9, "std": 0.4},
            "count": {"dist": "uniform", "low": 2, "high": 4},
            "kind": {"dist": "choice", "values": ["ball", "layer"]},
        }
    )
    found = [Keys.model_validate(resolve(dump(keys), seed)) for seed in range(200)]
    assert {k.count for k in found} == {2, 3, 4}
    assert {k.kind for k in found} == {"ball", "layer"}
    shares = np.array([k.share for k in found])
    assert 0 <= shares.min() < shares.max() <= 1
    # truncated to the key's range, not piled up at its end
    assert np.sum(shares == 1) == 0
    assert resolve(dump(Keys()), 1) == dump(Keys())


def test_draws_depend_on_seed_and_key_only() -> None:
    normal = {"dist": "normal", "mean": 0.0, "std": 1.0}
    alone = resolve({"b": {"c": normal}}, 5)
    among = resolve({"a": normal, "b": {"x": normal, "c": normal}, "d": [normal, normal]}, 5)
    assert among["b"]["c"] == alone["b"]["c"]
    numbers = [among["a"], among["b"]["x"], among["b"]["c"], *among["d"]]
    assert len(set(numbers)) == len(numbers)
    assert resolve({"b": {"c": normal}}, 6) != alone


def test_distributions_have_their_moments() -> None:
    def sample(**distribution: Any) -> np.ndarray:
        return np.array([draw(distribution, generator(7, n)) for n in range(4000)])

    x = sample(dist="lognormal", mean=9.5, cv=0.3)
    # four standard errors of mean and standard deviation
    assert abs(x.mean() - 9.5) < 4 * 2.85 / 4000**0.5
    assert abs(x.std() / x.mean() - 0.3) < 0.02
    y = sample(dist="normal", mean=2.0, std=0.5)
    assert abs(y.mean() - 2) < 4 * 0.5 / 4000**0.5
    assert abs(y.std() - 0.5) < 0.03
    z = sample(dist="choice", values=[1.0, 2.0, 3.0], weights=[1, 0, 3])
    assert abs(np.mean(z == 3) - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5
    assert not np.any(z == 2)
    # cut off where nothing is left in float64: at the bound, not at infinity
    far = sample(dist="normal", mean=0.0, std=1.0, low=50.0, high=60.0)
    assert np.all((far >= 50) & (far <= 60))


def test_seeds_are_distinct_and_numbers_even() -> None:
    root = seed_of(0, "spheroid", 3, "nuclei")
    seeds = seeds_of(root, np.arange(200_000))
    assert len(np.unique(seeds)) == len(seeds)
    u = uniform(seeds, 0)
    assert 0 < u.min() < u.max() < 1
    counts = np.bincount((u * 50).astype(int), minlength=50)
    # chi square of 49 degrees of freedom: mean 49, standard deviation 9.9
    assert np.sum((counts - 4000) ** 2 / 4000) < 49 + 5 * 9.9
    assert abs(np.corrcoef(u, uniform(seeds, 1))[0, 1]) < 4 / len(u) ** 0.5
    assert np.array_equal(hashed(seeds[10:20], 4), hashed(seeds, 4)[10:20])
