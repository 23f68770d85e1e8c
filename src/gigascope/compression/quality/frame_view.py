"""One frame of a volume of several times and channels, as a volume of its own that is read by slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class FrameOf:
    """One frame of an array of volumes, as a volume that is read by slices.

    Parameters
    ----------
    array : ([t, c,] z, y, x), anything that gives numpy arrays when it is sliced
    index : place along the axes before z
    """

    def __init__(self, array: Any, index: Sequence[int] = ()) -> None:
        self._array, self._index = array, tuple(int(i) for i in index)
        self.shape = tuple(int(n) for n in array.shape[-3:])

    def __getitem__(self, key: Any, /) -> Any:
        """One slice, or a tuple of up to three."""
        return np.asarray(self._array[(*self._index, *(key if isinstance(key, tuple) else (key,)))])
