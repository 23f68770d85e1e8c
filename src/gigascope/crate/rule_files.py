"""The files of a stage: a declared stage knows its inputs and outputs by name, the workflow's rules by file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gigascope.errors import UserError
from gigascope.stage import Kind, Stage

# Rule files are formatted by snakefmt and hold no code, so that what is looked for always stands in this form.
_KEYWORD = r"^    {}:\n((?:        .*\n)+)"
_FILE = re.compile(r'(\w+)=(?:(?:report|optional|temp)\(\s*)?(store|result)\("([^"]+)"\)')


@dataclass(frozen=True)
class RuleFiles:
    """Files of a stage below the results folder of a dataset, by the name of the input or output.

    Inputs that lie elsewhere (raw files, stores that the config names) are left out.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def rule_files(stage: Stage, root: Path) -> RuleFiles:
    """Read the rule of a stage.

    Parameters
    ----------
    root : folder of the Snakefile

    Raises
    ------
    UserError : no such rule, or one that does not name every output
    """
    path = root / "workflow" / "rules" / f"{stage.pipeline}.smk"
    do = "Work in the folder of the Snakefile, or give --config FILE."
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}.", where=path, do=do) from None
    rule = re.search(rf"^rule {stage.name.replace('.', '_')}:\n((?:[ \t].*\n|\n)+)", text + "\n", re.MULTILINE)
    if rule is None:
        raise UserError(f"has no rule for {stage.name}.", where=path, do=do)
    found = RuleFiles(_files(rule[1], "input"), _files(rule[1], "output"))
    if unknown := sorted(set(stage.outputs) - set(found.outputs)):
        raise UserError(f"the rule of {stage.name} names no output {unknown[0]}.", where=path, do=do)
    return found


def _files(rule: str, keyword: str) -> dict[str, str]:
    part = re.search(_KEYWORD.format(keyword), rule, re.MULTILINE)
    found = _FILE.findall(part[1]) if part else []
    return {name: f"{file}{Kind.STORE.value}" if what == "store" else file for name, what, file in found}
