"""`gigascope status`: how far all running stages are, in one table, from what they leave on the shared disk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gigascope.config.dataset import Dataset
from gigascope.errors import UserError
from gigascope.registry import stages
from gigascope.runtime.progress import duration
from gigascope.runtime.watching import Sign, Work, unfinished
from gigascope.stage import Stage
from gigascope.workflow import Workflow, estimate_of

# A dataset with nothing to tell has one line; of many such, only their number is printed.
_QUIET = 20


@dataclass(frozen=True)
class Row:
    """One stage of one dataset.

    Attributes
    ----------
    state : done, running, stopped (begun, and nobody is at work on it), or waiting
    work : what is unfinished of it
    remaining_s : time that it still takes, seconds: as it goes, or as its estimate says; none: unknown
    took_s : time that it took
    """

    dataset: str
    stage: Stage
    state: str
    work: Work | None = None
    remaining_s: float | None = None
    took_s: float | None = None


def print_status(config: Path, names: list[str], every: bool, watch_s: float | None) -> None:
    """Print the table, once or again and again until all is done.

    Parameters
    ----------
    config : Snakemake's config file
    names : datasets to show; none: all
    every : finished and waiting stages too
    watch_s : seconds between two looks; none: one look

    Raises
    ------
    UserError : no such config file or dataset
    """
    flow = Workflow.read(config)
    if unknown := sorted(set(names) - set(flow.datasets)):
        raise UserError(f"there is no dataset {unknown[0]!r}.", where=config, do=f"Known: {', '.join(flow.datasets)}.")
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    if watch_s is None:
        console.print(_page(rows(flow, names), every))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = rows(flow, names)
            live.update(_page(found, every), refresh=True)
            if all(row.state == "done" for row in found):
                return
            time.sleep(watch_s)


def rows(flow: Workflow, names: Iterable[str] = ()) -> list[Row]:
    """State of every stage of the datasets of a workflow, or of some of them."""
    wanted = set(names) or set(flow.datasets)
    works = {(work.dataset, work.stage): work for work in unfinished(Path(flow.results, "scratch"))}
    found = []
    for name, dataset in flow.datasets.items():
        if name in wanted:
            found += list(_rows(Path(flow.results, name), dataset, works))
    return found


def _rows(folder: Path, dataset: Dataset, works: dict[tuple[str, str], Work]) -> Iterator[Row]:
    made_by: dict[str, float] = {}
    for stage in stages(dataset.pipeline):
        if not dataset.runs(stage.key):
            continue
        inputs = [made_by[name] for name in (*stage.inputs, *stage.optional_inputs) if name in made_by]
        ended = _ended(folder, stage.name)
        current = ended is not None and all(before <= ended for before in inputs)
        made_by.update(dict.fromkeys(stage.outputs, ended if ended is not None and current else float("inf")))
        work = works.get((dataset.name, stage.name))
        if work is not None and work.living:
            yield Row(dataset.name, stage, "running", work, work.remaining_s)
        elif current:
            yield Row(dataset.name, stage, "done", took_s=_took(folder, stage.name))
        else:
            needs = estimate_of(dataset, stage.name)
            state = "waiting" if work is None else "stopped"
            done = (0.0 if work is None else work.share) or 0.0
            left = None if needs is None else needs.seconds * (1 - done)
            yield Row(dataset.name, stage, state, work, left)


def _ended(folder: Path, stage: str) -> float | None:
    """When Snakemake saw the stage end, if that was with the config that it has now."""
    try:
        ended = (folder / "benchmarks" / f"{stage}.tsv").stat().st_mtime
        return ended if ended >= (folder / "config" / f"{stage}.json").stat().st_mtime else None
    except OSError:
        return None


def _took(folder: Path, stage: str) -> float | None:
    """Wall time of the stage's last job, from Snakemake's benchmark."""
    try:
        head, values = (folder / "benchmarks" / f"{stage}.tsv").read_text(encoding="utf-8").splitlines()[:2]
        return float(dict(zip(head.split("\t"), values.split("\t")))["s"])
    except (OSError, ValueError, KeyError):
        return None


# the page


def _page(found: list[Row], every: bool) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("dataset", "stage", "state", "done", "left", "at work", "last sign"):
        table.add_column(column, justify="right" if column in {"done", "left"} else "left", overflow="fold")
    quiet: dict[str, list[Row]] = {}
    for name in dict.fromkeys(row.dataset for row in found):
        own = [row for row in found if row.dataset == name]
        shown = own if every else [row for row in own if row.state in {"running", "stopped"}]
        if not shown:
            quiet[name] = own
        for row in shown:
            _add(table, row)
    for name, own in list(quiet.items())[:_QUIET]:
        n_done = sum(row.state == "done" for row in own)
        ended = n_done == len(own)
        state = "done" if ended else "waiting"
        table.add_row(name, "", _coloured(state), f"{n_done} of {len(own)}", "" if ended else _left(own), "", "")
    page = Table.grid()
    page.add_row(table)
    if len(quiet) > _QUIET:
        page.add_row(f"and {len(quiet) - _QUIET} datasets on which nobody is at work")
    counts = {state: sum(row.state == state for row in found) for state in ("done", "running", "stopped", "waiting")}
    text = ", ".join(f"{n} {state}" for state, n in counts.items() if n or state in {"done", "running"})
    left = _left(found)
    page.add_row(Text(f"{len(found)} stages: {text}" + (f"; {left} of work left" if left else "")))
    return page


def _add(table: Table, row: Row) -> None:
    work = row.work
    stage = row.stage.key
    left = _duration(row.remaining_s)
    if row.state == "done":
        took = "" if row.took_s is None else f"took {duration(row.took_s)}"
        table.add_row(row.dataset, stage, _coloured("done"), "", "", "", took)
        return
    share = "" if work is None or work.share is None else f"{100 * work.share:.0f} %"
    living = () if work is None else work.living
    holders = "\n".join(escape(sign.holder) for sign in living)
    signs = "\n".join(escape(_said(sign)) for sign in living or (() if work is None else work.signs[:1]))
    table.add_row(row.dataset, stage, _coloured(row.state), share, left, holders, signs)


def _said(sign: Sign) -> str:
    """What a process said last, on one line."""
    if not sign.what:
        return ""
    count = f"{sign.done}/{sign.total}" if sign.total else f"{sign.done}"
    note = f", {sign.note}" if sign.note else ""
    return f"{sign.what} {count}{note} ({duration(max(0.0, sign.silent_s))} ago)"


def _left(found: Iterable[Row]) -> str:
    """Sum of what is known to be left."""
    known = [row.remaining_s for row in found if row.state != "done" and row.remaining_s is not None]
    return _duration(sum(known)) if known else ""


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"~{duration(seconds)}"


def _coloured(state: str) -> str:
    colours = {"done": "green", "running": "cyan", "stopped": "red", "waiting": "yellow"}
    return f"[{colours[state]}]{state}[/{colours[state]}]"
