"""Words and single numbers of the topography page: summary, headline numbers, warnings, decisions, use of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.report.figures import length
from gigascope.report.page import (
    DASH,
    Html,
    Number,
    commands,
    duration,
    facts,
    join,
    number,
    paragraph,
    plain,
    quantity,
    tag,
)

if TYPE_CHECKING:
    from gigascope.report.topography_result import TopographyResult

Row = tuple[str, object, str]
NM_PER_UM = 1000.0


def summary(result: TopographyResult) -> str:
    """Two sentences: what went in, what came out."""
    of = result.calibration.instrument
    rows, cols = result.mosaic.shape[1:]
    dz = f"{plain(result.dz)} µm apart" if result.height_unit == "µm" else "at an unknown distance"
    n = result.n_views
    views = f"{n} views of" if n > 1 else "one stack of"
    pixel = f" of {length(result.pixel_um * NM_PER_UM)}" if result.pixel_um is not None else ""
    start = f"A simulated instrument: {views}" if result.simulated else views[0].upper() + views[1:]
    return (
        f"{start} {result.n_slices} slices, {dz}, of {of.size[1]} × {of.size[0]} pixels; put together to a mosaic of "
        f"{cols} × {rows} pixels{pixel}, in focus everywhere, with its height map."
    )


def footer(result: TopographyResult) -> str:
    """Version, time, and what the file is."""
    record = result.records[-1]
    made = str(record.get("finished", "")).replace("T", " ").replace("+00:00", " UTC")
    return f"gigascope {record.get('gigascope', '')}, {result.mosaic.path.name} evaluated {made or DASH}."


def headlines(result: TopographyResult) -> list[Number]:
    """The numbers seen first."""
    value = result.value
    found = [*_true_numbers(result)] if result.simulated else []
    scatter = value("view_agreement")
    if scatter is not None:
        steps = quantity(value("view_agreement_dz"), "z-steps")
        note = f"scatter of the heights of a point between views, median; {steps}"
        found.append(Number("Views agree to", scatter, result.height_unit, note))
    seam = value("seam_energy")
    if seam is not None:
        found.append(Number("Seams", seam, "", "gradient at borders of views over elsewhere; 1 is none"))
    gain = value("sharpness_gain")
    if gain is not None:
        found.append(Number("Sharpness", gain, "×", "of the sharpest single slice, squared gradients of whole views"))
    covered = value("coverage") if result.simulated else value("covered")
    note = "of the pixels that views see" if result.simulated else "of the mosaic's rectangle"
    found.append(Number("Coverage", covered, "%", note, digits=4))
    if result.n_views > 1:
        found.append(Number("Views per pixel", value("views_per_pixel"), "", f"{result.n_views} views in all"))
    seconds = [float(r["wall_s"]) for r in result.records if isinstance(r.get("wall_s"), int | float)]
    if seconds:
        found.append(Number("Computing time", *_split(duration(sum(seconds))), "of the stages listed below"))
    return found


def _true_numbers(result: TopographyResult) -> list[Number]:
    value, unit = result.value, result.height_unit
    best = value("best_estimator_rmse")
    beside = f"; the best classical estimator, averaged over views: {quantity(best, unit)}" if best is not None else ""
    steps = quantity(value("height_rmse_dz"), "z-steps")
    found = [
        Number("Height error", value("height_rmse"), unit, f"RMSE, {steps}{beside}"),
        Number("95 % of heights", value("height_p95"), unit, "are off by less"),
    ]
    beside_steps = value("height_rmse_steps")
    if beside_steps is not None:
        found.append(Number("Beside steps", beside_steps, unit, "RMSE where a focus window sees across a step"))
    psnr, limit = value("all_in_focus_psnr"), value("true_index_psnr_mean")
    note = f"all in focus, against the true picture; true slices: {quantity(limit, 'dB', 4)}"
    found.append(Number("PSNR", psnr, "dB", note, digits=4))
    auc = value("confidence_auc")
    if auc is not None:
        found.append(Number("Confidence", auc, "", "AUC: how well it tells texture from none; 1 is always"))
    return found


def _split(text: str) -> tuple[str, str]:
    head, _, unit = text.replace("\N{NO-BREAK SPACE}", " ").rpartition(" ")
    return (head, unit) if " " not in head else (text, "")


def decisions(result: TopographyResult) -> Html:
    """What was chosen for the user, with the value and the reason."""
    rows: list[Row] = [
        *_stacks(result),
        *_registered(result),
        *_calibration(result),
        *_method(result),
        *_mosaic(result),
    ]
    notes = [*(result.stores["raw"].attrs.get("notes") or []), *(result.metrics.get("notes") or [])]
    rows += [("Note", "", str(note)) for note in notes]
    return facts(rows)


def _stacks(result: TopographyResult) -> list[Row]:
    attrs = result.stores["raw"].attrs
    rows: list[Row] = []
    step = f"{plain(1000 * abs(float(attrs['dz_mm'])))} µm"
    if attrs.get("dz_known", True):
        rows.append(("z-step", step, "median distance of the stage positions of a stack"))
    else:
        rows.append(("z-step", "unknown", "heights count slices; set ingest.dz_mm to have them in micrometres"))
    sign = "nearer" if attrs.get("stage_up", True) else "further away"
    rows.append(("Sign of heights", "toward the camera", f"a larger stage position brings the sample {sign}"))
    if attrs.get("bayer"):
        why = "colours of the top left 2 × 2 pixels; sites called green were compared with each other"
        rows.append(("Colour mosaic", str(attrs["bayer"]), why))
    return rows


def _registered(result: TopographyResult) -> list[Row]:
    store = result.stores.get("registered")
    if store is None:
        return []
    found = store.attrs.get("registration") or {}
    rows: list[Row] = [
        ("Order of slices", "changed" if found.get("reordered") else "kept", str(found.get("order", "")))
    ]
    moved = f"by up to {quantity(found['largest_px'], 'px')}" if found.get("resampled") else "not moved"
    return [*rows, ("Registration", moved, str(found.get("summary", "")))]


def _calibration(result: TopographyResult) -> list[Row]:
    store, found = result.stores["calibration"], result.calibration
    datum = str(store.attrs.get("datum", ""))
    rows: list[Row] = [("Poses", found.source, _pose_words(result))]
    if datum:
        rows.append(("Height 0", "measured" if store.attrs.get("datum_known", True) else "by convention", datum))
    return rows


def _pose_words(result: TopographyResult) -> str:
    median = result.value("tie_residual_median")
    if median is None:
        return "one view, nothing to place" if result.n_views == 1 else ""
    return f"{number(result.value('tie_points'))} tie points, residual {quantity(median, 'px')} (median)"


def _method(result: TopographyResult) -> list[Row]:
    training, views = result.stores["training"].attrs, result.stores["views"].attrs
    method = str(views.get("method", training.get("use", "")))
    said = str(training.get("why", ""))
    why = str(views.get("why") or said)
    rows: list[Row] = [("Heights from", method or DASH, why)]
    if training.get("n_parameters"):
        chosen = f"{number(training['n_parameters'])} parameters, {number(training.get('steps'))} steps"
        # what training found, where inference does not say it already
        rows.append(("Network", chosen, "" if said in why else said))
    return rows


def _mosaic(result: TopographyResult) -> list[Row]:
    attrs, unit = result.mosaic.attrs, result.height_unit
    rows: list[Row] = []
    blend = attrs.get("blend")
    if blend:
        rows.append(("Blending", str(blend), "views weigh by their confidence, less toward their borders"))
    refined = attrs.get("refined")
    if isinstance(refined, dict):
        why = (
            f"heights in {number(refined['overlaps'])} overlaps differed by {quantity(refined['before'], unit)} rms, "
            f"and by {quantity(refined['after'], unit)} now"
        )
        rows.append(("Heights of views", f"refined: {attrs.get('refine')}", why))
    return rows


def use(result: TopographyResult) -> Html:
    """How to open the result, on the command line and in Python."""
    folder = f"results/{result.name}"
    names = list(map(str, result.mosaic.attrs["channels"]))
    height = names.index("height")
    lines = [
        f"gigascope view {folder}        # mosaic and heights in the browser",
        f"gigascope info {folder}/mosaic.zarr",
    ]
    snippet = [
        "from gigascope.store.open import open_store",
        "",
        f'mosaic = open_store("{folder}/mosaic.zarr")',
        f"height = mosaic.array()[{height}, 0:512, 0:512]  # {result.height_unit}, NaN where no view sees it",
        f"coarse = mosaic.array({result.mosaic.n_levels - 1})[{height}]  # the coarsest level of the pyramid",
    ]
    text = paragraph(
        "mosaic.zarr is OME-Zarr 0.5 with the channels ",
        join([tag("code", name) for name in names], ", "),
        ": napari, Neuroglancer and ome-zarr read it as it is. ",
        "mosaic.ply is the surface with its colours, for MeshLab and Blender; tiff.enabled: true adds "
        "mosaic_colour.ome.tif and mosaic_height.ome.tif, of any size.",
    )
    return join([text, commands(lines), paragraph("In Python:"), commands(snippet)])
