"""`gigascope check`: what a dataset will need, before anything runs."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gigascope.config.dataset import PIPELINES, Dataset, load_dataset
from gigascope.registry import stages
from gigascope.runtime.memory import human_bytes
from gigascope.runtime.resources import Estimate

# The module of a pipeline that knows shapes and needs: `read_header(dataset)` there opens the inputs.
PLANS = {name: f"gigascope.{name}.plan" for name in PIPELINES}


def read_header(dataset: Dataset) -> Any:
    """Open a dataset's inputs and return what its stages' estimates need; pixels are not read.

    Raises
    ------
    UserError : inputs missing, broken or inconsistent
    """
    return importlib.import_module(PLANS[dataset.pipeline]).read_header(dataset)


def estimates(dataset: Dataset) -> dict[str, Estimate]:
    """Needs of every stage that states them, by name."""
    header = read_header(dataset)
    running = [s for s in stages(dataset.pipeline) if dataset.runs(s.key)]
    return {s.name: s.estimate(dataset, header) for s in running if s.estimate is not None}


def print_check(path: Path) -> None:
    """Validate a dataset YAML and print what its stages will do and need."""
    dataset = load_dataset(path)
    header = read_header(dataset)
    needs = estimates(dataset)
    console = Console()
    console.print(
        f"{path}: valid, pipeline {dataset.pipeline}, dataset {dataset.name}", highlight=False, soft_wrap=True
    )
    for note in header.describe():
        console.print(f"  {note}", highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("stage", "writes", "memory", "on a GPU", "disk", "files", "CPU time"):
        table.add_column(column, justify="left" if column in {"stage", "writes"} else "right")
    for name, need in needs.items():
        table.add_row(
            name.partition(".")[2],
            need.shape,
            human_bytes(need.memory),
            human_bytes(need.gpu_memory) if need.gpu_memory else "-",
            human_bytes(need.disk),
            str(need.files),
            _duration(need.seconds),
        )
    console.print(table)
    disk = sum(need.disk for need in needs.values())
    free = shutil.disk_usage(Path.cwd()).free
    console.print(f"disk: {human_bytes(disk)} at most, {human_bytes(free)} free here", highlight=False)
    if disk > free:
        console.print(f"[red]not enough disk space[/red]: {human_bytes(disk - free)} short", highlight=False)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
