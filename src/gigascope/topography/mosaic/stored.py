"""The views of an acquisition out of the stores that the stages before the mosaic left."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.open import StoreReader
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.geometry.poses import mosaic_pixel_mm
from gigascope.topography.mosaic.layout import sensor_white
from gigascope.topography.mosaic.views import Views
from gigascope.topography.streaming.stored import scene_of

INDEX, CONFIDENCE, AIF = "index", "confidence", "aif"


def open_views(
    views: StoreReader, calibration: StoreReader, stacks: StoreReader, offsets: NDArray[np.float64] | None = None
) -> Views:
    """Everything that the mosaic is made of.

    Parameters
    ----------
    views : store of inference
    calibration : store of the calibration
    stacks : store of the z-stacks, of which the stage positions are read
    offsets : see :class:`Views`

    Raises
    ------
    UserError : stores that are not of one acquisition, a view outside the mosaic, no view at all
    """
    found, candidates = read_calibration(calibration)
    scene = scene_of(stacks, found, candidates)
    index = views.member(INDEX)
    wanted = (*scene.grid, *scene.poses.size)
    if tuple(index.shape) != wanted:
        raise UserError(
            f"holds views of {tuple(index.shape)}, the calibration is of {wanted}.",
            where=views.path,
            do="Run snakemake again: it makes both from the same stacks.",
        )
    if not scene.present.any():
        raise UserError("no view is there: nothing can be put together.", where=views.path)
    return Views(
        index,
        views.member(CONFIDENCE),
        views.member(AIF),
        found,
        candidates,
        scene.z_mm,
        scene.present,
        1000.0 if stacks.attrs["dz_known"] else 1.0,
        offsets,
    )


def pixel_um(views: Views) -> float | None:
    """Pixel of the mosaic on the sample, micrometres; none where the optics are unknown."""
    instrument = views.calibration.instrument
    if instrument.sensor_pitch_um is None or instrument.magnification is None:
        return None
    poses, pitch = views.calibration.poses, instrument.sensor_pitch_um
    return mosaic_pixel_mm(poses, pitch, instrument.magnification, instrument.ref_view)


def white_of(stacks: StoreReader, dtype: np.dtype) -> float:
    """Largest value that the sensor gives.

    Parameters
    ----------
    dtype : of the all-in-focus images
    """
    return sensor_white(float(stacks.table("views")["highest"].max()), np.dtype(dtype))


def attributes(views: Views, stacks: StoreReader) -> dict[str, Any]:
    """What a mosaic says of itself, as JSON values."""
    return {
        "height_unit": "micrometer" if stacks.attrs["dz_known"] else "slice",
        "height_datum": views.calibration.source if views.datum_known else "middle of the stacks",
        "dz": views.dz,
        "white": white_of(stacks, views.aif.dtype),
        "n_views_present": int(views.present.sum()),
    }
