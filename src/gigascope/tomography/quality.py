"""What an alignment is worth: how well each view is predicted by a tomogram that it took no part in.

Compared for the raw, the prealigned and the final alignment, at one bin: leave-group-out residual (7.1) and FRC of
every view, FSC of the two half-sets (9), and with known truth the error of the shifts after the gauge is removed (1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.metrics.resolution import CorrelationCurve, crossing, frc, fsc, resolution_length
from gigascope.tomography import geometry
from gigascope.tomography.alignment import Alignment
from gigascope.tomography.fixed_shifts import LEAST_LAMBDA, aligned_data, layout_of, unsolved
from gigascope.tomography.half_sets import read_alignment
from gigascope.tomography.layout import residual_bin
from gigascope.tomography.primal_dual import PrimalDual
from gigascope.tomography.products import read_shifts, read_tried
from gigascope.tomography.residual import Residual, group_order, interleaved, residual
from gigascope.tomography.series import Series

if TYPE_CHECKING:
    from gigascope.config.tomography import Evaluate, Reconstruct
    from gigascope.store.open import StoreReader

F64 = NDArray[np.float64]
# Enough for the comparison: the objective is within 2 % of its end (section) or 1 % (object), tomography.md 13, test 6.
ITERATIONS = 50


@dataclass(frozen=True)
class Prediction:
    """How one alignment's half-sets predict each other.

    Attributes
    ----------
    residual : leave-group-out residual, ascending tilt, NaN for views left out
    rings : FRC of each view against its prediction, cycles per pixel of the bin; none for views left out
    shells : FSC of the two half-set tomograms inside the measured wedge
    """

    residual: Residual
    rings: list[CorrelationCurve | None]
    shells: CorrelationCurve


class Quality:
    """Measures of one result.

    Parameters
    ----------
    series : raw views
    prealigned, tomogram : stores with the tables of the shifts
    settings : the tomogram was made with
    cfg : the stage's section
    device : to compute on
    """

    def __init__(
        self,
        series: Series,
        prealigned: StoreReader,
        tomogram: StoreReader,
        settings: Reconstruct,
        cfg: Evaluate,
        device: torch.device,
    ) -> None:
        self._series, self._cfg, self._device = series, cfg, device
        self._settings = settings
        self.bin = residual_bin(layout_of(series, self._settings), self._settings.bin)
        self._layout = layout_of(series, self._settings, self.bin)
        coarse = read_shifts(prealigned.table("shifts"), series.order)
        final = read_alignment(tomogram, series)
        self.alignments: dict[str, Alignment] = {
            "raw": unsolved(series, np.zeros_like(coarse)),
            "prealigned": unsolved(series, coarse),
            "aligned": final,
        }
        self._good = np.array([flag == "" for flag in final.flags])
        self._chosen = str(prealigned.attrs.get("method", "correlation"))
        tried = (
            read_tried(prealigned.table("tried"), series.order) if cfg.compare and "tried" in prealigned.tables else {}
        )
        # what the prealignment tried and did not choose
        self.others: dict[str, Alignment] = {
            name: unsolved(series, shifts) for name, shifts in tried.items() if name != self._chosen
        }

    @property
    def pixel_nm(self) -> float:
        """Pixel size at which views are compared."""
        return self._series.pixel_nm * self.bin

    def predict(self, alignment: Alignment) -> Prediction:
        """Reconstruct the half-sets of an alignment and compare; over the views of the final tomogram."""
        used = np.flatnonzero(self._good)
        noise = self._series.noise if self._settings.weights == "noise" else np.ones(len(self._series.tilt))
        views, weights = aligned_data(self._series, self._layout, alignment, noise, self.bin, self._device)
        chosen = torch.from_numpy(used).to(self._device)
        model, volumes = self._half_sets(views[chosen], weights[chosen], self._series.tilt[used])
        fit = residual(model, views[chosen], weights[chosen])
        misfit, power = np.zeros(len(views)), np.zeros(len(views))
        misfit[used], power[used] = fit.misfit, fit.power
        rings: list[CorrelationCurve | None] = [None] * len(views)
        for k, i in enumerate(used):
            known = (weights[i] > 0).to(views.dtype)
            if bool(known.any()):
                rings[i] = frc(model[k] * known, views[i] * known)
        return Prediction(Residual(misfit, power), rings, self._shells(volumes[0], volumes[1], self.bin))

    def _half_sets(self, views: Tensor, weights: Tensor, tilt: F64) -> tuple[Tensor, Tensor]:
        """Predictions (tilt, s, y) of the views by the other half's tomogram, and both tomograms (2, z, x, y)."""
        groups = interleaved(len(tilt), 2)
        order = torch.from_numpy(group_order(groups)).to(self._device)
        angles = torch.as_tensor(tilt, dtype=torch.float64, device=self._device)
        problem = PrimalDual(
            angles[order],
            [len(group) for group in groups],
            self._layout.shape(self.bin),
            views.shape[1],
            hz=self._layout.hz,
            lam=LEAST_LAMBDA * self.bin,
            constants=self._layout.extent != "object",
            positivity=self._settings.positivity,
        )
        problem.set_data(views[order], weights[order])
        problem.iterate(ITERATIONS)
        model = torch.empty_like(views)
        model[order] = problem.left_out_projections()
        return model, problem.u

    def half_curve(self, halves: StoreReader) -> tuple[CorrelationCurve, float]:
        """FSC of the half tomograms that were written, and their pixel size in nanometres."""
        bin = int(halves.attrs["bin"])
        both = torch.from_numpy(np.ascontiguousarray(halves.array()[:])).permute(0, 1, 3, 2)
        return self._shells(both[0].to(self._device), both[1].to(self._device), bin), self._series.pixel_nm * bin

    def _shells(self, a: Tensor, b: Tensor, bin: int) -> CorrelationCurve:
        """FSC of two volumes (z, x, y) in the central box, inside the measured double wedge."""
        n_s, n_y = (n // bin for n in self._layout.frame)
        box = [max(16, round(self._cfg.fsc_box * n)) for n in (n_s, n_y)]
        cut = tuple(
            slice(max(0, (n - side) // 2), max(0, (n - side) // 2) + min(n, side))
            for n, side in zip(a.shape[1:], box, strict=True)
        )
        tilt = self._series.tilt[self._good]
        wedge = (float(tilt[0]), float(tilt[-1]))
        part = (slice(None), *cut)
        return fsc(a[part], b[part], spacing=(self._layout.hz, 1.0, 1.0), wedge=wedge, wedge_axis=1)

    # what is said about it

    def true_errors(self) -> dict[str, float]:
        """RMS error of the shifts in pixels after the gauge is removed, by alignment; empty without known truth."""
        truth = self._series.true_shifts
        if truth is None:
            return {}
        return {
            name: geometry.rms_error(alignment.shifts, truth, self._series.tilt, self._good)
            for name, alignment in self.alignments.items()
        }

    def view_table(self, predictions: dict[str, Prediction]) -> tuple[dict[str, Any], dict[str, str]]:
        """One row per view in file order: residuals of every alignment, and the FRC's resolutions of the final one."""
        order = self._series.in_file_order
        columns: dict[str, Any] = {
            "view": np.arange(len(self._series.order)),
            "tilt_deg": np.rad2deg(order(self._series.tilt)),
        }
        columns |= {f"residual_{name}": order(found.residual.per_view) for name, found in predictions.items()}
        for threshold in self._cfg.thresholds:
            values = [self._resolution(curve, threshold) for curve in predictions["aligned"].rings]
            columns[f"resolution_{threshold:g}_nm"] = order(np.array(values))
        units = {"tilt_deg": "degree"} | {name: "nm" for name in columns if name.endswith("_nm")}
        return columns, units

    def _resolution(self, curve: CorrelationCurve | None, threshold: float, pixel_nm: float | None = None) -> float:
        if curve is None:
            return float("nan")
        return resolution_length(crossing(curve, threshold), pixel_nm or self.pixel_nm)

    def shell_table(
        self, predictions: dict[str, Prediction], halves: tuple[CorrelationCurve, float] | None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """FSC curves over one axis of frequencies in 1/nm; a curve of coarser voxels ends earlier (NaN)."""
        curve, pixel_nm = halves or (predictions["aligned"].shells, self.pixel_nm)
        frequency = curve.frequency / pixel_nm
        columns: dict[str, Any] = {
            "frequency": frequency,
            "fsc": curve.correlation,
            "fsc_full": curve.full().correlation,
        }
        for name in ("raw", "prealigned"):
            other = predictions[name].shells
            columns[f"fsc_{name}"] = np.interp(
                frequency, other.frequency / self.pixel_nm, other.correlation, right=np.nan
            )
        return columns, {"frequency": "1/nm"}

    def methods(self, predictions: dict[str, Prediction]) -> list[dict[str, Any]]:
        """One row per way of aligning the series, best prediction first.

        `residual`: half-set rho over the views of the tomogram; `distance_px`: RMS from the final shifts after the
        gauge is removed; `error_px`: the same from the truth, where it is known.
        """
        truth, tilt, final = self._series.true_shifts, self._series.tilt, self.alignments["aligned"].shifts
        rows = []
        for name, alignment in (self.alignments | self.others).items():
            row = {
                "method": {"raw": "none (raw)", "prealigned": self._chosen, "aligned": self._final_method}.get(
                    name, name
                ),
                "step": {"raw": "", "aligned": "result"}.get(name, "pre-alignment"),
                "chosen": name in ("prealigned", "aligned"),
                "residual": _finite(predictions[name].residual.of(self._good)),
                "distance_px": geometry.rms_error(alignment.shifts, final, tilt, self._good),
            }
            if truth is not None:
                row["error_px"] = geometry.rms_error(alignment.shifts, truth, tilt, self._good)
            rows.append(row)
        return sorted(rows, key=lambda row: np.inf if row["residual"] is None else row["residual"])

    @property
    def _final_method(self) -> str:
        align = self._settings.align
        return f"joint ({align.mode})" if align.enabled else f"{self._chosen}, as it is"

    def metrics(
        self, predictions: dict[str, Prediction], halves: tuple[CorrelationCurve, float] | None
    ) -> dict[str, Any]:
        """Numbers with units and labels, the table of methods, and warnings in plain words; the predictions of
        `alignments` and of `others`.
        """
        methods = self.methods(predictions)
        predictions = {name: predictions[name] for name in self.alignments}
        found: dict[str, Any] = {}
        words = {"raw": "raw", "prealigned": "pre-aligned", "aligned": "aligned"}
        for name, prediction in predictions.items():
            label = f"Half-set reprojection residual, {words[name]} views (bin {self.bin})"
            found[f"residual_{name}"] = _entry(prediction.residual.of(self._good), "", label)
        curve, pixel_nm = halves or (predictions["aligned"].shells, self.pixel_nm)
        for threshold in self._cfg.thresholds:
            value = self._resolution(curve, threshold, pixel_nm)
            found[f"resolution_fsc_{threshold:g}"] = _entry(value, "nm", f"Resolution, half-set FSC {threshold:g}")
        errors = self.true_errors()
        for name, key in (
            ("raw", "start_error_px"),
            ("prealigned", "prealign_error_px"),
            ("aligned", "alignment_error_px"),
        ):
            if name in errors:
                found[key] = _entry(
                    errors[name], "px", f"Error of the shifts, {words[name]}, RMS against the known truth"
                )
        found["views_used"] = _entry(int(self._good.sum()), "", f"Views in the tomogram, of {len(self._good)}")
        found["methods"] = methods
        found["warnings"] = self._warnings(predictions)
        return found

    def _warnings(self, predictions: dict[str, Prediction]) -> list[str]:
        before, after = (predictions[name].residual.of(self._good) for name in ("prealigned", "aligned"))
        if after > 1.02 * before:
            return [
                "The joint alignment predicts the views worse than the prealignment does "
                f"(residual {after:.3g} against {before:.3g}): look at the shift curves, "
                "and consider reconstruct.align.enabled: false."
            ]
        return []


def _entry(value: float | int, unit: str, label: str) -> dict[str, Any]:
    return {"value": _finite(value), "unit": unit, "label": label}


def _finite(value: float | int) -> float | int | None:
    """The value, or none, which JSON can say."""
    return value if np.isfinite(value) else None
