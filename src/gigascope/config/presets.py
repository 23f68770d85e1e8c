"""Presets: other defaults under one name. Keys that are written go before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def over_preset(values: Any, presets: Mapping[str, Mapping[str, Any]]) -> Any:
    """The values of a section laid over those of the preset that its key `preset` names; others are as they were.

    Parameters
    ----------
    values : of the section, as they are written
    presets : values by name, nested as the section is
    """
    found = presets.get(values.get("preset", "none")) if isinstance(values, dict) else None
    return values if found is None else _laid(found, values)


def _laid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    laid = {**below, **above}
    for key, value in below.items():
        given = above.get(key)
        if isinstance(value, Mapping) and (given is None or isinstance(given, Mapping)):
            laid[key] = _laid(value, given or {})
    return laid
