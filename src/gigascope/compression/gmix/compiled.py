"""How the loops of the container are compiled: strict arithmetic, machine code kept on disk, threads let go."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

# The modules whose functions call each other. By itself numba compiles again only when the file of a function changes,
# not when one does that it calls; so machine code is kept in a folder named after all of these.
_SOURCES = (
    *("adaptive_law", "cell_code", "compiled", "direction_bins", "entropy", "exact", "fixed_law", "law_rows"),
    *("neighbours", "quantiser", "row_code"),
)

_config: Any = numba.config


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, with no operation fused or reordered: what a file decodes to must not depend on that."""
    before = _config.CACHE_DIR
    _config.CACHE_DIR = _cache_folder()
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        _config.CACHE_DIR = before


@functools.cache
def _cache_folder() -> str:
    """Below NUMBA_CACHE_DIR where it is set, else beside the source; empty, numba decides, where that is read-only."""
    source = Path(__file__).parent
    if _config.CACHE_DIR:
        base = Path(_config.CACHE_DIR)
    elif os.access(source, os.W_OK):
        base = source / "__pycache__"
    else:
        return ""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((source / f"{name}.py").read_bytes())
    return str(base / f"numba-{digest.hexdigest()[:16]}")
