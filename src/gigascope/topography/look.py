"""`gigascope init` for z-stacks: see which of the layouts a path has, and fill in what the files say."""

from __future__ import annotations

import glob
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigascope.config.topography import Ingest, TopographyInputs
from gigascope.errors import UserError

if TYPE_CHECKING:
    from gigascope.topography.source import Acquisition

_POSITION = re.compile(r"y_[-+0-9.eE]+_x_[-+0-9.eE]+$")


def look(path: str | None, overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and remarks for a dataset YAML.

    Parameters
    ----------
    path : folder of stage positions, pattern or file of TIFF stacks, folder or pattern of pictures; none: `overrides`
        say where the stacks come from
    overrides : nested values set by hand

    Returns
    -------
    nested values, and remarks by dotted key

    Raises
    ------
    UserError : no such files, or files that do not belong together
    """
    given = overrides.get("inputs", {})
    if path is None:
        if any(key in given for key in ("captures", "stacks", "images", "instrument")):
            return {}, {}
        do = "Add --input FOLDER, or --set inputs.instrument.preset=XS for a simulated instrument."
        raise UserError("no raw data given.", do=do)
    from gigascope.topography.source import open_acquisition

    key = layout_of(path)
    # the key that init knows names no layout; here is the one that fits
    inputs = TopographyInputs.model_validate({**{k: v for k, v in given.items() if k != "images"}, key: path})
    opened = open_acquisition(inputs, Ingest.model_validate(overrides.get("ingest", {})))
    return _describe(path, key, opened)


def layout_of(path: str) -> str:
    """Which key of `inputs` a path is for: captures, stacks or images."""
    where = Path(path)
    if "{" in path or where.is_file():
        return "stacks"
    if where.is_dir() and (_POSITION.search(where.name) or any(_POSITION.search(p.name) for p in where.iterdir())):
        return "captures"
    if where.exists() or glob.has_magic(path):
        return "images"
    raise UserError("no such file or folder.", where=path, do="Give a folder, a file or a pattern of files.")


def _describe(path: str, key: str, opened: Acquisition) -> tuple[dict[str, Any], dict[str, str]]:
    sample = opened.sample
    notes = {f"inputs.{key}": _words(opened)}
    ingest: dict[str, Any] = {}
    if sample.dz_known and key == "stacks":
        ingest["dz_mm"] = float(f"{_step(opened):.6g}")
        notes["ingest.dz_mm"] = "from the files"
    elif not sample.dz_known:
        notes["ingest.dz_mm"] = "not known: heights count slices until it is set"
    if sample.pattern is not None and key == "captures":
        notes["ingest.bayer"] = f"{sample.pattern} in the files"
    return {"inputs": {key: path}, "ingest": ingest}, notes


def _step(opened: Acquisition) -> float:
    z = opened.sample.z_stage_mm[0, 0]
    return float(z[1] - z[0]) if len(z) > 1 else 0.0


def _words(opened: Acquisition) -> str:
    rows, cols, n_z, height, width = opened.sample.shape
    views = f"{rows} x {cols} views of " if rows * cols > 1 else ""
    n_bytes = math.prod(opened.sample.shape) * opened.sample.dtype.itemsize * opened.sample.colours
    size = f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
    return f"{views}{n_z} slices of {width} x {height} pixels, {size}, {opened.sample.format}"
