"""`gigascope init`: look at raw data and write a dataset YAML that runs at once."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Any

from gigascope.config.dataset import PIPELINES, merge, parse_dataset
from gigascope.config.template import dataset_yaml
from gigascope.errors import UserError

# The module of a pipeline that looks at raw data: `look(input, overrides) -> (values, notes)`.
LOOKS = {name: f"gigascope.{name}.look" for name in PIPELINES}
# The key of `inputs` that names the raw data, or one of those that may; the look chooses.
RAW_KEYS = {"tomography": "tilt_series", "compression": "volume", "topography": "images", "synthesis": "real"}


def write_dataset(
    pipeline: str, name: str, raw: str | None, settings: list[str], folder: Path, force: bool = False
) -> Path:
    """Write `folder/name.yaml`.

    Parameters
    ----------
    raw : path of the raw data; none where `settings` say where the data comes from
    settings : `section.key=value`, YAML values

    Raises
    ------
    UserError : unknown pipeline or key, unreadable data, or the YAML is there already
    """
    if pipeline not in PIPELINES:
        near = difflib.get_close_matches(pipeline, PIPELINES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Pipelines: {', '.join(PIPELINES)}."
        raise UserError(f"there is no pipeline {pipeline!r}.", do=hint)
    path = folder / f"{name}.yaml"
    if path.exists() and not force:
        raise UserError("exists already.", where=path, do="Choose another --name, or --force to replace it.")
    overrides = _parse(settings)
    values: dict[str, Any] = {"pipeline": pipeline, "name": name}
    if raw is not None:
        # wrong settings are said before the data is opened
        parse_dataset(merge({**values, "inputs": {RAW_KEYS[pipeline]: raw}}, overrides), where="--set")
    found, notes = importlib.import_module(LOOKS[pipeline]).look(raw, overrides)
    values = merge(merge(values, found), overrides)
    parse_dataset(values, where="--set" if settings else str(raw))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(dataset_yaml(PIPELINES[pipeline], values, notes, schema_path(folder)), encoding="utf-8")
    return path


def schema_path(folder: Path) -> str:
    """The schema as seen from the YAML's folder: beside config/datasets in a checkout."""
    return "../schema/dataset.json" if folder.name == "datasets" else "config/schema/dataset.json"


def _parse(settings: list[str]) -> dict[str, Any]:
    from ruamel.yaml import YAML

    overrides: dict[str, Any] = {}
    for item in settings:
        key, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"{item!r} is not section.key=value.", where="--set")
        value: Any = YAML(typ="safe").load(text)
        for part in reversed(key.split(".")):
            value = {part: value}
        overrides = merge(overrides, value)
    return overrides
