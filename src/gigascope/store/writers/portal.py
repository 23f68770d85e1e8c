"""Alignment as the CryoET data portal keeps it (JSON): per section R(phi) and T = R(phi) f in pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.store.readers.tilt_angles import read_text_lines
from gigascope.store.writers.alignment import Alignment, aligned_shifts, raw_shifts, rotations
from gigascope.store.writers.whole_file import write_text


def write_portal_json(
    path: str | Path,
    shifts: ArrayLike,
    tilt_deg: ArrayLike,
    tilt_axis_deg: ArrayLike,
    *,
    volume_angstrom: tuple[float, float, float],
    excluded: ArrayLike | None = None,
    tilt_offset_deg: float = 0.0,
    x_tilt_deg: ArrayLike | None = None,
    made_by: str = "ARETOMO3",
) -> None:
    """Write the alignment; excluded sections are left out.

    Parameters
    ----------
    shifts : (tilt, 2), f_s and f_y in pixels of the raw series, stack order
    tilt_deg : (tilt,)
    tilt_axis_deg : phi, one number or (tilt,)
    volume_angstrom : size of the tomogram in z, y, x
    x_tilt_deg : (tilt,) rotation of the specimen about x, degrees
    made_by : name of the format the alignment comes from, as the portal writes it

    Raises
    ------
    ShapeError : arrays that do not go together
    UserError : the disk is full or must not be written to
    """
    alignment = Alignment.of(shifts, tilt_axis_deg, tilt_deg, excluded)
    if np.isnan(alignment.tilt_deg[~alignment.excluded]).any():
        raise ShapeError("an alignment needs the tilt angle of every view")
    x_tilt = np.zeros(alignment.n_views) if x_tilt_deg is None else np.asarray(x_tilt_deg, dtype=np.float64)
    rotation, raw = rotations(alignment.tilt_axis_deg), raw_shifts(alignment)
    sections = [
        {
            "z_index": view,
            "tilt_angle": round(float(alignment.tilt_deg[view]), 4),
            "volume_x_rotation": round(float(x_tilt[view]), 4),
            "in_plane_rotation": np.round(rotation[view], 9).tolist(),
            "x_offset": round(float(raw[view, 0]), 5),
            "y_offset": round(float(raw[view, 1]), 5),
        }
        for view in np.flatnonzero(~alignment.excluded).tolist()
    ]
    z, y, x = volume_angstrom
    whole = {
        "affine_transformation_matrix": np.eye(4).tolist(),
        "alignment_type": "GLOBAL",
        "format": made_by,
        "is_portal_standard": False,
        "tilt_offset": tilt_offset_deg,
        "x_rotation_offset": 0.0,
        "volume_offset": {"x": 0.0, "y": 0.0, "z": 0.0},
        "volume_dimension": {"x": x, "y": y, "z": z},
        "per_section_alignment_parameters": sections,
    }
    write_text(Path(path), json.dumps(whole, indent=1) + "\n")


def read_portal_json(path: str | Path, n_views: int | None = None) -> tuple[Alignment, NDArray[np.float64]]:
    """Read the alignment of a stack of `n_views` sections (none: up to the last named); what is not named is excluded.

    Returns
    -------
    the alignment, and (tilt,) rotations of the specimen about x, degrees

    Raises
    ------
    UserError : not such a file, or a section outside the stack
    """
    path = Path(path)
    try:
        whole: dict[str, Any] = json.loads("\n".join(read_text_lines(path)))
        sections = whole["per_section_alignment_parameters"]
        views = np.array([section["z_index"] for section in sections], dtype=int)
        matrices = np.array([section["in_plane_rotation"] for section in sections], dtype=np.float64).reshape(-1, 2, 2)
        offsets = np.array([(section["x_offset"], section["y_offset"]) for section in sections], dtype=np.float64)
        angles = np.array([section["tilt_angle"] for section in sections], dtype=np.float64)
        about_x = np.array([section.get("volume_x_rotation") or 0.0 for section in sections], dtype=np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"is not an alignment of the data portal ({error!r}).", where=path, do="Export it again."
        ) from None
    n_views = int(views.max(initial=-1)) + 1 if n_views is None else n_views
    if not len(views) or views.min() < 0 or views.max() >= n_views or len(np.unique(views)) < len(views):
        raise UserError(
            f"names no sections, one twice, or one beyond {n_views - 1}.", where=path, do="Export it again."
        )
    phi = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    axis, raw, x_tilt = np.full(n_views, np.median(phi)), np.zeros((n_views, 2)), np.zeros(n_views)
    tilt, excluded = np.full(n_views, np.nan), np.ones(n_views, dtype=bool)
    axis[views], raw[views], tilt[views], excluded[views] = phi, offsets, angles, False
    x_tilt[views] = about_x
    return Alignment.of(aligned_shifts(raw, axis), axis, tilt, excluded), x_tilt
