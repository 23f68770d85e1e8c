"""Which slices of a registered stack show a pixel: beyond its field a slice goes on by its border, and has no focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.store.open import StoreReader
from gigascope.topography.focus.registered import SLICES, VALID
from gigascope.topography.focus.registration import matrices_about_centre

# Slices on either side of a focus that it is found from.
AROUND = 1
# Pixels by which a slice has to reach beyond what it shows: sharpness is a mean over a window.
MARGIN = 4.0
# Of a focus that is claimed to be seen, at least.
CLAIM = 0.1


@dataclass(frozen=True, eq=False)
class Coverage:
    """Fields of the slices of a view.

    Parameters
    ----------
    everywhere : (r, c) bool, pixels that all slices show
    matrices : (z, 2, 3) float64, index in slice k = M[k, :, :2] @ (row, column) + M[k, :, 2]
    """

    everywhere: NDArray[np.bool_]
    matrices: NDArray[np.float64]

    def shown(self, index: Tensor) -> Tensor:
        """(r, c) bool, the slice nearest to the index and its neighbours show the pixel, or all slices do.

        Parameters
        ----------
        index : (r, c) float32, slices
        """
        rows, cols = index.shape
        row, col = (torch.arange(n, device=index.device, dtype=torch.float32) for n in (rows, cols))
        matrices = torch.from_numpy(self.matrices).to(index.device, torch.float32)
        nearest, last = index.round().long(), len(matrices) - 1
        shown = torch.ones_like(index, dtype=torch.bool)
        for d in range(-AROUND, AROUND + 1):
            m = matrices[(nearest + d).clamp(0, last)]
            for axis, n in enumerate((rows, cols)):
                at = m[..., axis, 0] * row[:, None] + m[..., axis, 1] * col + m[..., axis, 2]
                shown &= (at >= MARGIN) & (at <= n - 1 - MARGIN)
        return shown | torch.from_numpy(self.everywhere).to(index.device)

    def unseen(self, index: Tensor, confidence: Tensor, settled: Tensor) -> Tensor:
        """(r, c) bool, the focus of the pixel, or of those around it, lies in slices that do not show it.

        Parameters
        ----------
        index, confidence : as found
        settled : index with doubtful pixels filled from around them
        """
        return ~self.shown(settled) | (~self.shown(index) & (confidence > CLAIM))


def read_coverage(stacks: StoreReader) -> Coverage | None:
    """Of a store of z-stacks; none: every slice shows every pixel.

    Parameters
    ----------
    stacks : `raw` or `registered`
    """
    found = stacks.attrs.get("registration")
    if found is None or found["inside_share"] == 1.0:
        return None
    everywhere, slices = np.asarray(stacks.member(VALID)[...]) > 0, stacks.table(SLICES)
    alpha = slices["scale"] * np.exp(1j * slices["rotation"])
    shift = slices["shift_row"] + 1j * slices["shift_col"]
    return Coverage(everywhere, matrices_about_centre(alpha, shift, everywhere.shape))
