"""The scene of a calibrated acquisition, built of what its stores say."""

from __future__ import annotations

import numpy as np

from gigascope.errors import UserError
from gigascope.store.open import StoreReader
from gigascope.topography.calibration.result import Calibration
from gigascope.topography.geometry.candidates import Candidates
from gigascope.topography.ingest import MASK, Z_STAGE
from gigascope.topography.streaming.scene import Scene


def scene_of(stacks: StoreReader, calibration: Calibration, candidates: Candidates) -> Scene:
    """What training and inference have to know of the views.

    Parameters
    ----------
    stacks : store of the z-stacks, `raw` or `registered`
    calibration, candidates : of its instrument, see :mod:`gigascope.topography.calibration.stored`

    Returns
    -------
    Scene : views count as present that were taken and calibrated; distances are infinite, which is no parallax, where
        the optics are unknown; numbers of absent views are finite and mean nothing

    Raises
    ------
    UserError : the calibration is not of these views
    """
    instrument = calibration.instrument
    z_mm = np.asarray(stacks.member(Z_STAGE)[...], dtype=np.float64)
    if z_mm.shape[:2] != instrument.view_shape:
        rows, cols = instrument.view_shape
        raise UserError(
            f"holds {z_mm.shape[0]} x {z_mm.shape[1]} views, the calibration is of {rows} x {cols}.",
            where=stacks.path,
            do="Give the calibration of this acquisition.",
        )
    n = instrument.n_views
    z_mm = z_mm.reshape(n, -1)
    present = calibration.present & np.asarray(stacks.member(MASK)[...], dtype=np.bool_).ravel()
    datum = np.where(np.isfinite(calibration.focus_plane), calibration.focus_plane, 0.0)
    centre = slice(instrument.size[0] // 2, instrument.size[0] // 2 + 1)
    nominal = np.zeros(n)
    for v in np.flatnonzero(present):
        nominal[v] = calibration.nominal_slices(int(v), z_mm[v], centre)[0, instrument.size[1] // 2]
    # nothing is known of the plane of focus: the middle of the stack is as good as any other slice
    nominal = np.where(np.isfinite(nominal), nominal, 0.5 * (z_mm.shape[1] - 1))
    distances = calibration.distances_mm()
    return Scene(
        grid=instrument.view_shape,
        poses=calibration.poses,
        candidates=candidates,
        camera=calibration.camera,
        present=present,
        distance_mm=np.full(n, np.inf) if distances is None else distances,
        datum_mm=datum,
        nominal=nominal,
        z_mm=z_mm,
        dz_mm=abs(float(stacks.attrs["dz_mm"])),
        stage_up=bool(stacks.attrs["stage_up"]),
    )
