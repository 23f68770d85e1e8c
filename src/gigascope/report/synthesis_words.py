"""Words and single numbers of the synthesis page: summary, headline numbers, decisions, use of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
)
from gigascope.report.synthesis_result import ADAPTED, NAIVE, REAL, TITLES

if TYPE_CHECKING:
    from gigascope.report.synthesis_result import SynthesisResult

Row = tuple[str, object, str]


def summary(result: SynthesisResult) -> str:
    """Two sentences: what there is, and what was made of it."""
    n = _count(result, NAIVE)
    z, y, x = result.voxel_um
    found = result.value(f"nuclei_{NAIVE}")
    nuclei = f" with {number(found)} labelled nuclei measured" if found is not None else ""
    what = "naive image" if result.given else "simulated spheroid"
    text = f"{n} {what}{'s' if n != 1 else ''}{nuclei}, voxels of {plain(z)} × {plain(y)} × {plain(x)} µm (z, y, x)."
    if ADAPTED in result.sets:
        n = _count(result, REAL)
        text += f" A network gave {_count(result, ADAPTED)} of them the look of {n} real image{'s' if n != 1 else ''}."
    elif REAL in result.sets:
        text += f" Compared with {_count(result, REAL)} real image{'s' if _count(result, REAL) != 1 else ''}."
    else:
        text += " There are no real images to compare them with."
    return text


def footer(result: SynthesisResult) -> str:
    """Version, time, and what the file is."""
    record = result.records[-1]
    made = str(record.get("finished", "")).replace("T", " ").replace("+00:00", " UTC")
    return f"gigascope {record.get('gigascope', '')}, cultures evaluated {made or DASH}."


def headlines(result: SynthesisResult) -> list[Number]:
    """The numbers seen first."""
    value = result.value
    found = []
    for measure, label in (("w1", "Intensities"), ("spectrum", "Power spectrum"), ("kernel", "Features")):
        near, far, floor = (value(f"{measure}_{p}") for p in ("real_adapted", "real_naive", "real_real"))
        unit = "decades" if measure == "spectrum" else ""
        if near is not None:
            note = f"distance of adapted images to real ones; simulated: {number(far)}, real to real: {number(floor)}"
            found.append(Number(label, near, unit, note))
        elif far is not None:
            note = f"distance of simulated images to real ones; real to real: {number(floor)}"
            found.append(Number(label, far, unit, note))
    for key in (ADAPTED, NAIVE):
        det = value(f"det_{key}")
        if det is not None:
            real = value(f"det_{REAL}")
            beside = f"; real images: {number(real)}" if real is not None else ""
            seg = number(value(f"seg_{key}"))
            note = f"detection score of one segmenter on {TITLES[key]} images, SEG {seg}{beside}"
            found.append(Number(f"DET, {TITLES[key]}", det, "", note))
    median = value("shift_median")
    if median is not None:
        note = f"of blocks of adapted images, median; 95 %: {quantity(value('shift_p95'), 'voxels')}"
        found.append(Number("Shift", median, "voxels", note))
    best = [value(f"downstream_det_{k}") for k in (NAIVE, ADAPTED, f"{NAIVE}_and_{ADAPTED}")]
    if any(v is not None for v in best):
        note = f"DET on real images of networks that learned from simulated ones; from adapted ones: {number(best[1])}"
        found.append(Number("Learned", best[0], "", note))
    seconds = [float(r["wall_s"]) for r in result.records if isinstance(r.get("wall_s"), int | float)]
    if seconds:
        head, _, unit = duration(sum(seconds)).replace("\N{NO-BREAK SPACE}", " ").rpartition(" ")
        shown = (head, unit) if " " not in head else (duration(sum(seconds)), "")
        found.append(Number("Computing time", *shown, "of the stages listed below"))
    return found


def decisions(result: SynthesisResult) -> Html:
    """What was chosen for the user, with the value and the reason."""
    attrs = result.stores["evaluation"].attrs
    tile = " × ".join(str(n) for n in attrs["tile"])
    why = "what images are compared in, evenly spread over the spheroids; small where images are small"
    rows: list[Row] = [("Tiles", f"{tile} voxels", why)]
    for key in result.sets:
        low, high = result.scale(key)
        why = "percentiles 0.1 and 99.9 of the tiles of this kind of images"
        if key == ADAPTED and REAL in result.sets:
            why = "those of the real images, which adapted ones are to be like"
        rows.append((f"Scale, {TITLES[key]}", f"{plain(low)} to {plain(high)}", why))
    if result.given:
        why = "images of trainB and inferenceB, called simulated on this page: nothing was simulated here"
        rows.append(("Naive images", "given", why))
    if REAL not in result.sets:
        rows.append(("Real images", "none", "distances are those of halves of the simulated images: the floor"))
    rows += [("Note", "", str(note)) for note in result.metrics.get("notes") or []]
    return facts(rows)


def use(result: SynthesisResult) -> Html:
    """How to open the result, on the command line and in Python."""
    folder = f"results/{result.name}"
    naive = naive_store(result)
    store = "adapted" if ADAPTED in result.sets else naive
    first = str(result.stores["evaluation"].attrs.get("first", "s0000"))
    lines = [
        f"gigascope view {folder}                  # images and labels in the browser",
        f"gigascope info {folder}/{naive}.zarr",
        f"gigascope export {folder} volumes        # image and label files, for StarDist and Cellpose",
        f"gigascope export {folder} slices --layout slices   # slices in three directions, at one scale",
        f"gigascope export {folder} challenge --layout ctc   # folders of the Cell Tracking Challenge",
    ]
    snippet = [
        "from gigascope.store.open import open_store",
        "",
        f'image = open_store("{folder}/{store}.zarr").image("{first}").array()[:]      # (z, y, x), uint16',
        f'labels = open_store("{folder}/{naive}.zarr").image("{first}").label("nuclei")[:]  # 0 is background',
    ]
    text = paragraph(
        "Every spheroid is an OME-Zarr 0.5 image of its own with its labels: napari, Neuroglancer and ome-zarr read "
        "it as it is. Tables beside this page have all numbers of its plots."
    )
    return join([text, commands(lines), paragraph("In Python:"), commands(snippet)])


def naive_store(result: SynthesisResult) -> str:
    """Name of the store of the images before adaptation."""
    return "real" if result.given else "cultures"


def _count(result: SynthesisResult, key: str) -> int:
    return int(dict(result.stores["evaluation"].attrs["images"]).get(key, 0))
