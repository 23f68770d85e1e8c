"""From a series and its coarse shifts to a tomogram: joint alignment, gauge, and where the full resolution starts.

Holds what the steps of the reconstruct stage share, and what of it goes from one job to the next. The steps that take
long are solvers that the stage runs, so that it can save and resume them between two updates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gigascope.store.layers import LayerWriter
from gigascope.tomography import geometry
from gigascope.tomography.aligned_rows import AlignedRows, Rows
from gigascope.tomography.alignment import Alignment, AlignParameters, AlignUpdate
from gigascope.tomography.fixed_shifts import (
    LEAST_LAMBDA,
    constants_solver,
    layout_of,
    noise_sigma,
    operator_of,
    precision_of,
    regularization,
    unsolved,
)
from gigascope.tomography.joint import JointSolver
from gigascope.tomography.levels import BinnedViews
from gigascope.tomography.published import PublishedSolver
from gigascope.tomography.reconstruct import ReconstructParameters, ReconstructUpdate, TvSolver
from gigascope.tomography.series import Series
from gigascope.tomography.slab_problem import SlabProblem
from gigascope.tomography.slab_rounds import SlabRounds
from gigascope.tomography.slabs import cut

if TYPE_CHECKING:
    from gigascope.config.tomography import Reconstruct
    from gigascope.store.create import ImageWriter

F64 = NDArray[np.float64]


class Tomography:
    """One reconstruction, from its settings to its tomogram.

    Parameters
    ----------
    series : raw views
    shifts : (tilt, 2) pixels, of the prealignment, ascending tilt
    cfg : the stage's section
    device : to compute on
    """

    def __init__(self, series: Series, shifts: ArrayLike, cfg: Reconstruct, device: torch.device) -> None:
        self.series, self.cfg, self.device = series, cfg, device
        self.layout = layout_of(series, cfg)
        self.alignment = unsolved(series, np.asarray(shifts, dtype=np.float64))
        self._updates: list[AlignUpdate] = []
        self._joint_volume: tuple[Tensor, int] | None = None
        self._means: F64 | None = None

    def remarks(self) -> list[str]:
        """What was guessed or chosen before anything ran."""
        lines = []
        measured = self.series.refined.volume_nm
        if self.cfg.thickness_nm is None and measured and measured > self.layout.thickness_nm:
            lines.append(
                f"The specimen seems to be {measured:.3g} nm thick, more than the {self.layout.thickness_nm:.3g} nm "
                "that memory was planned for. Set reconstruct.thickness_nm."
            )
        elif self.layout.guessed:
            lines.append(
                f"The thickness of the volume, {self.layout.thickness_nm:.4g} nm, is a guess from the width of the "
                "field. Look where the specimen ends in the xz slice and set reconstruct.thickness_nm slightly above "
                "it."
            )
        if self.layout.reduced:
            lines.append(
                f"The alignment is done with {self.layout.groups} groups of views down to bin {self.layout.bins[-1]}: "
                f"more does not fit into reconstruct.memory_gib, {self.cfg.memory_gib:g} GiB."
            )
        return lines

    # joint alignment

    @property
    def n_updates(self) -> int:
        """Updates of the joint alignment, at most."""
        return len(self.layout.bins) * self.cfg.align.outer

    def joint_solver(self) -> JointSolver | PublishedSolver:
        """The joint solve, ready to run."""
        align = self.cfg.align
        views = self._binned_views()
        kind = PublishedSolver if align.mode == "published" else JointSolver
        return kind(
            views,
            views,
            self.series.tilt,
            self.alignment.shifts,
            n_z=self.layout.n_z,
            extent=self.layout.extent,
            hz=self.cfg.hz,
            width=self.layout.width,
            noise=self.noise,
            use=self.series.use,
            parameters=AlignParameters(
                lam=LEAST_LAMBDA if self.cfg.regularization is None else min(self.cfg.regularization, LEAST_LAMBDA),
                groups=self.layout.groups,
                inner=align.inner,
                outer=align.outer,
                bins=self.layout.bins,
                width=align.width,
                beta=align.beta,
                smooth=align.smooth,
                prior_px=align.prior_px,
                tol=align.tol,
                positivity=self.cfg.positivity,
                dof=align.dof,
            ),
            operator=operator_of(self.cfg),
        )

    def _binned_views(self) -> BinnedViews:
        """The views before their shifts are known, at the bins of the levels."""
        n = len(self.series.tilt)
        binned = BinnedViews((n, *self.layout.frame), self.layout.bins, self.device)
        for k in range(n):
            binned.put(k, *self.series.prepared_view(k, device=self.device, largest_bin=self.layout.largest_bin))
        return binned

    def accept(self, joint: JointSolver | PublishedSolver) -> None:
        """Take over a finished joint solve, with the specimen moved to the middle of the thickness."""
        volume, bin = joint.volume()
        profile = volume.double().var(dim=(1, 2)).cpu().numpy()
        self._updates = joint.history
        self._joint_volume = (volume, bin)
        self.alignment = joint.result()
        self._centre(profile, bin)

    def _centre(self, profile: F64, bin: int) -> None:
        """A translation of the specimen along z; it moves the shifts, not the images (tomography.md 2.5)."""
        offset = geometry.centring_shift(profile, self.cfg.hz) * bin
        if abs(offset) < bin:
            return
        moved = self.alignment.shifts + geometry.gauge_shifts((0.0, 0.0, -offset), self.series.tilt)
        self.alignment = dataclasses.replace(self.alignment, shifts=moved)
        # the volume no longer lies where the shifts say
        self._joint_volume = None

    @property
    def noise(self) -> F64:
        """(tilt,) relative noise variance that weighs the views."""
        return self.series.noise if self.cfg.weights == "noise" else np.ones(len(self.series.tilt))

    # reconstruction

    @property
    def regularization(self) -> float:
        """Weight of the total variation of the tomogram."""
        n_views = sum(flag == "" for flag in self.alignment.flags)
        return regularization(self.series, self.cfg, n_views, self.cfg.bin)

    def constants_solver(self) -> TvSolver | None:
        """A coarse tomogram that knows the constants of a section's views, where the joint solve has not found them."""
        if self.layout.extent == "object" or self.cfg.method == "wbp" or np.any(self.alignment.offsets):
            return None
        chosen = np.arange(len(self.series.tilt))
        return constants_solver(self.series, self.layout, self.alignment, self.cfg, self.cfg.bin, chosen, self.device)

    def accept_constants(self, solver: TvSolver) -> None:
        """Take over what :meth:`constants_solver` found."""
        self.alignment = dataclasses.replace(self.alignment, offsets=solver.offsets.cpu().numpy())

    def start(self) -> Tensor | None:
        """Volume of the joint solve, where it is as coarse as the tomogram or coarser; (z, x, y)."""
        if self._joint_volume is None or self._joint_volume[1] < self.cfg.bin:
            return None
        return self._joint_volume[0]

    def rounds(self) -> SlabRounds:
        """The tomogram at full resolution, slab by slab."""
        cfg, n_views = self.cfg, len(self.series.tilt)
        slabs = cut(
            self.layout,
            cfg.bin,
            n_views,
            round=cfg.round,
            slab=cfg.slab,
            parts=cfg.parts,
            gib=cfg.memory_gib,
            method=cfg.method,
        )
        return SlabRounds({"tomogram": self.problem()}, slabs)

    def problem(self) -> SlabProblem:
        """The tomogram at full resolution, apart from its views."""
        cfg = self.cfg
        return SlabProblem(
            tilt=self.series.tilt,
            precision=precision_of(self.alignment, self.noise),
            constants=None if self.layout.extent == "object" else self.alignment.offsets,
            means=self._means,
            layout=self.layout,
            bin=cfg.bin,
            parameters=ReconstructParameters(
                lam=self.regularization,
                iterations=cfg.iterations,
                tol=cfg.tol,
                positivity=cfg.positivity,
                round=cfg.round,
            ),
            method=cfg.method,
            noise=noise_sigma(self.series, cfg.bin),
            device=self.device,
            operator=operator_of(cfg),
        )

    def write_views(
        self, stack: ImageWriter, views: Sequence[Rows], scratch: Path, progress: Callable[[Any], Iterable[int]] = iter
    ) -> F64:
        """Resample each view once, into the store of aligned views (tilt, y, x) and the rows that slabs read.

        Returns
        -------
        (tilt,) mean of each view over the samples that count; NaN for views out of use
        """
        problem, means = self.problem(), np.full(len(self.series.tilt), np.nan)
        with LayerWriter(stack.array, stack.path) as layers, AlignedRows(views, scratch) as rows:
            # layers come in the order of the file
            for k in progress(self.series.in_file_order(np.arange(len(means))).tolist()):
                view, mask = self._aligned_view(k, 1)
                layers.append(view.T.cpu().numpy())
                if self.cfg.bin > 1:
                    view, mask = self._aligned_view(k, self.cfg.bin)
                rows.put(0, k, view, mask)
                means[k] = problem.view_mean(k, view, mask)
        return means

    def _aligned_view(self, k: int, bin: int) -> tuple[Tensor, Tensor]:
        return self.series.prepared_view(
            k,
            device=self.device,
            bin=bin,
            largest_bin=self.layout.largest_bin,
            shift=self.alignment.shifts[k],
            linear=self.alignment.turns[k],
            spline=3,
        )

    # from one job to the next

    def kept(self, means: F64) -> dict[str, NDArray[Any]]:
        """All that the jobs after the alignment need, as arrays; `means` are those of the aligned views."""
        alignment = dataclasses.replace(self.alignment, linear=self.alignment.turns)
        fields = {f"view_{f.name}": np.asarray(getattr(alignment, f.name)) for f in dataclasses.fields(Alignment)}
        names = [f.name for f in dataclasses.fields(AlignUpdate)]
        rows = {f"joint_{name}": np.array([getattr(row, name) for row in self._updates]) for name in names}
        return {**fields, **rows, "means": means}

    @classmethod
    def again(
        cls, series: Series, kept: Mapping[str, NDArray[Any]], cfg: Reconstruct, device: torch.device
    ) -> Tomography:
        """Inverse of :meth:`kept`."""
        found: dict[str, Any] = {f.name: kept[f"view_{f.name}"] for f in dataclasses.fields(Alignment)}
        found["flags"] = found["flags"].tolist()
        self = cls(series, found["shifts"], cfg, device)
        self.alignment = Alignment(**found)
        columns = {f.name: kept[f"joint_{f.name}"].tolist() for f in dataclasses.fields(AlignUpdate)}
        self._updates = [AlignUpdate(**dict(zip(columns, row))) for row in zip(*columns.values())]
        self._means = kept["means"]
        return self

    # what is said about it

    def history(self, looks: Sequence[ReconstructUpdate]) -> tuple[dict[str, Any], dict[str, str]]:
        """Table of all updates, of the joint solve and of the reconstruction (`looks`), and its units."""
        joint = self._updates
        rows = len(joint) + len(looks)
        columns: dict[str, Any] = {
            "stage": ["joint"] * len(joint) + ["tomogram"] * len(looks),
            "bin": [row.bin for row in joint] + [self.cfg.bin] * len(looks),
            "update": [row.update for row in joint] + [row.iteration for row in looks],
            "objective": [row.objective for row in joint] + [row.objective for row in looks],
        }
        for name, label in (
            ("residual", "residual"),
            ("rms_step", "step_rms_px"),
            ("max_step", "step_max_px"),
            ("overlap", "overlap"),
            ("sigma", "sigma_px"),
        ):
            columns[label] = [float(getattr(row, name)) for row in joint] + [math.nan] * len(looks)
        columns["n_flagged"] = [row.n_flagged for row in joint] + [self.alignment.n_flagged] * len(looks)
        columns["event"] = [row.event for row in joint] + [""] * len(looks)
        units = {"step_rms_px": "pixel", "step_max_px": "pixel", "sigma_px": "pixel"}
        return ({name: values if rows else np.zeros(0) for name, values in columns.items()}, units)

    def describe(self) -> dict[str, Any]:
        """Attributes of the tomogram's store."""
        tilt_deg = np.rad2deg(self.series.tilt)
        return {
            "extent": self.layout.extent,
            "hz": self.cfg.hz,
            "bin": self.cfg.bin,
            "align_bins": list(self.layout.bins),
            "thickness_nm": self.layout.thickness_nm,
            "thickness_guessed": self.layout.guessed,
            "refined": dataclasses.asdict(self.series.refined),
            "lambda": self.regularization,
            "lambda_from_noise": self.cfg.regularization is None,
            "method": self.cfg.method,
            "tilt_range_deg": [float(tilt_deg[0]), float(tilt_deg[-1])],
            "tilt_sign": self.series.attrs["tilt_sign"],
            "pixel_size_nm": self.series.pixel_nm,
            "values": "absorbance per pixel length"
            if self.series.model.signal == "transmission"
            else "signal per pixel",
            "reconstruct": self.cfg.model_dump(mode="json", by_alias=True),
        }

    def warnings(self) -> list[str]:
        """What a person should know before trusting the tomogram, in plain words."""
        lines = []
        if self.cfg.align.enabled and self.cfg.align.mode == "published":
            lines.append(
                "The shifts are those of the published iteration, which is there for comparison: they come without "
                "uncertainty, and no view is ever left out. Set reconstruct.align.mode: corrected for results."
            )
        flagged = [(t, f) for t, f in zip(self.series.tilt, self.alignment.flags) if f not in {"", "excluded"}]
        if flagged:
            listed = ", ".join(f"{math.degrees(t):.0f}° ({reason})" for t, reason in flagged)
            lines.append(f"{len(flagged)} views could not be aligned and are not in the tomogram: {listed}.")
        if any(row.event == "skip" for row in self._updates):
            lines.append(
                "A level of the alignment was given up: the views say too little about their shifts at that size. "
                "The shifts there are those of the prealignment."
            )
        return lines
