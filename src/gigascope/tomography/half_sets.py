"""Tomograms of the even and of the odd views apart, with everything else as in the whole tomogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gigascope.tomography.alignment import Alignment
from gigascope.tomography.products import read_shifts
from gigascope.tomography.reconstruct import weighted_backprojection
from gigascope.tomography.residual import interleaved
from gigascope.tomography.series import Series
from gigascope.tomography.tomogram import TomogramSolver, aligned_data, layout_of, looks_of, operator_of, solver_of

if TYPE_CHECKING:
    from gigascope.config.tomography import Reconstruct
    from gigascope.store.open import StoreReader


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
    bin : relative to the tomogram
    device : to compute on
    """

    def __init__(self, series: Series, tomogram: StoreReader, cfg: Reconstruct, bin: int, device: torch.device) -> None:
        self._series, self._cfg = series, cfg
        self._alignment = read_alignment(tomogram, series)
        self.bin = bin * self._cfg.bin
        self.layout = layout_of(series, self._cfg, self.bin)
        noise = series.noise if self._cfg.weights == "noise" else np.ones(len(series.tilt))
        self._views, self._weights = aligned_data(series, self.layout, self._alignment, noise, self.bin, device)
        # of the views in use, so that both halves have as many although views were left out
        used = np.flatnonzero([flag == "" for flag in self._alignment.flags])
        self._members = [used[half] for half in interleaved(len(used), 2)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, x, y) of a half tomogram."""
        return self.layout.shape(self.bin)

    @property
    def n_looks(self) -> int:
        """Records of one half's reconstruction, at most."""
        return looks_of(self._cfg)

    def _data(self, half: int) -> tuple[Tensor, Tensor, np.ndarray]:
        chosen = torch.from_numpy(self._members[half]).to(self._views.device)
        return self._views[chosen], self._weights[chosen], self._series.tilt[self._members[half]]

    def solver(self, half: int) -> TomogramSolver | None:
        """The reconstruction of a half, 0 even or 1 odd; none for methods without iteration."""
        if self._cfg.method == "wbp":
            return None
        views, weights, tilt = self._data(half)
        # the constants of a section's views are solved anew: those of the whole set know the other half
        return solver_of(views, weights, self._series, tilt, self.layout, self._cfg, bin=self.bin, n_views=len(tilt))

    def volume(self, half: int, solver: TomogramSolver | None) -> Tensor:
        """(z, x, y) half tomogram in prepared units per voxel length."""
        if solver is not None:
            return solver.volume
        views, weights, tilt = self._data(half)
        return weighted_backprojection(
            views, weights, tilt, shape=self.shape, hz=self.layout.hz, operator=operator_of(self._cfg)
        )
