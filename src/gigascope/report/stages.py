"""The last stage of each chain: one self-contained HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config.tomography import TomographyReport
from gigascope.stage import Kind, stage

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


@stage(
    "tomography.report",
    TomographyReport,
    inputs={
        "tilt_series": Kind.STORE,
        "prealigned": Kind.STORE,
        "tomogram": Kind.STORE,
        "aligned": Kind.STORE,
        "history": Kind.TABLE,
        "metrics": Kind.FILE,
        "fsc": Kind.TABLE,
        "frc_views": Kind.TABLE,
    },
    optional_inputs={"halves": Kind.STORE},
    outputs={"page": Kind.FILE},
)
def tomography_report(ctx: Context, cfg: TomographyReport) -> None:
    """Write the page that a person looks at first: pictures, numbers with units, warnings, what was done."""
    from gigascope.report.tomography import tomography_page
    from gigascope.report.tomography_result import load

    names = ["tilt_series", "prealigned", "tomogram", "aligned", *(["halves"] if ctx.has("halves") else [])]
    result = load(
        ctx.dataset,
        {name: ctx.open(name) for name in names},
        **{name: ctx.input_path(name) for name in ("history", "metrics", "fsc", "frc_views")},
    )
    page = tomography_page(result, cfg.picture_px)
    path = ctx.path("page")
    path.write_text(page, encoding="utf-8")
    ctx.log.info("report of %.2f MB", path.stat().st_size / 1e6)
