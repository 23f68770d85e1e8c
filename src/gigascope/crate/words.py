"""What the metadata and the page of a crate say in the same words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gigascope.config.dataset import Dataset
from gigascope.crate.runs import Run


@dataclass(frozen=True)
class About:
    """What is said of a crate as a whole.

    Attributes
    ----------
    licence : of the data: an address, or a sentence
    agent : name and address (an ORCID) of who ran it; none: not known
    published : date of the crate
    """

    licence: str
    agent: tuple[str, str] | None
    published: datetime


def title(dataset: Dataset) -> str:
    """Of the whole."""
    return f"{dataset.name}: result of the {dataset.pipeline} chain of gigascope"


def circumstances(run: Run) -> str:
    """Where and how a stage was run; its command where it was kept."""
    place = f"On {run.host}. " if run.host else ""
    device = f"Device: {run.device}. " if run.device else ""
    jobs = f"In {run.n_jobs} parts; time and memory are those of all its jobs. " if run.n_jobs > 1 else ""
    if not run.command:
        return f"{place}{device}{jobs}This stage keeps no record: its times are those of its files and its benchmark."
    program = Path(run.command[0]).name
    return f"{place}{device}{jobs}Command: {' '.join([program, *run.command[1:]])}"


def leaves(values: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a config by their path in the YAML; a list is one value."""
    for name, value in values.items():
        place = f"{key}.{name}" if key else name
        if isinstance(value, Mapping) and value:
            yield from leaves(value, place)
        else:
            yield place, value
