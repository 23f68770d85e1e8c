"""Keys that are a constant or a distribution, of which every member of an ensemble draws a value of its own.

`diameter: 9.5` or `diameter: {dist: uniform, low: 8, high: 11}`. :mod:`gigascope.synthesis.sampler` draws; what it drew
is validated by the same section again, so that the science meets constants only.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, WrapValidator, model_validator

from gigascope.config.section import Section, explain


class Uniform(Section):
    """Every value between two bounds is equally likely."""

    dist: Literal["uniform"] = Field(description="uniform")
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    whole: bool = Field(False, description="whole numbers only; a key that is one sets this itself")

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}.")
        return self


class Normal(Section):
    """Gaussian, cut off at `low` and `high`."""

    dist: Literal["normal"] = Field(description="normal")
    mean: float = Field(description="mean before the cut")
    std: float = Field(gt=0, description="standard deviation before the cut")
    low: float | None = Field(None, description="smallest value; none: as the key allows")
    high: float | None = Field(None, description="largest value; none: as the key allows")
    whole: bool = Field(False, description="whole numbers only; a key that is one sets this itself")


class LogNormal(Section):
    """The logarithm is Gaussian; cut off at `low` and `high`."""

    dist: Literal["lognormal"] = Field(description="lognormal")
    mean: float = Field(gt=0, description="mean before the cut")
    cv: float = Field(gt=0, description="standard deviation over mean, before the cut")
    low: float | None = Field(None, description="smallest value; none: as the key allows")
    high: float | None = Field(None, description="largest value; none: as the key allows")
    whole: bool = Field(False, description="whole numbers only; a key that is one sets this itself")


class Choice(Section):
    """One of some values."""

    dist: Literal["choice"] = Field(description="choice")
    values: tuple[float | str, ...] = Field(min_length=1, description="the values")
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, description="how likely each is, in any unit; none: all alike"
    )

    @model_validator(mode="after")
    def _weighed(self) -> Choice:
        if self.weights is not None and (len(self.weights) != len(self.values) or not sum(self.weights)):
            raise ValueError(f"weights must be {len(self.values)} numbers, one for each value, not all zero.")
        return self


Distribution = Uniform | Normal | LogNormal | Choice
DISTRIBUTIONS: dict[str, type[Section]] = {
    "uniform": Uniform,
    "normal": Normal,
    "lognormal": LogNormal,
    "choice": Choice,
}


def sampled(
    *, ge: float | None = None, le: float | None = None, gt: float | None = None, whole: bool = False
) -> tuple[Any, ...]:
    """Metadata of a key that is a number or a distribution: `Annotated[float | Distribution, *sampled(ge=0)]`.

    Parameters
    ----------
    ge, le, gt : bounds of the number, and of all that a distribution may give
    whole : an integer
    """
    return (WrapValidator(_reader(ge, le, gt, whole)),)


def sampled_word(words: Any) -> tuple[Any, ...]:
    """Metadata of a key that is one of some words, or a choice among them; `words` is their `Literal`."""
    known = get_args(words)

    def read(value: Any, handler: Callable[[Any], Any]) -> Any:
        if isinstance(value, (dict, Section)):
            found = _distribution(value)
            if not isinstance(found, Choice):
                raise ValueError(f"only a choice can give a word (dist: choice), found {value!r}.")  # noqa: TRY004
            values: tuple[Any, ...] = found.values
        else:
            found, values = value, (value,)
        if unknown := [v for v in values if v not in known]:
            raise ValueError(f"should be one of {', '.join(known)}, or a choice among them, found {unknown[0]!r}.")
        return found

    return (WrapValidator(read),)


def _reader(ge: float | None, le: float | None, gt: float | None, whole: bool) -> Callable[..., Any]:
    def read(value: Any, handler: Callable[[Any], Any]) -> Any:
        if not isinstance(value, (dict, Section)):
            return _number(value, ge, le, gt, whole)
        found = _distribution(value)
        given = {name: number for name, number in found.model_dump().items() if name in {"low", "high"}}
        for number in found.values if isinstance(found, Choice) else [n for n in given.values() if n is not None]:
            _number(number, ge, le, gt, whole)
        if isinstance(found, (Normal, LogNormal)):
            # the bounds of the key are part of what is drawn from
            lowest = ge if ge is not None else gt
            low, high = (found.low if found.low is not None else lowest), (found.high if found.high is not None else le)
            if low is not None and high is not None and low >= high:
                raise ValueError(f"nothing lies between low {low:g} and high {high:g}.")
            found = found.model_copy(update={"low": low, "high": high})
        return found if isinstance(found, Choice) else found.model_copy(update={"whole": whole})

    return read


def _number(value: Any, ge: float | None, le: float | None, gt: float | None, whole: bool) -> float | int:
    bounds = [f"at least {ge:g}"] if ge is not None else []
    bounds += [f"above {gt:g}"] if gt is not None else []
    bounds += [f"at most {le:g}"] if le is not None else []
    wanted = f"a {'whole ' if whole else ''}number{' ' if bounds else ''}{' and '.join(bounds)}"
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
    fine = fine and (ge is None or value >= ge) and (le is None or value <= le) and (gt is None or value > gt)
    if not fine or (whole and value != int(value)):
        raise ValueError(f"should be {wanted}, or a distribution of such, found {value!r}.")
    return int(value) if whole else float(value)


def _distribution(value: Any) -> Any:
    if isinstance(value, Section):
        return value
    name = value.get("dist")
    if name not in DISTRIBUTIONS:
        near = difflib.get_close_matches(str(name), list(DISTRIBUTIONS), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"dist is {name!r}; it should be one of {', '.join(DISTRIBUTIONS)}.{hint}")
    model = DISTRIBUTIONS[name]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # a distribution has few keys: one sentence for all that is wrong with it
        problems = [f"{'.'.join(map(str, path))}: {why}" if path else why for path, why in explain(error, model)]
        raise ValueError(" ".join(problems)) from None


# The kinds of key that sections use most.
Fraction = Annotated[float | Distribution, *sampled(ge=0, le=1)]
NonNegative = Annotated[float | Distribution, *sampled(ge=0)]
Positive = Annotated[float | Distribution, *sampled(gt=0)]
