"""A stage is declared once: name, config section, named inputs and outputs, function.

From the declaration follow the command line, the JSON Schema, the fingerprint, the resources and the documentation's
tables. Declaring modules (`*/stages.py`) import their science inside the functions: that keeps the registry free of
torch, and makes the imports of one stage those of its own function, so that its fingerprint is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from gigascope.config.section import Section

if TYPE_CHECKING:
    from gigascope.runtime.resources import Estimate


class Kind(Enum):
    """What an input or output is; the value is the ending of its file name."""

    STORE = ".zarr"
    TABLE = ".tsv"
    FILE = ""


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

    @property
    def pipeline(self) -> str:
        """First part of the name."""
        return self.name.split(".")[0]

    @property
    def key(self) -> str:
        """Key of the stage's section in a dataset YAML: second part of the name."""
        return self.name.split(".")[1]


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
) -> Callable[[F], F]:
    """Declare a stage.

    Parameters
    ----------
    name : `pipeline.stage`; the second part is the key of its section in a dataset YAML
    section : config model
    inputs, outputs : names with their kinds
    optional_inputs : inputs that the stage can do without
    estimate : `(dataset, header) -> Estimate`, memory, time and disk from shapes alone
    reads_inputs : the stage reads the raw files of the dataset's `inputs` section, which is then part of its config
    gpu : the stage runs on a GPU where there is one
    """

    def declare(function: F) -> F:
        title = (function.__doc__ or "").strip().split("\n")[0]
        DECLARED[name] = Stage(
            name, section, inputs, outputs, function, optional_inputs or {}, estimate, reads_inputs, gpu, title
        )
        return function

    return declare


def section_of(dataset: Any, stage: Stage) -> dict[str, Any]:
    """What of a dataset a stage depends on, as JSON values: its section, and `inputs` if it reads the raw files."""
    from gigascope.config.section import dump

    values = dump(getattr(dataset, stage.key))
    return {"inputs": dump(dataset.inputs), stage.key: values} if stage.reads_inputs else {stage.key: values}
