"""Parameters, history and result of the joint solve, and its state between two updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class AlignParameters:
    """Tunables of the joint solve; lengths in raw pixels unless said.

    Parameters
    ----------
    lam : weight of the total variation at bin 1, for data of unit standard deviation; every level uses four times it
    groups, inner, outer : groups of views, primal-dual iterations per update, updates per level at most
    bins : levels from coarse to fine; none: from the shape
    width : the finest automatic level has at most this many samples across
    beta : momentum
    smooth : sigma of the blur that shift updates see, pixels of the level
    prior_px : sigma of the prior on the shifts
    tol : a level ends below this RMS step, pixels of the level
    positivity : keep the volume at or above 0
    order : interpolation of the views, 1 or 3
    dof : what is solved per view: "shift", and "rotation" and "magnification" on request
    """

    lam: float = 0.1
    groups: int = 4
    inner: int = 4
    outer: int = 20
    bins: tuple[int, ...] | None = None
    width: int = 1024
    beta: float = 0.5
    smooth: float = 0.5
    prior_px: float = 3.0
    tol: float = 0.003
    positivity: bool = False
    order: int = 3
    dof: tuple[str, ...] = ("shift",)


@dataclass(frozen=True)
class AlignUpdate:
    """A row of the history: one update of the shifts.

    Parameters
    ----------
    bin, update : level, and number of the update in it
    objective : value of the primal problem summed over groups, before the step
    residual : leave-group-out rho of the series, before the step
    rms_step, max_step : lengths of the step over unflagged views, raw pixels
    overlap : smallest unmasked area of an unflagged view relative to its area at the start
    sigma : median over views of the predicted error per axis, raw pixels
    n_flagged : views out of the volume
    event : "", "retry" (flagged views only), "back" (residual rose: back to the best shifts) or "skip" (level given up)
    """

    bin: int
    update: int
    objective: float
    residual: float
    rms_step: float
    max_step: float
    overlap: float
    sigma: float
    n_flagged: int
    event: str


@dataclass(frozen=True)
class Alignment:
    """Result of the joint solve, one row per view.

    Parameters
    ----------
    shifts : (tilt, 2) pixels; of flagged and excluded views the best guess
    sigma : (tilt, 2) pixels, predicted standard deviations, infinite where nothing was learnt
    residual : (tilt,) leave-group-out rho at the last update, NaN where there is none
    overlap : (tilt,) unmasked area relative to the start
    flags : (tilt,) reasons joined by "+", "" for good views
    offsets : (tilt,) constants o_i in units of the data
    linear : (tilt, 2) rotation in radians and magnification less 1 of each view's content; none: 0
    """

    shifts: F64
    sigma: F64
    residual: F64
    overlap: F64
    flags: list[str]
    offsets: F64
    linear: F64 | None = None

    @property
    def turns(self) -> F64:
        """(tilt, 2) rotation and magnification less 1, 0 where none was asked for."""
        return np.zeros((len(self.shifts), 2)) if self.linear is None else self.linear

    @property
    def rotation_deg(self) -> F64:
        """(tilt,) in-plane rotation of each view's content, degrees."""
        return np.rad2deg(self.turns[:, 0])

    @property
    def magnification(self) -> F64:
        """(tilt,) of each view's content."""
        return 1 + self.turns[:, 1]

    @property
    def n_flagged(self) -> int:
        """Views that were not left out beforehand and did not work."""
        return sum(flag not in {"", "excluded"} for flag in self.flags)


@dataclass
class SolveState:
    """Host state of the solve, over the views in use; together with the volumes it is all that the next update needs.

    Parameters
    ----------
    shifts, level_start, previous : (tilt, 2) pixels; now, at the start of the level, last step
    flags : (tilt,) reasons
    level, update : index of the level and of the next update in it
    phase : "start" (level not begun), "solve", "retry" or "done"
    beta, step : momentum and factor on the step in use
    best, best_rho, last_rho, rises : memory of the fallback
    area : (tilt,) unmasked area at the start, in raw pixels, NaN before the first level
    linear : (tilt, 2) rotations and magnifications less 1
    """

    shifts: F64
    level_start: F64
    previous: F64
    flags: list[str]
    sigma: F64
    residual: F64
    overlap: F64
    area: F64
    offsets: F64
    linear: F64
    beta: float
    level: int = 0
    update: int = 0
    phase: str = "start"
    step: float = 1.0
    best: F64 | None = None
    best_rho: float = float("inf")
    last_rho: float = float("inf")
    rises: int = 0
    history: list[AlignUpdate] = field(default_factory=list)

    @property
    def good(self) -> NDArray[np.bool_]:
        """(tilt,) views that are in the volume."""
        return np.array([flag == "" for flag in self.flags], dtype=bool)

    @property
    def in_volume(self) -> NDArray[np.bool_]:
        """(tilt,) views whose weight in the volume is not 0; when most are flagged, leaving them out helps nobody."""
        good = self.good
        return good if 2 * good.sum() > len(good) else np.ones_like(good)

    def begin_level(self, beta: float) -> None:
        """Forget what belongs to the level before."""
        self.level_start, self.previous = self.shifts.copy(), np.zeros_like(self.shifts)
        self.beta, self.step = beta, 1.0
        self.best, self.best_rho, self.last_rho, self.rises = None, float("inf"), float("inf"), 0
        self.update, self.phase = 0, "solve"

    @classmethod
    def at(cls, shifts: F64, beta: float) -> SolveState:
        """State before the first level."""
        n = len(shifts)
        return cls(
            shifts=shifts.copy(),
            level_start=shifts.copy(),
            previous=np.zeros((n, 2)),
            flags=[""] * n,
            sigma=np.full((n, 2), np.inf),
            residual=np.full(n, np.nan),
            overlap=np.ones(n),
            area=np.full(n, np.nan),
            offsets=np.zeros(n),
            linear=np.zeros((n, 2)),
            beta=beta,
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and arrays."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SolveState:
        """Inverse of :meth:`state_dict`."""
        return cls(**{**state, "history": [AlignUpdate(**row) for row in state["history"]]})
