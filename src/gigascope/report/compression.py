"""The page of a compressed volume: what its stores, its file, tables and metrics are turned into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gigascope.report import compression_pictures as pictures
from gigascope.report import compression_plots as plots
from gigascope.report import compression_words as words
from gigascope.report.page import Html, Page, details, first_warnings, grid, heading, join, quantity, table, tiles
from gigascope.report.records import reproduce, what_was_done

if TYPE_CHECKING:
    from gigascope.report.compression_result import CompressionResult

FRAME_COLUMNS = {
    "bytes": "bytes",
    "ratio": "ratio",
    "n_gaussians": "Gaussians",
    "psnr_fg": "PSNR, foreground (dB)",
    "noise_ceiling_fg": "the noise alone (dB)",
    "psnr_gate": "PSNR, gate (dB)",
    "psnr_whole": "PSNR, all (dB)",
    "mip_ssim": "SSIM, projections",
    "fraction_fg": "foreground (share)",
}


def compression_page(result: CompressionResult, picture_px: int = 720) -> str:
    """The whole page as HTML text.

    Parameters
    ----------
    picture_px : longest side of a picture, samples
    """
    page = Page(
        title=result.name,
        kind="Compression report",
        summary=words.summary(result),
        footer=words.footer(result),
    )
    numbers = join([tiles(words.headlines(result)), first_warnings(result.warnings)])
    page.add("Original and decoded", pictures.projections(result, picture_px), numbers, anchor="volume")
    page.add_warnings(result.warnings)
    page.add("What was lost", pictures.slices(result, picture_px), plots.residual(result), anchor="lost")
    page.add("Beside other codecs", plots.rate_distortion(result), anchor="codecs")
    page.add("Where the bytes are", grid(plots.where_bytes_are(result), plots.seed_table(result)), anchor="bytes")
    page.add("Bricks and frames", _frames(result), plots.bricks(result), anchor="bricks")
    page.add("What was decided, and why", words.decisions(result), anchor="decisions")
    page.add("How to use the file", words.use(result), anchor="use")
    page.add("What was done", what_was_done(result.records), _all_numbers(result), anchor="done")
    page.add("How to repeat it", reproduce(result.name, result.records, "volume"), anchor="repeat")
    return page.render()


def _frames(result: CompressionResult) -> Html:
    if len(result.frames) == 1:
        return Html("")
    header, body = words.frame_rows(result, FRAME_COLUMNS)
    return table(header, body, "Frames, each against its own range", digits=4)


def _all_numbers(result: CompressionResult) -> Html:
    rows = [
        [str(entry.get("label") or name), quantity(entry["value"], str(entry.get("unit") or ""), 4)]
        for name, entry in result.metrics.items()
        if isinstance(entry, Mapping) and "value" in entry
    ]
    listed = table(["measure", "value"], rows, "Measured by the evaluate stage")
    return join([heading("All numbers"), details(f"All {len(rows)} numbers", listed)])
