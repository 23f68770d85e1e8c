"""The files that a start of Snakemake is about: datasets by path or glob, and whether their raw data is there."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

from gigascope.config.dataset import Dataset
from gigascope.errors import UserError

# The keys of a dataset's `inputs` of which one names its raw data.
RAW_KEYS = {
    "tomography": ("tilt_series",),
    "compression": ("volume",),
    "topography": ("captures", "stacks", "images"),
    "synthesis": ("real", "folders"),
}


def dataset_files(patterns: str | tuple[str, ...]) -> list[Path]:
    """Dataset YAML files that paths and globs name, each once, in order.

    Raises
    ------
    UserError : nothing fits one of them
    """
    files: dict[Path, None] = {}
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) and not Path(pattern).exists() else [pattern]
        if not found:
            raise UserError(
                f"datasets: no file fits {pattern}.",
                where="config/config.yaml",
                do="`gigascope init tomography --name NAME --input FILE` writes a dataset.",
            )
        files.update(dict.fromkeys(map(Path, found)))
    return list(files)


def absent_input(dataset: Dataset) -> str | None:
    """The input file of a dataset that is not there."""
    for key in RAW_KEYS.get(dataset.pipeline, ()):
        given: Any = getattr(dataset.inputs, key)
        for source in (given,) if isinstance(given, str) else given or ():
            # an image with labels is a section of its own
            raw: str = getattr(source, "image", source)
            # fields such as {scan_y} in a path stand for anything
            pattern = re.sub(r"\{[^{}/]*\}", "*", raw)
            if not _exists(Path(raw)) and not (glob.has_magic(pattern) and glob.glob(pattern)):
                return raw
    return None


def _exists(path: Path) -> bool:
    """A file or folder, or a dataset inside a file (data.h5/raw)."""
    return path.exists() or any(parent.is_file() for parent in path.parents)
