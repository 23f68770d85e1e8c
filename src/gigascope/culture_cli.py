"""`gigascope export` of simulated cultures: folders of the Cell Tracking Challenge, pairs of volumes or of slices."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from gigascope.errors import UserError

if TYPE_CHECKING:
    from gigascope.synthesis.evaluation.volumes import Volume

LAYOUTS = ("ctc", "pairs", "slices", "figures")
IMAGES = ("auto", "cultures", "adapted")
# What an export leaves beside its files; a folder with it may be replaced.
RECORD = "export.json"


def cultures_in(path: Path) -> Path | None:
    """The results folder of cultures that a path names: it, a store in it or that one's root; none: another thing."""
    path = path.parent if path.name == "zarr.json" else path
    folder = path.parent if path.name in ("cultures.zarr", "adapted.zarr") else path
    # adapted images alone: the naive ones were given, and stand beside the real ones
    there = any((folder / name / "zarr.json").is_file() for name in ("cultures.zarr", "adapted.zarr"))
    return folder if there else None


def export_cultures(
    folder: Path,
    out: Path,
    *,
    layout: str = "pairs",
    images: str = "auto",
    every_um: float = 5.0,
    segment: bool = False,
    force: bool = False,
    idle: Sequence[str] = (),
) -> None:
    """Write images with their labels into a new folder; adapted images that do not fit their labels are left out.

    Parameters
    ----------
    folder : results of a synthesis dataset
    out : folder to be made
    layout : ctc, Cell Tracking Challenge; pairs, TIFF volumes; slices, TIFF slices of all three directions; figures,
        plots of the report as SVG and its tables as CSV and Parquet
    images : cultures, adapted, or auto: adapted where there are any
    every_um : of layout slices: their distance
    segment : of layout ctc: write what the classical segmenter finds as results
    force : replace a folder of an earlier export
    idle : options that were given and are for other files

    Raises
    ------
    UserError : options that do not fit, no labels, a folder that is in the way
    """
    from gigascope.store.disk import disk_errors, remove

    _check(out, layout, images, every_um, segment, force, idle)
    begun = time.monotonic()
    of_report = layout == "figures"
    chosen, volumes, left_out = ("report", [], []) if of_report else _volumes(folder, images, layout)
    partial = out.with_name(f"{out.name}.{uuid4().hex}.partial")
    with disk_errors(out):
        try:
            partial.mkdir()
            rows = _write_report(partial, folder) if of_report else _write(partial, volumes, layout, every_um, segment)
            source = folder / ("report.html" if of_report else f"{chosen}.zarr")
            record = {"from": str(source), "layout": layout, "images": rows, "left_out": left_out}
            (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            if out.exists():
                remove(out)
            os.replace(partial, out)
        finally:
            remove(partial)
    for name in left_out:
        print(f"note: {name} was left out, its nuclei are not where its labels are")
    what = "files of the" if of_report else "images of"
    print(f"wrote {out}: {len(rows)} {what} {chosen}, {layout}, {time.monotonic() - begun:.1f} s")


def _check(
    out: Path, layout: str, images: str, every_um: float, segment: bool, force: bool, idle: Sequence[str]
) -> None:
    if idle:
        raise UserError("is for other files, not for cultures.", where=f"--{idle[0]}", do="Leave it out.")
    for value, known, where in ((layout, LAYOUTS, "--layout"), (images, IMAGES, "--images")):
        if value not in known:
            raise UserError(f"{value!r} is none of {', '.join(known)}.", where=where)
    if layout == "figures" and images != "auto":
        raise UserError("is for layouts of images.", where="--images", do="Leave it out.")
    if segment and layout != "ctc":
        raise UserError("is for the layout ctc.", where="--segment", do="Leave it out.")
    if not every_um > 0:
        raise UserError("slices lie a positive distance apart.", where="--every-um")
    if not out.absolute().parent.is_dir():
        raise UserError("there is no such folder.", where=out.absolute().parent, do="Make it, or write elsewhere.")
    if out.exists() and not (force and (out / RECORD).is_file()):
        do = "Remove it, write elsewhere, or give --force to replace an earlier export."
        raise UserError("is there already.", where=out, do=do)


def _volumes(folder: Path, images: str, layout: str) -> tuple[str, list[Volume], list[str]]:
    """Which store was chosen, its images (as pairs also those without labels), and names of those that are left out."""
    from gigascope.store.open import open_store
    from gigascope.synthesis.evaluation.opened import open_sets

    naive = "cultures" if (folder / "cultures.zarr" / "zarr.json").is_file() else "real"
    stores = {naive: open_store(folder / f"{naive}.zarr")}
    there = (folder / "adapted.zarr" / "zarr.json").is_file()
    if images == "adapted" and not there:
        raise UserError("there are no adapted images.", where=folder, do="Give --images cultures.")
    if there and images != "cultures":
        stores["adapted"] = open_store(folder / "adapted.zarr")
    sets = open_sets(stores)
    chosen = "adapted" if sets.adapted is not None else naive
    shown = sets.adapted or sets.naive
    volumes = list(shown.volumes) if layout == "pairs" else shown.labelled
    left = [v.name for v in volumes if stores[chosen].image(v.name).attrs.get("rejected")]
    kept = [v for v in volumes if v.name not in left]
    if not kept:
        raise UserError(f"no image of {chosen} has labels that fit it.", where=folder / f"{chosen}.zarr")
    return chosen, kept, left


def _write_report(out: Path, folder: Path) -> list[dict[str, Any]]:
    from gigascope.report.figure_files import write_figures

    return write_figures(folder / "report.html", out)


def _write(folder: Path, volumes: list[Volume], layout: str, every_um: float, segment: bool) -> list[dict[str, Any]]:
    from gigascope.runtime.progress import Progress
    from gigascope.synthesis.evaluation.segmenting import Classical
    from gigascope.synthesis.exporting import folders

    shown = Progress()(volumes, what="exporting", unit="image")
    if layout == "ctc":
        return folders.write_ctc(folder, shown, Classical() if segment else None)
    if layout == "pairs":
        return folders.write_pairs(folder, shown)
    return folders.write_slices(folder, shown, every_um)
