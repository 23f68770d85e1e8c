"""From a series and its coarse shifts to a tomogram: joint alignment, gauge, reconstruction at full resolution.

Holds what the steps of the reconstruct stage share; each step is a solver that the stage runs, so that it can save and
resume it between two updates.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gigascope.kernels import projector
from gigascope.tomography import geometry, masks
from gigascope.tomography.algebraic import AlgebraicParameters, CglsSolver, SirtSolver
from gigascope.tomography.alignment import Alignment, AlignParameters, AlignUpdate
from gigascope.tomography.joint import JointSolver
from gigascope.tomography.layout import Layout, lay_out
from gigascope.tomography.levels import upsample_volume
from gigascope.tomography.published import PublishedSolver
from gigascope.tomography.reconstruct import (
    LOOK_EVERY,
    ReconstructParameters,
    TvSolver,
    tomogram_lambda,
    weighted_backprojection,
)
from gigascope.tomography.series import Series

if TYPE_CHECKING:
    from gigascope.config.tomography import Reconstruct

F64 = NDArray[np.float64]

# An iterative reconstruction that can stop and go on
TomogramSolver = TvSolver | SirtSolver | CglsSolver
# Weight of the total variation in the joint alignment, at most; the least elsewhere. Below it hardly matters, but an
# object at SNR 1 comes to 0.10 px with 0.2, 0.3 with 0.3 and 3 with 0.4: what suits a tomogram ruins its alignment.
LEAST_LAMBDA = 0.1


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
        self._solver: TomogramSolver | None = None

    def remarks(self) -> list[str]:
        """What was guessed before anything ran."""
        measured = self.series.refined.volume_nm
        if self.cfg.thickness_nm is None and measured and measured > self.layout.thickness_nm:
            return [
                f"The specimen seems to be {measured:.3g} nm thick, more than the {self.layout.thickness_nm:.3g} nm "
                "that memory was planned for. Set reconstruct.thickness_nm."
            ]
        if not self.layout.guessed:
            return []
        return [
            f"The thickness of the volume, {self.layout.thickness_nm:.4g} nm, is a guess from the width of the field. "
            "Look where the specimen ends in the xz slice and set reconstruct.thickness_nm slightly above it."
        ]

    # joint alignment

    @property
    def n_updates(self) -> int:
        """Updates of the joint alignment, at most."""
        return len(self.layout.bins) * self.cfg.align.outer

    def joint_solver(self) -> JointSolver | PublishedSolver:
        """The joint solve, ready to run."""
        align = self.cfg.align
        views, valid = self.series.prepared(device=self.device, largest_bin=self.layout.largest_bin)
        kind = PublishedSolver if align.mode == "published" else JointSolver
        return kind(
            views,
            valid,
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
                groups=align.groups,
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

    @property
    def n_looks(self) -> int:
        """Records of the reconstruction, at most."""
        return looks_of(self.cfg)

    @functools.cached_property
    def _data(self) -> tuple[Tensor, Tensor]:
        return aligned_data(self.series, self.layout, self.alignment, self.noise, self.cfg.bin, self.device)

    def tomogram_solver(self) -> TomogramSolver:
        """The reconstruction at full resolution, starting from the volume of the joint solve."""
        views, weights = self._data
        self._solver = solver_of(
            views,
            weights,
            self.series,
            self.series.tilt,
            self.layout,
            self.cfg,
            bin=self.cfg.bin,
            n_views=sum(flag == "" for flag in self.alignment.flags),
            offsets=self.alignment.offsets,
            start=self._start(),
        )
        self._joint_volume = None
        return self._solver

    def _start(self) -> Tensor | None:
        """Volume of the joint solve at the bin of the tomogram, where it is coarser."""
        if self._joint_volume is None:
            return None
        volume, bin = self._joint_volume
        if bin < self.cfg.bin:
            return None
        return upsample_volume(volume, bin // self.cfg.bin)

    def volume(self) -> Tensor:
        """(z, x, y) tomogram in prepared units per voxel length."""
        if self._solver is not None:
            return self._solver.volume
        views, weights = self._data
        return weighted_backprojection(
            views,
            weights,
            self.series.tilt,
            shape=self.layout.shape(self.cfg.bin),
            hz=self.cfg.hz,
            operator=operator_of(self.cfg),
        )

    def aligned_views(self) -> Tensor:
        """(tilt, s, y) aligned views at the raw pixel size."""
        if self.cfg.bin == 1:
            return self._data[0]
        return self.series.prepared(
            device=self.device,
            largest_bin=self.layout.largest_bin,
            shifts=self.alignment.shifts,
            linear=self.alignment.linear,
            spline=3,
        )[0]

    # what is said about it

    def history(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Table of all updates, joint and reconstruction, and its units."""
        joint = self._updates
        looks = self._solver.history if self._solver is not None else []
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


