"""The page of a mosaic and its heights: what its stores, tables and metrics are turned into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gigascope.report import topography_pictures as pictures
from gigascope.report import topography_plots as plots
from gigascope.report import topography_words as words
from gigascope.report.page import (
    Html,
    Page,
    details,
    figure,
    first_warnings,
    grid,
    heading,
    join,
    paragraph,
    quantity,
    table,
    tiles,
)
from gigascope.report.records import reproduce, what_was_done

if TYPE_CHECKING:
    from gigascope.report.topography_result import TopographyResult


def topography_page(result: TopographyResult, picture_px: int = 720) -> str:
    """The whole page as HTML text.

    Parameters
    ----------
    picture_px : longest side of a picture, samples
    """
    page = Page(
        title=result.name,
        kind="Topography report",
        summary=words.summary(result),
        footer=words.footer(result),
    )
    numbers = join([tiles(words.headlines(result)), first_warnings(result.warnings)])
    page.add("Picture and heights", pictures.mosaic(result, picture_px), numbers, anchor="mosaic")
    page.add_warnings(result.warnings)
    page.add("One view, before and after", pictures.one_view(result, picture_px), anchor="view")
    page.add("How good heights and picture are", _errors(result, picture_px), anchor="errors")
    page.add("Do the views agree", _agreement(result, picture_px), anchor="agreement")
    page.add("Calibration", _calibration(result), anchor="calibration")
    page.add("Training", _training(result), anchor="training")
    page.add("What was decided, and why", words.decisions(result), anchor="decisions")
    page.add("How to use it", words.use(result), anchor="use")
    page.add("What was done", what_was_done(result.records), _all_numbers(result), anchor="done")
    page.add("How to repeat it", reproduce(result.name, result.records, "mosaic"), anchor="repeat")
    return page.render()


def _errors(result: TopographyResult, picture_px: int) -> Html:
    if not result.simulated:
        return Html("")
    drawn = plots.height_errors(result, pictures.errors(result, picture_px))
    return join([drawn, plots.tables_of_errors(result), plots.estimators(result)])


def _agreement(result: TopographyResult, picture_px: int) -> Html:
    if result.n_views == 1:
        return Html("")
    caption = (
        "Standard deviation of the heights that the views of a pixel find; how many views a pixel has; and how steep "
        "picture and heights are beside the borders of views, where a seam would show."
    )
    return figure(grid(*pictures.agreement(result, picture_px), plots.seams(result), columns="three"), caption)


def _calibration(result: TopographyResult) -> Html:
    if result.n_views == 1:
        return Html("")
    return plots.calibration(result)


def _training(result: TopographyResult) -> Html:
    why = str(result.stores["training"].attrs.get("why", ""))
    said = paragraph(why) if why else Html("")
    return join([said, pictures.patches(result), plots.losses(result), plots.loader(result)])


def _all_numbers(result: TopographyResult) -> Html:
    rows = [
        [str(entry.get("label") or name), quantity(entry["value"], _unit(entry), 4)]
        for name, entry in result.metrics.items()
        if isinstance(entry, Mapping) and "value" in entry
    ]
    listed = table(["measure", "value"], rows, "Measured by the evaluate stage")
    return join([heading("All numbers"), details(f"All {len(rows)} numbers", listed)])


def _unit(entry: Mapping[str, object]) -> str:
    unit = str(entry.get("unit") or "")
    return "z-steps" if unit == "dz" else unit
