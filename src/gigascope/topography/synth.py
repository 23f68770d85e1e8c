"""What the simulated instrument gives, laid out in stores: captures of specimen and flat target, and the truth.

The truth has two grids: the mosaic's (heights, colours, texture, how many views see a point) and the views' (slice in
focus, where each pixel lies on the mosaic, how much of the pupil sees it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.store.create import StoreWriter
from gigascope.store.plan import Region, ShardPlan
from gigascope.topography.capture.stored import create_capture
from gigascope.topography.instrument.cameras import Optics, step_px
from gigascope.topography.instrument.instrument import FlatTarget, Instrument
from gigascope.topography.instrument.presets import preset
from gigascope.topography.instrument.sensor import Sensor
from gigascope.topography.instrument.world import Window

if TYPE_CHECKING:
    from gigascope.config.topography import SyntheticInstrument

# Side of the tiles of the mosaic: one shard.
TILE = 1024
CHUNK = 256
# Light of every camera, at points along each side of its field: it is a parabola.
SHADE, SHADE_POINTS = "shade", 33
# On the mosaic's grid and on that of the views: type, axes before or after (row, col), and what it is.
MOSAIC: dict[str, tuple[Any, int]] = {
    "height_mm": (np.float32, 0),
    "albedo": (np.float32, 3),
    "texture": (np.float32, 0),
    "coverage": (np.uint8, 0),
}
VIEWS: dict[str, tuple[Any, int]] = {"index": (np.float32, 0), "flow": (np.float32, 2), "visible": (np.float32, 0)}


def build_instrument(cfg: SyntheticInstrument, seed: int) -> Instrument:
    """The simulated instrument of a dataset.

    Parameters
    ----------
    seed : the dataset's
    """
    size = preset(cfg.preset)
    return Instrument(
        replace(size, cameras=cfg.cameras or size.cameras, scan=cfg.scan or size.scan),
        seed,
        cfg.specimen,
        optics=Optics(na=cfg.na, dz_um=cfg.dz_um, overlap=cfg.overlap),
        sensor=Sensor(snr=cfg.snr),
        flat_target=FlatTarget(dz_um=cfg.flat_dz_um, wedge_deg=cfg.flat_wedge_deg),
        stage_up=cfg.stage_up,
        renderer=cfg.renderer,
    )


def mosaic_plan(name: str, shape: tuple[int, int]) -> ShardPlan:
    """Cut of an array on the mosaic's grid."""
    dtype, channels = MOSAIC[name]
    edge = tuple(min(CHUNK, n) for n in shape)
    side = tuple(min(TILE, -(-n // e) * e) for n, e in zip(shape, edge))
    before = (channels,) if channels else ()
    return ShardPlan((*before, *shape), np.dtype(dtype).itemsize, (*before, *edge), (*before, *side))


def view_plan(name: str, views: tuple[int, int], size: int) -> ShardPlan:
    """Cut of an array on the grid of the views: one shard for each."""
    dtype, channels = VIEWS[name]
    edge = min(CHUNK, size)
    side = -(-size // edge) * edge
    after = (channels,) if channels else ()
    plan = ((*views, size, size, *after), (1, 1, edge, edge, *after), (1, 1, side, side, *after))
    return ShardPlan(plan[0], np.dtype(dtype).itemsize, plan[1], plan[2])


def tiles(shape: tuple[int, int]) -> list[Region]:
    """Tiles of the mosaic, as (rows, columns)."""
    return list(mosaic_plan("height_mm", shape).regions())


def lay_out_truth(store: StoreWriter, instrument: Instrument) -> None:
    """Create the arrays of the truth; what is small is written now."""
    truth, size = instrument.truth, instrument.size
    for name, (dtype, channels) in MOSAIC.items():
        axes = (*(("c",) if channels else ()), "row", "col")
        store.create_member(name, mosaic_plan(name, truth.mosaic_shape), dtype, axes=axes)
    for name, (dtype, channels) in VIEWS.items():
        axes = ("view_row", "view_col", "row", "col", *(("rc",) if channels else ()))
        store.create_member(name, view_plan(name, size.views, size.size), dtype, axes=axes)
    store.write_table("poses", *pose_table(instrument))
    shade = shading(instrument)
    store.create_member(SHADE, ShardPlan(shade.shape, 4, shade.shape, shade.shape), np.float32)[...] = shade
    poses, optics = truth.poses, truth.rig.optics
    store.attrs |= {
        "size": list(poses.size),
        "focal": poses.focal,
        "distortion": poses.distortion.tolist(),
        "offset": poses.offset.tolist(),
        "mosaic_shape": list(truth.mosaic_shape),
        "pixel_um": optics.pixel_um,
        "na": optics.na,
        "dz_mm": optics.dz_um / 1000.0,
        "preset": size.name,
        "specimen": str(instrument.specimen) if isinstance(instrument.specimen, str) else "of its own",
        "object_distance_mm": optics.object_distance_um(size.size) / 1000.0,
    }


def lay_out_captures(sample: StoreWriter, target: StoreWriter, instrument: Instrument) -> None:
    """Create the stores of the two captures."""
    rig = instrument.truth.rig
    for store, capture in ((sample, instrument.capture), (target, instrument.flat_capture)):
        facts = capture.attributes()
        # the raster of a camera ends where that of its neighbour begins
        step = step_px(instrument.size, rig.optics) * rig.optics.pixel_um / 1000.0
        pitch = {"camera_pitch_mm": instrument.size.scan[1] * step}
        create_capture(store, capture, {**facts, **pitch}, rig.stage_xy_mm)


def shading(instrument: Instrument) -> NDArray[np.float32]:
    """(camera rows, camera columns, n, n) float32: factor of each camera's light, evenly over its field."""
    size = instrument.size.size
    at = np.linspace(0, size - 1, SHADE_POINTS).round().astype(int)
    whole = Window(0, 0, size, size)
    rows, cols = instrument.size.cameras
    found = np.empty((rows, cols, SHADE_POINTS, SHADE_POINTS), np.float32)
    for camera in np.ndindex(rows, cols):
        found[camera] = instrument.capture.sensor.shading(size, camera, instrument.seed, whole)[at[:, None], at]
    return found


def pose_table(instrument: Instrument) -> tuple[Mapping[str, NDArray], dict[str, str]]:
    """Columns and units of the true poses, one row for each view, row by row over the grid of views."""
    poses = instrument.truth.poses
    columns = {
        "height": poses.height,
        **{f"normal_{axis}": poses.normal[:, i] for i, axis in enumerate("xyz")},
        "angle": poses.angle,
        "row": poses.translation[:, 0],
        "col": poses.translation[:, 1],
    }
    return columns, {"angle": "radian", "row": "mosaic pixel", "col": "mosaic pixel"}


def view_truth(instrument: Instrument, view_row: int, view_col: int) -> dict[str, NDArray]:
    """Truth on the pixels of one view, by the name of its array."""
    truth = instrument.truth
    return {
        "index": truth.index(view_row, view_col).astype(np.float32),
        "flow": truth.flow(view_row, view_col).astype(np.float32),
        "visible": truth.visible_share(view_row, view_col),
    }


def tile_truth(instrument: Instrument, region: Region) -> dict[str, NDArray]:
    """Truth on a tile of the mosaic, by the name of its array."""
    rows, cols = region
    window = Window(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
    truth = instrument.truth
    return {
        "height_mm": truth.height_mm(window),
        # the blur of the optics in focus: what a mosaic can show
        "albedo": truth.albedo(window, blur_px=truth.rig.optics.diffraction_px),
        "texture": truth.texture(window).astype(np.float32),
        "coverage": truth.coverage(window),
    }
