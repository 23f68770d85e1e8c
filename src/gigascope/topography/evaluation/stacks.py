"""Views of the stacks and of what inference made of them, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.topography.capture.bayer import unpack_green
from gigascope.topography.evaluation.truth import GREEN
from gigascope.topography.ingest import GREEN as GREEN_STACK
from gigascope.topography.ingest import Z_STAGE

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """What inference made of a view.

    Attributes
    ----------
    index, confidence : (R, C) float32; the index is NaN where the view is absent
    picture : (R, C, c) in focus everywhere, in the units of the stacks
    """

    index: F32
    confidence: F32
    picture: NDArray


class Stacks:
    """Stacks (`raw` or `registered`) with their inferred views.

    Parameters
    ----------
    stacks, views : finished stores
    """

    def __init__(self, stacks: StoreReader, views: StoreReader) -> None:
        self._green = stacks.member(GREEN_STACK)
        self._pattern: str | None = stacks.attrs.get("bayer")
        self._views = {name: views.member(name) for name in ("index", "confidence", "aif")}
        self._z_mm = np.asarray(stacks.member(Z_STAGE)[...], np.float64)
        self.grid: tuple[int, int] = self._z_mm.shape[0], self._z_mm.shape[1]
        self.n_z: int = self._z_mm.shape[2]
        dtype = np.dtype(self._green.dtype)
        self.white = float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return int(self._views["aif"].shape[4])

    @property
    def focus_channel(self) -> int:
        """The one that focus was measured in: green, or grey."""
        return GREEN if self.channels == 3 else 0

    def z_mm(self, number: int) -> F64:
        """(n_z,) stage positions of a view."""
        return np.asarray(self._z_mm[divmod(number, self.grid[1])])

    def green(self, number: int) -> NDArray:
        """(n_z, R, C) green, or grey, of a view on the full grid."""
        row, col = divmod(number, self.grid[1])
        stack = np.asarray(self._green[row, col])
        return stack if self._pattern is None else unpack_green(stack, self._pattern)

    def view(self, number: int) -> View:
        """What inference made of a view."""
        row, col = divmod(number, self.grid[1])
        return View(*(np.asarray(self._views[name][row, col]) for name in ("index", "confidence", "aif")))
