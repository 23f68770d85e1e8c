"""The larger cases of `alignment.py`: a series as large as SHREC'21's, and a real needle."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.tomography import phantom
from gigascope.tomography.alignment import AlignParameters
from gigascope.tomography.geometry import alignment_bins, alignment_errors, rms_error, volume_width
from gigascope.tomography.joint import JointSolver
from gigascope.tomography.prealign import prealign
from gigascope.tomography.reconstruct import ReconstructParameters, group_residual
from gigascope.tomography.signal import SignalModel, SignalSettings
from gigascope.tomography.signal_estimate import estimate_signal
from gigascope.tomography.views import prepared_views

F64 = NDArray[np.float64]
Row = tuple[str, str, str, float, str]
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "tomo"
# SHREC'21: 61 views of 512 x 512, -60 to 60 degrees, 10 angstrom per pixel; a slab of 128 px here
SIZE, PLANES, ANGSTROM = 512, 128, 10.0
OTHERS = {"iter0": "tiltxcorr", "at2-alignment": "AreTomo2", "at3-alignment": "AreTomo3", "iter6": "MissAlignment"}


def section_of(size: int, half_thickness: float, seed: int) -> phantom.Phantom:
    """A cell-like slab wider than `size` px: membranes, vesicles and granules as dense as in `section_phantom`."""
    rng = np.random.default_rng([seed, 3])
    half = np.array([1.6 * size, 0.66 * size, half_thickness])
    area = size * size / 128**2 * half_thickness / 32.0
    bodies = phantom._Bodies()
    for _ in range(round(10 * math.sqrt(area))):
        semi = rng.uniform(60.0, 180.0, 3)
        place = rng.uniform(-1.0, 1.0, 3) * half * [1.3, 1.3, 3.0]
        bodies.shell(place, semi, 2.5, 0.7, phantom._rotation(rng))
    for _ in range(round(90 * area)):
        semi = rng.uniform(5.0, 12.0) * rng.uniform(0.85, 1.15, 3)
        bodies.shell(rng.uniform(-1.0, 1.0, 3) * half, semi, 2.0, 1.2, phantom._rotation(rng))
    for _ in range(round(300 * area)):
        radius = rng.uniform(1.2, 3.0)
        bodies.ellipsoid(rng.uniform(-1.0, 1.0, 3) * half, np.full(3, radius), rng.uniform(1.0, 3.0))
    return phantom._normalised(bodies.phantom(0.25, half_thickness, "section"))


def simulated(size: int, seed: int, snr: float) -> tuple[phantom.TiltSeriesSim, SignalModel]:
    """Views of the large slab, without a volume of the truth, and the chain's signal estimate."""
    tilt = np.deg2rad(np.linspace(-60.0, 60.0, 61))
    shifts = phantom.true_shifts(61, np.random.default_rng([seed, 10]))
    body = section_of(size, PLANES / 2, seed)
    clean = phantom.line_integrals(body, tilt, (size, size), shifts)
    lowest = clean[30].astype(np.float64)
    i0 = float(snr * np.exp(lowest).mean() / lowest.var())
    counts = np.random.default_rng([seed, 11]).poisson(i0 * np.exp(-clean.astype(np.float64))).astype(np.float32)
    variance = np.exp(clean.astype(np.float64)).mean(axis=(1, 2)) / i0
    nothing = np.zeros((1, 1, 1), dtype=np.float32)
    sim = phantom.TiltSeriesSim(counts, clean, tilt, shifts, nothing, i0, variance, "section")
    return sim, estimate_signal(np.ascontiguousarray(counts.swapaxes(1, 2)), tilt, SignalSettings())


