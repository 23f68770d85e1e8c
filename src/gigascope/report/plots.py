"""Line plots as inline SVG that takes its colours from the page, so that they are right in light and dark.

The drawing is narrow (440 units) and grows with the page: its text stays readable on a phone. Every point carries a
title, which browsers show under the pointer without a script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.report.page import Html, join, number, plain, tag

F64 = NDArray[np.float64]

Style = Literal["line", "wide", "dashed", "dots", "hollow", "linedots", "dashdots", "large"]

WIDTH = 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 8.0, 8.0, 40.0
_MAX_POINTS = 400
# The longest bar, in percent of what its name leaves: its words stand behind it.
_BAR = 55.0


@dataclass(frozen=True)
class Series:
    """One curve.

    Parameters
    ----------
    label : for the legend; empty: none
    x, y : values; not finite: a gap
    band : half-width around y that is shaded
    style : "line", "wide" (pale, for what lies below others), "dashed", "dots" (filled), "hollow", "linedots" or
        "dashdots" (both), or "large" (dots for what it is all about)
    colour : 0 (grey) to 4
    names : what each point is, shown under the pointer; default: its coordinates
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    band: ArrayLike | None = None
    style: Style = "line"
    colour: int = 1
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Mark:
    """A straight line across the plot at a value of one axis, with a word beside it."""

    axis: Literal["x", "y"]
    at: float
    label: str = ""


@dataclass(frozen=True)
class Axis:
    """An axis: label, limits (none: from the data, `zero`: from 0 on), logarithmic or not; `ticks` with their text."""

    label: str
    limits: tuple[float, float] | None = None
    log: bool = False
    zero: bool = False
    ticks: Sequence[tuple[float, str]] | None = None


def plot(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    title: str,
    description: str,
    marks: Sequence[Mark] = (),
    height: float = 250.0,
    equal: bool = False,
) -> Html:
    """A plot with its title and legend.

    Parameters
    ----------
    title : heading of the plot, text or HTML
    description : what it shows, for those who do not see it
    height : in units of a width of 440
    equal : one unit of x is as long as one of y
    """
    curves = [replace(s, x=_numbers(s.x), y=_numbers(s.y)) for s in series]
    curves = [s for s in curves if np.isfinite(s.x).any() and np.isfinite(s.y).any()]
    if not curves:
        return Html("")
    frame = _frame(curves, x, y, marks, height, equal)
    drawn = join(
        [*_axes(frame, x, y), *(_mark(frame, m) for m in marks), *(part for s in curves for part in _curve(frame, s))]
    )
    svg = tag(
        "svg",
        tag("title", description),
        drawn,
        class_="plot",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_label=description,
    )
    entries = [tag("li", s.label, class_=f"k{s.colour} {s.style}") for s in curves if s.label]
    legend = tag("ul", *entries, class_="legend") if entries else ""
    return tag("div", tag("p", title, class_="plot-title"), legend, svg)


def bars(rows: Sequence[tuple[str, float, str]], *, title: str, full: float | None = None) -> Html:
    """Horizontal bars from zero, with their names and what they stand for in words.

    Parameters
    ----------
    rows : name, value (not negative), and the value as a text
    full : value of a bar of full length; none: the largest
    """
    most = full or max((value for _, value, _ in rows), default=0.0)
    if most <= 0 or not rows:
        return Html("")
    entries = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", tag("span", class_="bar-fill", style=f"width:{_BAR * value / most:.2f}%"), tag("span", words)),
        )
        for name, value, words in rows
    ]
    return tag("div", tag("p", title, class_="plot-title"), tag("dl", *entries, class_="bars"))


@dataclass(frozen=True)
class _Scale:
    """Maps values of an axis to units of the drawing."""

    low: float
    high: float
    start: float
    stop: float
    log: bool

    def __call__(self, value: ArrayLike) -> F64:
        v = np.asarray(value, dtype=np.float64)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                part = np.log(v / self.low) / math.log(self.high / self.low)
        else:
            part = (v - self.low) / (self.high - self.low)
        return self.start + part * (self.stop - self.start)


@dataclass(frozen=True)
class _Frame:
    x: _Scale
    y: _Scale
    height: float


def _frame(curves: Sequence[Series], x: Axis, y: Axis, marks: Sequence[Mark], height: float, equal: bool) -> _Frame:
    xs = [np.asarray(s.x) for s in curves]
    ys = [np.asarray(s.y) for s in curves]
    # a band may be far wider than its curve where little was learnt: it is cut, it does not set the scale
    ys += [np.array([m.at]) for m in marks if m.axis == "y"]
    x_low, x_high = _limits(np.concatenate(xs), x, 0.02)
    y_low, y_high = _limits(np.concatenate(ys), y, 0.06)
    inner = WIDTH - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    if equal:
        unit = max((x_high - x_low) / inner[0], (y_high - y_low) / inner[1])
        grow_x, grow_y = unit * inner[0] - (x_high - x_low), unit * inner[1] - (y_high - y_low)
        x_low, x_high, y_low, y_high = x_low - grow_x / 2, x_high + grow_x / 2, y_low - grow_y / 2, y_high + grow_y / 2
    return _Frame(
        _Scale(x_low, x_high, _LEFT, WIDTH - _RIGHT, x.log),
        _Scale(y_low, y_high, height - _BOTTOM, _TOP, y.log),
        height,
    )


