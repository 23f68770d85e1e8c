"""The workflow's side of the package: which datasets run, and the paths, needs and commands of their stages.

The rule files are only graph; what they call stands here, where it can be tested. Nothing in here imports torch, and
what is computed for a stage is kept, since Snakemake asks for it several times per job.
"""

from __future__ import annotations

import functools
import importlib
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import Field, ValidationError

from gigascope import workflow_cluster as cluster
from gigascope.config.dataset import Dataset, load_dataset, read_yaml
from gigascope.config.section import Section, explain
from gigascope.errors import EXIT_USER, UserError
from gigascope.registry import get_stage, stages
from gigascope.runtime import collector
from gigascope.runtime.plan import Plan, plan_stage
from gigascope.runtime.raw_digest import raw_digests
from gigascope.runtime.resources import Estimate
from gigascope.stage import JobKind, Stage
from gigascope.workflow_files import absent_input, dataset_files
from gigascope.workflow_records import RecordRules
from gigascope.workflow_summary import summary_lines

# More than any stage makes use of; Snakemake takes it down to the machine's cores, a cluster profile to its own limit.
MAX_THREADS = 32
# A gather reads, compresses and hashes, which the disk limits.
GATHER_THREADS = 4
MEMORY_MARGIN = 1.2
# For what glibc keeps of what a process freed: it depends on which thread ran when. Estimates of 0.2 to 1.3 GiB were
# passed by up to 370 MiB, and this sum by nothing (docs/topography.md, "Memory").
KEPT_BYTES = 200 * 2**20
MIN_RUNTIME_MIN = 10
# Folders under the results root that no dataset may be named after.
RESERVED = {"scratch"}

P = ParamSpec("P")
T = TypeVar("T")


class RunConfig(Section):
    """config/config.yaml: what one start of Snakemake runs."""

    datasets: str | tuple[str, ...] = Field(description="dataset YAML files, or globs of them")
    results: str = Field("results", min_length=1, description="folder that results go to")
    gpus: int = Field(
        0,
        ge=0,
        description="GPUs that a job of a GPU stage asks a cluster for; 0: none, and such a stage takes what is there",
    )

    @staticmethod
    def of(config: Mapping[str, Any]) -> RunConfig:
        """Check Snakemake's `config`.

        Raises
        ------
        UserError : wrong keys or values
        """
        try:
            return RunConfig.model_validate(dict(config))
        except ValidationError as error:
            text = [f"{'.'.join(map(str, path))}: {why}" for path, why in explain(error, RunConfig)]
            raise UserError("\n  ".join(text), where="config/config.yaml") from None


