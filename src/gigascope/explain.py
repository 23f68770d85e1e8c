"""`gigascope explain`: what a rerun of a result would do differently from the run that made it, key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from gigascope.config.dataset import Dataset
from gigascope.errors import UserError
from gigascope.registry import stages
from gigascope.runtime.context import file_digest
from gigascope.runtime.fingerprint import fingerprint
from gigascope.runtime.plan import Plan
from gigascope.stage import Kind, Stage
from gigascope.store.open import StoreReader, open_store
from gigascope.workflow import Workflow, plan_of

# Modules that are named; of more, only their number.
_SHOWN = 6


@dataclass(frozen=True)
class Made:
    """What is known of how a stage's result came to be.

    Attributes
    ----------
    config : its section, as JSON values
    code, modules, packages : fingerprint; no modules: not kept
    seed : of the dataset
    inputs : path and digest by name, raw files by their path; none: not kept
    """

    config: Mapping[str, Any]
    code: str
    modules: Mapping[str, str] | None
    packages: Mapping[str, str]
    seed: int
    inputs: Mapping[str, Mapping[str, str]] | None


def print_explain(path: Path, config: Path) -> None:
    """Print, for every stage of a results folder or for the one that made a store, what differs and why.

    Raises
    ------
    UserError : no such result, or no dataset of that name in the config
    """
    flow = Workflow.read(config)
    folder, only = _place(path)
    dataset = flow.datasets.get(folder.name)
    if dataset is None:
        do = f"Known: {', '.join(flow.datasets)}. Name its YAML in `datasets` there, or give --config FILE."
        raise UserError(f"no dataset is named {folder.name!r}.", where=config, do=do)
    console = Console(soft_wrap=True, highlight=False)
    found = list(explain(folder, dataset, Path(flow.results)))
    for stage, reasons in found:
        if only is None or stage.name == only:
            mark = "[yellow]runs again[/yellow]" if reasons else "[green]as it is[/green]  "
            console.print(f"{mark} {stage.name}")
            for reason in reasons:
                console.print(f"             {escape(reason)}")
    again = sum(bool(reasons) for _, reasons in found)
    if only is None:
        console.print(f"{again} of {len(found)} stages would run again" if again else "nothing would run again")


def explain(folder: Path, dataset: Dataset, results: Path) -> Iterator[tuple[Stage, list[str]]]:
    """Every stage of a dataset, and what a rerun would do differently; no reasons: its result stays.

    Parameters
    ----------
    folder : of the dataset's results
    results : root of the results, as the config names it
    """
    again: dict[str, str] = {}
    for stage in stages(dataset.pipeline):
        if not dataset.runs(stage.key):
            continue
        plan = plan_of(dataset, stage.name, results)
        made = _made(folder, stage)
        reasons = [made] if isinstance(made, str) else [*_differences(made, plan, stage), *_device(folder, plan)]
        follows = {again[name]: None for name in (*stage.inputs, *stage.optional_inputs) if name in again}
        reasons += [f"follows {', '.join(follows)}"] if follows else []
        if reasons:
            again.update(dict.fromkeys(stage.outputs, stage.key))
        yield stage, reasons


def _place(path: Path) -> tuple[Path, str | None]:
    """Results folder, and the stage that made the store, where one is named."""
    store = path.parent if path.name == "zarr.json" else path
    if store.suffix == Kind.STORE.value:
        return store.absolute().parent, str(open_store(store).provenance["stage"])
    if not path.is_dir():
        raise UserError("there is no such result.", where=path, do="Give results/NAME, or one store in it.")
    return path.absolute(), None


def _made(folder: Path, stage: Stage) -> Made | str:
    """How the results of a stage came to be, from its stores or else from the config it was planned with."""
    names = [name for name, kind in stage.outputs.items() if kind is Kind.STORE]
    readers: list[StoreReader] = []
    for name in names:
        try:
            readers.append(open_store(folder / f"{name}{Kind.STORE.value}"))
        except UserError as error:
            return f"{name}{Kind.STORE.value}: {error.what}"
    if readers:
        kept = readers[0].provenance
        return Made(kept["config"], kept["code"], kept["modules"], kept["packages"], kept["seed"], kept["inputs"])
    try:
        plan = json.loads((folder / "config" / f"{stage.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "was never run"
    if not (folder / "benchmarks" / f"{stage.name}.tsv").is_file():
        return "was never run to its end"
    return Made(plan["config"], plan["code"], None, plan["packages"], plan["seed"], None)


def _differences(made: Made, plan: Plan, stage: Stage) -> Iterator[str]:
    for key, before, now in _changed(made.config, plan.config):
        yield f"{key}: {_value(before)} -> {_value(now)}"
    if made.seed != plan.seed:
        yield f"seed: {made.seed} -> {plan.seed}"
    if made.code != plan.code:
        yield _code(made, stage)
    for name in sorted(made.packages.keys() | plan.packages.keys()):
        before, now = made.packages.get(name, "absent"), plan.packages.get(name, "absent")
        if before != now:
            yield f"package {name}: {before} -> {now}"
    yield from _other_inputs(made, plan, stage)


def _device(folder: Path, plan: Plan) -> Iterator[str]:
    """Another device was asked for; stores keep the one that was found."""
    try:
        before = json.loads((folder / "config" / f"{plan.stage}.json").read_text(encoding="utf-8"))["device"]
    except (OSError, ValueError, KeyError):
        return
    if before != plan.device:
        yield f"device: {before} -> {plan.device}"


def _code(made: Made, stage: Stage) -> str:
    if made.modules is None:
        return "its code changed"
    now = fingerprint(*stage.functions).modules
    changed = sorted(n for n in made.modules.keys() | now.keys() if made.modules.get(n) != now.get(n))
    if not changed:
        return f"code of {stage.name} itself"
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return f"code of {', '.join(changed[:_SHOWN])}{more}"


def _other_inputs(made: Made, plan: Plan, stage: Stage) -> Iterator[str]:
    """Inputs that are not those that the result was made from."""
    kinds = {**stage.inputs, **stage.optional_inputs}
    raw = {name: item["digest"] for name, item in (made.inputs or {}).items() if name not in kinds}
    if made.inputs is not None and raw != plan.raw:
        for path in sorted(raw.keys() | plan.raw.keys()):
            if raw.get(path) != plan.raw.get(path):
                word = "changed" if path in raw else "is new"
                yield f"raw file {path} {word if path in plan.raw else 'is left out now'}"
    for name, item in (made.inputs or {}).items():
        if name in kinds and (why := _other(Path(item["path"]), item["digest"], kinds[name])) is not None:
            yield f"input {name}: {why}"


def _other(path: Path, digest: str, kind: Kind) -> str | None:
    try:
        now = open_store(path).digest if kind is Kind.STORE else file_digest(path)
    except UserError as error:
        return error.what
    except OSError:
        return f"{path} is not there"
    return None if now == digest else f"{path} is another one than it was made from"


def _changed(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Values that differ, by their path in the YAML."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(n for n in now if n not in before)]:
            place = f"{key}.{name}" if key else str(name)
            yield from _changed(before.get(name, _ABSENT), now.get(name, _ABSENT), place)
    elif before != now:
        yield key, before, now


_ABSENT: Any = object()


def _value(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)
