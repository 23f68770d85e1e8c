"""The page of a tilt series: what its stores, tables and metrics are turned into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gigascope.report import tomography_plots as plots
from gigascope.report import tomography_slices as slices
from gigascope.report import tomography_words as words
from gigascope.report.page import (
    Html,
    Page,
    details,
    first_warnings,
    heading,
    join,
    paragraph,
    plain,
    quantity,
    table,
    tag,
    tiles,
)
from gigascope.report.records import reproduce, what_was_done

if TYPE_CHECKING:
    from gigascope.report.tomography_result import TomographyResult, Views
    from gigascope.store.open import StoreReader


def tomography_page(result: TomographyResult, picture_px: int = 720) -> str:
    """The whole page as HTML text.

    Parameters
    ----------
    picture_px : longest side of a slice's picture, samples
    """
    views = result.views()
    notes = words.all_warnings(result, views)
    page = Page(
        title=result.name,
        kind="Tomography report",
        summary=words.summary(result, views),
        footer=words.footer(result),
    )
    first = tag(
        "div",
        slices.tomogram_figure(result, picture_px),
        tag("div", tiles(words.headlines(result, views)), first_warnings(notes)),
        class_="first",
    )
    page.add("Tomogram", first, anchor="tomogram")
    page.add_warnings(notes)
    page.add("Before and after alignment", slices.comparison(result, views, picture_px), anchor="before-after")
    page.add("Alignment", plots.alignment(views, result.pixel_nm), _flagged(views), anchor="alignment")
    page.add("Quality", plots.quality(result, views), _methods(result), _all_numbers(result), anchor="quality")
    page.add("What was decided, and why", words.decisions(result, views), anchor="decisions")
    records = [store.provenance for store in _stores(result)]
    page.add("What was done", what_was_done(records), anchor="done")
    page.add("How to repeat it", reproduce(result.name, records, "tomogram"), anchor="repeat")
    return page.render()


def _stores(result: TomographyResult) -> list[StoreReader]:
    found = [result.tilt_series, result.prealigned, result.tomogram, result.halves]
    return [store for store in found if store is not None]


def _flagged(views: Views) -> Html:
    """Table of the views that were left out, flagged or weak, with the reason; the whole table behind a fold."""
    symbols = [Html(f"{letter}<sub>{axis}</sub>") for letter in ("f", "σ") for axis in ("s", "y")]
    header = ["view", "tilt", *symbols, "residual", "overlap", "why"]
    rows = [
        _row(views, i, views.reason[i] or ("weak in pre-alignment" if views.weak[i] else ""))
        for i in range(len(views.index))
    ]
    bad = [row for row in rows if row[-1]]
    caption = "Views left out, flagged, or weak in pre-alignment; shifts in pixels of the raw views"
    shown = table(header, bad, caption) if bad else paragraph("No view was left out, flagged, or weak.", class_="fine")
    whole = table(header, rows, "All views, by ascending tilt; shifts in pixels of the raw views")
    return join([heading("Views that stand out"), shown, details(f"All {len(rows)} views", whole)])


def _row(views: Views, i: int, why: str) -> list[object]:
    return [
        int(views.index[i]),
        plain(float(views.tilt_deg[i]), "°"),
        *(float(v) for v in (*views.found[i], *views.sigma[i], views.residual[i], views.overlap[i])),
        why,
    ]


def _methods(result: TomographyResult) -> Html:
    """Every way of aligning this series that was tried, in one table."""
    methods = result.metrics.get("methods") or []
    if not methods:
        return Html("")
    truth = any("error_px" in row for row in methods)
    header = ["alignment", "step", "half-set residual", "from the result"] + (["error"] if truth else []) + [""]
    rows = [
        [
            row["method"],
            row["step"],
            quantity(row["residual"], "", 4),
            quantity(row["distance_px"], "px", 3),
            *([quantity(row.get("error_px"), "px", 3)] if truth else []),
            "used" if row["chosen"] else "",
        ]
        for row in methods
    ]
    caption = (
        "Every alignment of this series by how well the even and the odd views predict each other under it, the best "
        "first; distances are RMS over the views without a translation of the specimen"
    )
    return join([heading("Ways of aligning this series"), table(header, rows, caption)])


def _all_numbers(result: TomographyResult) -> Html:
    rows = [
        [words.label(name, entry), quantity(entry["value"], str(entry.get("unit") or ""), 4)]
        for name, entry in result.metrics.items()
        if isinstance(entry, Mapping) and "value" in entry
    ]
    if not rows:
        return Html("")
    return join([heading("All numbers"), table(["measure", "value"], rows, "Measured by the evaluate stage")])
