"""The frozen config of one stage of one dataset: what the workflow writes before a job and the job reads, nothing else.

A job that waits in a queue while somebody edits the YAML or the code must run as it was planned, or refuse. The plan
therefore holds the validated section, the code's fingerprint and the versions of the packages that the code imports.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigascope.config.dataset import Dataset, load_dataset
from gigascope.config.section import Section, canonical_json
from gigascope.errors import UserError
from gigascope.runtime.fingerprint import fingerprint
from gigascope.stage import Stage, section_of

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What one stage of one dataset will be run with."""

    stage: str
    dataset: str
    config: dict[str, Any]
    device: str
    seed: int
    code: str
    packages: dict[str, str]
    raw: dict[str, str]

    def text(self) -> str:
        """Canonical JSON: the same text for equal plans."""
        return canonical_json({"version": VERSION, **self.__dict__})

    def section(self, stage: Stage) -> Section:
        """The stage's validated section."""
        return stage.section.model_validate(self.config[stage.key])

    def inputs_section(self) -> Any:
        """The dataset's validated `inputs`, for a stage that reads raw files."""
        from gigascope.config.dataset import PIPELINES

        model = PIPELINES[self.stage.split(".")[0]].model_fields["inputs"].annotation
        values = self.config.get("inputs")
        return None if values is None or model is None else model.model_validate(values)


def plan_stage(dataset: Dataset, stage: Stage, raw: dict[str, str] | None = None) -> Plan:
    """Plan a stage.

    Parameters
    ----------
    raw : quick digests, by path, of the raw input files of a stage that reads them, and of files its section names
    """
    print_ = fingerprint(*stage.functions)
    return Plan(
        stage=stage.name,
        dataset=dataset.name,
        config=section_of(dataset, stage),
        device=dataset.device if stage.gpu else "cpu",
        seed=dataset.seed,
        code=print_.code,
        packages=print_.packages,
        raw=dict(raw or {}) if stage.reads_inputs or stage.files is not None else {},
    )


def read_plan(path: Path, stage: Stage) -> Plan:
    """Read a plan, or make one from a dataset YAML.

    Raises
    ------
    UserError : not a plan of this stage, or the code or the packages changed since it was written
    """
    if path.suffix != ".json":
        return plan_stage(load_dataset(path), stage)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("version")
        plan = Plan(**values)
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"is no stage config ({error}).", where=path, do="Start snakemake again: it writes it anew."
        ) from None
    if version != VERSION or plan.stage != stage.name:
        raise UserError(
            f"is the config of {plan.stage} (version {version}), not of {stage.name} (version {VERSION}).", where=path
        )
    now = fingerprint(*stage.functions)
    if plan.code != now.code or plan.packages != now.packages:
        raise UserError(
            "the code changed since this run was planned."
            if plan.code != now.code
            else f"installed packages changed since this run was planned: {_differences(plan.packages, now.packages)}.",
            where=stage.name,
            do="Start snakemake again.",
        )
    return plan


def _differences(planned: dict[str, str], now: dict[str, str]) -> str:
    names = sorted(n for n in planned.keys() | now.keys() if planned.get(n) != now.get(n))
    return ", ".join(f"{n} {planned.get(n, 'absent')} -> {now.get(n, 'absent')}" for n in names)
