"""The last stage of each chain: one self-contained HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.config.compression import CompressionReport
from gigascope.config.synthesis import SynthesisReport
from gigascope.config.tomography import TomographyReport
from gigascope.config.topography import TopographyReport
from gigascope.report import needs
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
    estimate=needs.estimate_tomography,
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


@stage(
    "compression.report",
    CompressionReport,
    inputs={
        "volume": Kind.STORE,
        "gate": Kind.STORE,
        "gmix": Kind.FILE,
        "gaussians": Kind.STORE,
        "bricks": Kind.TABLE,
        "metrics": Kind.FILE,
        "frames": Kind.TABLE,
        "codecs": Kind.TABLE,
        "curves": Kind.TABLE,
        "deciles": Kind.TABLE,
        "components": Kind.TABLE,
        "codec_pictures": Kind.STORE,
    },
    optional_inputs={"decoded": Kind.STORE},
    outputs={"page": Kind.FILE},
    estimate=needs.estimate_compression,
)
def compression_report(ctx: Context, cfg: CompressionReport) -> None:
    """Write the page that a person looks at first: pictures, numbers with units, warnings, what was done."""
    from gigascope.report.compression import compression_page
    from gigascope.report.compression_result import TABLES, load

    stores = [name for name in ("volume", "gate", "gaussians", "decoded", "codec_pictures") if ctx.has(name)]
    result = load(
        ctx.dataset,
        {name: ctx.open(name) for name in stores},
        ctx.input_path("gmix"),
        ctx.input_path("metrics"),
        {name: ctx.input_path(name) for name in TABLES},
    )
    page = compression_page(result, cfg.picture_px)
    path = ctx.path("page")
    path.write_text(page, encoding="utf-8")
    ctx.log.info("report of %.2f MB", path.stat().st_size / 1e6)


@stage(
    "topography.report",
    TopographyReport,
    inputs={
        "raw": Kind.STORE,
        "calibration": Kind.STORE,
        "training": Kind.STORE,
        "views": Kind.STORE,
        "mosaic": Kind.STORE,
        "evaluation": Kind.STORE,
        "losses": Kind.TABLE,
        "metrics": Kind.FILE,
        "estimators": Kind.TABLE,
        "height_deciles": Kind.TABLE,
        "field_radius": Kind.TABLE,
        "height_histogram": Kind.TABLE,
        "seam_profile": Kind.TABLE,
        "gauge_planes": Kind.TABLE,
    },
    optional_inputs={"registered": Kind.STORE, "truth": Kind.STORE},
    outputs={"page": Kind.FILE},
    estimate=needs.estimate_topography,
)
def topography_report(ctx: Context, cfg: TopographyReport) -> None:
    """Write the page that a person looks at first: pictures, numbers with units, warnings, what was done."""
    from gigascope.report.topography import topography_page
    from gigascope.report.topography_result import STORES, TABLES, load

    result = load(
        ctx.dataset,
        {name: ctx.open(name) for name in STORES if ctx.has(name)},
        ctx.input_path("metrics"),
        {name: ctx.input_path(name) for name in TABLES},
    )
    page = topography_page(result, cfg.picture_px)
    path = ctx.path("page")
    path.write_text(page, encoding="utf-8")
    ctx.log.info("report of %.2f MB", path.stat().st_size / 1e6)


@stage(
    "synthesis.report",
    SynthesisReport,
    inputs={
        "evaluation": Kind.STORE,
        "metrics": Kind.FILE,
        "distances": Kind.TABLE,
        "depth_distances": Kind.TABLE,
        "depth_profiles": Kind.TABLE,
        "edge_curves": Kind.TABLE,
        "spectra": Kind.TABLE,
        "intensities": Kind.TABLE,
        "photon_transfer": Kind.TABLE,
        "scores": Kind.TABLE,
        "instances": Kind.TABLE,
        "groups": Kind.TABLE,
        "alignment": Kind.TABLE,
        "shifts": Kind.TABLE,
        "downstream": Kind.TABLE,
        "nuclei": Kind.TABLE,
        "parity": Kind.TABLE,
    },
    optional_inputs=dict.fromkeys(("cultures", "real", "prototypes", "phantoms", "training", "adapted"), Kind.STORE),
    outputs={"page": Kind.FILE},
    estimate=needs.estimate_synthesis,
)
def synthesis_report(ctx: Context, cfg: SynthesisReport) -> None:
    """Write the page that a person looks at first: pictures, numbers with units, warnings, what was done."""
    from gigascope.report.synthesis import synthesis_page
    from gigascope.report.synthesis_result import STORES, TABLES, load

    result = load(
        ctx.dataset,
        {name: ctx.open(name) for name in STORES if ctx.has(name)},
        ctx.input_path("metrics"),
        {name: ctx.input_path(name) for name in TABLES},
    )
    page = synthesis_page(result, cfg.picture_px)
    path = ctx.path("page")
    path.write_text(page, encoding="utf-8")
    ctx.log.info("report of %.2f MB", path.stat().st_size / 1e6)