@dataclass(frozen=True)
class Workflow:
    """The datasets of one start of Snakemake, and what the rules ask about their stages.

    Attributes
    ----------
    results : results folder, as written in the config
    gpus : see :class:`RunConfig`
    datasets : by name
    notes : one line for each dataset that was left out
    """

    results: str
    gpus: int
    datasets: Mapping[str, Dataset]
    notes: tuple[str, ...] = ()

    @staticmethod
    def load(config: Mapping[str, Any]) -> Workflow:
        """Load and check every dataset that Snakemake's `config` names.

        Raises
        ------
        UserError : wrong keys, missing files, two datasets of one name
        """
        run = RunConfig.of(config)
        found: dict[str, tuple[Path, Dataset]] = {}
        notes = []
        for path in dataset_files(run.datasets):
            dataset = load_dataset(path)
            if dataset.name in found:
                raise UserError(
                    f"two datasets are named {dataset.name}: {found[dataset.name][0]} and {path}.",
                    do="Give each a name of its own (key `name`).",
                )
            if dataset.name in RESERVED:
                raise UserError(f"a dataset cannot be named {dataset.name}.", where=path, do="Choose another `name`.")
            absent = absent_input(dataset) if dataset.optional else None
            if absent is not None:
                notes.append(f"{dataset.name} is left out: {absent} is not there ({path} is optional)")
            else:
                found[dataset.name] = (path, dataset)
        return Workflow(run.results, run.gpus, {name: dataset for name, (_, dataset) in found.items()}, tuple(notes))

    @staticmethod
    def read(config: Path) -> Workflow:
        """Load what a config file of Snakemake names, such as config/config.yaml.

        Raises
        ------
        UserError : no such file, and as :meth:`load`
        """
        values, _ = read_yaml(config, do="Work in the folder of the Snakefile, or give --config FILE.")
        return Workflow.load(values)

    # paths

    def result(self, name: str) -> str:
        """Path pattern of a result of a dataset."""
        root = self.results.replace("{", "{{").replace("}", "}}")
        return f"{root}/{{dataset}}/{name}"

    def store(self, name: str) -> str:
        """Path pattern of a store's root metadata: the last file that a commit puts in place."""
        return self.result(f"{name}.zarr/zarr.json")

    def stage_config(self, stage: str) -> str:
        """Path pattern of the frozen config of a stage."""
        return self.result(f"config/{stage}.json")

    def optional(self, path: str, *, when: str) -> Callable[[Any], str | list[str]]:
        """Input function: `path` in datasets whose config key `when` (`section.key`) is true, nothing in the others."""

        def paths(wildcards: Any) -> str | list[str]:
            value = functools.reduce(getattr, when.split("."), self.datasets[wildcards.dataset])
            return path.format(dataset=wildcards.dataset) if value else []

        return paths

    def named(self, key: str) -> Callable[[Any], list[str]]:
        """Input function: root of the store whose path a config key (`section.key`) holds; nothing where it is empty.

        A store that another dataset of the same run makes is made first.
        """

        def paths(wildcards: Any) -> list[str]:
            value = functools.reduce(getattr, key.split("."), self.datasets[wildcards.dataset])
            return [] if value is None else [str(Path(str(value).removesuffix("/zarr.json"), "zarr.json"))]

        return paths

    def datasets_of(self, pipeline: str) -> str:
        """Regular expression of the names of a pipeline's datasets: what the rules of that pipeline are for.

        Results of equal names are made by rules of several pipelines; without it Snakemake could not choose.
        """
        names = [re.escape(name) for name, dataset in self.datasets.items() if dataset.pipeline == pipeline]
        return "|".join(names) or "(?!)"

    def figure(self, caption: str, category: str) -> dict[str, Any]:
        """Where a result stands in Snakemake's own report, and its caption (workflow/report/<caption>.rst)."""
        return {
            "caption": f"../report/{caption}.rst",
            "category": category,
            "subcategory": "{dataset}",
            "labels": {"dataset": "{dataset}", "result": caption.replace("_", " ")},
        }

    def targets(self, rules: Iterable[Any]) -> list[str]:
        """Every result of every dataset, so that one that got lost is made again.

        Parameters
        ----------
        rules : Snakemake's rules; those of a stage are named after it
        """
        found = []
        for name, dataset in self.datasets.items():
            declared = {stage.name.replace(".", "_"): stage.key for stage in stages(dataset.pipeline)}
            for rule in rules:
                key = declared.get(rule.name)
                if key is not None and dataset.runs(key):
                    found += [str(output.apply_wildcards({"dataset": name})) for output in rule.output]
        return found

    def require_writable(self) -> None:
        """End Snakemake with one message where nothing can be written into the results folder."""
        _for_snakemake(_require_writable)(Path(self.results))

    def require_queue(self, on_cluster: bool) -> None:
        """End Snakemake with one message where the cluster does not answer or earlier jobs of it are at work."""
        if on_cluster:
            _for_snakemake(cluster.require_queue)(Path.cwd())

    def require_shared(self, first: bool) -> None:
        """End a job with one message where it does not see the results; `first`: this Snakemake plans, it is no job."""
        if not first:
            _for_snakemake(cluster.require_shared)(Path(self.results))

    def explain_failure(self, logs: Iterable[str]) -> None:
        """Print what Snakemake does not say of a run that failed; `logs` hold what it did say."""
        said = "".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in logs)
        for why in cluster.unsaid(said):
            print(f"error: {why}", file=sys.stderr, flush=True)

    def summary(self) -> list[str]:
        """What a run has come to, for the terminal; see :mod:`gigascope.workflow_summary`."""
        return summary_lines(self.results, self.datasets)

    def raw(self, wildcards: Any) -> list[str]:
        """Input function: the raw files of a dataset."""
        return [str(path) for path in _for_snakemake(_raw_files)(self.datasets[wildcards.dataset])]

    @functools.cached_property
    def records(self) -> RecordRules:
        """What the rules of scattered stages ask about their records."""
        return RecordRules(self.results, self.datasets)

    # stages

    def plan(self, wildcards: Any) -> str:
        """Params function of the rule that freezes the config of a stage: its text."""
        dataset = self.datasets[wildcards.dataset]
        return _for_snakemake(plan_of)(dataset, wildcards.stage, Path(self.results)).text()

    def threads(self, stage: str, job: JobKind | None = None) -> int | Callable[[Any], int]:
        """Threads of a stage, or of a job of a scattered one: many where it computes, GPU stages also without one."""
        declared = get_stage(stage)
        many = MAX_THREADS if declared.gpu or declared.parallel or declared.scatter is not None else 1
        if declared.scatter is None or job is not None:
            return many
        return lambda wildcards: many if self.records.n_parts(stage, wildcards.dataset) == 1 else GATHER_THREADS

    def resources(self, stage: str, job: JobKind | None = None) -> dict[str, Callable[..., int]]:
        """Memory (growing by half with each attempt), time limit in minutes, and GPUs of a stage, or of a job of it."""
        declared = get_stage(stage)

        def kind(wildcards: Any) -> JobKind | None:
            whole = declared.scatter is None or self.records.n_parts(stage, wildcards.dataset) == 1
            return job or (None if whole else "gather")

        def estimate(wildcards: Any) -> Estimate | None:
            return self._estimate(wildcards.dataset, declared.name, kind(wildcards))

        def mem_mb(wildcards: Any, attempt: int, threads: int = 1) -> int:
            needs = estimate(wildcards)
            n_processes = self._processes(declared, kind(wildcards), wildcards.dataset, threads)
            memory = n_processes * (0 if needs is None else MEMORY_MARGIN * needs.memory + KEPT_BYTES)
            return 2000 if needs is None else math.ceil(memory / 2**20 * 1.5 ** (attempt - 1))

        def runtime(wildcards: Any, attempt: int) -> int:
            needs = estimate(wildcards)
            minutes = 0 if needs is None else math.ceil(3 * needs.seconds / 60)
            return max(MIN_RUNTIME_MIN, minutes) * attempt

        def gpu(wildcards: Any) -> int:
            return self._gpus(declared, kind(wildcards), wildcards.dataset)

        return {"mem_mb": mem_mb, "runtime": runtime, "gpu": gpu}

    @functools.cached_property
    def _estimates(self) -> dict[tuple[str, str, JobKind | None], Estimate | None]:
        return {}

    def _estimate(self, dataset: str, stage: str, job: JobKind | None) -> Estimate | None:
        """Kept by name: Snakemake asks several times per job, and to hash a dataset takes longer than to look it up."""
        key = (dataset, stage, job)
        if key not in self._estimates:
            self._estimates[key] = _for_snakemake(estimate_of)(self.datasets[dataset], stage, job)
        return self._estimates[key]

    def _gpus(self, stage: Stage, job: JobKind | None, dataset: str) -> int:
        on_gpu = stage.gpu and (job is None or (stage.scatter is not None and job in stage.scatter.gpu))
        return gpus_asked(self.datasets[dataset].device, self.gpus) if on_gpu else 0

    def _processes(self, stage: Stage, job: JobKind | None, dataset: str, threads: int) -> int:
        """Worker processes that a job will start, each of which needs the memory of one; see `choose_crew`."""
        if stage.scatter is None or job in ("open", "gather"):
            return 1
        at_once = stage.scatter.at_once(getattr(self.datasets[dataset], stage.key), "cpu")
        return max(1, self._gpus(stage, job, dataset) or threads // (stage.scatter.threads * at_once))

    def run(self, stage: str, job: JobKind | None = None) -> str:
        """Shell command of a stage, or of a job of it; it can be copied from Snakemake's log and repeated by hand.

        The time limit is named only inside a SLURM job: elsewhere nothing ends the stage at that time.
        """
        declared = get_stage(stage)
        words = ["gigascope", "run", stage, "--config {input.config:q}"]
        words += [f"--input {name}={{input.{name}:q}}" for name in declared.inputs]
        # An array that is empty or holds one path: an optional input that is not there leaves no word behind.
        arrays = [f"{name}=({{input.{name}:q}})" for name in declared.optional_inputs]
        words += [f'"${{{{{name}[@]/#/--input={name}=}}}}"' for name in declared.optional_inputs]
        if job in (None, "gather"):
            words += [f"--output {name}={{output.{name}:q}}" for name in declared.outputs]
        scratch = f"{self.results}/scratch".replace("{", "{{").replace("}", "}}").replace("'", "'\\''")
        words.append(f"--scratch '{scratch}'")
        if declared.scatter is not None:
            words.append(f"--records '{scratch}'/{{wildcards.dataset:q}}/{stage}.records")
        words += {"open": ["--open"], "part": ["--round {wildcards.round} --part {wildcards.part}"]}.get(job or "", [])
        words.append("${{SLURM_JOB_ID:+--time-limit-min {resources.runtime}}}")
        return " ".join([*[f"{array};" for array in arrays], *words, "> {log:q} 2>&1"])


def gpus_asked(device: str, gpus: int) -> int:
    """GPUs that a job of a GPU stage asks for.

    `device: cpu` asks for none and `device: cuda` for at least one. `auto` asks for what config.yaml says, by default
    none: a cluster without GPUs would never start a job that asks for one.
    """
    if device == "cpu":
        return 0
    return max(gpus, 1) if device.startswith("cuda") else gpus


def _for_snakemake(function: Callable[P, T]) -> Callable[P, T]:
    """End Snakemake with a UserError's message alone: raised as it is, Snakemake would add frames of our code."""

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> T:
        try:
            return function(*arguments, **keywords)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_USER) from None

    return call


