"""All scores of a finished mosaic: metrics, tables, the picture of its errors, and what has to be said of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.evaluation import calibration_scores
from gigascope.topography.evaluation.labels import ESTIMATORS, OURS, TRUE, entries
from gigascope.topography.evaluation.mosaic_scores import Mosaic, MosaicScores, TruthScores
from gigascope.topography.evaluation.stacks import Stacks
from gigascope.topography.evaluation.tables import Scored, Table, about_median, all_tables, decile_rows
from gigascope.topography.evaluation.tiles import Tile, tiles_of
from gigascope.topography.evaluation.truth import Truth
from gigascope.topography.evaluation.view_scores import ViewScores
from gigascope.topography.evaluation.warnings import warnings

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

Progress = Callable[..., Iterable[Any]]


class Evaluation:
    """Evaluation of a finished result.

    Parameters
    ----------
    stacks : `registered`, or `raw`
    calibration, views, mosaic : finished stores
    truth : of a simulated instrument; none: what needs it is left out
    estimators : of section 12, run beside ours where there is a truth
    max_pixels : pixels of the mosaic that are scored
    max_view_pixels : pixels of the views that are scored and that the estimators are run on

    Raises
    ------
    UserError : stores of different acquisitions
    """

    def __init__(
        self,
        stacks: StoreReader,
        calibration: StoreReader,
        views: StoreReader,
        mosaic: StoreReader,
        truth: StoreReader | None = None,
        *,
        estimators: Sequence[str] = tuple(ESTIMATORS),
        max_pixels: int = 2**26,
        max_view_pixels: int = 2**24,
    ) -> None:
        self._calibration, self._candidates = read_calibration(calibration)
        self._mosaic = Mosaic(mosaic)
        self._stacks = Stacks(stacks, views)
        self.notes: list[str] = []
        if self._mosaic.shape != tuple(self._calibration.mosaic_shape):
            raise UserError(
                f"is of {self._mosaic.shape[0]} x {self._mosaic.shape[1]} pixels, the calibration's mosaic of "
                f"{self._calibration.mosaic_shape[0]} x {self._calibration.mosaic_shape[1]}.",
                where=mosaic.path,
                do="Run snakemake again: it runs the stage that makes this store.",
            )
        self._truth = self._truth_of(truth)
        # heights count slices where the step is not known
        self.dz_um = 1000.0 * abs(float(stacks.attrs["dz_mm"])) if self._mosaic.in_um else 1.0
        self._tiles = tiles_of(self._whole, max_pixels)
        self._all = max_pixels >= self._mosaic.shape[0] * self._mosaic.shape[1]
        self._view_scores = ViewScores(
            self._stacks,
            self._calibration,
            self._truth,
            estimators=estimators,
            dz_um=self.dz_um,
            most=max_view_pixels,
        )
        self._scores = MosaicScores(self._mosaic, self.dz_um)
        self._against = (
            TruthScores(self._mosaic, self._truth, self.dz_um, self._view_scores) if self._truth is not None else None
        )

    def _truth_of(self, store: StoreReader | None) -> Truth | None:
        if store is None:
            return None
        try:
            return Truth(store, self._calibration)
        except UserError as error:
            self.notes.append(f"The result is not compared with the truth: {error}")
            return None

    @property
    def _whole(self) -> tuple[slice, slice]:
        return slice(0, self._mosaic.shape[0]), slice(0, self._mosaic.shape[1])

    @property
    def has_truth(self) -> bool:
        """The instrument was simulated."""
        return self._truth is not None

    def measure(self, progress: Progress = lambda items, **_: items) -> None:
        """Read everything once.

        Parameters
        ----------
        progress : wraps loops; called with `what` and `unit` too
        """
        views = self._view_scores
        views.measure(progress(views.views, what="measuring views", unit="view"))
        for region in progress(self._tiles, what="measuring the mosaic", unit="tile"):
            tile = self._tile(region)
            self._scores.add(tile)
            if self._against is not None:
                self._against.add(tile)
        if self._against is None or self._truth is None:
            return
        for region in progress(tiles_of(views.region), what="comparing estimators", unit="tile"):
            self._against.compare(self._tile(region))
        rows, cols = self._truth.shape
        most = None if self._all else len(self._tiles) * 512**2
        for region in tiles_of((slice(0, rows), slice(0, cols)), most):
            self._against.add_coverage(*region)

    def _tile(self, region: tuple[slice, slice]) -> Tile:
        return Tile(region, self._calibration, self._candidates, self._truth)

    # what came out

    def metrics(self) -> dict[str, Any]:
        """Measures by name as {"value", "unit", "label"}, "warnings" and "notes"."""
        values = self._values()
        units = {"view_agreement": "µm" if self._mosaic.in_um else "slice"}
        said = warnings(values, self.scored(), self.dz_um)
        return entries(values, units) | {"warnings": said, "notes": self.notes}

    def _values(self) -> dict[str, float]:
        scores, views = self._scores, self._view_scores
        scatter = scores.scatter.median() if scores.scatter.n else math.nan
        found = {
            "covered": 100.0 * scores.covered / max(1, scores.pixels),
            "views_per_pixel": scores.views_per_pixel,
            "view_agreement": scatter,
            "view_agreement_dz": scatter / self.dz_um,
            "seam_energy": scores.seam_energy(),
            "seam_energy_height": scores.seam_energy(2),
            "sharpness_gain": float(np.mean(views.gains)) if views.gains else math.nan,
            "confidence_mean": float(np.mean(views.trust)) if views.trust else math.nan,
        }
        if self._calibration.instrument.n_views == 1:
            # one view has no borders to other views, and nothing to agree with
            for name in ("view_agreement", "view_agreement_dz", "seam_energy", "seam_energy_height"):
                del found[name]
        found |= calibration_scores.own_residuals(self._calibration)
        return found | (self._true_values() if self._against is not None else {})

    def _true_values(self) -> dict[str, float]:
        against, views, truth = self._against, self._view_scores, self._truth
        if against is None or truth is None:
            return {}
        offset = against.offset_um
        heights, dz = against.heights.spread(offset), self.dz_um
        colours = against.picture_psnr
        # one error for all colours
        square = np.mean([10 ** (-v / 10) for v in colours.values()])
        ours = views.single[OURS]
        found = {
            "height_rmse": heights.rmse,
            "height_rmse_dz": heights.rmse / dz,
            "height_p95": heights.p95,
            "height_p95_dz": heights.p95 / dz,
            "height_decile_bias_dz": max((abs(row[3]) for row in decile_rows(against)), default=math.nan) / dz,
            "height_rmse_steps": against.beside_steps.spread(offset).rmse,
            "height_rmse_bare": against.bare.spread(offset).rmse,
            "height_offset": offset,
            "height_pixels": float(heights.n),
            "height_rmse_view": about_median(ours.focus).rmse,
            "all_in_focus_psnr": colours[self._mosaic.focus],
            "all_in_focus_psnr_rgb": float(-10 * np.log10(square)) if square > 0 else math.inf,
            "all_in_focus_psnr_blended": against.blended_psnr,
            "all_in_focus_psnr_view": ours.picture.psnr(self._mosaic.white),
            "true_index_psnr_view": max(views.single[m].picture.psnr(self._mosaic.white) for m in TRUE),
            "true_index_psnr_mean": max(against.compared[m][1].psnr(self._mosaic.white) for m in TRUE),
            "confidence_auc": views.confidence.auc,
            "lateral_error": float(np.median(against.lateral_px)) if against.lateral_px else math.nan,
            "coverage": 100.0 * against.coverage,
            "unseen_pixels": float(against.unseen),
        }
        best = [row.height_rmse for row in self.scored() if row.views == "mean" and row.method in ESTIMATORS]
        if best:
            found["best_estimator_rmse"] = min(best)
        if planes := against.steps():
            step_errors = [abs((b[1] - a[1]) - (b[0] - a[0])) for a, b in itertools.pairwise(planes)]
            found |= {"step_error": max(step_errors, default=math.nan), "step_plane_std": max(p[2] for p in planes)}
        return found | calibration_scores.against_truth(self._calibration, truth, self._stacks, views.views, dz)

    def scored(self) -> list[Scored]:
        """Ours, the estimators and the true slice, in single views and averaged over views."""
        if self._against is None:
            return []
        rows = []
        white = self._mosaic.white
        for method, single in self._view_scores.single.items():
            spread = about_median(single.focus)
            psnr = single.picture.psnr(white)
            rows.append(Scored(method, "single", spread.rmse, spread.p95, psnr, spread.n, 1.0))
        for method, (errors, picture) in self._against.compared.items():
            spread = about_median(errors)
            total, n = self._against.per_pixel[method]
            psnr = picture.psnr(white)
            rows.append(Scored(method, "mean", spread.rmse, spread.p95, psnr, spread.n, total / max(1.0, n)))
        return rows

    def tables(self) -> dict[str, Table]:
        """Estimators, heights by tenth, errors by the distance from the axis, histogram, seams, gauge planes."""
        several = self._calibration.instrument.n_views > 1
        return all_tables(
            self.scored(),
            self._against,
            self._view_scores,
            self._scores if several else None,
            dz_um=self.dz_um,
            unit="um" if self._mosaic.in_um else "slice",
        )

    def error_picture(self) -> tuple[NDArray[np.float32], int]:
        """(rows, cols) height errors in um, NaN where nothing was scored, and mosaic pixels along a side of one."""
        if self._against is None:
            return np.full((1, 1), np.nan, np.float32), 1
        return self._against.error_picture(self._against.offset_um), self._against.picture_factor
