"""Run one stage: plan, scratch folder, lock, stage function, commit."""

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
from pathlib import Path
from typing import Any

from gigascope.config.section import canonical_json
from gigascope.errors import Checkpointed, UserError
from gigascope.registry import get_stage
from gigascope.runtime import lock, memory, provenance
from gigascope.runtime.context import Context
from gigascope.runtime.device import describe
from gigascope.runtime.fingerprint import fingerprint
from gigascope.runtime.plan import Plan, read_plan
from gigascope.stage import Kind, Stage

STALE_S = 24 * 3600.0
_log = logging.getLogger("gigascope.run")


def run_stage(
    name: str,
    config: Path,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    scratch: Path | None = None,
    time_limit_s: float | None = None,
) -> None:
    """Run a stage from its inputs to its committed outputs.

    Parameters
    ----------
    config : stage config written by the workflow (JSON), or a dataset YAML
    inputs, outputs : paths by name; a store by its folder or by its root `zarr.json`
    scratch : root of scratch folders; default: `.scratch` beside the outputs
    time_limit_s : the job ends after this time; the stage saves and stops before

    Raises
    ------
    UserError : a wrong name, config, input, or a machine that lacks something
    Checkpointed : stopped in time, with its state saved
    """
    begun = time.monotonic()
    stage = get_stage(name)
    plan = read_plan(config, stage)
    inputs = _named(stage.inputs, inputs, f"{name}: input", stage.optional_inputs)
    outputs = _named(stage.outputs, outputs, f"{name}: output")
    root = scratch if scratch is not None else _common_parent(outputs.values()) / ".scratch"
    with _explained(stage):
        digests = Context(stage, dataset=plan.dataset, inputs=inputs, outputs=outputs, scratch=root).input_digests()
        folder = _scratch_folder(root, plan, {k: v["digest"] for k, v in digests.items()})
        with _emptied(folder), lock.held(folder):
            _sweep(folder)
            context = Context(
                stage,
                dataset=plan.dataset,
                inputs=inputs,
                outputs=outputs,
                scratch=folder,
                device=plan.device,
                seed=plan.seed,
                inputs_section=_inputs_section(plan),
                deadline=None if time_limit_s is None else begun + time_limit_s,
            )
            _perform(context, plan, digests)
            for checkpoint in folder.glob("*.checkpoint"):
                checkpoint.unlink()
            (folder / "progress.jsonl").unlink(missing_ok=True)
    gpu = f", {memory.human_bytes(memory.peak_gpu_bytes())} on the GPU" if memory.peak_gpu_bytes() else ""
    peak = memory.human_bytes(memory.peak_bytes())
    _log.info("%s: done in %.1f s, peak memory %s%s", name, time.monotonic() - begun, peak, gpu)


def _perform(context: Context, plan: Plan, digests: dict[str, dict[str, Any]]) -> None:
    """Call the stage function and commit what it wrote; on an error nothing but checkpoints is left."""
    stage = context.stage
    context.checkpoints.listen()
    _first_lines(context, plan)
    written = context.scratch / "outputs"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir()
    try:
        stage.function(context, plan.section(stage))
        if context.missing_outputs():
            raise RuntimeError(f"{stage.name} did not write {', '.join(context.missing_outputs())}")
        context.finish(
            provenance.record(
                stage=stage.name,
                dataset=plan.dataset,
                config=plan.config,
                code=fingerprint(stage.function),
                inputs={**digests, **{path: {"path": path, "digest": d} for path, d in plan.raw.items()}},
                device=describe(context.device) if stage.gpu else "CPU",
                seed=plan.seed,
                command=sys.argv,
            )
        )
    except (UserError, Checkpointed):
        raise
    except Exception as error:
        # A shard that was cut or altered fails somewhere deep in a codec: say which one.
        damaged = context.damaged_inputs()
        if damaged:
            raise UserError(
                f"{'; '.join(damaged)}.", where=stage.name, do="Remove the damaged store and run snakemake again."
            ) from error
        raise
    finally:
        shutil.rmtree(written, ignore_errors=True)
        if not any(context.scratch.glob("*.checkpoint")):
            (context.scratch / "progress.jsonl").unlink(missing_ok=True)


def _inputs_section(plan: Plan) -> object:
    from gigascope.config.dataset import PIPELINES

    model = PIPELINES[plan.stage.split(".")[0]].model_fields["inputs"].annotation
    values = plan.config.get("inputs")
    return None if values is None or model is None else model.model_validate(values)


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
        if other != folder and time.time() - max(p.stat().st_mtime for p in (other, *other.iterdir())) > STALE_S:
            _log.info("removing abandoned scratch folder %s", other)
            shutil.rmtree(other, ignore_errors=True)


def _first_lines(context: Context, plan: Plan) -> None:
    packages = ", ".join(f"{name} {version}" for name, version in plan.packages.items())
    device = describe(context.device) if context.stage.gpu else "CPU"
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
