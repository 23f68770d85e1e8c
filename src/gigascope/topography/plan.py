"""What the topography stages will need, from shapes alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gigascope.config.dataset import TopographyDataset
from gigascope.config.topography import Calibrate, Ingest
from gigascope.errors import UserError
from gigascope.runtime.resources import Estimate
from gigascope.stage import JobKind
from gigascope.topography.calibration.origin import origin_of
from gigascope.topography.ingest import ROUNDS

if TYPE_CHECKING:
    from gigascope.topography.capture.capture import FileCapture
    from gigascope.topography.source import Acquisition

# Measured with `gigascope run`; the peak is in its last line, and in `gigascope info`.
# Python with zarr and Dask's threads loaded; with numba and the kernels that simulate too.
LIGHT_BYTES = 100 * 2**20
SIMULATION_BYTES = 260 * 2**20
# Bytes a second that a view is read, written and checked at on two cores.
BYTES_PER_S = 2e8
# A job that makes empty arrays, or reads what all others wrote; what it writes is metadata.
OPEN_SECONDS, FEW_FILES = 20.0, 40
# Float64 arrays of a view that simulating it holds, and bytes of the truth kept for each of its pixels.
SIMULATED_BYTES, TRUTH_BYTES = 8 * 14, 4 + 8 + 4
# Rays that the fast renderer follows in a second.
RAYS_PER_S = 6e6
# Calibration: torch loaded; numba and the compiled filters too, where focus is measured.
UNMEASURED_BYTES, CALIBRATION_BYTES = 330 * 2**20, 420 * 2**20
# Bytes of each pixel of a view while its focus is measured and its image in focus resampled.
FOCUSED_BYTES, FOCUSED_PIXELS_PER_S = 36, 2e6
# Overlapping pairs of a view at 60 % overlap; time and memory of the tie points and equations of one.
PAIRS_OF_A_VIEW, PAIRED_PIXELS_PER_S, BYTES_OF_A_PAIR = 4, 6e7, 50_000
# Images in focus that are held while pairs are compared, and reduced ones.
HELD_VIEWS, REDUCED_VIEWS, REDUCED_PIXELS = 8, 192, 512**2
# Cells of the mosaic, and bytes of a view's entry in the list of one.
CELL, CELL_BYTES = 64, 16
# Registration: what is loaded, float32 layers of a slice, what is kept of each slice, and its time.
REGISTRATION_BYTES = 460 * 2**20
REGISTERED_LAYERS, PYRAMID_BYTES = 7, 1.4 * 2**20
REGISTERED_PIXELS_PER_S, SECONDS_OF_A_SLICE = 8e6, 1.0


@dataclass(frozen=True)
class TopographyHeader:
    """Shapes of an acquisition, without its pixels.

    Attributes
    ----------
    shape : (view_rows, view_cols, n_z, rows, cols) as kept
    dtype : of the pixels
    pattern, colours : see :class:`gigascope.topography.capture.capture.Capture`
    dz_mm : step between slices
    sensor : (rows, cols) that are read, of which a part may be kept
    flat_slices : of the flat target; 0: there is none
    mosaic_shape : (rows, cols) that the views cover, as far as camera grid and stage positions say; 0: they do not
    notes : what was chosen, and from where
    dz_known : False where the slices are only counted
    """

    shape: tuple[int, int, int, int, int]
    dtype: str
    pattern: str | None
    colours: int
    dz_mm: float
    sensor: tuple[int, int]
    flat_slices: int = 0
    mosaic_shape: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    dz_known: bool = True

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.dtype).itemsize

    @property
    def n_views(self) -> int:
        """Number of z-stacks."""
        return self.shape[0] * self.shape[1]

    @property
    def view_bytes(self) -> int:
        """Bytes of one z-stack."""
        return math.prod(self.shape[2:]) * self.colours * self.itemsize

    @property
    def read_bytes(self) -> int:
        """Bytes of one z-stack as it is read."""
        return self.shape[2] * math.prod(self.sensor) * self.colours * self.itemsize

    @property
    def stored_bytes(self) -> int:
        """Bytes that are kept of one z-stack: green beside all colours."""
        green = math.prod(self.shape[2:]) * self.itemsize
        if self.pattern is not None:
            return self.view_bytes + green // 2
        return self.view_bytes + (green if self.colours == 3 else 0)

    @property
    def flat_bytes(self) -> int:
        """Bytes that are kept of one z-stack of the flat target: green alone."""
        _, _, _, height, width = self.shape
        return self.flat_slices * height * width * self.itemsize // (2 if self.pattern is not None else 1)

    def describe(self) -> list[str]:
        """Lines for a person."""
        rows, cols, n_z, height, width = self.shape
        views = f"{rows} x {cols} views of " if self.n_views > 1 else "one view of "
        kind = f"mosaic {self.pattern}" if self.pattern else ("colour" if self.colours == 3 else "grey")
        step = f"{self.dz_mm:g} mm" if self.dz_known else "unknown"
        text = f"{views}{n_z} slices of {width} x {height} pixels, {kind}, {self.dtype}, z-step {step}"
        flat = [f"flat target of {self.flat_slices} slices"] if self.flat_slices else ["no flat target"]
        return [text, *flat, *self.notes]


@functools.cache
def read_header(dataset: TopographyDataset) -> TopographyHeader:
    """Header of a dataset's acquisition.

    Raises
    ------
    UserError : files missing, damaged or not alike
    """
    if dataset.inputs.instrument is not None:
        return _simulated(dataset)
    from gigascope.topography.source import open_acquisition

    opened = open_acquisition(dataset.inputs, dataset.ingest)
    sample, flat = opened.sample, opened.flat
    return TopographyHeader(
        sample.shape,
        sample.dtype.name,
        sample.pattern,
        sample.colours,
        _step(sample),
        opened.whole_sensor,
        0 if flat is None else flat.shape[2],
        _expected_mosaic(opened),
        (*sample.notes, *sample.warnings),
        sample.dz_known,
    )


def _expected_mosaic(opened: Acquisition) -> tuple[int, int]:
    """(rows, cols) of the mosaic, as camera grid and stage positions lead to expect; zeros where they are not known."""
    from gigascope.topography.calibration.initial import stage_translations

    sample, optics, grid = opened.sample, opened.optics, opened.sample.grid
    size, cameras = sample.shape[3:], (len(grid.camera_rows), len(grid.camera_cols))
    if sample.shape[:2] == (1, 1):
        return size
    pitch, moves = optics["camera_pitch_mm"], grid.scan != (1, 1)
    known = optics["sensor_pitch_um"] is not None and optics["m_ref"] is not None
    if not known or (cameras != (1, 1) and pitch is None) or (moves and sample.xy_mm is None):
        return 0, 0
    pixel_mm = optics["sensor_pitch_um"] / optics["m_ref"] / 1000.0
    stage = sample.xy_mm if moves and sample.xy_mm is not None else np.zeros((1, 1, 2))
    pitches, ids = (pitch or 0.0, pitch or 0.0), (grid.camera_rows, grid.camera_cols)
    at = stage_translations(stage, cameras, pitches, pixel_mm, (grid.signs["y"], grid.signs["x"]), ids)
    rows, cols = (int(n) for n in np.ceil(np.ptp(at, axis=0)) + size)
    return rows, cols


def _simulated(dataset: TopographyDataset) -> TopographyHeader:
    from gigascope.topography.synth import build_instrument

    cfg = dataset.inputs.instrument
    if cfg is None:
        raise ValueError("no simulated instrument")
    instrument = build_instrument(cfg, dataset.seed)
    rows, cols = instrument.size.views
    n_z, height, width = instrument.capture.shape[2:]
    scan, ingest = instrument.size.scan, dataset.ingest
    if ingest.camera_rows is not None:
        rows = len(ingest.camera_rows) * scan[0]
    if ingest.camera_cols is not None:
        cols = len(ingest.camera_cols) * scan[1]
    if ingest.crop is not None:
        height, width = (last - first for first, last in ingest.crop)
    return TopographyHeader(
        (rows, cols, n_z, height, width),
        "uint8",
        ingest.bayer or instrument.capture.pattern,
        instrument.capture.colours,
        ingest.dz_mm or instrument.capture.dz_mm,
        instrument.capture.shape[3:],
        instrument.flat_target.n_z,
        instrument.truth.mosaic_shape,
        (f"simulated instrument {cfg.preset}, specimen {cfg.specimen}, truth known",),
    )


def _step(capture: FileCapture) -> float:
    z = capture.z_stage_mm
    return float(np.median(np.diff(z, axis=2))) if z.shape[2] > 1 else 0.0


def estimate_synth(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """One view at a time."""
    cfg = dataset.inputs.instrument
    if cfg is None:
        return Estimate(0, 0, 0, 0, 0, "nothing: the stacks are in files")
    _, _, n_z, height, width = header.shape
    pixels, flat = height * width, header.flat_slices
    tiles = math.prod(-(-n // 1024) for n in header.mosaic_shape)
    rays = 1 if cfg.renderer == "fast" else 56 * 30
    # a stack is held twice while it is written
    held = SIMULATED_BYTES * min(pixels, 768**2) + (2 * n_z + flat + 3 * TRUTH_BYTES) * pixels
    disk = header.n_views * pixels * (n_z + flat + TRUTH_BYTES) + math.prod(header.mosaic_shape) * 21
    seconds = 20 + header.n_views * pixels * (n_z + flat) * rays / RAYS_PER_S
    files = header.n_views * (2 + 3) + 4 * tiles + 40
    return Estimate(SIMULATION_BYTES + held, 0, seconds, disk, files, f"{header.n_views} views and the truth")


def estimate_synth_job(dataset: TopographyDataset, header: TopographyHeader, job: JobKind) -> Estimate:
    """A part has its share of the views; the gather reads every shard once, in blocks."""
    return _of_job(estimate_synth(dataset, header), job, dataset.synth.parts)


def ingest_rounds(cfg: Ingest) -> int:
    """Rounds of the views: reading, and reading again where that is asked for."""
    return ROUNDS[cfg.verify]


def estimate_ingest(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """As many views as there are readers, each as it is read, and its green where that is packed."""
    cfg = dataset.ingest
    n_at_once = min(cfg.readers, header.n_views * (2 if header.flat_slices else 1))
    packed = math.prod(header.shape[2:]) * header.itemsize // 2 if header.pattern is not None else 0
    # Zarr's pipeline holds what it compresses twice more
    more = 2 * header.view_bytes if cfg.codec == "blosc" else 0
    held = (header.read_bytes + packed + more) * n_at_once
    disk = header.n_views * (header.stored_bytes + header.flat_bytes)
    read = header.n_views * header.view_bytes
    n_arrays = 1 + (header.pattern is not None or header.colours == 3) + (header.flat_slices > 0)
    seconds = 5 + ingest_rounds(cfg) * (read + disk) / BYTES_PER_S
    files = header.n_views * n_arrays + 40
    return Estimate(LIGHT_BYTES + held, 0, seconds, disk, files, f"{header.n_views} views {header.dtype}")


def estimate_ingest_job(dataset: TopographyDataset, header: TopographyHeader, job: JobKind) -> Estimate:
    """A part has its share of the views; the gather reads every shard once, in blocks."""
    cfg = dataset.ingest
    return _of_job(estimate_ingest(dataset, header), job, cfg.parts, ingest_rounds(cfg))


def estimate_register(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """One slice at a time, and a band of all of them; two copies of the stack in scratch beside the result."""
    _, _, n_z, height, width = header.shape
    pixels = height * width
    colours = 3 if header.pattern is not None or header.colours == 3 else 1
    taken, stored = header.view_bytes, n_z * pixels * colours * header.itemsize
    result = stored + (n_z * pixels * header.itemsize if colours == 3 else 0)
    band = n_z * min(dataset.ingest.chunk_px, height) * width * colours * header.itemsize
    held = pixels * (4 * REGISTERED_LAYERS + 2 * colours * header.itemsize) + 2 * band + int(n_z * PYRAMID_BYTES)
    seconds = 5 + n_z * (pixels * colours / REGISTERED_PIXELS_PER_S + SECONDS_OF_A_SLICE)
    disk = result + stored + taken
    return Estimate(REGISTRATION_BYTES + held, 0, seconds, disk, 64, f"{n_z} slices {header.dtype}")


def calibrate_files(cfg: Calibrate) -> tuple[Path, ...]:
    """The file of known poses.

    Raises
    ------
    UserError : it is not there
    """
    if cfg.poses is None:
        return ()
    if not Path(cfg.poses).is_file():
        raise UserError("there is no such file.", where=cfg.poses, do="Check calibrate.poses.")
    return (Path(cfg.poses),)


def estimate_calibrate(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """One view of the flat target at a time; afterwards the images in focus of a few of them, and all pairs."""
    return _calibration(dataset, header, ("part", "gather"))


def estimate_calibrate_job(dataset: TopographyDataset, header: TopographyHeader, job: JobKind) -> Estimate:
    """A part has its share of the views; the gather places all of them."""
    needs = _calibration(dataset, header, (job,))
    return _share(needs, dataset.calibrate.parts) if job == "part" else needs


def _calibration(dataset: TopographyDataset, header: TopographyHeader, jobs: Sequence[JobKind]) -> Estimate:
    cfg = dataset.calibrate
    given = {"poses": cfg.poses is not None, "calibration": cfg.calibration is not None}
    origin = origin_of(**given, flat=header.flat_slices > 0, n_views=header.n_views)
    pixels, n_views = math.prod(header.shape[3:]), header.n_views
    measured = header.flat_slices > 0 and origin != "another acquisition"
    held, disk, files, seconds = 0.0, 0.0, 0, 2.0
    if "part" in jobs and measured:
        packed = 1.5 if header.pattern is not None else 1.0
        held = packed * header.flat_slices * pixels * header.itemsize + FOCUSED_BYTES * pixels
        seconds += n_views * pixels * header.flat_slices / FOCUSED_PIXELS_PER_S
        if n_views > 1:
            disk, files = 2.0 * n_views * pixels, n_views
    if "gather" in jobs:
        # cells of the mosaic that each view lies over, with its entry in their lists
        disk += n_views * math.prod(n / CELL + 1 for n in header.shape[3:]) * CELL_BYTES + 2**18
        files += 90
        if measured and n_views > 1:
            pairs = PAIRS_OF_A_VIEW * n_views
            reduced = 4 * min(n_views, REDUCED_VIEWS) * min(pixels, REDUCED_PIXELS)
            held = max(held, HELD_VIEWS * 4 * pixels + reduced + pairs * BYTES_OF_A_PAIR)
            rounds = cfg.rounds if origin == "flat target" else 1
            seconds += pairs * rounds * (0.02 + pixels / PAIRED_PIXELS_PER_S)
    base = CALIBRATION_BYTES if measured else UNMEASURED_BYTES
    return Estimate(base + int(held), 0, seconds, int(disk), files, f"from: {origin}")


def _of_job(whole: Estimate, job: JobKind, parts: int, rounds: int = 1) -> Estimate:
    """Of a stage whose items are written in place: nothing is left to the gather but to read all of it once."""
    if job == "part":
        return _share(whole, parts, rounds)
    seconds = OPEN_SECONDS + (whole.disk / BYTES_PER_S if job == "gather" else 0.0)
    return replace(whole, seconds=seconds, disk=0, files=FEW_FILES)


def _share(whole: Estimate, parts: int, rounds: int = 1) -> Estimate:
    """Of one part of one round."""
    jobs = parts * rounds
    return replace(whole, seconds=whole.seconds / jobs, disk=whole.disk // jobs, files=-(-whole.files // jobs))