load = _for_snakemake(Workflow.load)


@_for_snakemake
def prepare(on_cluster: bool) -> None:
    """Before anything else; ends Snakemake as :func:`gigascope.workflow_cluster.bring_own_commands` says."""
    collector.collect_rarely()
    cluster.bring_own_commands(on_cluster)
    if on_cluster:
        cluster.keep_jobs_in_sight()


def _require_writable(results: Path) -> None:
    try:
        results.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=results).close()
    except OSError as error:
        raise UserError(
            f"the results folder cannot be written: {error.strerror}.",
            where=results.resolve(),
            do="Choose another one (key `results` in config/config.yaml), or put this one right.",
        ) from None


def _chain(dataset: Dataset, module: str) -> Any:
    """Module of a pipeline: each has one that knows its headers (`plan`) and one that knows its raw files (`raw`)."""
    return importlib.import_module(f"gigascope.{dataset.pipeline}.{module}")


@functools.cache
def _raw_files(dataset: Dataset) -> tuple[Path, ...]:
    files: tuple[Path, ...] = _chain(dataset, "raw").raw_files(dataset)
    return files


@functools.cache
def plan_of(dataset: Dataset, name: str, results: Path) -> Plan:
    """What a stage of a dataset would be run with now."""
    stage: Stage = get_stage(name)
    raw = raw_digests(_raw_files(dataset), results / dataset.name / ".raw.json") if stage.reads_inputs else {}
    if stage.files is not None:
        named = stage.files(getattr(dataset, stage.key))
        raw |= raw_digests(named, results / dataset.name / f".{stage.key}.json")
    return plan_stage(dataset, stage, raw)


@functools.cache
def estimate_of(dataset: Dataset, name: str, job: JobKind | None = None) -> Estimate | None:
    """What a stage, or a job of a scattered one, states that it needs; none: it states nothing."""
    stage = get_stage(name)
    function = stage.estimate
    if job is not None and stage.scatter is not None and stage.scatter.estimate is not None:
        function = functools.partial(stage.scatter.estimate, job=job)
    return None if function is None else function(dataset, _chain(dataset, "plan").read_header(dataset))
