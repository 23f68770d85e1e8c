"""The toy chain has no raw files."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def raw_files(dataset: Any) -> tuple[Path, ...]:
    """None."""
    return ()
