"""Progress of long work: a bar on a terminal, a line now and then elsewhere, and a record for other programs."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

LINE_EVERY_S = 30.0
BAR_EVERY_S = 0.2
RECORD_EVERY_S = 2.0

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Progress:
    """Reports how far a stage is.

    On a terminal a bar is drawn; elsewhere (SLURM's logs) a line is written at most every 30 s; and `records`, a file
    of JSON lines, grows beside the checkpoint, so that it outlives an attempt. Without `bar` a terminal gets lines too:
    for a piece of work inside one that has a bar.
    """

    def __init__(self, records: Path | None = None, *, bar: bool = True) -> None:
        self._records = records
        self._bar = bar

    def __call__(
        self, iterable: Iterable[T], *, what: str, unit: str = "step", total: int | None = None, done: int = 0
    ) -> Iterator[T]:
        """Yield from `iterable` and report.

        Parameters
        ----------
        what : what is being done, such as "joint alignment"
        unit : of one item, in the singular
        total : number of items; none: `len(iterable)` where it has one
        done : items that were done before (a resumed stage)
        """
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        bar = _Bar(what, unit, total, done) if self._bar and sys.stderr.isatty() else None
        start = last_line = time.monotonic()
        last_record = last_bar = 0.0
        count = done
        try:
            for item in iterable:
                yield item
                count += 1
                now = time.monotonic()
                # What an item says of itself may take a while to find out: it is asked only where that is shown.
                if bar is not None and (now - last_bar >= BAR_EVERY_S or count == total):
                    last_bar = now
                    bar.update(count, _note(item))
                elif bar is None and now - last_line >= LINE_EVERY_S:
                    last_line = now
                    _log.info("%s", _line(what, unit, count, total, count - done, now - start, _note(item)))
                if now - last_record >= RECORD_EVERY_S or count == total:
                    last_record = now
                    self._record(what, unit, count, total, now - start, _note(item))
        finally:
            if bar is not None:
                bar.close()
        spent = time.monotonic() - start
        _log.log(logging.INFO if self._bar else logging.DEBUG, "%s: %d %ss in %.1f s", what, count - done, unit, spent)

    def _record(self, what: str, unit: str, count: int, total: int | None, seconds: float, note: str) -> None:
        if self._records is None:
            return
        entry = {
            "time": time.time(),
            "what": what,
            "unit": unit,
            "done": count,
            "total": total,
            "seconds": seconds,
            "note": note,
        }
        with self._records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _note(item: object) -> str:
    """What an item says of itself: records of iterations have a `summary`."""
    summary = getattr(item, "summary", None)
    return summary() if callable(summary) else ""


def _line(what: str, unit: str, count: int, total: int | None, since: int, seconds: float, note: str) -> str:
    rate = since / seconds if seconds > 0 else 0.0
    parts = [f"{what} {count}/{total} {unit}s" if total else f"{what} {count} {unit}s"]
    if note:
        parts.append(note)
    parts.append(f"{rate:.1f} {unit}s/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s/{unit}")
    if total and rate > 0:
        parts.append(f"{duration((total - count) / rate)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time for people: 42 s, 17 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Bar:
    """A rich progress bar on stderr."""

    def __init__(self, what: str, unit: str, total: int | None, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(what, total=total, completed=done, note="")

    def update(self, count: int, note: str) -> None:
        self._bar.update(self._task, completed=count, note=note)

    def close(self) -> None:
        self._bar.stop()
