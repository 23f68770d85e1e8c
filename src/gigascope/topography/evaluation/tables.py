"""The tables of an evaluation: columns with their units, one row for each of what was told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.metrics.distribution import ErrorDistribution, Spread
from gigascope.topography.evaluation.labels import METHODS, OURS
from gigascope.topography.evaluation.mosaic_scores import PROFILE_PX, MosaicScores, TruthScores
from gigascope.topography.evaluation.view_scores import ViewScores

Table = tuple[dict[str, NDArray[Any]], dict[str, str]]
Rows = list[tuple[float, ...]]
HISTOGRAM_BINS = 81


@dataclass(frozen=True)
class Scored:
    """A method's row of the table of estimators."""

    method: str
    views: str
    height_rmse: float
    height_p95: float
    psnr: float
    pixels: int
    per_pixel: float


def all_tables(
    scored: Sequence[Scored],
    against: TruthScores | None,
    views: ViewScores,
    mosaic: MosaicScores | None,
    *,
    dz_um: float,
    unit: str,
) -> dict[str, Table]:
    """Every table by its name; those of what is not known are empty.

    Parameters
    ----------
    scored : methods beside each other
    against : scores against the truth; none: there is no truth
    views : scores of single views
    mosaic : of several views; none: there is one, without seams
    dz_um : step between slices
    unit : of heights
    """
    tables = {"estimators": _estimators(scored, unit)}
    names: tuple[str, ...] = ("from", "to", "pixels", "bias", "rmse", "p95")
    lengths = dict.fromkeys(("from", "to", "bias", "rmse", "p95"), unit)
    tables["height_deciles"] = _table(names, decile_rows(against) if against else [], lengths)
    names = ("from", "to", "pixels", "bias", "rmse", "focus_bias", "focus_rmse")
    units = {"from": "px", "to": "px"} | dict.fromkeys(names[3:], unit)
    tables["field_radius"] = _table(names, _radius_rows(views) if against else [], units)
    rows = _histogram_rows(against, dz_um) if against else []
    tables["height_histogram"] = _table(("error", "share"), rows, {"error": unit})
    names = ("distance", "pixels", "gradient", "height_gradient")
    tables["seam_profile"] = _table(names, _seam_rows(mosaic) if mosaic else [], {"distance": "px"})
    lengths = dict.fromkeys(("true", "found", "std"), unit)
    tables["gauge_planes"] = _table(("true", "found", "std", "pixels"), against.steps() if against else [], lengths)
    return tables


def decile_rows(against: TruthScores) -> Rows:
    """Tenths of the true heights: from, to, pixels, bias, RMSE, 95th percentile."""
    errors = against.heights
    half = 0.5 * (errors.span[1] - errors.span[0]) / len(errors.values)
    rows: Rows = []
    for part in errors.shares(10):
        spread, values = errors.spread(against.offset_um, part), errors.values[part]
        low, high = float(values[0]) - half, float(values[-1]) + half
        rows.append((low, high, spread.n, spread.bias, spread.rmse, spread.p95))
    return rows


def about_median(errors: ErrorDistribution) -> Spread:
    """Distribution of errors less their median."""
    return errors.spread(errors.median() if errors.n else 0.0)


def _estimators(rows: Sequence[Scored], unit: str) -> Table:
    def words(values: Sequence[str]) -> NDArray[Any]:
        return np.array(values, np.dtypes.StringDType())

    columns = {
        "method": words([r.method for r in rows]),
        "label": words([METHODS[r.method] for r in rows]),
        "views": words([r.views for r in rows]),
        "height_rmse": np.array([r.height_rmse for r in rows]),
        "height_p95": np.array([r.height_p95 for r in rows]),
        "psnr": np.array([r.psnr for r in rows]),
        "pixels": np.array([r.pixels for r in rows], np.int64),
        "views_per_pixel": np.array([r.per_pixel for r in rows]),
    }
    return columns, {"height_rmse": unit, "height_p95": unit, "psnr": "dB"}


def _radius_rows(views: ViewScores) -> Rows:
    height, focus = views.height, views.single[OURS].focus
    offsets = [d.median() if d.n else 0.0 for d in (height, focus)]
    step = height.span[1] / len(height.values)
    rows: Rows = []
    for n in range(len(height.values)):
        a, b = (d.spread(o, slice(n, n + 1)) for d, o in zip((height, focus), offsets))
        if b.n:
            rows.append((n * step, (n + 1) * step, b.n, a.bias, a.rmse, b.bias, b.rmse))
    return rows


def _histogram_rows(against: TruthScores, dz_um: float) -> Rows:
    errors, offset = against.heights, against.offset_um
    if not errors.n:
        return []
    reach = max(0.1 * dz_um, 2.5 * errors.spread(offset).p95)
    return [(float(a), float(b)) for a, b in zip(*errors.histogram(offset, reach, HISTOGRAM_BINS))]


def _seam_rows(mosaic: MosaicScores) -> Rows:
    rows: Rows = []
    for n, (picture, count, height, height_count) in enumerate(mosaic.seams[:PROFILE_PX]):
        if count:
            rows.append((n + 0.5, int(count), float(picture / count), float(height / max(1.0, height_count))))
    return rows


def _table(names: Sequence[str], rows: Sequence[Sequence[float]], units: Mapping[str, str]) -> Table:
    """Columns of rows of numbers; counts of pixels are integers."""
    columns = list(zip(*rows)) if rows else [()] * len(names)
    kinds = [np.int64 if name == "pixels" else np.float64 for name in names]
    return {n: np.array(c, k) for n, c, k in zip(names, columns, kinds)}, dict(units)