def peak_bytes() -> int:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shrec(size: int = SIZE, snr: float = 0.1) -> Iterator[Row]:
    """Our errors on a series as large and as noisy as SHREC'21's (SNR 0.1), and those of others on the original."""
    case = f"61 x {size} x {size}, SNR {snr:g}"
    sim, model = simulated(size, 0, snr)
    bins = alignment_bins(size, size, PLANES)
    raw = np.ascontiguousarray(sim.views.swapaxes(1, 2))
    views, valid = prepared_views(raw, model, tilt_axis=0.0, largest_bin=max(bins))
    del raw
    begun, user = time.perf_counter(), time.process_time()
    start = prealign(views, valid, sim.tilt, model.extent, good=model.good).shifts
    yield case, "prealign", "rms", rms_error(start, sim.shifts_true, sim.tilt), "px"
    yield case, "prealign", "time", time.perf_counter() - begun, "s"
    begun, user, before = time.perf_counter(), time.process_time(), peak_bytes()
    solver = JointSolver(views, valid, sim.tilt, start, n_z=PLANES, extent=model.extent, noise=model.relative_noise)
    found = solver.run()
    errors = alignment_errors(found.shifts, sim.shifts_true, sim.tilt)
    yield case, "joint", "rms", float(np.sqrt(np.mean(errors**2))), "px"
    yield case, "joint", "median view", float(np.median(errors)), "px"
    yield case, "joint", "worst view", float(errors.max()), "px"
    yield case, "joint", "rms, angstrom", ANGSTROM * float(np.sqrt(np.mean(errors**2))), "A"
    yield case, "joint", "time", time.perf_counter() - begun, "s"
    yield case, "joint", "CPU time", time.process_time() - user, "s"
    yield case, "joint", "memory added", (peak_bytes() - before) / 2**20, "MiB"
    width = volume_width(size, PLANES, sim.tilt, model.extent, 1.0, max(bins))
    levels = [(PLANES // b) * (width // b) * (size // b) * 24 * 4 + 40 * sim.views.size // b**2 for b in bins]
    yield case, "joint", "memory estimated", (max(levels) + 8 * sim.views.size) / 2**20, "MiB"
    yield from published_errors()


def published_errors() -> Iterator[Row]:
    """RMS per series of other programs on the ten series of SHREC'21, over the series: median, best, worst; pixels."""
    for name, program in OTHERS.items():
        path = SHARED / "shrec21_alignments" / f"errors_{name}.json"
        if not path.exists():
            continue
        rms = [rms_of(errors) / ANGSTROM for errors in series_in(json.loads(path.read_text()))]
        for metric, value in (("rms, median of series", np.median(rms)), ("best", min(rms)), ("worst", max(rms))):
            yield "SHREC'21, ten series", program, metric, float(value), "px"


def series_in(content: dict[str, dict[str, list[float]]]) -> list[F64]:
    """(view, 2) signed errors in angstrom of every series in a file."""
    return [np.stack([series["x_error_angstrom"], series["y_error_angstrom"]], axis=1) for series in content.values()]


def rms_of(errors: F64) -> float:
    """RMS length after a common shift is removed, as the files' authors report it."""
    return float(np.sqrt(np.mean(((errors - errors.mean(axis=0)) ** 2).sum(axis=1))))


@dataclass(frozen=True)
class Needle:
    """The views of the real needle within 70 degrees."""

    raw: NDArray[np.float32]
    tilt: F64
    model: SignalModel

    def views(self, shifts: F64 | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepared views and masks, moved by shifts."""
        return prepared_views(self.raw, self.model, tilt_axis=AXIS, largest_bin=2, shifts=shifts, spline=3)

    def start(self, views: torch.Tensor, valid: torch.Tensor) -> F64:
        """Shifts of the prealignment."""
        return prealign(views, valid, self.tilt, self.model.extent, good=self.model.good).shifts

    def solve(self, views: torch.Tensor, valid: torch.Tensor, start: F64) -> F64:
        """Shifts of the joint solve."""
        solver = JointSolver(
            views, valid, self.tilt, start, n_z=64, extent="object", use=self.model.good,
            parameters=AlignParameters(positivity=True),
        )  # fmt: skip
        return solver.run().shifts

    def residual(self, shifts: F64) -> float:
        """Half-set residual under shifts, at bin 1."""
        views, valid = self.views(shifts)
        shape = (64, volume_width(64, 64, self.tilt, "object", largest_bin=2), 64)
        parameters = ReconstructParameters(lam=0.1, iterations=100)
        return group_residual(views, valid.float(), self.tilt, shape=shape, solve=False, parameters=parameters).total


AXIS = math.radians(-90.0)


def needle() -> Iterator[Row]:
    """Half-set residuals, planted shifts, and two starts, on a real HAADF series within 70 degrees."""
    folder = SHARED / "nist_haadf_needle"
    degrees = np.loadtxt(folder / "needle.rawtlt")
    keep = np.abs(degrees) <= 70
    raw, tilt = mrcfile.read(folder / "needle.mrc").astype(np.float32)[keep], np.deg2rad(degrees[keep])
    case = Needle(raw, tilt, estimate_signal(raw, tilt, SignalSettings(signal="linear"), tilt_axis=AXIS))
    views, valid = case.views()
    start = case.start(views, valid)
    found = case.solve(views, valid, start)
    for method, shifts in (("none", 0 * start), ("prealign", start), ("joint", found)):
        yield "needle, 70 degrees", method, "half-set residual", case.residual(shifts), ""
    from_zero = case.solve(views, valid, 0 * start)
    yield "needle, 70 degrees", "joint", "from prealign and zero", rms_error(from_zero, found, tilt), "px apart"
    for seed in (0, 1, 2):
        planted = np.random.default_rng(seed).normal(0.0, 2.0, (len(tilt), 2))
        moved, mask = case.views(-planted)
        again = case.solve(moved, mask, case.start(moved, mask))
        error = rms_error(again, found + planted, tilt)
        yield "needle, 70 degrees", "joint", f"planted 2 px, seed {seed}", error, "px"
