"""The stages of a pipeline run one by one in a folder, in this process or in one of their own, and what they leave."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from gigascope.config.dataset import load_dataset, merge
from gigascope.registry import get_stage
from gigascope.runtime.run import Job, run_stage
from gigascope.stage import Kind
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv

from .preloaded import Program, preloaded


def chance() -> random.Random:
    """Random moments and orders; the seed is printed, so that a failure can be repeated."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def write_dataset(folder: Path, values: Mapping[str, Any], *changes: Mapping[str, Any]) -> Path:
    """The file of a dataset, with changes laid over its keys; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    merged = dict(values)
    for change in changes:
        merged = merge(merged, dict(change))
    path = folder / "data.yaml"
    path.write_text(json.dumps(merged))
    return path


def start(folder: Path, *words: str) -> Program:
    """`gigascope WORDS` as a process of its own; what it says goes to a file `log` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w") as log:
        return preloaded().start(["gigascope", *words], folder, os.environ, log, log)


def finish(folder: Path, *words: str) -> str:
    """The same to its end, which has to be a good one; what it said."""
    code = start(folder, *words).wait()
    said = (folder / "log").read_text()
    assert code == 0, said
    return said


def lines_in(folder: Path, pattern: str) -> int:
    """Lines in all files of such a name below a folder, while others write and remove there."""
    n = 0
    # unlike a glob it goes on where a folder has just been removed
    for parent, _, names in os.walk(folder):
        for name in fnmatch.filter(names, pattern):
            with contextlib.suppress(FileNotFoundError):
                n += Path(parent, name).read_bytes().count(b"\n")
    return n


@dataclass(frozen=True)
class StageRuns:
    """Stages of one pipeline.

    Attributes
    ----------
    pipeline : its name
    files : names of inputs and outputs that are files and no tables
    """

    pipeline: str
    files: Mapping[str, str]

    def paths(self, folder: Path, stage: str) -> tuple[dict[str, Path], dict[str, Path]]:
        """Inputs and outputs of a stage in a results folder; optional inputs only where they are there."""
        declared = get_stage(f"{self.pipeline}.{stage}")

        def path(name: str, kind: Kind) -> Path:
            return folder / self.files.get(name, f"{name}{'.tsv' if kind is Kind.FILE else kind.value}")

        inputs = {n: path(n, k) for n, k in declared.inputs.items()}
        inputs |= {n: p for n, k in declared.optional_inputs.items() if (p := path(n, k)).exists()}
        return inputs, {n: path(n, k) for n, k in declared.outputs.items()}

    def run(
        self, config: Path, folder: Path, stage: str, inputs_from: Path | None = None, job: Job | None = None
    ) -> None:
        """A stage, or one of its jobs, in this process: what a test replaced in a module holds for all items."""
        inputs, _ = self.paths(inputs_from or folder, stage)
        _, outputs = self.paths(folder, stage)
        if job is not None and job.kind != "gather":
            outputs = {}
        run_stage(f"{self.pipeline}.{stage}", config, inputs, outputs, scratch=folder / "scratch", job=job, workers=1)

    def run_in_parts(self, config: Path, folder: Path, stage: str, inputs_from: Path, parts: int) -> None:
        """A stage job by job, as the workflow runs it, parts in any order."""
        declared = get_stage(f"{self.pipeline}.{stage}")
        records = folder / "records"
        order = chance()
        self.run(config, folder, stage, inputs_from, Job("open", records))
        for round_ in range(declared.rounds(getattr(load_dataset(config), stage))):
            for part in order.sample(range(parts), parts):
                self.run(config, folder, stage, inputs_from, Job("part", records, round_, part))
        self.run(config, folder, stage, inputs_from, Job("gather", records))

    def arguments(self, config: Path, folder: Path, stage: str, inputs_from: Path | None = None) -> list[str]:
        """The same as words of `gigascope`."""
        inputs, _ = self.paths(inputs_from or folder, stage)
        _, outputs = self.paths(folder, stage)
        words = ["run", f"{self.pipeline}.{stage}", "--config", str(config), "--scratch", str(folder / "scratch")]
        for option, named in (("--input", inputs), ("--output", outputs)):
            for name, path in named.items():
                words += [option, f"{name}={path}"]
        return words

    def start(self, config: Path, folder: Path, stage: str, inputs_from: Path | None = None) -> Program:
        """The same as a process of its own; what it says goes to a file `log` in the folder."""
        return start(folder, *self.arguments(config, folder, stage, inputs_from))

    def finish(self, config: Path, folder: Path, stage: str, inputs_from: Path | None = None) -> str:
        """The same to its end, which has to be a good one; what it said."""
        return finish(folder, *self.arguments(config, folder, stage, inputs_from))

    def contents(self, folder: Path, stage: str) -> dict[str, Any]:
        """What a stage left: digests of stores and files, columns of tables without the seconds that something took."""
        found: dict[str, Any] = {}
        for path in self.paths(folder, stage)[1].values():
            if path.suffix == ".zarr":
                found[path.name] = open_store(path).digest
            elif path.suffix == ".tsv":
                columns, _ = read_tsv(path)
                found[path.name] = {n: np.asarray(c).tolist() for n, c in columns.items() if not n.endswith("_s")}
            elif path.suffix == ".tif":
                # an OME-TIFF has a UUID of its own, whatever it holds
                found[path.name] = [level.asarray() for level in tifffile.TiffFile(path).series[0].levels]
            else:
                found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def assert_same(self, folder: Path, undisturbed: Path, stage: str) -> None:
        """All that a stage left is what it left elsewhere, bit for bit."""
        mine, theirs = self.contents(folder, stage), self.contents(undisturbed, stage)
        for name in theirs:
            np.testing.assert_equal(mine[name], theirs[name], err_msg=name)
