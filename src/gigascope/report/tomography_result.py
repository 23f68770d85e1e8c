"""What the page of a tilt series is made from: its stores, tables and metrics, joined view by view."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.report.evaluated import Columns

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class TomographyResult:
    """Everything the page is made from.

    Parameters
    ----------
    name : of the dataset
    tilt_series, prealigned, tomogram, aligned, halves : stores; halves only if they were made
    history, fsc, frc_views : columns by name
    fsc_units : units of the columns of `fsc`
    metrics : content of metrics.json
    """

    name: str
    tilt_series: StoreReader
    prealigned: StoreReader
    tomogram: StoreReader
    aligned: StoreReader
    history: Columns
    fsc: Columns
    frc_views: Columns
    fsc_units: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    halves: StoreReader | None = None

    def views(self) -> Views:
        """The columns of all tables that have one row per view, by ascending tilt."""
        return Views.of(self)

    @property
    def pixel_nm(self) -> float:
        """Pixel size of the raw views."""
        return float(self.tilt_series.attrs.get("pixel_size_nm") or self.tilt_series.spacing["x"])

    @property
    def simulated(self) -> bool:
        """The series comes from a phantom with known shifts."""
        return self.tilt_series.attrs.get("source") == "phantom"

    @property
    def field_nm(self) -> float:
        """Width of the aligned views across the tilt axis."""
        return self.aligned.shape[2] * float(self.aligned.spacing["x"])


@dataclass(frozen=True)
class Views:
    """One row per view, by ascending tilt; what a table lacks is NaN, False or empty.

    Parameters
    ----------
    index : number in the stack, from 0
    tilt_deg : degrees
    found, coarse : (n, 2) final and pre-aligned shifts (f_s, f_y), raw pixels
    sigma : (n, 2) predicted standard deviation of `found`, raw pixels
    truth : (n, 2) planted shifts, or none
    use : views that made the tomogram
    weak : views that pre-alignment could not place
    reason : why a view was excluded or flagged
    """

    index: NDArray[np.int64]
    tilt_deg: F64
    found: F64
    coarse: F64
    sigma: F64
    truth: F64 | None
    residual: F64
    overlap: F64
    peak: F64
    weak: NDArray[np.bool_]
    use: NDArray[np.bool_]
    reason: list[str]

    @property
    def tilt(self) -> F64:
        """Radians."""
        return np.deg2rad(self.tilt_deg)

    @classmethod
    def of(cls, result: TomographyResult) -> Views:
        """Join the tables by the number of the view."""
        series = result.tilt_series.table("views")
        tilt = np.asarray(series["tilt_deg"], dtype=np.float64)
        n = len(tilt)
        final = _by_view(result.tomogram.table("shifts"), n)
        coarse = _by_view(result.prealigned.table("shifts"), n)
        order = np.argsort(tilt, kind="stable")
        excluded = np.asarray(series.get("excluded", np.zeros(n, bool)), dtype=bool)
        why = [str(r) for r in series.get("reason", np.array([""] * n))]
        flags = [str(f) if f is not None else "" for f in final.get("flag", [""] * n)]
        reasons = [reason_in_words(excluded[i], why[i], flags[i]) for i in range(n)]
        truth = None
        if "true_f_s_px" in series:
            truth = np.stack([series["true_f_s_px"], series["true_f_y_px"]], axis=1).astype(np.float64)[order]
        weak = np.array(["weak" in str(flag) for flag in coarse.get("flag", [""] * n)])
        return cls(
            index=order,
            tilt_deg=tilt[order],
            found=_pairs(final, "f_s_px", "f_y_px", n)[order],
            coarse=_pairs(coarse, "f_s_px", "f_y_px", n)[order],
            sigma=_pairs(final, "sigma_s_px", "sigma_y_px", n)[order],
            truth=truth,
            residual=_floats(final, "residual", n)[order],
            overlap=_floats(final, "overlap", n)[order],
            peak=_floats(coarse, "peak", n)[order],
            weak=weak[order],
            use=np.array([not excluded[i] and not flags[i] for i in order]),
            reason=[reasons[i] for i in order],
        )


def _by_view(columns: Columns, n: int) -> dict[str, list[Any]]:
    """Columns in stack order; rows of views that the table leaves out are None."""
    at = np.asarray(columns.get("view", np.arange(len(next(iter(columns.values()), [])))), dtype=np.int64)
    placed: dict[str, list[Any]] = {name: [None] * n for name in columns}
    for name, values in columns.items():
        for row, view in enumerate(at):
            if 0 <= view < n:
                placed[name][view] = values[row]
    return placed


def _floats(columns: Mapping[str, list[Any]], name: str, n: int) -> F64:
    values = columns.get(name, [None] * n)
    return np.array([np.nan if v is None else float(v) for v in values])


def _pairs(columns: Mapping[str, list[Any]], first: str, second: str, n: int) -> F64:
    return np.stack([_floats(columns, first, n), _floats(columns, second, n)], axis=1)


def load(
    name: str,
    stores: Mapping[str, StoreReader],
    *,
    history: Path,
    metrics: Path,
    fsc: Path,
    frc_views: Path,
) -> TomographyResult:
    """Gather the inputs of the page; `stores` by the names of :class:`TomographyResult`."""
    from gigascope.store.table import read_tsv

    curves, units = read_tsv(fsc)
    return TomographyResult(
        name=name,
        tilt_series=stores["tilt_series"],
        prealigned=stores["prealigned"],
        tomogram=stores["tomogram"],
        aligned=stores["aligned"],
        halves=stores.get("halves"),
        history=read_tsv(history)[0],
        fsc=curves,
        fsc_units=units,
        frc_views=read_tsv(frc_views)[0],
        metrics=json.loads(metrics.read_text(encoding="utf-8")),
    )


_REASONS = {
    "excluded": "left out by hand (ingest.exclude)",
    "dark": "too dark beside its neighbours",
    "empty": "no structure in it",
    "shift": "moved further than three prior sigma in the joint alignment",
    "sigma": "its shift is known to no better than 1 px",
    "residual": "differs from the tomogram more than its neighbours do",
    "overlap": "shares too little of the field with the others",
    "weak": "weak correlation peak",
}


def reason_in_words(excluded: bool, why: str, flags: str) -> str:
    """Why a view was left out or flagged, in words; empty: it was not.

    Parameters
    ----------
    why : of the exclusion, as ingest gives it
    flags : of the joint alignment, joined by "+"
    """
    found = [why or "excluded"] if excluded else []
    found += [flag for flag in flags.split("+") if flag and flag not in found]
    return "; ".join(_REASONS.get(flag, flag) for flag in found)
