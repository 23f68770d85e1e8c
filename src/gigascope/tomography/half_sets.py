"""Tomograms of the even and of the odd views apart, with everything else as in the whole tomogram."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.tomography.aligned_rows import AlignedRows, Rows
from gigascope.tomography.alignment import Alignment
from gigascope.tomography.fixed_shifts import (
    constants_solver,
    layout_of,
    noise_sigma,
    operator_of,
    precision_of,
    regularization,
)
from gigascope.tomography.products import read_shifts
from gigascope.tomography.reconstruct import ReconstructParameters, TvSolver
from gigascope.tomography.residual import interleaved
from gigascope.tomography.series import Series
from gigascope.tomography.slab_problem import SlabProblem
from gigascope.tomography.slab_rounds import SlabRounds
from gigascope.tomography.slabs import cut

if TYPE_CHECKING:
    from gigascope.config.tomography import Halves, Reconstruct
    from gigascope.store.open import StoreReader

F64 = NDArray[np.float64]
NAMES = ("even", "odd")


def read_alignment(tomogram: StoreReader, series: Series) -> Alignment:
    """The alignment a tomogram was made with, ascending tilt, from its tables."""
    table = tomogram.table("shifts")
    order = series.order
    return Alignment(
        shifts=read_shifts(table, order),
        sigma=np.stack([table["sigma_s_px"], table["sigma_y_px"]], axis=1)[order],
        residual=np.asarray(table["residual"])[order],
        overlap=np.asarray(table["overlap"])[order],
        flags=[str(flag) for flag in np.asarray(table["flag"])[order]],
        offsets=np.asarray(tomogram.table("offsets")["offset"])[order],
        linear=np.stack([np.deg2rad(table["rotation_deg"]), np.asarray(table["magnification"]) - 1], axis=1)[order],
    )


class HalfSets:
    """The two half-set reconstructions.

    Parameters
    ----------
    series : raw views
    tomogram : the whole one; its shifts and flags are used
    cfg : the settings it was made with
    halves : the stage's section
    device : to compute on
    """

    def __init__(
        self, series: Series, tomogram: StoreReader, cfg: Reconstruct, halves: Halves, device: torch.device
    ) -> None:
        self.series, self._cfg, self._halves, self._device = series, cfg, halves, device
        self.alignment = read_alignment(tomogram, series)
        self.bin = halves.bin * cfg.bin
        self.layout = layout_of(series, cfg, self.bin)
        # of the views in use, so that both halves have as many although views were left out
        used = np.flatnonzero([flag == "" for flag in self.alignment.flags])
        self.members: list[NDArray[np.intp]] = [used[half] for half in interleaved(len(used), 2)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, x, y) of a half tomogram."""
        return self.layout.shape(self.bin)

    def write_views(
        self, views: Sequence[Rows], scratch: Path, progress: Callable[[Any], Iterable[int]] = iter
    ) -> dict[str, F64]:
        """Resample each view once, into the rows of its half; means of the views by name, see :meth:`rounds`."""
        found = {f"{name}_means": np.full(len(members), np.nan) for name, members in zip(NAMES, self.members)}
        problems = [self._problem(half, {}) for half in range(len(NAMES))]
        places = {int(k): (half, n) for half, members in enumerate(self.members) for n, k in enumerate(members)}
        with AlignedRows(views, scratch) as rows:
            for k in progress(sorted(places)):
                half, n = places[k]
                view, mask = self.series.prepared_view(
                    k,
                    device=self._device,
                    bin=self.bin,
                    largest_bin=self.layout.largest_bin,
                    shift=self.alignment.shifts[k],
                    linear=self.alignment.turns[k],
                    spline=3,
                )
                rows.put(half, n, view, mask)
                found[f"{NAMES[half]}_means"][n] = problems[half].view_mean(n, view, mask)
        return found

    def constants_solver(self, half: int) -> TvSolver | None:
        """A coarse half tomogram that knows the constants of a section's views; those of the whole set know the other
        half.
        """
        if self.layout.extent == "object" or self._cfg.method == "wbp":
            return None
        members = self.members[half]
        return constants_solver(self.series, self.layout, self.alignment, self._cfg, self.bin, members, self._device)

    def rounds(self, kept: Mapping[str, NDArray[Any]]) -> SlabRounds:
        """Both halves slab by slab, from the constants and means, by name, that were found beforehand."""
        cfg, halves = self._cfg, self._halves
        slabs = cut(
            self.layout,
            self.bin,
            max(map(len, self.members)),
            round=halves.round,
            slab=halves.slab,
            parts=-(-halves.parts // len(NAMES)),
            gib=halves.memory_gib,
            method=cfg.method,
        )
        problems = {name: self._problem(half, kept) for half, name in enumerate(NAMES)}
        return SlabRounds(problems, slabs)

    def _problem(self, half: int, kept: Mapping[str, NDArray[Any]]) -> SlabProblem:
        cfg, members, name = self._cfg, self.members[half], NAMES[half]
        noise = self.series.noise if cfg.weights == "noise" else np.ones(len(self.series.tilt))
        return SlabProblem(
            tilt=self.series.tilt[members],
            precision=precision_of(self.alignment, noise)[members],
            constants=kept.get(f"{name}_constants"),
            means=kept.get(f"{name}_means"),
            layout=self.layout,
            bin=self.bin,
            parameters=ReconstructParameters(
                lam=regularization(self.series, cfg, len(members), self.bin),
                iterations=min(cfg.iterations, self._halves.iterations),
                tol=cfg.tol,
                positivity=cfg.positivity,
                round=self._halves.round,
            ),
            method=cfg.method,
            noise=noise_sigma(self.series, self.bin),
            device=self._device,
            operator=operator_of(cfg),
        )
