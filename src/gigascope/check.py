"""`gigascope check`: what a dataset will need, before anything runs."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gigascope.config.dataset import PIPELINES, Dataset, load_dataset
from gigascope.registry import stages
from gigascope.runtime.memory import human_bytes
from gigascope.runtime.progress import duration
from gigascope.runtime.resources import Estimate
from gigascope.stage import JobKind

# The module of a pipeline that knows shapes and needs: `read_header(dataset)` there opens the inputs.
PLANS = {name: f"gigascope.{name}.plan" for name in PIPELINES}


def read_header(dataset: Dataset) -> Any:
    """Open a dataset's inputs and return what its stages' estimates need; pixels are not read.

    Raises
    ------
    UserError : inputs missing, broken or inconsistent
    """
    return importlib.import_module(PLANS[dataset.pipeline]).read_header(dataset)


@dataclass(frozen=True)
class Need:
    """What the jobs of one kind need, each of them.

    Attributes
    ----------
    stage : name
    job : open, part or gather of a stage that is cut into parts; empty: one job does the whole stage
    jobs : how many there are
    each : of them
    """

    stage: str
    job: str
    jobs: int
    each: Estimate


def needs(dataset: Dataset, header: Any) -> list[Need]:
    """Needs of every job of every stage that states them, in the order of the pipeline."""
    found = []
    for stage in stages(dataset.pipeline):
        section = getattr(dataset, stage.key)
        if stage.estimate is None or not dataset.runs(stage.key):
            continue
        if stage.files is not None:
            # what the section names is refused here where it is not there
            stage.files(section)
        parts = stage.parts(section)
        if parts == 1 or stage.scatter is None or stage.scatter.estimate is None:
            found.append(Need(stage.name, "", 1, stage.estimate(dataset, header)))
            continue
        jobs: dict[JobKind, int] = {"open": 1, "part": parts * stage.rounds(section), "gather": 1}
        found += [Need(stage.name, job, n, stage.scatter.estimate(dataset, header, job)) for job, n in jobs.items()]
    return found


def print_check(path: Path) -> None:
    """Validate a dataset YAML and print what its stages will do and need."""
    dataset = load_dataset(path)
    header = read_header(dataset)
    rows = needs(dataset, header)
    console = Console()
    console.print(
        f"{path}: valid, pipeline {dataset.pipeline}, dataset {dataset.name}", highlight=False, soft_wrap=True
    )
    for note in header.describe():
        console.print(f"  {note}", highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 1, 0, 0))
    columns = ["stage", "jobs", "writes", "memory", "on a GPU", "disk", "files", "CPU time"]
    if all(row.jobs == 1 for row in rows):
        columns.remove("jobs")
    for column in columns:
        words = column in {"stage", "writes"}
        table.add_column(column, justify="left" if words else "right", no_wrap=column != "writes")
    for row in rows:
        each = row.each
        cells = {
            "stage": f"{row.stage.partition('.')[2]} {row.job}".strip(),
            "jobs": str(row.jobs),
            "writes": each.shape,
            "memory": human_bytes(each.memory),
            "on a GPU": human_bytes(each.gpu_memory) if each.gpu_memory else "-",
            "disk": human_bytes(each.disk),
            "files": str(each.files),
            "CPU time": duration(each.seconds),
        }
        table.add_row(*(cells[column] for column in columns))
    console.print(table)
    if "jobs" in columns:
        console.print("memory, disk, files and time are those of one job", highlight=False)
    disk = sum(row.jobs * row.each.disk for row in rows)
    free = shutil.disk_usage(Path.cwd()).free
    console.print(f"disk: {human_bytes(disk)} at most, {human_bytes(free)} free here", highlight=False)
    if disk > free:
        console.print(f"[red]not enough disk space[/red]: {human_bytes(disk - free)} short", highlight=False)
