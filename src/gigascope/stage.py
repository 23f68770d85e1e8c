"""A stage is declared once: name, config section, named inputs and outputs, function.

From the declaration follow the command line, the JSON Schema, the fingerprint, the resources and the documentation's
tables. Declaring modules (`*/stages.py`) import their science inside the functions: that keeps the registry free of
torch, and makes the imports of one stage those of its own function, so that its fingerprint is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gigascope.config.section import Section

if TYPE_CHECKING:
    from pathlib import Path

    from gigascope.runtime.parts import WorkPlan
    from gigascope.runtime.resources import Estimate

# The kinds of job that a scattered stage is cut into; see :class:`Scatter`.
JobKind = Literal["open", "part", "gather"]


class Kind(Enum):
    """What an input or output is; the value is the ending of its file name."""

    STORE = ".zarr"
    TABLE = ".tsv"
    PARQUET = ".parquet"
    FILE = ""


def _one(*_: Any) -> int:
    return 1


@dataclass(frozen=True)
class Scatter:
    """How the work of a stage is cut into parts; the stage function itself is the gather.

    Attributes
    ----------
    open : `(ctx, cfg) -> WorkPlan`, once: creates the shared arrays and decides what holds for all
    item : `(ctx, cfg, item) -> None`, the work on one item in one round
    rounds : `(cfg) -> int`, number of rounds; an item may read what all items of earlier rounds left
    estimate : `(dataset, header, job) -> Estimate`, needs of one job of each kind
    gpu : kinds of job that use the GPU of a stage that has one; the others compute on the CPU
    threads : CPU threads of which one item makes good use; a CPU job that has more runs several worker processes
    at_once : `(cfg, "cuda" or "cpu") -> int`, items that one process works on at the same time, in threads
    unit : what an item is, in the singular, for progress
    """

    open: Callable[..., WorkPlan]
    item: Callable[..., None]
    rounds: Callable[..., int] = _one
    estimate: Callable[..., Estimate] | None = None
    gpu: tuple[JobKind, ...] = ("open", "part")
    threads: int = 4
    at_once: Callable[..., int] = _one
    unit: str = "item"


@dataclass(frozen=True)
class Stage:
    """A declared stage; see :func:`stage`."""

    name: str
    section: type[Section]
    inputs: Mapping[str, Kind]
    outputs: Mapping[str, Kind]
    function: Callable[..., None]
    optional_inputs: Mapping[str, Kind]
    estimate: Callable[..., Estimate] | None
    reads_inputs: bool
    gpu: bool
    title: str
    scatter: Scatter | None = None
    parallel: bool = False
    files: Callable[..., Sequence[Path]] | None = None

    @property
    def pipeline(self) -> str:
        """First part of the name."""
        return self.name.split(".")[0]

    @property
    def key(self) -> str:
        """Key of the stage's section in a dataset YAML: second part of the name."""
        return self.name.split(".")[1]

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """Every function that computes something of the stage."""
        return (self.function, *((self.scatter.open, self.scatter.item) if self.scatter else ()))

    def parts(self, section: Any) -> int:
        """Jobs that each round is cut into; 1: one job does the whole stage."""
        return int(section.parts) if self.scatter is not None else 1

    def rounds(self, section: Any) -> int:
        """Rounds of a scattered stage; 0 for one that is not."""
        return self.scatter.rounds(section) if self.scatter is not None else 0


# Filled as declaring modules are imported; `gigascope.registry` imports them.
DECLARED: dict[str, Stage] = {}
F = TypeVar("F", bound=Callable[..., None])


def stage(
    name: str,
    section: type[Section],
    *,
    inputs: Mapping[str, Kind],
    outputs: Mapping[str, Kind],
    optional_inputs: Mapping[str, Kind] | None = None,
    estimate: Callable[..., Estimate] | None = None,
    reads_inputs: bool = False,
    gpu: bool = False,
    scatter: Scatter | None = None,
    parallel: bool = False,
    files: Callable[..., Sequence[Path]] | None = None,
) -> Callable[[F], F]:
    """Declare a stage.

    Parameters
    ----------
    name : `pipeline.stage`; the second part is the key of its section in a dataset YAML
    section : config model
    inputs, outputs : names with their kinds
    optional_inputs : inputs that the stage can do without
    estimate : `(dataset, header) -> Estimate`, memory, time and disk from shapes alone, of the whole stage in one job
    reads_inputs : the stage reads the raw files of the dataset's `inputs` section, which is then part of its config
    gpu : the stage runs on a GPU where there is one
    scatter : how its work is cut into the `parts` that its section asks for
    parallel : a CPU stage that makes use of many cores; stages with a GPU or parts do anyway
    files : `(cfg) -> paths` of files that its section names; a change in one of them makes the stage run again

    Raises
    ------
    TypeError : a scattered stage whose section has no key `parts`
    """
    if scatter is not None and "parts" not in section.model_fields:
        raise TypeError(f"{name} is scattered: {section.__name__} needs a key `parts`, the number of jobs")

    def declare(function: F) -> F:
        title = (function.__doc__ or "").strip().split("\n")[0]
        DECLARED[name] = Stage(
            name,
            section,
            inputs,
            outputs,
            function,
            optional_inputs or {},
            estimate,
            reads_inputs,
            gpu,
            title,
            scatter,
            parallel,
            files,
        )
        return function

    return declare


def section_of(dataset: Any, stage: Stage) -> dict[str, Any]:
    """What of a dataset a stage depends on, as JSON values: its section, and `inputs` if it reads the raw files."""
    from gigascope.config.section import dump

    values = dump(getattr(dataset, stage.key))
    return {"inputs": dump(dataset.inputs), stage.key: values} if stage.reads_inputs else {stage.key: values}
