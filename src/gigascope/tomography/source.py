"""The tilt series a dataset names, opened: readers called with what the config says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.store.readers.source import TiltSeriesSource

if TYPE_CHECKING:
    from gigascope.config.tomography import Ingest, TomographyInputs


def open_source(inputs: TomographyInputs, cfg: Ingest) -> TiltSeriesSource:
    """Open the tilt series of a dataset; no pixels are read.

    Raises
    ------
    UserError : missing, broken or inconsistent files; see :func:`gigascope.store.readers.tilt_series.open_tilt_series`
    """
    from gigascope.store.readers.tilt_series import open_tilt_series

    if inputs.tilt_series is None:
        raise ValueError("a simulated series has no file")
    return open_tilt_series(
        inputs.tilt_series,
        angles=cfg.tilt_deg,
        mdoc=inputs.mdoc,
        pixel_size_nm=cfg.pixel_size_nm,
        tilt_axis_deg=cfg.tilt_axis_deg,
        y_up=cfg.y_up,
        alignment=inputs.alignment,
    )
