"""What is known of the runs that made a finished dataset, one per stage; what is unfinished or changed is refused.

Stages with a store kept their provenance in it. Of the others (tables, the page) the frozen config, the log and
Snakemake's benchmark tell the same, and their files when they ended.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gigascope.config.dataset import Dataset
from gigascope.config.section import canonical_json
from gigascope.crate.rule_files import RuleFiles, rule_files
from gigascope.errors import UserError
from gigascope.registry import stages
from gigascope.runtime.context import file_digest
from gigascope.runtime.raw_digest import quick_digest
from gigascope.stage import Kind, Stage, section_of
from gigascope.store.checksum import TABLE
from gigascope.store.open import StoreReader, open_store

_STARTED = re.compile(r"^\S+ I (\S+) of \S+, code (\w+), device (.+), seed (\d+); ", re.MULTILINE)
_CONFIG = re.compile(r"^\S+ I config: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Data:
    """An input or output of a stage.

    Attributes
    ----------
    file : its path below the results folder; none: it lies elsewhere
    path : where it is, or was when it was read
    store : it is a store
    digest : content digest of a store, SHA-256 of a file; of raw data the quick digest of 16 digits
    n_bytes : its size; none: unknown
    n_files : of a store
    image : it is a store with images (OME-Zarr)
    """

    file: str | None
    path: Path
    store: bool
    digest: str
    n_bytes: int | None = None
    n_files: int = 0
    image: bool = False


@dataclass(frozen=True)
class Run:
    """One run of one stage.

    Attributes
    ----------
    config : its section, as JSON values
    code : digest of its code
    packages : version by name
    device : what it computed on, for people; empty: not kept
    inputs, outputs : by name
    raw : files from outside that it read
    started, ended : none: not kept
    wall_s, peak_bytes, peak_gpu_bytes : of all its jobs; none: not kept
    command : empty: not kept
    n_jobs : jobs that it was cut into
    """

    stage: Stage
    config: Mapping[str, Any]
    seed: int
    code: str
    packages: Mapping[str, str]
    device: str
    inputs: Mapping[str, Data]
    outputs: Mapping[str, Data]
    raw: tuple[Data, ...]
    started: datetime | None
    ended: datetime
    wall_s: float | None
    peak_bytes: int | None
    peak_gpu_bytes: int
    command: tuple[str, ...] = ()
    host: str = ""
    python: str = ""
    version: str = ""
    n_jobs: int = 1


def runs_of(folder: Path, dataset: Dataset, root: Path) -> list[Run]:
    """The runs that made a result, in order.

    Parameters
    ----------
    folder : of the result
    root : folder of the Snakefile

    Raises
    ------
    UserError : stages are missing, or the result is not what the dataset and its own inputs would give
    """
    result = _Result(folder, dataset, root)
    if missing := list(result.missing()):
        what = f"is not finished, {len(missing)} of {len(result.stages)} stages are missing: {'; '.join(missing)}."
        raise UserError(what, where=folder, do="Run snakemake to its end first.")
    if changed := list(result.changed()):
        what = f"is not up to date: {'; '.join(changed)}."
        raise UserError(what, where=folder, do=f"Run snakemake again; `gigascope explain {folder}` says more.")
    return [result.run(stage) for stage in result.stages]


class _Result:
    """A results folder, of which every store is opened and every file digested once."""

    def __init__(self, folder: Path, dataset: Dataset, root: Path) -> None:
        self.folder = folder
        self.dataset = dataset
        self.stages = [stage for stage in stages(dataset.pipeline) if dataset.runs(stage.key)]
        self.files: dict[str, RuleFiles] = {stage.name: rule_files(stage, root) for stage in self.stages}
        self.made = {file for files in self.files.values() for file in files.outputs.values()}
        self.plan, self.log = functools.cache(self._plan), functools.cache(self._log)
        self.reader, self.data = functools.cache(self._reader), functools.cache(self._data)

    # what there is

    def _plan(self, stage: str) -> dict[str, Any] | None:
        """The frozen config of a stage; none: it was never planned."""
        try:
            values: dict[str, Any] = json.loads((self.folder / "config" / f"{stage}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values

    def _reader(self, file: str) -> StoreReader:
        """A store of the result."""
        return open_store(self.folder / file)

    def _data(self, file: str) -> Data:
        """A store or file of the result, as it is now."""
        path = self.folder / file
        if not file.endswith(Kind.STORE.value):
            return Data(file, path, False, file_digest(path), path.stat().st_size)
        reader = self.reader(file)
        # Every file of a store stands in its table of checksums, with its size: the store itself is not walked.
        sizes = reader.columns(TABLE, ["bytes"])["bytes"]
        n_bytes = int(sizes.sum()) + (path / "zarr.json").stat().st_size
        image = reader.has_image or bool(reader.images)
        return Data(file, path, True, reader.digest, n_bytes, len(sizes) + 1, image)

    def stores(self, stage: Stage) -> list[StoreReader]:
        """Stores that a stage made."""
        files = self.files[stage.name].outputs
        return [self.reader(files[name]) for name, kind in stage.outputs.items() if kind is Kind.STORE]

    def _log(self, stage: str) -> str:
        """What a stage said; empty: not kept."""
        try:
            return (self.folder / "logs" / f"{stage}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    # whether it can be described

    def missing(self) -> Iterator[str]:
        """Stages that were not run to their end, and why."""
        for stage in self.stages:
            if self.plan(stage.name) is None:
                yield f"{stage.name} (was never run by snakemake)"
                continue
            for name in stage.outputs:
                file = self.files[stage.name].outputs[name]
                why = self._absent(file)
                if why is not None:
                    yield f"{stage.name} ({file}: {why})"
                    break

    def _absent(self, file: str) -> str | None:
        if not file.endswith(Kind.STORE.value):
            return None if (self.folder / file).is_file() else "there is no such file"
        try:
            self.reader(file)
        except UserError as error:
            return error.what.removesuffix(".")
        return None

    def changed(self) -> Iterator[str]:
        """Stages whose result is not the one that dataset, frozen config and inputs stand for, and why."""
        for stage in self.stages:
            plan = self.plan(stage.name) or {}
            config = plan.get("config")
            if config != section_of(self.dataset, stage) or plan.get("seed") != self.dataset.seed:
                yield f"{stage.name} has other settings in the YAML than it was planned with"
            elif not self._as_planned(stage, plan):
                yield f"{stage.name} was planned anew and not run since"
            else:
                yield from self._other_inputs(stage)

    def _as_planned(self, stage: Stage, plan: Mapping[str, Any]) -> bool:
        made = [reader.provenance for reader in self.stores(stage)]
        if made:
            return all(one[key] == plan[key] for one in made for key in ("config", "code", "seed"))
        started, config = _STARTED.search(self.log(stage.name)), _CONFIG.search(self.log(stage.name))
        return (started is None or started[2] == plan["code"]) and (
            config is None or config[1] == canonical_json(plan["config"])
        )

    def _other_inputs(self, stage: Stage) -> Iterator[str]:
        files = self.files[stage.name]
        kept = self.stores(stage)
        if kept:
            for name, item in kept[0].provenance["inputs"].items():
                file = files.inputs.get(name)
                now = self._digest(file) if file is not None else _digest_outside(Path(item["path"]))
                if now != item["digest"] and (file is not None or now is not None):
                    yield f"{file or item['path']} is another one than {stage.name} was made from"
            return
        ended = self._ended(stage)
        for file in self._inputs_by_rule(stage).values():
            made = self.reader(file).provenance["finished"] if file.endswith(Kind.STORE.value) else None
            if made is not None and datetime.fromisoformat(made) > ended:
                yield f"{file} is newer than what {stage.name} made of it"

    def _digest(self, file: str) -> str | None:
        return self.data(file).digest if self._absent(file) is None else None

    def _inputs_by_rule(self, stage: Stage) -> dict[str, str]:
        """Inputs of a stage that kept no record of them; optional ones where a stage of this dataset makes them."""
        return {name: file for name, file in self.files[stage.name].inputs.items() if file in self.made}

    def _ended(self, stage: Stage) -> datetime:
        """When the last file of a stage was written, in whole seconds as records have it."""
        files = self.files[stage.name].outputs.values()
        return datetime.fromtimestamp(int(max((self.folder / file).stat().st_mtime for file in files)), UTC)

    # the runs

    def run(self, stage: Stage) -> Run:
        """The run of a stage, all of it read before."""
        outputs = {name: self.data(file) for name, file in self.files[stage.name].outputs.items()}
        kept = self.stores(stage)
        return self._recorded(stage, kept[0].provenance, outputs) if kept else self._unrecorded(stage, outputs)

    def _recorded(self, stage: Stage, made: Mapping[str, Any], outputs: Mapping[str, Data]) -> Run:
        files = self.files[stage.name].inputs
        kinds = {**stage.inputs, **stage.optional_inputs}
        inputs, raw = {}, []
        for name, item in made["inputs"].items():
            if name in files and name in kinds:
                inputs[name] = self.data(files[name])
            elif name in kinds:
                inputs[name] = Data(None, Path(item["path"]), kinds[name] is Kind.STORE, item["digest"])
            else:
                raw.append(Data(None, Path(item["path"]), False, item["digest"]))
        jobs = made.get("scatter", {})
        n_jobs = jobs.get("parts", 1)
        wall_s, ended = made["wall_s"], datetime.fromisoformat(made["finished"])
        # Of a stage in several jobs the record is that of the last one, and of what the others took.
        started = ended - timedelta(seconds=wall_s) if n_jobs == 1 else None
        return Run(
            stage,
            made["config"],
            made["seed"],
            made["code"],
            made["packages"],
            made["device"],
            inputs,
            outputs,
            tuple(raw),
            started,
            ended,
            wall_s if n_jobs == 1 else wall_s + jobs["wall_s"],
            max(made["peak_memory_bytes"], jobs.get("peak_memory_bytes", 0)),
            max(made["peak_gpu_memory_bytes"], jobs.get("peak_gpu_memory_bytes", 0)),
            tuple(made["command"]),
            made["host"],
            made["python"],
            made["gigascope"],
            n_jobs,
        )

    def _unrecorded(self, stage: Stage, outputs: Mapping[str, Data]) -> Run:
        plan = self.plan(stage.name) or {}
        started = _STARTED.search(self.log(stage.name))
        bench = self._benchmark(stage.name)
        ended = self._ended(stage)
        wall_s = bench.get("s")
        return Run(
            stage,
            plan["config"],
            plan["seed"],
            plan["code"],
            plan["packages"],
            started[3] if started else "",
            {name: self.data(file) for name, file in self._inputs_by_rule(stage).items()},
            outputs,
            (),
            None if wall_s is None else ended - timedelta(seconds=wall_s),
            ended,
            wall_s,
            int(bench["max_rss"] * 2**20) if "max_rss" in bench else None,
            0,
        )

    def _benchmark(self, stage: str) -> dict[str, float]:
        """Snakemake's measurements of the last job of a stage; memory in MiB, `-` where it was too short to measure."""
        try:
            text = (self.folder / "benchmarks" / f"{stage}.tsv").read_text(encoding="utf-8")
            head, values = (line.split("\t") for line in text.splitlines()[:2])
        except (OSError, ValueError):
            return {}
        return {k: float(v) for k, v in zip(head, values) if re.fullmatch(r"\d+(\.\d+)?", v)}


def _digest_outside(path: Path) -> str | None:
    """Digest of what came from outside as it is now; none: it is gone, or a folder of many raw files."""
    if path.suffix == Kind.STORE.value:
        try:
            return open_store(path).digest
        except UserError:
            return None
    return quick_digest(path) if path.is_file() else None