def layout_of(series: Series, cfg: Reconstruct, further_bin: int = 1) -> Layout:
    """Sizes of the reconstruction of a series."""
    return lay_out(
        series.shape[1:],
        series.tilt,
        tilt_axis=series.tilt_axis,
        pixel_nm=series.pixel_nm,
        extent=series.extent,
        cfg=cfg,
        further_bin=further_bin,
        measured_nm=series.refined.volume_nm,
    )


def regularization(series: Series, cfg: Reconstruct, n_views: int, bin: int) -> float:
    """Weight of the total variation for data of a bin.

    Given: lambda times the bin (tomography.md 6.5); otherwise from the noise, see
    :func:`gigascope.tomography.reconstruct.tomogram_lambda`.
    """
    if cfg.regularization is not None:
        return cfg.regularization * bin
    return max(LEAST_LAMBDA * bin, tomogram_lambda(noise_sigma(series, bin), n_views))


def unsolved(series: Series, shifts: F64) -> Alignment:
    """Shifts of which nothing else is known."""
    n = len(series.tilt)
    return Alignment(
        shifts=shifts,
        sigma=np.full((n, 2), np.nan),
        residual=np.full(n, np.nan),
        overlap=np.ones(n),
        flags=["" if use else "excluded" for use in series.use],
        offsets=np.zeros(n),
    )


def aligned_data(
    series: Series, layout: Layout, alignment: Alignment, noise: F64, bin: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Aligned views and their weights at a bin, (tilt, s, y) float32; flagged views have no weight."""
    views, valid = series.prepared(
        device=device,
        bin=bin,
        largest_bin=layout.largest_bin,
        shifts=alignment.shifts,
        linear=alignment.linear,
        spline=3,
    )
    angles = torch.as_tensor(series.tilt, dtype=torch.float64, device=device)
    full = masks.full_rays(angles, views.shape[1], layout.shape(bin)[:2], layout.hz, layout.extent)
    good = np.array([flag == "" for flag in alignment.flags])
    precision = torch.as_tensor(good / noise, dtype=torch.float32, device=device)
    return views, masks.weights(valid.to(torch.float32), full, precision)


def operator_of(cfg: Reconstruct) -> Any:
    """The projector of the config: ours, or ASTRA behind the same calls.

    Raises
    ------
    UserError : ASTRA is asked for and not installed, or cannot do the voxel shape
    """
    if cfg.projector == "astra":
        from gigascope.tomography.astra_projector import AstraProjector

        return AstraProjector(cfg.hz)
    return projector


def looks_of(cfg: Reconstruct) -> int:
    """Records of a reconstruction, at most: every tenth iteration of the total variation, where a look costs one."""
    return math.ceil(cfg.iterations / LOOK_EVERY) if cfg.method == "tv" else cfg.iterations


def noise_sigma(series: Series, bin: int) -> float:
    """Standard deviation of the noise per pixel of a bin, for data of unit standard deviation; median over views."""
    return float(np.sqrt(np.median(series.model.noise[series.model.good]))) / bin


def solver_of(
    views: Tensor,
    weights: Tensor,
    series: Series,
    tilt: ArrayLike,
    layout: Layout,
    cfg: Reconstruct,
    *,
    bin: int,
    n_views: int,
    offsets: F64 | None = None,
    start: Tensor | None = None,
) -> TomogramSolver:
    """The iterative reconstruction of the config (not `wbp`) for aligned views at a bin.

    `offsets` are the constants of a section's views where they are known; otherwise they are solved. `n_views` is the
    number of views that count, for :func:`regularization`; `start` is for the total variation only.
    """
    section = layout.extent != "object"
    known = section and offsets is not None and bool(np.any(offsets))
    place: dict[str, Any] = {
        "shape": layout.shape(bin),
        "solve": section,
        "constants": offsets if known else None,
        "hz": layout.hz,
        "operator": operator_of(cfg),
    }
    if cfg.method == "tv":
        lam = regularization(series, cfg, n_views, bin)
        tv = ReconstructParameters(lam=lam, iterations=cfg.iterations, tol=cfg.tol, positivity=cfg.positivity)
        return TvSolver(views, weights, tilt, start=start, parameters=tv, **place)
    # weights are relative to the median noise, or 1
    until = AlgebraicParameters(cfg.iterations, noise_sigma(series, bin), cfg.positivity)
    kind = SirtSolver if cfg.method == "sirt" else CglsSolver
    return kind(views, weights, tilt, parameters=until, **place)
