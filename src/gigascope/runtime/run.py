"""Run one stage, or one job of a scattered one: plan, scratch folder, lock, stage function, commit."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gigascope.config.section import canonical_json
from gigascope.errors import UserError
from gigascope.registry import get_stage
from gigascope.runtime import collector, lock, memory, provenance
from gigascope.runtime.context import Context
from gigascope.runtime.device import describe
from gigascope.runtime.fingerprint import fingerprint
from gigascope.runtime.plan import Plan, read_plan
from gigascope.stage import JobKind, Kind, Stage

STALE_S = 24 * 3600.0
_log = logging.getLogger("gigascope.run")


@dataclass(frozen=True)
class Job:
    """One job of a scattered stage.

    Attributes
    ----------
    kind : which
    records : folder of the records
    round, part : of a part, from 0
    """

    kind: JobKind
    records: Path
    round: int = 0
    part: int = 0


def job_of(records: Path | None, opens: bool, round_: int | None, part: int | None) -> Job | None:
    """The job that the options of the command line name; none: the whole stage.

    Raises
    ------
    UserError : options that do not go together
    """
    mixed = (round_ is None) != (part is None) or (opens and part is not None)
    if mixed or (records is None and (opens or part is not None)):
        do = "Give --records DIR alone (the gather), with --open, or with --round R --part P."
        raise UserError("these options name no job of a stage.", do=do)
    if records is None:
        return None
    if round_ is not None and part is not None:
        return Job("part", records, round_, part)
    return Job("open" if opens else "gather", records)


def run_stage(
    name: str,
    config: Path,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    scratch: Path | None = None,
    time_limit_s: float | None = None,
    job: Job | None = None,
    workers: int | None = None,
) -> None:
    """Run a stage from its inputs to its committed outputs, or one job of a scattered stage.

    Parameters
    ----------
    config : stage config written by the workflow (JSON), or a dataset YAML
    inputs, outputs : paths by name; a store by its folder or by its root `zarr.json`
    scratch : root of scratch folders; default: `.scratch` beside the outputs
    time_limit_s : the job ends after this time; the stage saves and stops before
    job : which job of a scattered stage; none: the whole stage. A gather of a stage in one part is the whole stage
    workers : worker processes of a scattered stage; none: one per GPU, or as the CPUs allow

    Raises
    ------
    UserError : a wrong name, config, input, or a machine that lacks something
    Checkpointed : stopped in time, with its state saved
    """
    begun = time.monotonic()
    stage = get_stage(name)
    if job is not None and stage.scatter is None:
        raise UserError(f"{name} is not scattered: it is one job.", do="Leave out --records.")
    if job is not None and scratch is None:
        raise UserError("jobs of a stage share a scratch folder.", do="Give its root with --scratch DIR.")
    plan = read_plan(config, stage)
    inputs = _named(stage.inputs, inputs, f"{name}: input", stage.optional_inputs)
    if job is None or job.kind == "gather":
        outputs = _named(stage.outputs, outputs, f"{name}: output")
    root = scratch if scratch is not None else _common_parent(outputs.values()) / ".scratch"
    deadline = None if time_limit_s is None else begun + time_limit_s
    with _explained(stage):
        digests = Context(stage, dataset=plan.dataset, inputs=inputs, outputs=outputs, scratch=root).input_digests()
        folder = _scratch_folder(root, plan, {k: v["digest"] for k, v in digests.items()})
        run = _Run(stage, plan, inputs, outputs, folder, digests, deadline)
        with _emptied(folder):
            if stage.scatter is not None:
                _scattered(run, job, workers)
            else:
                with lock.held(folder):
                    _sweep(folder)
                    _perform(run)
    gpu = f", {memory.human_bytes(memory.peak_gpu_bytes())} on the GPU" if memory.peak_gpu_bytes() else ""
    peak = memory.human_bytes(memory.peak_bytes())
    _log.info("%s: done in %.1f s, peak memory %s%s", name, time.monotonic() - begun, peak, gpu)


@dataclass(frozen=True)
class _Run:
    """A stage with all that one run of it is about."""

    stage: Stage
    plan: Plan
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    folder: Path
    digests: dict[str, dict[str, Any]]
    deadline: float | None

    def provenance(self, device: str, more: Mapping[str, Any]) -> dict[str, Any]:
        """What the stores will say of this run."""
        raw = {path: {"path": path, "digest": digest} for path, digest in self.plan.raw.items()}
        return provenance.record(
            stage=self.stage.name,
            dataset=self.plan.dataset,
            config=self.plan.config,
            code=fingerprint(*self.stage.functions),
            inputs={**self.digests, **raw},
            device=device,
            seed=self.plan.seed,
            command=sys.argv,
            **more,
        )


def _perform(run: _Run) -> None:
    """Call the stage function and commit what it wrote; on an error nothing but checkpoints is left."""
    stage, plan, folder = run.stage, run.plan, run.folder
    context = Context(
        stage,
        dataset=plan.dataset,
        inputs=run.inputs,
        outputs=run.outputs,
        scratch=folder,
        device=plan.device,
        seed=plan.seed,
        inputs_section=plan.inputs_section(),
        deadline=run.deadline,
    )
    context.checkpoints.listen()
    device = describe(context.device) if stage.gpu else "CPU"
    _first_lines(plan, device)
    collector.collect_as_usual()
    written = folder / "outputs"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir()
    try:
        with context.blaming_inputs():
            stage.function(context, plan.section(stage))
            if context.missing_outputs():
                raise RuntimeError(f"{stage.name} did not write {', '.join(context.missing_outputs())}")
            context.finish(run.provenance(device, {}))
    finally:
        shutil.rmtree(written, ignore_errors=True)
        if not any(folder.glob("*.checkpoint")):
            (folder / "progress.jsonl").unlink(missing_ok=True)
    for checkpoint in folder.glob("*.checkpoint"):
        checkpoint.unlink()
    (folder / "progress.jsonl").unlink(missing_ok=True)


def _scattered(run: _Run, job: Job | None, workers: int | None) -> None:
    """Do one job of a scattered stage, or all of them; what is finished is kept on an error, in the work folder."""
    from gigascope.runtime.scatter import ScatteredRun

    stage, plan = run.stage, run.plan
    if job is not None and job.kind == "gather" and stage.parts(plan.section(stage)) == 1:
        job = None
    records = None if job is None else job.records
    scattered = ScatteredRun(
        stage, plan, run.inputs, run.folder, record_folder=records, deadline=run.deadline, workers=workers
    )
    device = scattered.device(None if job is None else job.kind)
    _first_lines(plan, device)
    collector.collect_as_usual()
    if job is None or job.kind == "open":
        _sweep(run.folder)
    if job is None:
        scattered.whole(run.outputs, partial(run.provenance, device))
    elif job.kind == "open":
        scattered.open()
    elif job.kind == "part":
        scattered.part(job.round, job.part)
    else:
        scattered.gather(run.outputs, partial(run.provenance, device))


def _named(
    declared: Mapping[str, Kind], given: Mapping[str, Path], what: str, optional: Mapping[str, Kind] | None = None
) -> dict[str, Path]:
    """Paths by declared name; a store's root `zarr.json` stands for its folder."""
    allowed = {**declared, **(optional or {})}
    for name in declared:
        if name not in given:
            raise UserError(f"{what} {name} is missing.", do=f"Give --{what.split()[-1]} {name}=PATH.")
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise UserError(f"{what} {unknown[0]} is unknown.", do=f"Known: {', '.join(allowed) or 'none'}.")
    return {name: given[name].parent if given[name].name == "zarr.json" else given[name] for name in given}


