"""What the stages write: volumes and stacks into stores, shifts as tables and in the formats of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.store.layers import LayerWriter
from gigascope.tomography.alignment import Alignment
from gigascope.tomography.geometry import aligned_shifts

if TYPE_CHECKING:
    from torch import Tensor

    from gigascope.store.create import ImageWriter
    from gigascope.tomography.series import Series


def write_volume(writer: ImageWriter, volume: Tensor, scale: float, channel: int | None = None) -> None:
    """A volume (z, x, y) into a store (z, y, x), or into one channel of (c, z, y, x), shard by shard.

    `scale` brings it back to original units per voxel length.
    """
    for region in writer.shard_regions():
        if channel is not None:
            layers, *region = region  # type: ignore[assignment]
            if not layers.start <= channel < layers.stop:
                continue
        z, y, x = region
        block = (volume[z, x, y].permute(0, 2, 1) * scale).cpu().numpy()
        if channel is None:
            writer[z, y, x] = block
        else:
            writer[channel, z, y, x] = block


def write_views(writer: ImageWriter, views: Tensor, series: Series) -> None:
    """Views (tilt, s, y), ascending tilt, into a store (tilt, y, x), file order."""
    place = series.in_file_order(np.arange(len(series.order)))
    with LayerWriter(writer.array, writer.path) as layers:
        for k in place:
            layers.append(views[int(k)].T.cpu().numpy())


def shift_columns(series: Series, alignment: Alignment, **further: ArrayLike) -> tuple[dict[str, Any], dict[str, str]]:
    """Table of the shifts in file order, and its units (tomography.md 2.3).

    `further` are per-view columns in ascending tilt.
    """
    order = series.in_file_order
    columns: dict[str, Any] = {
        "view": np.arange(len(series.order)),
        "tilt_deg": np.rad2deg(order(series.tilt)),
        "f_s_px": order(alignment.shifts[:, 0]),
        "f_y_px": order(alignment.shifts[:, 1]),
        "f_s_nm": order(alignment.shifts[:, 0]) * series.pixel_nm,
        "f_y_nm": order(alignment.shifts[:, 1]) * series.pixel_nm,
        **{name: order(values) for name, values in further.items()},
        "flag": order(np.array(alignment.flags, dtype=object)).astype(str),
    }
    endings = {"_deg": "degree", "_nm": "nm", "_px": "pixel"}
    units = {name: unit for name in columns for ending, unit in endings.items() if name.endswith(ending)}
    return columns, units


def joint_columns(series: Series, alignment: Alignment) -> tuple[dict[str, Any], dict[str, str]]:
    """:func:`shift_columns` with what the joint solve knows besides."""
    return shift_columns(
        series,
        alignment,
        rotation_deg=alignment.rotation_deg,
        magnification=alignment.magnification,
        sigma_s_px=alignment.sigma[:, 0],
        sigma_y_px=alignment.sigma[:, 1],
        residual=alignment.residual,
        overlap=alignment.overlap,
    )


def tried_columns(series: Series, tried: Mapping[str, NDArray[np.float64]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Shifts in file order by every method of the prealignment that was tried, and their units."""
    columns: dict[str, Any] = {"view": np.arange(len(series.order))}
    for method, shifts in tried.items():
        for axis, name in enumerate(("f_s_px", "f_y_px")):
            columns[f"{method}: {name}"] = series.in_file_order(shifts[:, axis])
    return columns, {name: "pixel" for name in columns if name != "view"}


def read_tried(table: Mapping[str, NDArray], order: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Inverse of :func:`tried_columns`: (tilt, 2) pixels, ascending tilt, by method."""
    methods = dict.fromkeys(name.rsplit(": ", 1)[0] for name in table if name != "view")
    pairs = {m: [table[f"{m}: {name}"] for name in ("f_s_px", "f_y_px")] for m in methods}
    return {m: np.stack(pair, axis=1)[np.asarray(order)].astype(np.float64) for m, pair in pairs.items()}


def read_shifts(table: dict[str, NDArray], order: ArrayLike) -> NDArray[np.float64]:
    """(tilt, 2) shifts in raw pixels, ascending tilt, from a table in file order."""
    return np.stack([table["f_s_px"], table["f_y_px"]], axis=1)[np.asarray(order)].astype(np.float64)


def write_interchange(
    series: Series,
    alignment: Alignment,
    thickness_px: int,
    *,
    xf: Path,
    tlt: Path | None = None,
    aln: Path | None = None,
) -> None:
    """Shifts for IMOD (.xf, .tlt) and AreTomo (.aln), in file order."""
    from gigascope.store.writers.aln import write_aln
    from gigascope.store.writers.xf import write_tlt, write_xf

    turned, magnification = alignment.rotation_deg, series.in_file_order(alignment.magnification)
    # a = 1/m R(-phi - a_i) r - 1/m R(-a_i) f: formats have one axis angle per view, and a shift behind that rotation
    shifts = np.stack([aligned_shifts(f, np.deg2rad(a)) for f, a in zip(alignment.shifts, turned, strict=True)])
    shifts = series.in_file_order(shifts)
    tilt_deg = np.rad2deg(series.in_file_order(series.tilt))
    axis = np.rad2deg(series.tilt_axis) + series.in_file_order(turned)
    excluded = series.in_file_order(np.array([flag != "" for flag in alignment.flags]))
    write_xf(xf, shifts, axis, excluded=excluded, magnification=magnification)
    if tlt is not None:
        write_tlt(tlt, tilt_deg)
    if aln is not None:
        write_aln(
            aln,
            shifts,
            tilt_deg,
            axis,
            raw_shape=series.shape[1:],
            thickness_px=thickness_px,
            excluded=excluded,
            tilt_offset_deg=series.refined.tilt_offset_deg,
        )


def rows_as_columns(rows: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    """Records as columns; what a record does not have is an empty field."""
    return {name: [getattr(row, name, np.nan) for row in rows] for name in names}
