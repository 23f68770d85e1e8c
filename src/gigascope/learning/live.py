"""Losses that can be looked at while a network is trained: a table that grows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.store.table import write_tsv

# A table is written whole, beside and renamed, so that nobody reads half a line.
EVERY_S = 5.0


class LiveLosses:
    """A TSV of all steps so far, rewritten now and then.

    Parameters
    ----------
    path : of the table
    curves : rows so far; those that are added are appended to it by the training
    """

    def __init__(self, path: Path, curves: Sequence[Mapping[str, float]]) -> None:
        self._path, self._curves, self._written = path, curves, 0.0

    def add(self, row: Mapping[str, float], *, last: bool = False) -> None:
        """A step has been made."""
        now = time.monotonic()
        # a long table takes longer: never more than a fiftieth of the time
        if not last and now - self._written < max(EVERY_S, len(self._curves) / 2000):
            return
        partial = self._path.with_suffix(".partial")
        write_tsv(partial, loss_columns(self._curves))
        partial.replace(self._path)
        self._written = time.monotonic()

    def remove(self) -> None:
        """The table is elsewhere now."""
        self._path.unlink(missing_ok=True)


def loss_columns(curves: Sequence[Mapping[str, float]]) -> dict[str, NDArray]:
    """Columns step, rate, gradient, loss and every term, in the order in which they came up; 0 where a term was not."""
    names = list(dict.fromkeys(("step", "rate", "gradient", "loss", *(name for row in curves for name in row))))
    columns = {name: np.array([row.get(name, 0.0) for row in curves], dtype=np.float64) for name in names}
    return columns | {"step": columns["step"].astype(np.int64)}
