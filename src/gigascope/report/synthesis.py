"""The page of simulated cultures: what their stores, tables and metrics are turned into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gigascope.report import synthesis_pictures as pictures
from gigascope.report import synthesis_plots as plots
from gigascope.report import synthesis_scores as scores
from gigascope.report import synthesis_words as words
from gigascope.report.page import Html, Page, details, first_warnings, heading, join, quantity, table, tiles
from gigascope.report.records import reproduce, what_was_done

if TYPE_CHECKING:
    from gigascope.report.synthesis_result import SynthesisResult


def synthesis_page(result: SynthesisResult, picture_px: int = 720) -> str:
    """The whole page as HTML text.

    Parameters
    ----------
    picture_px : longest side of a picture, samples
    """
    page = Page(
        title=result.name,
        kind="Synthesis report",
        summary=words.summary(result),
        footer=words.footer(result),
    )
    numbers = join([tiles(words.headlines(result)), first_warnings(result.warnings)])
    page.add("The images", pictures.montage(result, picture_px), numbers, anchor="images")
    page.add_warnings(result.warnings)
    page.add("How near to real images", plots.distances(result), anchor="distances")
    page.add("What depth does", plots.depth(result), anchor="depth")
    page.add("Noise", plots.noise(result), anchor="noise")
    page.add("Nuclei", plots.nuclei(result), anchor="nuclei")
    page.add("Do the labels still fit", scores.alignment(result), anchor="alignment")
    page.add("What a segmenter finds", pictures.found(result, picture_px), scores.found(result), anchor="segmenter")
    page.add("Training", pictures.crops(result), scores.training(result), anchor="training")
    page.add("What was decided, and why", words.decisions(result), anchor="decisions")
    page.add("How to use it", words.use(result), anchor="use")
    page.add("What was done", what_was_done(result.records), _all_numbers(result), anchor="done")
    page.add("How to repeat it", reproduce(result.name, result.records, words.naive_store(result)), anchor="repeat")
    return page.render()


def _all_numbers(result: SynthesisResult) -> Html:
    rows = [
        [str(entry.get("label") or name), quantity(entry["value"], str(entry.get("unit") or ""), 4)]
        for name, entry in result.metrics.items()
        if isinstance(entry, Mapping) and "value" in entry
    ]
    listed = table(["measure", "value"], rows, "Measured by the evaluate stage")
    return join([heading("All numbers"), details(f"All {len(rows)} numbers", listed)])
