"""What was done and how to do it again, from the provenance that every store carries."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from gigascope.report.page import Html, commands, details, join, paragraph, stage_table, table

Record = Mapping[str, Any]


def what_was_done(records: Sequence[Record]) -> Html:
    """The stages with times, devices and memory; inputs and versions behind folds."""
    inputs: dict[str, list[object]] = {}
    packages: dict[str, str] = {}
    for record in records:
        packages |= {str(k): str(v) for k, v in dict(record.get("packages") or {}).items()}
        for name, entry in dict(record.get("inputs") or {}).items():
            digest = str(entry.get("digest", ""))
            inputs.setdefault(digest, [record.get("stage"), name, str(entry.get("path", "")), digest[:16]])
    versions = {"gigascope": _first(records, "gigascope"), "Python": _first(records, "python"), **packages}
    parts = [
        stage_table(records),
        details(
            "Inputs and their digests", table(["read by", "input", "path", "digest"], list(inputs.values()), "Inputs")
        ),
        details(
            "Versions", table(["package", "version"], [list(item) for item in versions.items() if item[1]], "Versions")
        ),
    ]
    return join(parts)


def reproduce(name: str, records: Sequence[Record], store: str) -> Html:
    """Commands that make this result again, and the dataset file they need, with every setting written out.

    Parameters
    ----------
    store : one of the result, to be asked how it was made
    """
    file = f"config/datasets/{name}.yaml"
    version = _first(records, "gigascope")
    lines = [
        f"snakemake --profile local --config datasets={file}     # this machine",
        f"snakemake --profile slurm --config datasets={file}     # a cluster, same result",
        f"gigascope view results/{name}",
        f"gigascope info results/{name}/{store}.zarr",
    ]
    alone = [_alone(record) for record in records if record.get("command")]
    return join(
        [
            paragraph(
                f"With gigascope {version or ''} and the dataset file below saved as ",
                Html(f"<code>{_escaped(file)}</code>"),
                ":",
            ),
            commands(lines),
            details("The dataset file, defaults written out", commands([dataset_yaml(name, records)])),
            details("The stages one by one, as they were called", commands(alone)) if alone else "",
        ]
    )


def dataset_yaml(name: str, records: Sequence[Record]) -> str:
    """The dataset file as YAML text, put together from what every stage was run with."""
    from ruamel.yaml import YAML

    values: dict[str, Any] = {"pipeline": str(_first(records, "stage") or ".").split(".")[0], "name": name}
    values["seed"] = _first(records, "seed") or 0
    for record in records:
        values |= dict(record.get("config") or {})
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.representer.add_representer(type(None), _none)
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue().rstrip()


def _none(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _alone(record: Record) -> str:
    import shlex

    command = [str(part) for part in record["command"]]
    command[0] = "gigascope" if command[0].endswith(("gigascope", "cli.py", "__main__.py")) else command[0]
    return shlex.join(command)


def _first(records: Sequence[Record], key: str) -> Any:
    return next((record[key] for record in records if record.get(key) not in (None, "")), None)


def _escaped(value: str) -> Html:
    from gigascope.report.page import text

    return text(value)
