"""What can be looked at while a network is trained: a table of losses, curves and pictures for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.learning.events import EventFile
from gigascope.store.table import write_tsv

# A table is written whole, beside and renamed, so that nobody reads half a line.
EVERY_S = 5.0
# Pictures have to be made; never more than a fiftieth of the time goes into them.
PICTURES_EVERY_S, PICTURES_SHARE = 30.0, 0.02


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


class LiveEvents:
    """Losses of every step, and now and then pictures: `tensorboard --logdir FOLDER`.

    Parameters
    ----------
    folder : what earlier runs of the training left there stays
    step : that this run begins at
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._file = EventFile(folder / f"events.out.tfevents.{step:08d}")
        self._next = 0.0

    def add(self, row: Mapping[str, float], pictures: Callable[[], Mapping[str, NDArray[np.uint8]]]) -> None:
        """A step has been made.

        Parameters
        ----------
        row : its losses, and its number as `step`
        pictures : makes grey ones by their names; called when some are due, the first time at once
        """
        step, now = int(row["step"]), time.monotonic()
        self._file.scalars(step, {name: value for name, value in row.items() if name != "step"})
        if now >= self._next:
            for name, pixels in pictures().items():
                self._file.picture(step, name, pixels)
            done = time.monotonic()
            self._next = done + max(PICTURES_EVERY_S, (done - now) / PICTURES_SHARE)
        self._file.flush()

    def close(self) -> None:
        """The training has come to its end, or stops."""
        self._file.close()


def loss_columns(curves: Sequence[Mapping[str, float]]) -> dict[str, NDArray]:
    """Columns step, rate, gradient, loss and every term, in the order in which they came up; 0 where a term was not."""
    names = list(dict.fromkeys(("step", "rate", "gradient", "loss", *(name for row in curves for name in row))))
    columns = {name: np.array([row.get(name, 0.0) for row in curves], dtype=np.float64) for name in names}
    return columns | {"step": columns["step"].astype(np.int64)}
