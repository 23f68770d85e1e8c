"""Base of every config section: unknown keys are errors, values are immutable, descriptions are mandatory."""

from __future__ import annotations

import difflib
import json
import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class Section(BaseModel):
    """One section of a dataset YAML. A default lives here and nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        bare = [name for name, field in cls.model_fields.items() if not field.description]
        if bare:
            raise TypeError(f"{cls.__name__}: no description for {', '.join(bare)}")

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, values: Any) -> Any:
        """A section of which every key is commented out is empty in YAML, and means the defaults."""
        if not isinstance(values, dict):
            return values
        sections = {k for k, f in cls.model_fields.items() if not f.is_required() and isinstance(f.default, Section)}
        return {k: v for k, v in values.items() if not (v is None and k in sections)}


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no white space.

    Snakemake compares this text, so it must not depend on the order in which keys were written.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump(section: BaseModel) -> dict[str, Any]:
    """A section as plain JSON values, defaults filled in."""
    return section.model_dump(mode="json", by_alias=True)


def explain(error: ValidationError, model: type[BaseModel]) -> list[tuple[tuple[str | int, ...], str]]:
    """Rewrite pydantic's errors for a person: (path of the key, one sentence) each.

    An unknown key is answered with the nearest known one; the words of pydantic are kept where they are plain.
    """
    lines: list[tuple[tuple[str | int, ...], str]] = []
    for item in error.errors(include_url=False):
        path = tuple(item["loc"])
        if item["type"] == "extra_forbidden":
            known = _keys_at(model, path[:-1])
            near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(sorted(known)) or 'none'}."
            lines.append((path, f"unknown key. {hint}"))
        elif item["type"] == "missing":
            lines.append((path, "this key is required."))
        elif item["type"] in {"value_error", "assertion_error"}:
            lines.append((path, item["msg"].removeprefix("Value error, ")))
        else:
            message = item["msg"][0].lower() + item["msg"][1:].replace("Input should", "should")
            message = message.replace("input should", "should")
            lines.append((path, f"{message}, found {item['input']!r}."))
    return lines


def _keys_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Names of the fields of the (possibly nested) section that `path` leads to."""
    current: type[BaseModel] | None = model
    for step in path:
        if current is None or step not in current.model_fields:
            return []
        current = _section_in(current.model_fields[str(step)].annotation)
    return [field.alias or name for name, field in current.model_fields.items()] if current is not None else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section class in an annotation such as `Align | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {typing.Union, types.UnionType, typing.Annotated}:
        return next(filter(None, (_section_in(arm) for arm in typing.get_args(annotation))), None)
    return None
