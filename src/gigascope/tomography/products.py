"""What the stages write: volumes and stacks into stores, shifts as tables and in the formats of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.store.layers import LayerWriter
from gigascope.tomography.alignment import Alignment
from gigascope.tomography.geometry import aligned_shifts, frame_shape

if TYPE_CHECKING:
    from torch import Tensor

    from gigascope.store.create import ImageWriter
    from gigascope.tomography.layout import Layout
    from gigascope.tomography.series import Series

# What IMOD's programs open themselves.
_IMOD_READS = {".mrc", ".st", ".ali", ".preali", ".rec", ".mrcs", ".map", ".tif", ".tiff"}


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


def write_xf_file(series: Series, alignment: Alignment, path: Path) -> None:
    """Shifts as IMOD's .xf, in file order; flagged and excluded views are the identity."""
    from gigascope.store.writers.xf import write_xf

    shifts, axis = _as_formats_have_it(series, alignment)
    # the matrix undoes the magnification of the content
    undone = 1 / series.in_file_order(alignment.magnification)
    write_xf(path, shifts, axis, excluded=_left_out(series, alignment), magnification=undone)


def write_interchange(
    series: Series, alignment: Alignment, layout: Layout, bin: int, files: Mapping[str, Path]
) -> None:
    """The alignment in the formats of other programs, in file order.

    Parameters
    ----------
    layout : sizes of the reconstruction
    bin : of the tomogram, and of the stack that newst.com makes
    files : paths by `xf`, `tlt`, `newst`, `tilt` (IMOD), `aln` (AreTomo) and `json` (CryoET data portal)
    """
    from gigascope.store.writers.aln import write_aln
    from gigascope.store.writers.portal import write_portal_json
    from gigascope.store.writers.xf import write_tlt

    shifts, axis = _as_formats_have_it(series, alignment)
    offset = series.refined.tilt_offset_deg
    tilt_deg = np.rad2deg(series.in_file_order(series.tilt))
    excluded = _left_out(series, alignment)
    # in pixels of the views, whatever the planes are apart
    thickness = round(layout.n_z * layout.hz)
    write_xf_file(series, alignment, files["xf"])
    write_tlt(files["tlt"], tilt_deg)
    write_aln(
        files["aln"],
        shifts,
        tilt_deg,
        axis,
        raw_shape=series.shape[1:],
        thickness_px=thickness,
        excluded=excluded,
        tilt_offset_deg=offset,
    )
    z, y, x = (round(10 * series.pixel_nm * n, 4) for n in (thickness, layout.frame[1], layout.width))
    size = (z, y, x)
    write_portal_json(
        files["json"], shifts, tilt_deg, axis, volume_angstrom=size, excluded=excluded, tilt_offset_deg=offset
    )
    _write_imod_commands(series, layout, bin, thickness, excluded, files)


def _write_imod_commands(
    series: Series, layout: Layout, bin: int, thickness: int, excluded: NDArray[np.bool_], files: Mapping[str, Path]
) -> None:
    from gigascope.store.writers.imod_com import write_newst_com, write_tilt_com

    source = Path(series.attrs["source"])
    simulated = series.attrs["source"] == "phantom"
    stem = "tilt_series" if simulated else source.name.split(".")[0]
    remark = "" if source.suffix.lower() in _IMOD_READS else f"Made for {source.name}: give newstack an MRC copy of it."
    shape = (layout.frame[0] // bin, layout.frame[1] // bin)
    write_newst_com(
        files["newst"],
        stack=str(source.resolve()) if source.suffix.lower() in _IMOD_READS else f"{stem}.mrc",
        aligned=f"{stem}_ali.mrc",
        xf=files["xf"].name,
        shape=shape,
        bin=bin,
        remark=remark,
    )
    write_tilt_com(
        files["tilt"],
        aligned=f"{stem}_ali.mrc",
        tomogram=f"{stem}_full_rec.mrc",
        tlt=files["tlt"].name,
        full=frame_shape(series.shape[1:], series.tilt_axis),
        shape=shape,
        thickness_px=thickness,
        bin=bin,
        excluded=excluded,
        log=series.model.signal == "transmission",
    )


def _as_formats_have_it(series: Series, alignment: Alignment) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shifts (tilt, 2) and angle of the tilt axis (tilt,), degrees, in file order.

    a = 1/m R(-phi - a_i) r - 1/m R(-a_i) f: formats have one axis angle per view, and a shift behind that rotation.
    """
    turned = alignment.turns[:, 0]
    shifts = np.stack([aligned_shifts(f, a) for f, a in zip(alignment.shifts, turned, strict=True)])
    return series.in_file_order(shifts), np.rad2deg(series.tilt_axis + series.in_file_order(turned))


def _left_out(series: Series, alignment: Alignment) -> NDArray[np.bool_]:
    return series.in_file_order(np.array([flag != "" for flag in alignment.flags]))


def rows_as_columns(rows: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    """Records as columns; what a record does not have is an empty field."""
    return {name: [getattr(row, name, np.nan) for row in rows] for name in names}
