"""What a running stage is handed: its inputs and outputs by name, device, seed, log, progress, checkpoints, scratch.

Everything that a stage writes goes into its scratch folder first. Only when the stage function has returned are the
stores verified, given their completion records and renamed into place, all together.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gigascope.errors import Checkpointed, UserError
from gigascope.runtime import rng
from gigascope.runtime.checkpoint import Checkpoints, Resumable
from gigascope.runtime.device import choose_device
from gigascope.runtime.progress import Progress
from gigascope.stage import Kind, Stage

if TYPE_CHECKING:
    import torch

    from gigascope.store.create import ImageWriter, StoreWriter
    from gigascope.store.ensemble import EnsembleWriter
    from gigascope.store.open import StoreReader

Computation = TypeVar("Computation", bound=Resumable[Any])
T = TypeVar("T")


class Context:
    """The surroundings of one run of a stage.

    Attributes
    ----------
    stage : the declaration
    dataset : name of the dataset
    inputs_section : the dataset's `inputs`, for a stage that reads raw files
    scratch : folder for what is not kept
    seed : the dataset's seed; see :meth:`random`
    log : logger of the stage
    progress : wraps a loop and reports how far it is
    checkpoints : runs a resumable computation
    work : of a scattered stage: what its parts share; see :mod:`gigascope.runtime.shared_work`
    """

    work: Any

    def __init__(
        self,
        stage: Stage,
        *,
        dataset: str,
        inputs: Mapping[str, Path],
        outputs: Mapping[str, Path],
        scratch: Path,
        device: str = "auto",
        seed: int = 0,
        inputs_section: Any = None,
        deadline: float | None = None,
    ) -> None:
        self.stage = stage
        self.dataset = dataset
        self.inputs_section = inputs_section
        self.scratch = scratch
        self.seed = seed
        self.log = logging.getLogger(f"gigascope.{stage.name}")
        self.progress = Progress(scratch / "progress.jsonl")
        self.checkpoints = Checkpoints(scratch, deadline=deadline)
        self._device = device
        self._inputs = dict(inputs)
        self._outputs = dict(outputs)
        self._readers: dict[str, StoreReader] = {}
        self._writers: dict[str, StoreWriter] = {}
        self._written: set[str] = set()
        self._kept: dict[str, Any] = {}
        self._keeping = threading.RLock()
        self.warnings: list[str] = []

    def inside(self, folder: Path, work: Any) -> Context:
        """The surroundings of one item of a scattered stage: checkpoints and warnings of its own, the rest shared."""
        other = copy.copy(self)
        other.work = work
        other.scratch = folder
        other.warnings = []
        other.checkpoints = self.checkpoints.inside(folder)
        other.progress = Progress(bar=False)
        return other

    @functools.cached_property
    def device(self) -> torch.device:
        """Device to compute on."""
        return choose_device(self._device)

    def random(self, *key: str | int) -> np.random.Generator:
        """Random numbers of this stage for one purpose, the same in every run."""
        return rng.generator(self.seed, self.stage.name, *key)

    def warn(self, message: str) -> None:
        """Say something the user should know; it also goes into the report."""
        self.log.warning("%s", message)
        self.warnings.append(message)

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returned the first time in this process: costly set-up that the items of a stage share."""
        with self._keeping:
            if name not in self._kept:
                self._kept[name] = make()
            kept: T = self._kept[name]
            return kept

    def solve(self, name: str, computation: Computation, *, what: str, total: int | None = None) -> Computation:
        """Run a resumable computation to its end: with progress, checkpoints, and from its checkpoint if there is one.

        Raises
        ------
        Checkpointed : the job has to stop; the state was saved
        """
        for _ in self.progress(self.checkpoints.run(name, computation), what=what, unit="update", total=total):
            pass
        return computation

    # inputs

    def input_path(self, name: str) -> Path:
        """Path of an input."""
        return self._inputs[name]

    def has(self, name: str) -> bool:
        """An optional input was given."""
        return name in self._inputs

    def open(self, name: str) -> StoreReader:
        """A complete store among the inputs.

        Raises
        ------
        UserError : missing, unfinished or not a store of ours
        """
        if name not in self._readers:
            from gigascope.store.open import open_store

            self._readers[name] = open_store(self._inputs[name])
        return self._readers[name]

    def input_digests(self) -> dict[str, dict[str, Any]]:
        """Path and content digest of every input."""
        found = {}
        kinds = {**self.stage.inputs, **self.stage.optional_inputs}
        for name, path in self._inputs.items():
            kind = kinds[name]
            digest = self.open(name).digest if kind is Kind.STORE else file_digest(path)
            found[name] = {"path": str(path), "digest": digest}
        return found

    def damaged_inputs(self) -> list[str]:
        """What is wrong with the input stores, shard by shard, compared with their checksums."""
        from gigascope.store.checksum import verify

        kinds = {**self.stage.inputs, **self.stage.optional_inputs}
        stores = [path for name, path in self._inputs.items() if kinds[name] is Kind.STORE]
        return [f"{path}: {problem}" for path in stores for problem in verify(path)]

    @contextmanager
    def blaming_inputs(self) -> Iterator[None]:
        """A shard that was cut or altered fails somewhere deep in a codec: say which one."""
        try:
            yield
        except (UserError, Checkpointed):
            raise
        except Exception as error:
            damaged = self.damaged_inputs()
            if not damaged:
                raise
            do = "Remove the damaged store and run snakemake again."
            raise UserError(f"{'; '.join(damaged)}.", where=self.stage.name, do=do) from error

    # outputs

    def create(self, name: str, **image: Any) -> ImageWriter:
        """A new store, in scratch, for the output of that name; see :func:`gigascope.store.create.create_image`."""
        from gigascope.store.create import create_image

        if self.stage.outputs[name] is not Kind.STORE:
            raise KeyError(f"{self.stage.name}: output {name} is no store")
        writer = create_image(self.scratch_path(name), name=name, **image)
        self.adopt(name, writer)
        return writer

    def create_ensemble(self, name: str) -> EnsembleWriter:
        """A new store of many images, in scratch, for the output of that name; see :mod:`gigascope.store.ensemble`."""
        from gigascope.store.ensemble import create_ensemble

        if self.stage.outputs[name] is not Kind.STORE:
            raise KeyError(f"{self.stage.name}: output {name} is no store")
        writer = create_ensemble(self.scratch_path(name))
        self.adopt(name, writer)
        return writer

    def adopt(self, name: str, writer: StoreWriter) -> None:
        """Take an unfinished store as the output of that name."""
        self._writers[name] = writer
        self._written.add(name)

    def written(self, name: str) -> Any:
        """The unfinished store of an output, as the `open` function of a scattered stage created it."""
        return self._writers[name]

    @property
    def writers(self) -> Mapping[str, StoreWriter]:
        """Unfinished stores by the name of their output."""
        return self._writers

    def path(self, name: str) -> Path:
        """Scratch path at which to write the file output of that name."""
        self._written.add(name)
        return self.scratch_path(name)

    def write_table(self, name: str, columns: Mapping[str, Any], units: Mapping[str, str] | None = None) -> None:
        """Write a TSV output."""
        from gigascope.store.table import write_tsv

        write_tsv(self.path(name), dict(columns), dict(units or {}))

    def write_parquet(self, name: str, columns: Mapping[str, Any], units: Mapping[str, str] | None = None) -> None:
        """Write a Parquet output."""
        from gigascope.store.table import write_parquet

        write_parquet(self.path(name), dict(columns), dict(units or {}))

    def scratch_path(self, name: str) -> Path:
        """Where an output is written before it is published."""
        store = self.stage.outputs[name] is Kind.STORE
        return self.scratch / "outputs" / (f"{name}{Kind.STORE.value}" if store else self._outputs[name].name)

    def missing_outputs(self) -> Sequence[str]:
        """Outputs that the stage has not written."""
        return [name for name in self.stage.outputs if name not in self._written]

    def finish(self, provenance: dict[str, Any], check: Callable[[], None] = lambda: None) -> None:
        """Verify every store and give it its completion record, `check`, and then move all outputs into place."""
        from gigascope.store.commit import finish, publish

        for writer in self._writers.values():
            finish(writer, {**provenance, "warnings": self.warnings})
        check()
        publish([(self.scratch_path(name), path) for name, path in self._outputs.items()])


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
