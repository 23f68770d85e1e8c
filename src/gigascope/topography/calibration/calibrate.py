"""The whole calibration from the flat target: focus, initial places, tie points and bundle in rounds, illumination.

Each step is a function of its own in the modules beside this one, so that a workflow can spread the views and pairs;
here they run one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import UserError
from gigascope.topography.calibration.bundle import Bundle, adjust
from gigascope.topography.calibration.flat_focus import FlatFocus, all_in_focus, flat_focus
from gigascope.topography.calibration.illumination import fit_illumination
from gigascope.topography.calibration.initial import overlapping_pairs, place_views
from gigascope.topography.calibration.layout import Layout
from gigascope.topography.calibration.result import MOST_ARROWS, Calibration, InstrumentId, Quiver, place
from gigascope.topography.calibration.system import Priors
from gigascope.topography.calibration.tie_points import ReadImage, TiePoints, blocks_for, join, tie_points
from gigascope.topography.geometry.poses import Poses, to_mosaic

_log = logging.getLogger(__name__)
F64 = NDArray[np.float64]
ReadStack = Callable[[int], NDArray]
# Error of poses from translations alone, without tilt, turn and distortion, at the edge of a field; a share of a view.
FIRST_SEARCH = 0.01
LEAST_SEARCH_PX = 3.0
# A stage and camera array that are drawn right are off by less than this share of a view.
SEARCH_SHARE = 0.25


@dataclass(frozen=True)
class Settings:
    """Tunables of a calibration.

    Attributes
    ----------
    search_share : largest error of the difference of two translations, as a share of a view
    rounds : of tie points and bundle, each with the poses of the one before
    priors : of the bundle
    device : where blocks are correlated
    """

    search_share: float = SEARCH_SHARE
    rounds: int = 2
    priors: Priors = field(default_factory=Priors)
    device: torch.device | str = "cpu"


def focus_view(
    stack: NDArray, z_mm: ArrayLike, instrument: InstrumentId, *, name: str = "view", device: torch.device | str = "cpu"
) -> tuple[FlatFocus, NDArray[np.float32]]:
    """Surface of focus of one view of the flat target, and its image in focus.

    Parameters
    ----------
    stack : (n_z, R, C) grey or green
    z_mm : (n_z,) stage positions
    name : of the view, for messages

    Notes
    -----
    A target that was taken in focus, one slice, has that slice's position over the whole field: a datum that is off by
    tilt and field curvature.
    """
    if len(stack) == 1:
        plane = np.array([float(np.asarray(z_mm)[0]), 0, 0, 0, 0, 0])
        return FlatFocus(plane, float("nan"), float("nan"), 0, 0), stack[0].astype(np.float32)
    focus = flat_focus(stack, z_mm, name=name, device=device)
    image = all_in_focus(stack, z_mm, focus.plane, distance_mm=instrument.distance_mm, stage_sign=instrument.stage_sign)
    return focus, image


def calibrate(
    read: ReadStack,
    z_mm: ArrayLike,
    instrument: InstrumentId,
    translation: ArrayLike,
    *,
    camera_mask: ArrayLike | None = None,
    settings: Settings | None = None,
    start: Poses | None = None,
    images: MutableMapping[int, NDArray] | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda views: views,
) -> Calibration:
    """Calibrate an instrument on its flat target.

    Parameters
    ----------
    read : view -> (n_z, R, C) stack of the flat target, grey or green; called once for each view
    z_mm : (V, n_z) stage positions
    instrument : cameras, raster and optics
    translation : (V, 2) from stage and camera grid, see
        :func:`gigascope.topography.calibration.initial.stage_translations`
    camera_mask : (camera rows, camera columns) bool, cameras that are there; none: all
    settings : none: the defaults
    start : tilts, angles, heights to start from; none: none, and tilts from the surfaces of focus
    images : where the images in focus are kept, view -> (R, C); none: in memory
    progress : wraps the loop over the views

    Returns
    -------
    Calibration

    Raises
    ------
    UserError : no texture, no focus, no overlap, views that cannot be placed
    """
    chosen = settings or Settings()
    where = instrument.layout(camera_mask)
    kept: MutableMapping[int, NDArray] = {} if images is None else images
    z = np.asarray(z_mm, dtype=np.float64)
    found: dict[int, FlatFocus] = {}
    for v in progress(np.flatnonzero(where.present).tolist()):
        stack = read(v)
        if stack.shape[1:] != instrument.size:
            raise UserError(
                f"view {instrument.name(v)} has {stack.shape[2]} x {stack.shape[1]} pixels, the others "
                f"{instrument.size[1]} x {instrument.size[0]}.",
                do="All cameras must deliver pictures of one size; crop them alike.",
            )
        found[v], kept[v] = focus_view(stack, z[v], instrument, name=f"view {instrument.name(v)}", device=chosen.device)
    planes = np.full((instrument.n_views, 6), np.nan)
    for v, focus in found.items():
        planes[v] = focus.plane
    calibrated = register(kept.__getitem__, planes, instrument, translation, where, chosen, start)
    return replace(calibrated, statistics={**calibrated.statistics, **focus_statistics(found.values())})


def focus_statistics(found: Iterable[FlatFocus]) -> dict[str, float]:
    """How well the surfaces of focus of some views are known; nothing for a target of one slice."""
    views = list(found)
    numbers = {"focus_rms_mm": [f.rms_mm for f in views], "focus_error_mm": [f.error_mm for f in views]}
    return {
        key: float(np.sqrt(np.mean(np.square(values))))
        for key, values in numbers.items()
        if values and np.isfinite(values).all()
    }


def register(
    image: ReadImage,
    planes: F64,
    instrument: InstrumentId,
    translation: ArrayLike,
    where: Layout,
    settings: Settings,
    start: Poses | None = None,
) -> Calibration:
    """Poses and illumination from the images in focus.

    Parameters
    ----------
    image : view -> (R, C) image of the flat target in focus
    planes : (V, 6) mm, surfaces of focus
    translation : (V, 2) expected, pixels
    where : cameras, stage positions, views that are there

    Returns
    -------
    Calibration, without the statistics of focus
    """
    size = instrument.size
    at = place_views(
        image,
        translation,
        size,
        search_px=settings.search_share * max(size),
        present=where.present,
        name=instrument.name,
    )
    poses = first_poses(instrument, at, planes, where, start)
    ties, bundle = join([]), None
    for round_ in range(settings.rounds):
        search = FIRST_SEARCH * max(size) if round_ == 0 else 0.0
        blocks = blocks_for(size, max(search, LEAST_SEARCH_PX))
        pairs = overlapping_pairs(poses.translation, size, present=where.present)
        ties = join(list(tie_points(image, pairs, poses, blocks, device=settings.device)))
        bundle = adjust(ties, poses, where, settings.priors, name=instrument.name)
        poses = bundle.poses
    if bundle is None:
        raise ValueError("a calibration has at least one round")
    return finish(instrument, bundle, ties, planes, where)


def tie_known(image: ReadImage, calibration: Calibration, settings: Settings) -> Calibration:
    """A calibration whose poses are known: light and residuals from the images in focus, poses as they are.

    Parameters
    ----------
    image : view -> (R, C) image of the flat target in focus
    calibration : of known poses

    Notes
    -----
    Tie points are searched as far as in the first round of :func:`register`: wrong poses show as large residuals.
    """
    instrument, poses = calibration.instrument, calibration.poses
    where = replace(instrument.layout(), present=calibration.present)
    pairs = overlapping_pairs(poses.translation, instrument.size, present=calibration.present)
    blocks = blocks_for(instrument.size, max(FIRST_SEARCH * max(instrument.size), LEAST_SEARCH_PX))
    ties = join(list(tie_points(image, pairs, poses, blocks, device=settings.device)))
    if not len(ties):
        return calibration
    at = [to_mosaic(poses, ties.view[:, k], p) for k, p in enumerate((ties.first, ties.second))]
    bundle = Bundle(poses, at[0] - at[1], np.ones(len(ties)), 0.0, ())
    return replace(
        finish(instrument, bundle, ties, calibration.focus_plane, where),
        poses=poses,
        mosaic_shape=calibration.mosaic_shape,
        source=calibration.source,
    )


def first_poses(
    instrument: InstrumentId, translation: F64, planes: F64, where: Layout, start: Poses | None = None
) -> Poses:
    """Poses to start the bundle from: translations of pairs, tilts of the surfaces of focus, no turn, no distortion.

    Notes
    -----
    The surface of focus of a camera whose sensor stands square on its axis is the plane seen from its tilt: its slope,
    in stage millimetres per millimetre on the sample, is that of the normal.
    """
    n = instrument.n_views
    if start is not None:
        return replace(start, translation=translation, offset=np.zeros(2))
    slopes = np.zeros((n, 2))
    if instrument.pixel_mm is not None:
        slopes = instrument.stage_sign * planes[:, 1:3] / (instrument.pixel_mm * max(instrument.size))
        slopes[~np.isfinite(slopes).all(axis=1)] = 0.0
    return Poses(
        size=instrument.size,
        focal=instrument.focal,
        height=np.full(n, instrument.focal),
        normal=np.column_stack((slopes, np.full(n, -1.0))),
        angle=np.zeros(n),
        translation=translation,
        distortion=np.zeros(1),
        offset=np.zeros(2),
    )


def finish(instrument: InstrumentId, bundle: Bundle, ties: TiePoints, planes: F64, where: Layout) -> Calibration:
    """Calibration from its parts: offset and shape of the mosaic, illumination, statistics, arrows."""
    poses, shape = place(bundle.poses, where.present)
    even = fit_illumination(ties, where, instrument.size)
    some = np.unique(np.linspace(0, len(ties) - 1, min(len(ties), MOST_ARROWS)).round().astype(np.int64))
    arrows = Quiver(ties.view[some], to_mosaic(poses, ties.view[some, 0], ties.first[some]), bundle.residual[some])
    statistics = dict(bundle.statistics) | {"light_residual": even.residual}
    return Calibration(
        instrument, poses, shape, where.present, planes, even.coefficients, even.gain, statistics, arrows
    )
