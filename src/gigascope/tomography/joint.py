"""Joint solve of tomogram and shifts, coarse to fine: total variation and least squares, shifts by Gauss-Newton.

    min over u, f, o   lambda sum_v |grad u| + 1/2 sum_i || sqrt(w_i) (A_i u + o_i - b_i(f_i)) ||^2 + prior on f

After Bogensperger et al., Histochem. Cell Biol. (2022), doi 10.1007/s00418-022-02095-z, with the standard primal-dual
scheme, views compared only with volumes that they took no part in, gradients of the model instead of the data, and the
gauge fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels import projector
from gigascope.tomography import guards
from gigascope.tomography.alignment import Alignment, AlignParameters, AlignUpdate, SolveState
from gigascope.tomography.geometry import alignment_bins, level_shape, volume_width
from gigascope.tomography.level_solve import LevelSolve, Measurement
from gigascope.tomography.levels import BinnedViews, upsample_volume
from gigascope.tomography.shift_update import NormalEquations, damped_increment, normal_equations

F64 = NDArray[np.float64]

# conjugate-gradient steps at the start of a level
CG_STEPS = 5
# updates of a level before its numbers are trusted for flags, falling back and giving the level up
SETTLED = 3
# updates that flagged views get at the end of a level
RETRIES = 4


class JointSolver:
    """Solve for tomogram and shifts together; stops after every update and can be continued elsewhere.

    Parameters
    ----------
    views : (tilt, s, y) float32, prepared signal in the rotated frame without shifts, unit standard deviation,
        ascending tilt; s, y multiples of the largest bin, or their bins. The solver runs on its device
    valid : (tilt, s, y) bool, pixels that exist
    tilt : (tilt,) radians
    shifts : (tilt, 2) pixels to start from
    n_z : planes at bin 1, multiple of the largest bin
    extent : "section", "object" or "crop"
    hz : voxel size in z over voxel size in x
    width : volume width at bin 1; none: from the extent
    noise : (tilt,) relative noise variance of the views; none: all alike
    use : (tilt,) bool, false for views left out; none: all
    parameters : tunables
    operator : see :class:`gigascope.tomography.primal_dual.PrimalDual`

    Raises
    ------
    ShapeError : shapes disagree or are not multiples of the largest bin
    """

    def __init__(
        self,
        views: Tensor | BinnedViews,
        valid: Tensor | BinnedViews,
        tilt: ArrayLike,
        shifts: ArrayLike,
        *,
        n_z: int,
        extent: str,
        hz: float = 1.0,
        width: int | None = None,
        noise: ArrayLike | None = None,
        use: ArrayLike | None = None,
        parameters: AlignParameters | None = None,
        operator: Any = projector,
    ) -> None:
        self.parameters = parameters or AlignParameters()
        self._operator = operator
        tilt, start = np.asarray(tilt, dtype=np.float64), np.asarray(shifts, dtype=np.float64)
        n_views, n_s, n_y = views.shape
        if tilt.shape != (n_views,) or start.shape != (n_views, 2) or valid.shape != views.shape:
            raise ShapeError(
                f"views {tuple(views.shape)}, valid {tuple(valid.shape)}, tilt {tilt.shape}, shifts {start.shape}: "
                "expected one mask, one angle and one (f_s, f_y) per view"
            )
        self.bins = self.parameters.bins or alignment_bins(n_s, n_y, n_z, self.parameters.width)
        self.shape = (n_z, width or volume_width(n_s, n_z, tilt, extent, hz, max(self.bins)), n_y)
        for factor in self.bins:
            level_shape((n_s, *self.shape), factor)
        self.extent, self.hz = extent, hz
        keep = np.ones(n_views, dtype=bool) if use is None else np.asarray(use, dtype=bool)
        noise = np.ones(n_views) if noise is None else np.asarray(noise, dtype=np.float64)
        self._used = np.flatnonzero(keep)
        self._views, self._valid = (views, valid) if keep.all() else (views[self._used], valid[self._used])
        self._tilt, self._noise = tilt[keep], noise[keep] / noise[keep].mean()
        self._initial = start
        self._state = SolveState.at(start[keep], self.parameters.beta)
        self._level: LevelSolve | None = None

    @property
    def history(self) -> list[AlignUpdate]:
        """Updates so far."""
        return self._state.history

    @property
    def shifts(self) -> F64:
        """(tilt, 2) pixels, the present shifts of all views; left out ones keep their start."""
        return self._scattered(self._state.shifts, self._initial)

    def run(self) -> Alignment:
        """All updates that are left, then the result."""
        for _ in self.updates():
            pass
        return self.result()

    def updates(self) -> Iterator[AlignUpdate]:
        """Go on to the end, one record per update of the shifts."""
        state = self._state
        while state.level < len(self.bins):
            if state.phase == "start":
                self._begin_level()
            while state.phase != "done":
                state.history.append(self._update())
                yield state.history[-1]
            state.level, state.phase = state.level + 1, "start"

    def result(self) -> Alignment:
        """What is known now, one row per view given to the solver."""
        state, n = self._state, len(self._initial)
        flags = ["excluded"] * n
        for i, flag in zip(self._used, state.flags, strict=True):
            flags[i] = flag
        return Alignment(
            shifts=self.shifts,
            sigma=self._scattered(state.sigma, np.full((n, 2), np.inf)),
            residual=self._scattered(state.residual, np.full(n, np.nan)),
            overlap=self._scattered(state.overlap, np.zeros(n)),
            flags=flags,
            offsets=self._scattered(state.offsets, np.zeros(n)),
            linear=self._scattered(state.linear, np.zeros((n, 2))),
        )

    def volume(self) -> tuple[Tensor, int]:
        """Mean volume of the groups at the present level, (z, x, y), and its bin."""
        level = self._present_level()
        return level.problem.u.mean(dim=0), level.factor

    def state_dict(self) -> dict[str, Any]:
        """All that a solver of the same inputs needs to go on exactly from here."""
        volumes = None if self._level is None else self._level.state_dict()
        return {"solve": self._state.state_dict(), "volumes": volumes}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._state = SolveState.from_state(saved["solve"])
        self._level = None
        if saved["volumes"] is not None:
            self._level = self._make_level(min(self._state.level, len(self.bins) - 1))
            self._level.set_shifts(self._state.shifts, self._state.in_volume, self._state.linear)
            self._level.load_state_dict(saved["volumes"])

    def _scattered(self, values: F64, everywhere: F64) -> F64:
        result = everywhere.copy()
        result[self._used] = values
        return result

    def _present_level(self) -> LevelSolve:
        if self._level is None:
            raise RuntimeError("the solve has not begun")
        return self._level

    def _make_level(self, index: int) -> LevelSolve:
        return LevelSolve(
            self._views,
            self._valid,
            self._tilt,
            self._noise,
            factor=self.bins[index],
            shape=self.shape,
            hz=self.hz,
            extent=self.extent,
            parameters=self.parameters,
            operator=self._operator,
        )

    def _begin_level(self) -> None:
        state, coarser = self._state, self._level
        level = self._level = self._make_level(state.level)
        area = level.set_shifts(state.shifts, state.in_volume, state.linear)
        state.area = np.where(np.isnan(state.area), area, state.area)
        if coarser is not None:
            level.problem.u.copy_(upsample_volume(coarser.problem.u, coarser.factor // level.factor))
        level.problem.start_least_squares(CG_STEPS)
        state.begin_level(self.parameters.beta)

    def _update(self) -> AlignUpdate:
        """Iterate the volumes, then move the shifts once."""
        state, level = self._state, self._present_level()
        level.problem.iterate(self.parameters.inner)
        measured = level.measure()
        equations = normal_equations(measured.sums, centre=self.extent != "object", smooth=self.parameters.smooth)
        state.residual = measured.residual.per_view
        state.sigma = equations.sigma(self.parameters.prior_px / level.factor) * level.factor
        state.offsets = level.offsets()
        rho = measured.residual.of(state.in_volume)
        before, event = state.shifts.copy(), state.phase if state.phase == "retry" else ""
        if not event and state.update + 1 == SETTLED and guards.hopeless(equations.sigma()):
            event, state.shifts = "skip", state.level_start.copy()
        elif not event and state.update >= SETTLED and guards.fall_back(state, rho):
            event = "back"
        else:
            self._step(equations)
            if measured.linear is not None and event == "":
                dof, use = self.parameters.dof, state.in_volume
                state.linear = state.linear + measured.linear.step(state.linear, self._tilt, dof, use)
        overlap = self._apply(before)
        row = self._row(measured, rho, state.shifts - before, overlap, event)
        self._advance(event, row.rms_step)
        return row

    def _step(self, equations: NormalEquations) -> None:
        """Move the shifts by one damped step; in a retry only those of flagged views."""
        state, factor = self._state, self._present_level().factor
        increment = damped_increment(
            equations,
            (state.shifts - state.level_start) / factor,
            state.previous / factor,
            self._tilt,
            state.in_volume,
            prior=self.parameters.prior_px / factor,
            beta=state.beta,
            step=state.step,
        )
        if state.phase == "retry":
            increment[state.good] = 0.0
        state.previous = increment * factor
        state.shifts = state.shifts + state.previous

    def _apply(self, before: F64) -> F64:
        """Resample the views under the new shifts, refusing steps that lose half of a view; (tilt,) relative area."""
        state, level = self._state, self._present_level()
        start = np.maximum(state.area, 1.0)
        overlap = level.set_shifts(state.shifts, state.in_volume, state.linear) / start
        refused = overlap < guards.MIN_OVERLAP
        if refused.any():
            state.shifts[refused], state.previous[refused] = before[refused], 0.0
            overlap = level.set_shifts(state.shifts, state.in_volume, state.linear) / start
        state.overlap = overlap
        return overlap

    def _row(self, measured: Measurement, rho: float, step: F64, overlap: F64, event: str) -> AlignUpdate:
        state = self._state
        moved = ~state.good if event == "retry" else state.in_volume
        length = np.linalg.norm(step[moved], axis=1) if moved.any() else np.zeros(1)
        return AlignUpdate(
            bin=self.bins[state.level],
            update=len([row for row in state.history if row.bin == self.bins[state.level]]),
            objective=measured.objective,
            residual=rho,
            rms_step=float(np.sqrt(np.mean(length**2))),
            max_step=float(length.max()),
            overlap=float(overlap[state.in_volume].min()),
            sigma=float(np.median(state.sigma)),
            n_flagged=int((~state.good).sum()),
            event=event,
        )

    def _advance(self, event: str, rms_step: float) -> None:
        """Flags, and what comes next: another update, the retry of flagged views, or the end of the level."""
        state = self._state
        state.update += 1
        if event == "skip" or (state.phase == "retry" and state.update >= RETRIES):
            state.flags = guards.suspicious(state, self._tilt, self.parameters.prior_px)
            state.phase = "done"
        elif state.phase == "solve":
            if state.update >= SETTLED:
                self._flag()
            small = event == "" and rms_step < self.parameters.tol * self.bins[state.level]
            if small or state.update >= self.parameters.outer:
                self._begin_retry()

    def _flag(self) -> None:
        """Take suspicious views out of the volume; a flagged view stays out until it is tried again."""
        state = self._state
        fresh = guards.suspicious(state, self._tilt, self.parameters.prior_px)
        flags = [old or new for old, new in zip(state.flags, fresh, strict=True)]
        if flags != state.flags:
            state.flags = flags
            self._present_level().set_shifts(state.shifts, state.in_volume, state.linear)

    def _begin_retry(self) -> None:
        """Start flagged views anew beside their neighbours; without any the level is done."""
        state = self._state
        if state.good.all():
            state.phase = "done"
            return
        moved = guards.interpolated(state.shifts - state.level_start, state.good)
        state.shifts = np.where(state.good[:, None], state.shifts, state.level_start + moved)
        state.previous = np.zeros_like(state.shifts)
        state.update, state.phase = 0, "retry"
        self._apply(state.shifts.copy())
