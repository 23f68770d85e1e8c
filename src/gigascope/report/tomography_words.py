"""Words and single numbers of the tomography page: summary, headline numbers, warnings, decisions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.report.figures import length
from gigascope.report.page import DASH, Html, Number, duration, facts, number, plain, quantity
from gigascope.report.tomography_plots import rms_error

if TYPE_CHECKING:
    from gigascope.report.tomography_result import TomographyResult, Views
    from gigascope.store.open import StoreReader

_RANGE = " to "


def label(name: str, entry: Mapping[str, Any]) -> str:
    """What a metric is called."""
    return str(entry.get("label") or name.replace("_", " "))


def metric(metrics: Mapping[str, Any], pattern: str) -> tuple[float, str] | None:
    """Value and unit of the first metric whose name fits a regular expression, or none."""
    for name, entry in metrics.items():
        if re.search(pattern, name) and isinstance(entry, Mapping) and isinstance(entry.get("value"), int | float):
            return float(entry["value"]), str(entry.get("unit", ""))
    return None


def summary(result: TomographyResult, views: Views) -> str:
    """Two sentences: what went in, what came out."""
    n, height, width = result.tilt_series.shape
    low, high = _degrees(views.tilt_deg[0]), _degrees(views.tilt_deg[-1])
    origin = "simulated views" if result.simulated else "views"
    z, y, x = result.tomogram.shape
    return (
        f"{n} {origin} of {width} × {height} px ({plain(result.pixel_nm, 'nm')} per pixel), tilted from {low} to "
        f"{high}, aligned without fiducials and reconstructed into {x} × {y} × {z} voxels (x, y, z)."
    )


def footer(result: TomographyResult) -> str:
    """Version and time."""
    record = result.tomogram.provenance
    made = str(record.get("finished", "")).replace("T", " ").replace("+00:00", " UTC")
    version, digest = record.get("gigascope", ""), result.tomogram.digest[:16]
    return f"gigascope {version}, tomogram finished {made or DASH}, content {digest}."


def headlines(result: TomographyResult, views: Views) -> list[Number]:
    """The numbers seen first."""
    found: list[Number] = []
    error, before = rms_error(views.found, views), rms_error(views.coarse, views)
    if error is not None:
        found.append(
            Number("Alignment error", error, "px", f"RMS against the true shifts; pre-aligned {quantity(before, 'px')}")
        )
    elif np.isfinite(views.sigma[views.use]).any():
        sigma = views.sigma[views.use]
        spread = float(np.median(np.linalg.norm(sigma[np.isfinite(sigma).all(axis=1)], axis=1)))
        found.append(Number("Alignment, predicted", spread, "px", "median standard deviation of a view's shift"))
    finest = _finest_nm(result)
    for threshold, note in (("0.5", "where the halves agree to a half"), ("0.143", "the usual limit")):
        value = metric(result.metrics, rf"(resolution|fsc).*{re.escape(threshold)}(?!\d)")
        if value is not None:
            if finest is not None and value[0] <= 1.02 * finest:
                note = "limit of the halves' sampling: finer was not measured"
            found.append(Number(f"Resolution, FSC {threshold}", value[0], value[1] or "nm", note))
    found += _residual(result, views)
    spacing = result.tomogram.spacing
    same = np.isclose(spacing["z"], spacing["x"], rtol=1e-3)
    size = [float(n * spacing[a]) for n, a in zip(result.tomogram.shape, result.tomogram.axes)]
    found.append(
        Number("Voxel size", plain(spacing["x"]), "nm", "in all axes" if same else f"{plain(spacing['z'], 'nm')} in z")
    )
    guessed = " (a guess)" if result.tomogram.attrs.get("thickness_guessed") else ""
    found.append(Number("Thickness", *_split(length(size[0])), f"of the volume{guessed}"))
    used = int(views.use.sum())
    found.append(
        Number(
            "Views used",
            used,
            "",
            f"of {len(views.use)}, {_degrees(views.tilt_deg[0])} to {_degrees(views.tilt_deg[-1])}",
        )
    )
    seconds = [r.get("wall_s") for r in (s.provenance for s in _stores(result))]
    known = [float(s) for s in seconds if isinstance(s, int | float)]
    if known:
        found.append(
            Number(
                "Computing time", *_split(duration(sum(known))), f"on {result.tomogram.provenance.get('device', DASH)}"
            )
        )
    return found


def _finest_nm(result: TomographyResult) -> float | None:
    """The finest period that the FSC was measured at."""
    frequency = np.asarray(result.fsc.get("frequency", []), dtype=np.float64)
    return 1.0 / float(frequency.max()) if frequency.size and frequency.max() > 0 else None


def _residual(result: TomographyResult, views: Views) -> list[Number]:
    after = metric(result.metrics, r"residual.*(_aligned|after|final)|^(leave_group_out_)?residual$")
    value = after[0] if after else (float(np.nanmedian(views.residual)) if np.isfinite(views.residual).any() else None)
    if value is None:
        return []
    parts = []
    for name, pattern in (("raw", r"residual.*(raw|before)"), ("pre-aligned", r"residual.*prealigned")):
        known = metric(result.metrics, pattern)
        if known:
            parts.append(f"{name} {number(known[0])}")
    return [
        Number("Reprojection residual", value, after[1] if after else "", "; ".join(parts) or "median over the views")
    ]


def _split(text: str) -> tuple[str, str]:
    head, _, unit = text.rpartition(" ")
    return (head, unit) if " " not in head else (text, "")


def _degrees(value: float) -> str:
    return plain(float(value), "°")


def _stores(result: TomographyResult) -> list[StoreReader]:
    return [s for s in (result.tilt_series, result.prealigned, result.tomogram, result.halves) if s is not None]


def all_warnings(result: TomographyResult, views: Views) -> list[str]:
    """Everything the reader should know, from every stage and from what the tables say; each once."""
    found = [str(m) for store in _stores(result) for m in store.provenance.get("warnings") or []]
    found += [str(m) for m in result.metrics.get("warnings") or []]
    said = " ".join(found).lower()
    attrs = result.tomogram.attrs
    if attrs.get("thickness_guessed") and "thickness" not in said:
        thickness = length(float(attrs.get("thickness_nm") or result.tomogram.shape[0] * result.tomogram.spacing["z"]))
        found.append(
            f"The thickness of the volume, {thickness}, is a guess from the width of the field. "
            "Set reconstruct.thickness_nm slightly above the specimen's."
        )
    if not result.simulated and "tilt_sign" not in said and "handedness" not in said:
        found.append(
            "The sense of the tilt cannot be checked from the data: "
            "if ingest.tilt_sign is wrong, the tomogram is mirrored in z."
        )
    weak = _listed(views, views.weak & views.use)
    if weak and "interpolated" not in said:
        found.append(f"Pre-alignment could not place {weak}: the shift was interpolated from the neighbours.")
    left_out = _listed(views, ~views.use)
    if left_out and "left out" not in said and "not in the tomogram" not in said:
        found.append(f"Left out of the tomogram: {left_out}. The table of views says why.")
    return list(dict.fromkeys(found))


def _listed(views: Views, which: NDArray[np.bool_]) -> str:
    """`view 3 at −54°, view 8 at 2°` and how many more."""
    names = [f"view {i} at {_degrees(t)}" for i, t, w in zip(views.index, views.tilt_deg, which) if w]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def decisions(result: TomographyResult, views: Views) -> Html:
    """What was chosen for the user, with the value and the reason."""
    series, coarse, final = result.tilt_series.attrs, result.prealigned.attrs, result.tomogram.attrs
    signal = _mapping(series.get("signal"))
    config = _config(result.tomogram, "reconstruct")
    rows: list[tuple[str, object, str]] = [
        *_geometry(result, series),
        *_signal_rows(signal),
        *_extent_rows(final, signal, _config(result.tilt_series, "ingest")),
        *_thickness_rows(result, final),
        *_prealign_rows(coarse),
        *_search_rows(coarse),
        *_solver_rows(final, config),
    ]
    rows += [("Note of the input", "", str(note)) for note in series.get("notes") or []]
    return facts(rows)


def _geometry(result: TomographyResult, series: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    rows: list[tuple[str, object, str]] = []
    if series.get("tilt_axis_deg") is not None:
        rows.append(
            (
                "Tilt axis",
                _degrees(series["tilt_axis_deg"]),
                "from the image's upward vertical, counter-clockwise (ingest.tilt_axis_deg)",
            )
        )
    if series.get("tilt_sign") is not None:
        sign = int(series["tilt_sign"])
        rows.append(
            (
                "Tilt sign",
                f"{sign:+d}".replace("-", "−"),
                "multiplies the tilt angles of the file; a wrong one mirrors z and leaves no trace in the data",
            )
        )
    rows.append(
        (
            "Position of the specimen",
            "free",
            "a translation of the specimen changes the shifts only and is held where the series was found (gauge)",
        )
    )
    return rows


def _signal_rows(signal: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    rows: list[tuple[str, object, str]] = []
    if signal.get("signal") == "transmission":
        rows.append(
            ("Signal", "−log(I / I0)", "bright field: absorbance is what projects (ingest.signal: transmission)")
        )
        if signal.get("i0") is not None:
            rows.append(
                (
                    "Unscattered intensity I0",
                    quantity(signal["i0"], "counts", 4),
                    "99.5th percentile of all views unless ingest.i0 is set",
                )
            )
    elif signal.get("signal"):
        rows.append(("Signal", "values as they are", "dark field, or logged already (ingest.signal: linear)"))
    if signal.get("scale") is not None:
        rows.append(
            (
                "Scale",
                number(signal["scale"], 4),
                "signal of one unit inside the solver: its standard deviation in the lowest-tilt view",
            )
        )
    return rows


def _extent_rows(
    final: Mapping[str, Any], signal: Mapping[str, Any], config: Mapping[str, Any]
) -> list[tuple[str, object, str]]:
    extent = final.get("extent") or signal.get("extent")
    if not extent:
        return []
    meaning = {
        "object": "an isolated object: the volume is 1.25 times as wide as the views",
        "section": "a section wider than the field of view: the volume holds every ray, each view has a free constant",
        "crop": "a section, with the volume as wide as the views",
    }
    contrast = [number(d, 2) for d in signal.get("extent_contrast") or []]
    why = meaning.get(str(extent), "")
    if config.get("extent") not in (None, "auto"):
        why += "; set by ingest.extent"
    elif contrast:
        shown = ", ".join(contrast)
        why += f"; decided from the contrast of middle to sides in three views ({shown}; an object exceeds 5 in two)"
    return [("Extent", str(extent), why)]


def _thickness_rows(result: TomographyResult, final: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    nm = float(final.get("thickness_nm") or result.tomogram.shape[0] * result.tomogram.spacing["z"])
    measured = _mapping(final.get("refined"))
    between = measured.get("thickness_nm")
    told = ""
    if isinstance(between, int | float):
        told = f"{length(between)} ± {length(float(measured.get('thickness_sigma_nm') or 0.0))} between its faces"
    if _mapping(final.get("reconstruct")).get("thickness_nm") or not (told or final.get("thickness_guessed")):
        why = "as set by reconstruct.thickness_nm" + (f"; the specimen seems to have {told}" if told else "")
    elif told:
        why = f"from the data: the specimen has {told}; the volume a little more, at most half or all of the field"
    else:
        why = "a guess from the width of the field; set reconstruct.thickness_nm"
    return [("Thickness", length(nm), why)]


def _search_rows(coarse: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    """What the prealignment found out about tilt axis and inclination."""
    rows: list[tuple[str, object, str]] = []
    axis = _mapping(coarse.get("axis_search"))
    if axis:
        sigma = axis.get("sigma_deg")
        spread = f" ± {number(sigma, 2)}°" if isinstance(sigma, int | float) else ", of which the data say nothing"
        used = axis["found_deg"] if axis.get("taken") else axis["start_deg"]
        why = f"the data say {number(axis['found_deg'], 3)}°{spread} (prealign.axis_search); "
        why += (
            "taken, being clearly another"
            if axis.get("taken")
            else "not clearly another than the given one, which stays"
        )
        rows.append(("Tilt axis that was used", _degrees(used), why))
    if isinstance(coarse.get("inclination_deg"), int | float):
        offset = float(_mapping(coarse.get("refined")).get("tilt_offset_deg") or 0.0)
        why = (
            "added to the tilt angles (prealign.tilt_offset_search)"
            if offset
            else "the tilt angles were left as they are"
        )
        shown = f"{number(coarse['inclination_deg'], 2)}° ± {number(coarse['inclination_sigma_deg'], 2)}°"
        rows.append(
            (
                "Inclination of the section",
                shown,
                f"{number(-coarse['inclination_deg'], 2)}° would lay it flat; {why}"
                if not offset
                else f"{number(offset, 2)}° {why}",
            )
        )
    return rows


def _prealign_rows(coarse: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    if not coarse.get("method"):
        return []
    residuals = _mapping(coarse.get("residuals"))
    tried = "; ".join(f"{name}: {number(value)}" for name, value in residuals.items())
    bin_ = coarse.get("bin")
    why = (
        f"lowest leave-group-out residual of those tried ({tried})"
        if len(residuals) > 1
        else "shifts as they are there (inputs.alignment)"
        if str(coarse["method"]).startswith("given")
        else "cosine-stretched, outward from the lowest tilt"
    )
    if bin_:
        why += f"; views binned by {number(bin_)}"
    return [("Pre-alignment", str(coarse["method"]), why)]


_METHODS = {
    "wbp": "weighted backprojection",
    "sirt": "SIRT, ended when the misfit was down to the noise, or by reconstruct.iterations",
    "cgls": "conjugate gradients (CGLS), ended when the misfit was down to the noise, or by reconstruct.iterations",
}


def _solver_rows(final: Mapping[str, Any], config: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    rows: list[tuple[str, object, str]] = []
    solved = [str(name) for name in _mapping(config.get("align")).get("dof") or ["shift"]]
    if len(solved) > 1:
        rows.append(
            ("Solved for every view", ", ".join(solved), "reconstruct.align.dof; the table of shifts lists them")
        )
    bins = final.get("align_bins")
    if bins and _mapping(config.get("align")).get("enabled", True):
        why = "coarse to fine; chosen from the size unless reconstruct.align.bins is set"
        if _mapping(config.get("align")).get("mode") == "published":
            bins, why = bins[-1:], "the published iteration, for comparison (reconstruct.align.mode)"
        rows.append(("Alignment levels", "bin " + ", ".join(number(b) for b in bins), why))
    else:
        rows.append(
            ("Joint alignment", "none", "reconstruct.align.enabled is false: the shifts are those of pre-alignment")
        )
    method = str(config.get("method"))
    if method in _METHODS:
        rows.append(("Method", _METHODS[method], f"reconstruct.method: {method}"))
    else:
        weight = final.get("lambda", config.get("lambda"))
        if weight is not None:
            rows.append(
                (
                    "Method",
                    f"total variation, λ = {plain(float(weight))}",
                    "weight for data of unit standard deviation; larger is smoother",
                )
            )
    rows.append(
        (
            "Binning of the tomogram",
            number(final.get("bin", config.get("bin", 1))),
            "1 is the pixel size of the views (reconstruct.bin)",
        )
    )
    return rows


def _config(store: StoreReader, section: str) -> Mapping[str, Any]:
    """The section that the stage behind a store was run with."""
    return _mapping(_mapping(store.provenance.get("config")).get(section))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
