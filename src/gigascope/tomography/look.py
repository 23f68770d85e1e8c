"""`gigascope init` for a tilt series: look at the file and fill in what it says, and what its lowest view suggests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.config.tomography import Ingest, TomographyInputs
from gigascope.errors import UserError
from gigascope.store.readers.source import TiltSeriesSource
from gigascope.tomography import geometry
from gigascope.tomography.source import open_source

# Middle of the lowest view against its frame, in robust deviations of the frame; as for the extent (tomography.md 2.4).
BRIGHT = 5.0


def look(path: str | None, overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and remarks for a dataset YAML.

    Parameters
    ----------
    path : the tilt series; none: `overrides` give a phantom
    overrides : nested values set by hand

    Returns
    -------
    nested values, and remarks by dotted key

    Raises
    ------
    UserError : the series is broken, or lacks something that must be set by hand
    """
    given = overrides.get("inputs", {})
    if path is None:
        if "phantom" in given or "tilt_series" in given:
            return {}, {}
        raise UserError(
            "no raw data given.", do="Add --input FILE, or --set inputs.phantom.kind=object for a simulation."
        )
    inputs = TomographyInputs.model_validate({**given, "tilt_series": path})
    try:
        source = open_source(inputs, Ingest.model_validate(overrides.get("ingest", {})))
    except UserError as error:
        missing = "ingest." in str(error)
        raise UserError(
            str(error), do="To set a key now, add for example --set ingest.pixel_size_nm=1.35." if missing else None
        ) from None
    return _describe(path, source, overrides)


def _describe(path: str, source: TiltSeriesSource, overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    ingest: dict[str, Any] = {"pixel_size_nm": float(f"{source.pixel_size_nm:.6g}")}
    notes = {"ingest.pixel_size_nm": f"from {source.origin.get('pixel_size_nm', 'the header')}"}
    notes["inputs.tilt_series"] = (
        f"{source.shape[0]} views of {source.shape[2]} x {source.shape[1]} px, {source.format}"
    )
    if source.tilt_axis_deg is not None:
        ingest["tilt_axis_deg"] = round(float(source.tilt_axis_deg), 4)
        notes["ingest.tilt_axis_deg"] = f"from {source.origin.get('tilt_axis_deg', 'the header')}"
    else:
        notes["ingest.tilt_axis_deg"] = "not found: 0 is assumed (vertical); 90 is horizontal"
    if "tilt_deg" in source.origin:
        notes["ingest.tilt_deg"] = f"from {source.origin['tilt_deg']}"
    contrast = _contrast(source)
    extent = "object" if abs(contrast) > BRIGHT else "section"
    if contrast > BRIGHT:
        ingest["signal"] = "linear"
        notes["ingest.signal"] = "check this: the middle is brighter than the border, as in dark field (HAADF)"
    phi = math.radians(overrides.get("ingest", {}).get("tilt_axis_deg", source.tilt_axis_deg or 0.0))
    width = geometry.frame_shape((source.shape[1], source.shape[2]), phi)[0] * float(source.pixel_size_nm or 0)
    thickness = float(f"{geometry.guessed_thickness(width, extent):.4g}")
    notes["reconstruct.thickness_nm"] = "check this: a guess, " + (
        "the width across the axis" if extent == "object" else "half the field's width"
    )
    notes = {key: note for key, note in notes.items() if not note.startswith("from ingest.")}
    inputs = {"tilt_series": str(Path(path))}
    return {"inputs": inputs, "ingest": ingest, "reconstruct": {"thickness_nm": thickness}}, notes


def _contrast(source: TiltSeriesSource) -> float:
    """How much brighter the middle of the lowest view is than its border, in robust deviations of the border."""
    lowest = int(np.argmin(np.abs(np.asarray(source.tilt_deg))))
    view = np.asarray(source.read(lowest), dtype=np.float64)
    height, width = view.shape
    edge = max(1, min(height, width) // 16)
    border = np.concatenate(
        [view[:edge].ravel(), view[-edge:].ravel(), view[:, :edge].ravel(), view[:, -edge:].ravel()]
    )
    middle = np.median(view[height // 3 : -(height // 3), width // 3 : -(width // 3)])
    spread = 1.4826 * np.median(np.abs(border - np.median(border))) + 1e-12 * max(1.0, float(np.abs(view).max()))
    return float((middle - np.median(border)) / spread)
