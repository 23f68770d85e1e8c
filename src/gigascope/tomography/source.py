"""The tilt series a dataset names, opened: readers called with what the config says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gigascope.config.tomography import EvenTilts, Ingest, TomographyInputs
from gigascope.store.readers.source import TiltSeriesSource


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
        angles=_angles(cfg.tilt_deg),
        mdoc=None if inputs.mdoc is None else Path(inputs.mdoc),
        pixel_size_nm=cfg.pixel_size_nm,
        tilt_axis_deg=cfg.tilt_axis_deg,
        y_up=cfg.y_up,
    )


def _angles(
    tilt_deg: tuple[float, ...] | EvenTilts | str | None,
) -> Sequence[float] | Path | Callable[[int], list[float]] | None:
    """Angles as the reader takes them; an even series is written out when the number of views is known."""
    if isinstance(tilt_deg, EvenTilts):
        return lambda n_tilts: [float(t) for t in np.linspace(tilt_deg.first_deg, tilt_deg.last_deg, n_tilts)]
    return Path(tilt_deg) if isinstance(tilt_deg, str) else tilt_deg
