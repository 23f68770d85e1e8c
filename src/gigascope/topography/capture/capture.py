"""What every source of z-stacks looks like to the rest of the chain: read view by view, never more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError
from gigascope.topography.capture.grid import ViewGrid

Shape = tuple[int, int, int, int, int]
ReadView = Callable[[int, int], NDArray]
ReadSlice = Callable[[int, int, int], NDArray]


class Capture(Protocol):
    """z-stacks of all views of one acquisition.

    Attributes
    ----------
    shape : (view_rows, view_cols, n_z, rows, cols)
    dtype : uint8 or uint16
    pattern : Bayer mosaic, the top left 2 x 2 block row by row ("GBRG"); None: no mosaic
    colours : 1, or 3 where every pixel has red, green and blue
    z_stage_mm : (view_rows, view_cols, n_z) float64, stage position of every slice, millimetres
    """

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def pattern(self) -> str | None: ...
    @property
    def colours(self) -> int: ...
    @property
    def z_stage_mm(self) -> NDArray[np.float64]: ...

    def read(self, view_row: int, view_col: int) -> NDArray:
        """The whole stack of one view, (n_z, rows, cols), or (n_z, rows, cols, 3) in colour."""
        ...


@dataclass
class FileCapture:
    """A :class:`Capture` out of files, opened but not read, with all that is known beside the pixels.

    Attributes
    ----------
    path : folder, pattern or store it comes from, for messages
    format : in words
    grid : which view is which
    shape, dtype, pattern, colours, z_stage_mm : see :class:`Capture`
    read_view : (view_row, view_col) -> stack; called from several threads
    present : (view_rows, view_cols) bool; a view that is not there reads as zeros
    dz_known : False where `z_stage_mm` only counts slices
    xy_mm : (n_scan_y, n_scan_x, 2) float64, commanded stage positions (x, y); None where unknown
    best_slice : (view_rows, view_cols) int16 of the instrument's autofocus, -1 where unknown
    read_slice : (view_row, view_col, z) -> one slice, where that is cheaper than the stack; None: it is not
    facts : what the source says of the instrument: sensor_pitch_um, f_eff_mm, m_ref, ref_view, stage_up and the like
    source_of : (view_row, view_col) -> the file of a view, for messages
    slice_of : (view_row, view_col, z) -> the file of a slice, or its number in that of the view, for messages
    notes : choices made for the user, one sentence each
    warnings : what may be wrong, one sentence each
    files : every file that was looked into
    """

    path: Path
    format: str
    grid: ViewGrid
    shape: Shape
    dtype: np.dtype
    pattern: str | None
    colours: int
    z_stage_mm: NDArray[np.float64]
    read_view: ReadView = field(repr=False)
    present: NDArray[np.bool_]
    dz_known: bool = True
    xy_mm: NDArray[np.float64] | None = None
    best_slice: NDArray[np.int16] | None = None
    read_slice: ReadSlice | None = field(default=None, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)
    source_of: Callable[[int, int], str] = field(default=lambda row, col: "", repr=False)
    slice_of: Callable[[int, int, int], str] = field(default=lambda row, col, z: f"slice {z}", repr=False)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def read(self, view_row: int, view_col: int) -> NDArray:
        """See :meth:`Capture.read`; zeros for a view that is not there. May be a view of a larger array.

        Raises
        ------
        UserError : its file cannot give it
        """
        wanted = self.shape[2:] if self.colours == 1 else (*self.shape[2:], self.colours)
        if not self.present[view_row, view_col]:
            return np.zeros(wanted, self.dtype)
        stack = self.read_view(view_row, view_col)
        if stack.shape != wanted or stack.dtype != self.dtype:
            raise ShapeError(f"{self.path} gave {stack.shape} {stack.dtype}, expected {wanted} {self.dtype}")
        return stack

    def one_slice(self, view_row: int, view_col: int, z: int) -> NDArray:
        """One slice of a view, (rows, cols), or (rows, cols, 3) in colour; raises as :meth:`read` does."""
        if self.read_slice is None or not self.present[view_row, view_col]:
            return np.asarray(self.read(view_row, view_col)[z])
        return self.read_slice(view_row, view_col, z)

    def name(self, view_row: int, view_col: int) -> str:
        """A view in words, with its file."""
        source = self.source_of(view_row, view_col)
        return self.grid.name(view_row, view_col) + (f" ({source})" if source else "")
