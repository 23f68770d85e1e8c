"""Pictures of the tomography page: the tomogram, and the same slices before and after alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gigascope.report.figures import Plane, cross, length, orthogonal_slices, picture, robust_window
from gigascope.report.page import Html, figure, grid, join, number, paragraph, plain, tag
from gigascope.report.preview import Preview, preview

if TYPE_CHECKING:
    from gigascope.report.tomography_result import TomographyResult, Views

# Of a tomogram's picture: three of the comparison stand side by side.
COMPARISON_SHARE = 0.6


def tomogram_figure(result: TomographyResult, picture_px: int) -> Html:
    """Central slices of the tomogram, to one scale and one window."""
    store = result.tomogram
    depth, height, width = (n * float(store.spacing[a]) for n, a in zip(store.shape, store.axes))
    field = result.field_nm
    wider = width > 1.02 * field
    slices = orthogonal_slices(store, picture_px, field if wider else None)
    low, high = slices.window()
    unit = f" ({store.attrs['values']})" if store.attrs.get("values") else ""
    caption = [
        f"Slices through the middle, to one scale: x–y (left), z–y (right), x–z (below). Dense is bright; black is "
        f"{number(low)}, white {number(high)} in all three{unit}. The volume is {length(width)} × {length(height)} × "
        f"{length(depth)} (x, y, z)"
    ]
    if wider:
        caption.append(f"; x is shown over the {length(field)} that the untilted view covers")
    return figure(cross(slices, (low, high), f"Tomogram of {result.name}"), "".join(caption) + ".")


def comparison(result: TomographyResult, views: Views, picture_px: int) -> Html:
    """Sinograms and slices from the raw, the pre-aligned and the aligned views, each by the same backprojection."""
    size = max(64, round(picture_px * COMPARISON_SHARE))
    order, use = views.index, views.use
    depth_nm = result.tomogram.shape[0] * float(result.tomogram.spacing["z"])
    undo = np.nan_to_num(views.coarse) * result.pixel_nm
    settings = {"use": use, "depth_nm": depth_nm, "max_px": size}
    columns = [
        ("raw", preview(result.prealigned, order, views.tilt, undo_nm=undo, **settings)),  # type: ignore[arg-type]
        ("pre-aligned", preview(result.prealigned, order, views.tilt, **settings)),  # type: ignore[arg-type]
        ("aligned", preview(result.aligned, order, views.tilt, **settings)),  # type: ignore[arg-type]
    ]
    columns = [(name, _comparable(p)) for name, p in columns]
    rows = [
        _row("Sinogram", "the middle row of every view; structures follow sines where the views are aligned",
             [_sinogram(name, p, views, columns) for name, p in columns]),
        _row("x–z slice", "across the tilt axis, where misalignment smears most",
             [_slice(name, "x–z", p.xz, [q.xz for _, q in columns]) for name, p in columns]),
        _row("x–y slice", "at z = 0", [_slice(name, "x–y", p.xy, [q.xy for _, q in columns]) for name, p in columns]),
    ]  # fmt: skip
    lead = paragraph(
        "Raw, pre-aligned and finally aligned views, side by side with the same window. The slices are plain filtered "
        "backprojections, made the same way from each, so that only the shifts differ; the tomogram above is made with "
        "more care.",
        class_="lead",
    )
    return join([lead, *rows])


def _row(title: str, what: str, pictures: list[Html]) -> Html:
    return figure(grid(*pictures, columns="three"), join([tag("b", title), f": {what}."]))


def _comparable(p: Preview) -> Preview:
    """All in units of the sinogram's standard deviation: stores keep their views in different units."""
    finite = p.sinogram[np.isfinite(p.sinogram)]
    scale = float(finite.std()) or 1.0
    middle = float(np.median(finite))
    return Preview(
        (p.sinogram - middle) / scale,
        Plane(p.xz.values / scale, p.xz.spacing),
        Plane(p.xy.values / scale, p.xy.spacing),
        p.width_nm,
    )


def _sinogram(name: str, p: Preview, views: Views, columns: list[tuple[str, Preview]]) -> Html:
    window = robust_window([q.sinogram for _, q in columns])
    plane = Plane(p.sinogram[::-1], (1.0, p.width_nm / p.sinogram.shape[1]))
    top, bottom = (plain(float(views.tilt_deg[i]), "°") for i in (-1, 0))
    return picture(
        plane, window, name=name, corner=top, low_corner=bottom, aspect=1.25,
        alt=f"Sinogram of the {name} views: position across the tilt axis to the right, tilt from {bottom} up to {top}",
    )  # fmt: skip


def _slice(name: str, plane_name: str, plane: Plane, all_planes: list[Plane]) -> Html:
    window = robust_window([q.values for q in all_planes])
    return picture(plane, window, name=name, alt=f"{plane_name} slice by filtered backprojection of the {name} views")
