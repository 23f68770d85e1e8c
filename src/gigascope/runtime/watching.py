"""What is going on in a scratch folder, read from what stages leave there: locks, progress, journals, plans.

Only reads, so it can be asked on any machine that sees the disk, while the jobs run on others.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigascope.runtime import lock
from gigascope.runtime.parts import WorkPlan
from gigascope.runtime.records import PLAN


@dataclass(frozen=True)
class Sign:
    """What is seen of one process at work on a stage, or of one that was.

    Attributes
    ----------
    what : what it is at, in its own words
    done, total : items; total 0: unknown
    item_s : time for one item so far, seconds; none: unknown
    holder : process, host and job; empty: none is at work any more
    silent_s : since its last sign of life
    note : what the last item said
    """

    what: str = ""
    done: int = 0
    total: int = 0
    item_s: float | None = None
    holder: str = ""
    silent_s: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Work:
    """Unfinished work of one stage of one dataset.

    Attributes
    ----------
    dataset, stage : names
    folder : its scratch folder
    signs : of the whole stage and of the parts that were begun, living ones first
    done, total : items of all parts and rounds; total 0: not cut into items, or not known yet
    """

    dataset: str
    stage: str
    folder: Path
    signs: tuple[Sign, ...]
    done: int = 0
    total: int = 0

    @property
    def living(self) -> tuple[Sign, ...]:
        """Signs of processes that are at work now."""
        return tuple(sign for sign in self.signs if sign.holder)

    @property
    def share(self) -> float | None:
        """Share of the items that is done; none: unknown."""
        if self.total:
            return self.done / self.total
        known = [sign for sign in self.signs if sign.total]
        return known[0].done / known[0].total if known else None

    @property
    def remaining_s(self) -> float | None:
        """Time that is left with as many processes as now, at the rate so far, seconds; none: unknown."""
        rates = [sign.item_s for sign in self.living if sign.item_s is not None]
        if not rates:
            return None
        if self.total:
            return (self.total - self.done) * (sum(rates) / len(rates)) / len(rates)
        return max((s.item_s or 0.0) * (s.total - s.done) for s in self.living) or None


def unfinished(scratch: Path) -> list[Work]:
    """Work that is not complete, by dataset and stage.

    Parameters
    ----------
    scratch : root of the scratch folders: `<results>/scratch`
    """
    found = []
    for folder in sorted(scratch.glob("*/*-*")):
        stage, _, digest = folder.name.rpartition("-")
        if re.fullmatch(r"[a-z]+\.[a-z_]+", stage) and digest and folder.is_dir():
            found.append(_work(folder, stage))
    return found


def _work(folder: Path, stage: str) -> Work:
    homes = sorted(folder.glob("round-*.part-*"))
    signs = [_sign(folder), *map(_sign, homes)]
    begun = sorted((s for s in signs if s.holder or s.total), key=lambda s: not s.holder)
    plan = _plan(folder)
    total = 0 if plan is None else sum(map(len, plan.rounds))
    done = sum(_n_lines(home / "items.jsonl") for home in homes)
    return Work(folder.parent.name, stage, folder, tuple(begun), min(done, total), total)


def _sign(folder: Path) -> Sign:
    """Of the process that holds the lock of a folder, and of the progress in it."""
    holder = lock.living_holder(folder / "lock")
    path = folder / "progress.jsonl"
    entries = list(_entries(path))
    if not entries:
        return Sign(holder=holder)
    last = entries[-1]
    # a stage has several loops; an attempt that went on begins its seconds anew
    same = [e for e in entries if e["what"] == last["what"] and e["seconds"] <= last["seconds"]]
    items, seconds = last["done"] - same[0]["done"], last["seconds"] - same[0]["seconds"]
    item_s = seconds / items if items > 0 else None
    return Sign(
        last["what"], last["done"], last["total"] or 0, item_s, holder, time.time() - last["time"], last["note"]
    )


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of a progress record; the last one may be half written."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield dict(json.loads(line))
        except ValueError:
            continue


def _n_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def _plan(folder: Path) -> WorkPlan | None:
    try:
        return WorkPlan.of(json.loads((folder / PLAN).read_text(encoding="utf-8"))["plan"])
    except (OSError, ValueError, KeyError):
        return None
