"""`gigascope init` for a volume: look at the file and fill in what it says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gigascope.compression.source import open_volume
from gigascope.config.compression import CompressionInputs, Ingest
from gigascope.errors import UserError
from gigascope.store.readers.volume import VolumeSource


def look(path: str | None, overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and remarks for a dataset YAML.

    Parameters
    ----------
    path : the volume; none: `overrides` give a phantom
    overrides : nested values set by hand

    Returns
    -------
    nested values, and remarks by dotted key

    Raises
    ------
    UserError : the volume is broken, or its axes must be set by hand
    """
    given = overrides.get("inputs", {})
    if path is None:
        if "phantom" in given or "volume" in given:
            return {}, {}
        raise UserError(
            "no raw data given.", do="Add --input FILE, or --set inputs.phantom.peak_electrons=1500 for a simulation."
        )
    inputs = CompressionInputs.model_validate({**given, "volume": path})
    try:
        source = open_volume(inputs, Ingest.model_validate(overrides.get("ingest", {})))
    except UserError as error:
        missing = "ingest.axes" in str(error)
        raise UserError(
            str(error), do="To set a key now, add for example --set ingest.axes=czyx." if missing else None
        ) from None
    return _describe(path, source, overrides.get("ingest", {}))


def _describe(path: str, source: VolumeSource, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    notes = {"inputs.volume": _words(source)}
    ingest: dict[str, Any] = {}
    if source.warnings:
        # left open, so that every run says again that it is not known
        notes["ingest.voxel_size_um"] = f"check this: {source.warnings[0].partition(':')[0]}"
    else:
        ingest["voxel_size_um"] = [float(f"{v or 1:.6g}") for v in source.voxel_size_um]
        if "voxel_size_um" not in given:
            notes["ingest.voxel_size_um"] = f"from {source.origin}"
    return {"inputs": {"volume": str(Path(path))}, "ingest": ingest}, notes


def _words(source: VolumeSource) -> str:
    t, c, z, y, x = source.shape
    frames = [f"{n} {name}" for n, name in ((t, "times"), (c, "channels")) if n > 1]
    gib = math.prod(source.shape) * source.dtype.itemsize / 2**30
    size = f"{gib:.2f} GiB" if gib >= 0.1 else f"{gib * 1024:.1f} MiB"
    return ", ".join([*frames, f"{z} x {y} x {x} voxels (z, y, x) of {source.dtype}, {size}, {source.format}"])
