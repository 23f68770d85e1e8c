"""The calibration of an acquisition, from wherever it comes: view by view, then all views together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.open import open_store
from gigascope.topography.calibration.acquired import Acquired
from gigascope.topography.calibration.bundle import LARGEST_DEPARTURE
from gigascope.topography.calibration.calibrate import (
    Settings,
    first_poses,
    focus_statistics,
    focus_view,
    register,
    tie_known,
)
from gigascope.topography.calibration.field import N_TERMS
from gigascope.topography.calibration.flat_focus import FlatFocus, nearest_slice
from gigascope.topography.calibration.known_poses import read_known_poses
from gigascope.topography.calibration.origin import Origin, origin_of
from gigascope.topography.calibration.result import Calibration, for_instrument, from_known_poses
from gigascope.topography.calibration.stored import read_calibration

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
ReadImage = Callable[[int], NDArray]

# A residual beyond which the poses do not describe the views, pixels: three times what a good calibration leaves at its
# 95th percentile. A stage that repeats a position to 1 um is far below.
LARGEST_RESIDUAL_PX = 1.0
# Share of tie points without weight beyond which something moved, or repeats itself.
MOST_REJECTED = 0.2
# Expected error of a surface of focus beyond which heights of views differ visibly, slices of the flat target.
LARGEST_FOCUS_ERROR = 0.1


@dataclass(frozen=True, eq=False)
class Calibrating:
    """The calibration of one acquisition, in steps: the surface of focus of each view, then all of them together.

    Parameters
    ----------
    acquired : stacks and what they say of their instrument
    poses, calibration : files, where they are given
    datum : quadratic, the surface of focus over the field; integer, one slice of the flat target
    settings : of the registration
    """

    acquired: Acquired
    poses: Path | None = None
    calibration: Path | None = None
    datum: Literal["quadratic", "integer"] = "quadratic"
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def origin(self) -> Origin:
        """Which one; raises as :func:`gigascope.topography.calibration.origin.origin_of`."""
        found = self.acquired
        given = {"poses": self.poses is not None, "calibration": self.calibration is not None}
        return origin_of(**given, flat=found.has_flat, n_views=found.instrument.n_views)

    @cached_property
    def views(self) -> list[int]:
        """Views of the flat target in which focus has to be measured.

        Raises
        ------
        UserError : none of them is there
        """
        found = self.acquired
        if not found.has_flat or self.origin == "another acquisition":
            return []
        if self.origin == "known poses" and np.isfinite(self.known.focus_plane[self.known.present]).all():
            return []
        there = found.flat_taken if self.origin != "known poses" else found.flat_taken & self.known.present
        if not there.any():
            raise UserError("no view of the flat target is there.", where=found.raw.path)
        if found.flat_z_mm.shape[1] == 2:
            raise UserError(
                "the flat target has two slices.",
                where=found.raw.path,
                do="Take a stack of at least three through its focus, or one picture of each view in focus.",
            )
        return [int(v) for v in np.flatnonzero(there)]

    @property
    def needs_images(self) -> bool:
        """Images in focus are compared, for there are several."""
        return len(self.views) > 1

    @cached_property
    def known(self) -> Calibration:
        """The calibration that a file stands for.

        Raises
        ------
        UserError : it cannot be read, or is of another instrument
        """
        instrument = self.acquired.instrument
        if self.poses is not None:
            return read_known_poses(self.poses, instrument)
        if self.calibration is None:
            raise ValueError("no calibration was given")
        found, _ = read_calibration(open_store(self.calibration))
        try:
            return for_instrument(found, instrument)
        except UserError as error:
            raise UserError(error.what, where=self.calibration, do=error.do) from None

    def begin(self) -> None:
        """Refuse at once what would be refused after a long computation."""
        if self.origin in ("known poses", "another acquisition"):
            refuse = self.known.present & self.acquired.taken
            if not refuse.any():
                file = self.poses or self.calibration
                raise UserError("has none of the views that were taken.", where=file)
        if self.origin == "flat target":
            self.acquired.places()
        _ = self.views

    def focus(self, view: int) -> tuple[FlatFocus, F32]:
        """Surface of focus and image in focus of one view.

        Raises
        ------
        UserError : a dark view, too little texture, or focus outside the stack
        """
        found = self.acquired
        name = f"view {found.instrument.name(view)}"
        stack, z = found.flat_stack(view), found.flat_z_mm[view]
        try:
            return focus_view(stack, z, found.instrument, name=name, device=self.settings.device)
        except UserError:
            share = found.is_dark(view)
            if share is None:
                raise
            raise UserError(
                f"the flat target is dark there: its mean is {share:.1%} of the brightest pixel of all views.",
                where=name,
                do="Was its light on? Take the flat target again, or leave this camera out (ingest.camera_rows, "
                "ingest.camera_cols).",
            ) from None

    def kept(self, image: F32) -> NDArray[np.float16]:
        """An image in focus as it is kept between the steps: as a share of the sensor's range.

        Eleven bits, which is a tenth of a sensor's noise.
        """
        return (image / self.acquired.range).astype(np.float16)

    def solve(self, focus: Mapping[int, FlatFocus], image: ReadImage) -> tuple[Calibration, dict[str, object]]:
        """The calibration, and what the store says of it beside.

        Parameters
        ----------
        focus : of every one of `views`
        image : view -> (R, C) image in focus; asked for only where `needs_images`

        Raises
        ------
        UserError : no overlap, views that cannot be placed
        """
        found, of = self.acquired, self.acquired.instrument
        planes = np.full((of.n_views, N_TERMS), np.nan)
        for v, surface in focus.items():
            planes[v] = surface.plane
        if self.origin == "flat target":
            calibration = register(image, planes, of, found.places(), found.layout, self.settings)
        elif self.origin == "single view":
            poses = first_poses(of, np.zeros((1, 2)), planes, of.layout())
            calibration = replace(from_known_poses(poses, of, focus_plane=planes), source="single view")
        else:
            calibration = self.known
            if focus:
                calibration = replace(calibration, focus_plane=planes, present=calibration.present & found.flat_taken)
            if self.origin == "known poses" and self.needs_images:
                calibration = tie_known(image, calibration, self.settings)
        statistics = {**calibration.statistics, **focus_statistics(focus.values())}
        planes = self._datum(calibration, focus)
        measured = bool(focus) or bool(np.isfinite(calibration.focus_plane[calibration.present]).all())
        facts: dict[str, object] = {
            "source": self.origin,
            "datum": self._datum_words(bool(focus), measured),
            "datum_known": measured,
        }
        calibration = replace(
            calibration, statistics=statistics, focus_plane=planes, present=calibration.present & found.taken
        )
        return calibration, facts

    def _datum(self, calibration: Calibration, focus: Mapping[int, FlatFocus]) -> F64:
        """(V, 6) surfaces of focus of height 0, known wherever a view is there."""
        planes = calibration.focus_plane.copy()
        if self.datum == "integer":
            for v in focus:
                planes[v] = nearest_slice(planes[v], self.acquired.flat_z_mm[v], calibration.instrument.size)
        unknown = calibration.present & ~np.isfinite(planes).all(axis=1)
        planes[unknown] = [self._lowest_mm(), 0, 0, 0, 0, 0]
        return planes

    def _lowest_mm(self) -> float:
        """Stage position that brings the lowest plane of the sample into focus that any slice shows."""
        z = self.acquired.z_mm[self.acquired.taken]
        return float(z.max() if self.acquired.instrument.stage_sign > 0 else z.min())

    def _datum_words(self, from_flat: bool, measured: bool) -> str:
        if from_flat:
            words = {"quadratic": "its surface of focus over the field", "integer": "one slice of it for each view"}
            return f"height 0 is the flat target: {words[self.datum]}"
        if measured:
            return f"height 0 is where {self.poses or self.calibration} puts it"
        return "height 0 is the lowest plane that comes into focus within the stacks"


def doubts(calibration: Calibration, acquired: Acquired) -> list[str]:
    """What a person should know of a calibration, in plain words.

    Parameters
    ----------
    acquired : what it is for
    """
    found, of = calibration.statistics, calibration.instrument
    lines = []
    lost = np.flatnonzero(acquired.taken & ~calibration.present)
    if len(lost):
        lines.append(f"{len(lost)} views are not calibrated, and left out: {acquired.names(lost)}.")
    if found.get("departure", 0.0) > LARGEST_DEPARTURE:
        lines.append(
            f"views depart from the sum of their cameras' and stage positions' poses by {found['departure']:.1f} times "
            "what is expected: stage or cameras moved, or do not repeat. Look at the residuals, or set "
            "calibrate.independent: true."
        )
    if found.get("p95_px", 0.0) > LARGEST_RESIDUAL_PX:
        lines.append(
            f"tie points of the flat target miss each other by {found['median_px']:.2f} px (95 % by less than "
            f"{found['p95_px']:.2f} px): the poses do not describe the views well."
        )
    if found.get("rejected", 0.0) > MOST_REJECTED:
        lines.append(f"{found['rejected']:.0%} of the tie points of the flat target do not fit the others.")
    if acquired.has_flat and "focus_error_mm" in found:
        z = acquired.flat_z_mm[acquired.flat_taken]
        step = float(np.abs(np.diff(z, axis=1)).mean()) if z.shape[1] > 1 else 0.0
        if step and found["focus_error_mm"] > LARGEST_FOCUS_ERROR * step:
            lines.append(
                f"the surfaces of focus of the flat target are known to {found['focus_error_mm'] / step:.2f} of its "
                "steps only: heights of neighbouring views may differ by as much."
            )
    if acquired.has_flat and not acquired.z_mm[:, 0].any() and not acquired.flat_z_mm[:, 0].any():
        lines.append(
            "stage positions count from 0 in the stacks of the sample and of the flat target alike: height 0 is the "
            "target's plane only if both began at the same position of the stage. Differences of heights are right."
        )
    there = np.flatnonzero(calibration.present)
    z, centre = acquired.z_mm[there], calibration.focus_plane[there, 0]
    beyond = np.maximum(z.min(axis=1) - centre, centre - z.max(axis=1))
    far = there[beyond > np.ptp(z, axis=1)]
    if len(far):
        lines.append(
            f"height 0 is in focus {beyond.max():.3g} mm outside the stack of {len(far)} views, such as "
            f"{of.name(int(far[0]))}: was the stage set to zero anew since the calibration?"
        )
    return lines