def _common_parent(paths: object) -> Path:
    return Path(os.path.commonpath([str(p.absolute().parent) for p in paths]))  # type: ignore[attr-defined]


def _scratch_folder(root: Path, plan: Plan, inputs: dict[str, str]) -> Path:
    """Scratch folder named after config, code and inputs, so that no attempt meets another's checkpoint."""
    digest = hashlib.sha256(canonical_json([plan.text(), inputs]).encode()).hexdigest()[:12]
    folder = root / plan.dataset / f"{plan.stage}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """Remove the folder afterwards if nothing is left in it, and its parents likewise."""
    try:
        yield
    finally:
        for empty in (folder, folder.parent, folder.parent.parent):
            try:
                empty.rmdir()
            except OSError:
                break


def _sweep(folder: Path) -> None:
    """Remove abandoned scratch folders of the same stage: another digest, untouched for a day."""
    stage = folder.name.rpartition("-")[0]
    for other in folder.parent.glob(f"{stage}-*"):
        # The lock of a part that is at work lies one folder further down.
        inside = (other, *other.iterdir(), *other.glob("*/*"))
        if other != folder and time.time() - max(p.stat().st_mtime for p in inside) > STALE_S:
            _log.info("removing abandoned scratch folder %s", other)
            shutil.rmtree(other, ignore_errors=True)


def _first_lines(plan: Plan, device: str) -> None:
    packages = ", ".join(f"{name} {version}" for name, version in plan.packages.items())
    _log.info(
        "%s of %s, code %s, device %s, seed %d; %s", plan.stage, plan.dataset, plan.code, device, plan.seed, packages
    )
    _log.info("config: %s", canonical_json(plan.config))


@contextmanager
def _explained(stage: Stage) -> Iterator[None]:
    """Turn what a full disk, a read-only folder or too little memory throws into a message for a person."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: ("the disk is full", "Free some space"),
            errno.EDQUOT: ("the disk quota is used up", "Free some space"),
            errno.EROFS: ("the disk is read-only", "Choose another results folder"),
            errno.EACCES: ("permission denied", "Choose a results folder you may write to"),
        }
        if error.errno not in reasons:
            raise
        what, do = reasons[error.errno]
        raise UserError(
            f"{what}.", where=error.filename or stage.name, do=f"{do} and start again: nothing half-written was kept."
        ) from error
    except MemoryError as error:
        raise memory.out_of_memory(stage.name, error) from error
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise memory.out_of_memory(stage.name, error) from error
