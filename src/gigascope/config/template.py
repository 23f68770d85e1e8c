"""Commented dataset YAML for `gigascope init`, and the tables of keys in the documentation: both from the models."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from gigascope.config.section import Section, dump

SCHEMA_LINE = "# yaml-language-server: $schema={schema}"


def dataset_yaml(
    model: type[BaseModel], values: Mapping[str, Any], notes: Mapping[str, str], schema: str = "../schema/dataset.json"
) -> str:
    """A dataset YAML in which every key stands with its description; keys at their default are commented out.

    Parameters
    ----------
    model : dataset model
    values : nested values that differ from the defaults
    notes : remarks by dotted key, such as where a value was found
    schema : path of the JSON Schema, relative to the YAML
    """
    lines = [SCHEMA_LINE.format(schema=schema), ""]
    for name, field in model.model_fields.items():
        if isinstance(field.default, Section) or name == "inputs":
            lines += ["", *_comment(str(field.description), ""), f"{name}:"]
            section = field.annotation if name == "inputs" else type(field.default)
            lines += _section(section, values.get(name, {}), notes, name, "  ")
        else:
            lines += _key(name, field.default, field.description, values, notes, name, "")
    return "\n".join(lines) + "\n"


def _section(model: Any, values: Mapping[str, Any], notes: Mapping[str, str], path: str, indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        if isinstance(field.default, Section):
            inner = values.get(key, {})
            yield from _comment(str(field.description), indent)
            yield f"{indent}{key}:"
            yield from _section(type(field.default), inner, notes, f"{path}.{key}", indent + "  ")
        else:
            yield from _key(key, field.default, field.description, values, notes, f"{path}.{key}", indent)


def _key(
    key: str,
    default: Any,
    description: str | None,
    values: Mapping[str, Any],
    notes: Mapping[str, str],
    path: str,
    indent: str,
) -> Iterator[str]:
    yield from _comment(description or "", indent)
    note = f"  # {notes[path]}" if path in notes else ""
    if key in values:
        yield f"{indent}{key}: {_scalar(values[key])}{note}"
    else:
        yield f"{indent}# {key}: {_scalar(default)}{note}"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _scalar(value: Any) -> str:
    """JSON is YAML, and plain words need no quotes."""
    if isinstance(value, BaseModel):
        value = dump(value)
    if isinstance(value, str) and value.replace("_", "").replace("-", "").isalnum() and not value.isdigit():
        return value
    return json.dumps(value, ensure_ascii=False)


def key_table(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str]]:
    """(key, default, description) of every key of a section, nested ones with dots."""
    rows = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if isinstance(field.default, Section):
            rows += key_table(type(field.default), f"{key}.")
        else:
            default = "required" if field.is_required() else _scalar(field.default)
            rows.append((key, default, field.description or ""))
    return rows


def keys_markdown(model: type[BaseModel]) -> str:
    """Every key of a dataset model as Markdown tables, one per section: the tables of the documentation."""
    lines = []
    for name, field in model.model_fields.items():
        section = type(field.default) if isinstance(field.default, Section) else field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            continue
        lines += [f"### {name}", "", f"{section.__doc__ or ''}".strip().split("\n")[0], ""]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for key, default, text in key_table(section):
            lines.append(f"| `{name}.{key}` | `{default}` | {text.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines)
