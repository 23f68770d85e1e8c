"""Names of the keys of a section."""

from __future__ import annotations

from typing import Any


def leaves(values: Any, path: str = "") -> set[str]:
    """Dotted paths of all keys below a section, as :func:`gigascope.config.section.dump` gives it."""
    if not isinstance(values, dict):
        return {path}
    return {leaf for key, value in values.items() for leaf in leaves(value, f"{path}.{key}" if path else key)}