def _limits(values: F64, axis: Axis, margin: float) -> tuple[float, float]:
    if axis.limits is not None:
        return axis.limits
    values = values[np.isfinite(values) & ((values > 0) | (not axis.log))]
    if values.size == 0:
        return (0.1, 1.0) if axis.log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if axis.log:
        spread = max(high / low, 1.5) ** margin
        return low / spread, high * spread if high > low else low * 1.5
    if axis.zero:
        return 0.0, max(high, 1e-12) * (1 + margin)
    pad = (high - low) * margin or abs(low) * 0.1 or 1.0
    return low - pad, high + pad


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between two values."""
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = [10.0**k for k in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    if len(decades) >= 3:
        return decades[:: max(1, len(decades) // 6)]
    finer = [
        m * 10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)
    ]
    inside = [v for v in finer if low <= v <= high]
    return inside if len(inside) >= 2 else ticks(low, high, 4)


def _ticks(axis: Axis, scale: _Scale, about: int) -> list[tuple[float, str]]:
    if axis.ticks is not None:
        return [(at, label) for at, label in axis.ticks if scale.low <= at <= scale.high]
    places = _log_ticks(scale.low, scale.high) if axis.log else ticks(scale.low, scale.high, about)
    return [(v, plain(v)) for v in places]


def _axes(frame: _Frame, x: Axis, y: Axis) -> list[Html]:
    bottom, right = frame.y.start, frame.x.stop
    parts = []
    for at, label in _ticks(y, frame.y, 5):
        v = float(frame.y(at))
        parts.append(_line(_LEFT, v, right, v, "rule"))
        parts.append(_text(_LEFT - 6, v + 4, label, "end"))
    for at, label in _ticks(x, frame.x, 6):
        u = float(frame.x(at))
        parts.append(_line(u, bottom, u, bottom + 4, "rule"))
        parts.append(_text(u, bottom + 17, label, "middle"))
    parts.append(_text((_LEFT + right) / 2, frame.height - 5, x.label, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(_text(0, 0, y.label, "middle", f"translate(11 {middle:.1f}) rotate(-90)"))
    parts.append(
        tag(
            "rect",
            x=f"{_LEFT:g}",
            y=f"{_TOP:g}",
            width=f"{right - _LEFT:g}",
            height=f"{bottom - _TOP:g}",
            class_="frame",
        )
    )
    return parts


def _mark(frame: _Frame, mark: Mark) -> Html:
    if mark.axis == "y":
        v = float(frame.y(mark.at))
        return join([_line(_LEFT, v, frame.x.stop, v, "mark"), _text(frame.x.stop - 4, v - 4, mark.label, "end")])
    u = float(frame.x(mark.at))
    near_end = u > frame.x.stop - 60
    words = _text(u + (-4 if near_end else 4), _TOP + 13, mark.label, "end" if near_end else "start")
    return join([_line(u, _TOP, u, frame.y.start, "mark"), words])


def _curve(frame: _Frame, s: Series) -> list[Html]:
    u, v = frame.x(s.x), frame.y(s.y)
    # beyond the frame by a little only: a viewer need not clip
    v = np.clip(v, frame.y.stop - 1, frame.y.start + 1)
    colour = f"k{s.colour}"
    parts = []
    if s.band is not None:
        half = _numbers(s.band)
        top = np.clip(frame.y(np.asarray(s.y) + half), frame.y.stop, frame.y.start)
        low = np.clip(frame.y(np.asarray(s.y) - half), frame.y.stop, frame.y.start)
        parts += [
            tag("path", d=_path(np.r_[u[r], u[r][::-1]], np.r_[top[r], low[r][::-1]]) + "Z", class_=f"band {colour}")
            for r in _runs(u, np.where(np.isfinite(half), v, np.nan))
            if r.stop - r.start > 1
        ]
    if s.style in ("line", "wide", "dashed", "linedots", "dashdots"):
        kind = {"wide": " wide", "dashed": " dashed", "dashdots": " dashed"}.get(s.style, "")
        d = "".join(_path(u[r], v[r]) for r in _runs(u, v))
        parts.append(tag("path", d=d, class_=f"line{kind} {colour}"))
    if s.style in ("dots", "hollow", "linedots", "dashdots", "large") and len(u) <= _MAX_POINTS:
        kind = "hollow" if s.style == "hollow" else "point"
        radius = 6 if s.style == "large" else 3
        shown = [i for i in range(len(u)) if np.isfinite(u[i] + v[i])]
        parts += [_dot(u[i], v[i], f"{kind} {colour}", _name(s, i), radius) for i in shown]
    elif s.style in ("dots", "hollow"):
        parts.append(tag("path", d="".join(_path(u[r], v[r]) for r in _runs(u, v)), class_=f"line {colour}"))
    return parts


def _name(s: Series, i: int) -> str:
    if s.names is not None:
        return s.names[i]
    return f"{s.label}: {number(float(np.asarray(s.x)[i]))}, {number(float(np.asarray(s.y)[i]))}"


def _runs(u: F64, v: F64) -> list[slice]:
    """Stretches without a gap."""
    good = np.isfinite(u) & np.isfinite(v)
    edges = np.flatnonzero(np.diff(np.r_[False, good, False].astype(int)))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2])]


def _path(u: F64, v: F64) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(u, v))


def _dot(u: float, v: float, kind: str, name: str, radius: int) -> Html:
    return tag("circle", tag("title", name), cx=f"{u:.1f}", cy=f"{v:.1f}", r=f"{radius}", class_=kind)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _text(x: float, y: float, words: str, anchor: str, transform: str | None = None) -> Html:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, transform=transform)


def _numbers(values: ArrayLike) -> F64:
    return np.asarray(values, dtype=np.float64)
