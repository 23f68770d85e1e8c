"""How far off the shifts are: our prealignment and joint solve beside what a user would pick instead, in one run.

    python benchmarks/alignment.py [--quick] [--peers-python PATH] [--json FILE]
    python benchmarks/alignment.py --shrec [--json FILE]
    python benchmarks/alignment.py --needle [--json FILE]

Phantoms with known truth (61 views of 128 x 128, -60 to 60 degrees, SNR 1 per pixel, random shifts of 3 px plus drift);
RMS over the views in pixels after a translation of the specimen is removed. The peers see the same prepared views:

phase correlation     neighbours, scikit-image, sub-pixel, summed outward from the lowest tilt
StackReg              neighbours, pystackreg where it is installed, as they are and after a Gaussian of 1.5 px
cosine correlation    neighbours, stretched across the axis by the ratio of the cosines, band-passed, summed outward
cumulative            the same against a running sum of what was placed before
projection matching   each view against the reprojection of a backprojection of those already placed, outward, twice,
                      then all views against reprojections of one backprojection of all, six rounds
published             the published joint iteration (`reconstruct.align.mode: published`), from our prealignment
ETSpy, torch-tiltxcorr  with --peers-python: the Python of an environment where they are installed
bound                 Cramer-Rao, specimen known

Times are CPU seconds of this process, of all its threads; those of other environments are seconds on the clock.

--shrec: an object of 512 px, 61 views, beside the errors of other programs on SHREC'21. --needle: a real series.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from alignment_bound import cramer_rao
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from gigascope.kernels import projector
from gigascope.tomography import phantom
from gigascope.tomography.geometry import alignment_errors, volume_width
from gigascope.tomography.joint import JointSolver
from gigascope.tomography.prealign import prealign
from gigascope.tomography.published import PublishedSolver
from gigascope.tomography.reconstruct import weighted_backprojection
from gigascope.tomography.signal import SignalModel, SignalSettings
from gigascope.tomography.signal_estimate import estimate_signal
from gigascope.tomography.views import prepared_views

F64 = NDArray[np.float64]
PLANES = 64
MAX_SHIFT = 25


def band(shape: tuple[int, int], low: float = 0.12, high: float = 0.015) -> NDArray[np.float64]:
    """Gaussian band-pass over the half spectrum, frequencies in cycles per pixel."""
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    return np.exp(-((k / low) ** 2) / 2) * (1 - np.exp(-((k / high) ** 2) / 2))


def window(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Raised cosine over an eighth of each side."""
    edges = []
    for n in shape:
        distance = np.minimum(np.arange(n), n - 1 - np.arange(n)) + 0.5
        edges.append(0.5 - 0.5 * np.cos(np.pi * np.minimum(distance / (0.12 * n), 1)))
    return edges[0][:, None] * edges[1][None]


def displacement(reference: NDArray, image: NDArray) -> F64:
    """How far the content of `image` lies from that of `reference`: peak of the band-passed correlation, parabola."""
    shape = reference.shape
    spectra = [np.fft.rfft2((a - a.mean()) * window(shape)) for a in (image, reference)]
    found = np.fft.irfft2(spectra[0] * spectra[1].conj() * band(shape), s=shape)
    offsets = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]
    near = (offsets[0][:, None] <= MAX_SHIFT) & (offsets[1][None] <= MAX_SHIFT)
    peak = np.unravel_index(np.argmax(np.where(near, found, -np.inf)), shape)
    result = []
    for axis, n in enumerate(shape):
        line = np.take(found, [(peak[axis] + d) % n for d in (-1, 0, 1)], axis=axis)
        line = line[:, peak[1]] if axis == 0 else line[peak[0]]
        curve = line[0] - 2 * line[1] + line[2]
        part = 0.5 * (line[0] - line[2]) / curve if curve < 0 else 0.0
        result.append((peak[axis] + n // 2) % n - n // 2 + part)
    return np.array(result)


def outward(n: int, lowest: int) -> list[tuple[int, int]]:
    """(view, neighbour nearer to the lowest tilt), outward on both sides."""
    return [(i, i - 1) for i in range(lowest + 1, n)] + [(i, i + 1) for i in range(lowest - 1, -1, -1)]


def phase_correlation(views: NDArray, tilt: F64, extent: str) -> F64:
    """Sub-pixel phase correlation of neighbours."""
    shifts = np.zeros((len(views), 2))
    for i, near in outward(len(views), int(np.argmin(np.abs(tilt)))):
        # skimage returns what brings the second image onto the first
        step = phase_cross_correlation(views[near], views[i], upsample_factor=20, normalization="phase")[0]
        shifts[i] = shifts[near] - step
    return shifts


def stackreg_methods() -> dict[str, Callable[[NDArray], F64]]:
    """StackReg (Thevenaz et al., IEEE Trans. Image Process. 7, 27 (1998)) on neighbours, where it is installed."""
    try:
        from pystackreg import StackReg
    except ImportError:
        return {}

    def register(views: NDArray) -> F64:
        shifts = np.zeros((len(views), 2))
        for i, near in outward(len(views), len(views) // 2):
            matrix = StackReg(StackReg.TRANSLATION).register(views[near], views[i])
            shifts[i] = shifts[near] + (matrix[1, 2], matrix[0, 2])
        return shifts

    return {
        "StackReg": register,
        "StackReg, smoothed": lambda views: register(ndimage.gaussian_filter(views, (0.0, 1.5, 1.5))),
    }


def cosine_correlation(views: NDArray, tilt: F64, extent: str) -> F64:
    """Correlation of neighbours, the steeper one stretched to the other's foreshortening."""
    shifts = np.zeros((len(views), 2))
    centre = (np.array(views.shape[1:]) - 1) / 2
    for i, near in outward(len(views), int(np.argmin(np.abs(tilt)))):
        stretch = np.cos(tilt[near]) / np.cos(tilt[i])
        matrix = np.diag([1 / stretch, 1.0])
        wide = ndimage.affine_transform(views[i], matrix, centre - matrix @ centre, order=1, mode="nearest")
        step = displacement(views[near], wide)
        shifts[i] = shifts[near] + (step[0] / stretch, step[1])
    return shifts


def cumulative_correlation(views: NDArray, tilt: F64, extent: str) -> F64:
    """As `cosine_correlation`, but against a running sum of the views placed before, stretched along."""
    shifts = np.zeros((len(views), 2))
    lowest = int(np.argmin(np.abs(tilt)))
    centre = (np.array(views.shape[1:]) - 1) / 2

    def stretched(image: NDArray, factor: float) -> NDArray:
        matrix = np.diag([1 / factor, 1.0])
        return ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1, mode="nearest")

    for side in (range(lowest + 1, len(views)), range(lowest - 1, -1, -1)):
        reference, near = views[lowest].astype(np.float64), lowest
        for i in side:
            factor = np.cos(tilt[near]) / np.cos(tilt[i])
            # where its neighbour is, less what is left
            guess = ndimage.shift(views[i], -shifts[near], order=1, mode="nearest")
            step = displacement(reference, stretched(guess, factor))
            shifts[i] = shifts[near] + (step[0] / factor, step[1])
            placed = ndimage.shift(views[i], -shifts[i], order=1, mode="nearest")
            reference, near = 0.75 * stretched(reference, 1 / factor) + placed, i
    return shifts


def peer_shifts(python: Path, views: NDArray, tilt: F64) -> dict[str, tuple[F64, float]]:
    """Shifts and seconds by the methods of another environment."""
    with tempfile.TemporaryDirectory() as folder:
        series, result = Path(folder) / "series.npz", Path(folder) / "shifts.npz"
        np.savez(series, views=views, tilt_deg=np.rad2deg(tilt))
        script = Path(__file__).with_name("alignment_peers.py")
        # that environment's own packages only
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(
            [python, script, series, result],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean,
        )
        with np.load(result) as found:
            methods = [name for name in found.files if not name.endswith(" seconds")]
            return {name: (found[name], float(found[f"{name} seconds"])) for name in methods}


def backprojection_of(views: NDArray, shifts: F64, tilt: F64, extent: str) -> tuple[torch.Tensor, NDArray]:
    """Filtered backprojection of views moved by their shifts, and these views."""
    n_s, n_y = views.shape[1:]
    shape = (PLANES, volume_width(n_s, PLANES, np.deg2rad(60.0), extent, 1.0, 2), n_y)
    moved = np.stack([ndimage.shift(v, -f, order=1, mode="nearest") for v, f in zip(views, shifts, strict=True)])
    data = torch.from_numpy(moved.astype(np.float32))
    return weighted_backprojection(data, torch.ones_like(data), tilt, shape=shape), moved


def projection_matching(views: NDArray, tilt: F64, extent: str) -> F64:
    """Views placed one by one against what those placed before predict, then all against what all predict."""
    shifts = np.zeros((len(views), 2))
    n_s = views.shape[1]
    lowest = int(np.argmin(np.abs(tilt)))
    for sweep in range(2):
        placed = [lowest] if sweep == 0 else list(range(len(views)))
        for i, _ in outward(len(views), lowest):
            others = sorted(j for j in placed if j != i)
            volume, _ = backprojection_of(views[others], shifts[others], tilt[others], extent)
            model = projector.project(volume, torch.tensor([tilt[i]]), n_s)[0].numpy()
            shifts[i] = displacement(model, views[i])
            placed = sorted({*placed, i})
    for _ in range(6):
        volume, moved = backprojection_of(views, shifts, tilt, extent)
        models = projector.project(volume, torch.from_numpy(tilt), n_s).numpy()
        shifts = shifts + np.stack([displacement(*pair) for pair in zip(models, moved, strict=True)])
    return shifts


def series(kind: str, seed: int) -> tuple[phantom.TiltSeriesSim, SignalModel, torch.Tensor, torch.Tensor]:
    """A simulated series behind the chain's own signal estimate."""
    body = phantom.object_phantom(seed) if kind == "object" else phantom.section_phantom(seed)
    sim = phantom.simulate(body, seed=seed, snr=1.0)
    raw = np.ascontiguousarray(sim.views.swapaxes(1, 2))
    model = estimate_signal(raw, sim.tilt, SignalSettings())
    views, valid = prepared_views(raw, model, tilt_axis=0.0, largest_bin=4)
    return sim, model, views, valid


def errors_of(kind: str, seed: int, quick: bool, peers: Path | None) -> dict[str, tuple[float, float, float]]:
    """RMS, worst view (px) and seconds of every method on one series."""
    sim, model, views, valid = series(kind, seed)
    results: dict[str, tuple[float, float, float]] = {}

    def score(method: str, shifts: F64, seconds: float) -> None:
        errors = alignment_errors(shifts, sim.shifts_true, sim.tilt)
        results[method] = (float(np.sqrt(np.mean(errors**2))), float(errors.max()), seconds)

    def take(method: str, solve: Callable[[], F64]) -> F64:
        begun = time.process_time()
        shifts = solve()
        score(method, shifts, time.process_time() - begun)
        return shifts

    extent = model.extent
    take("none", lambda: np.zeros((len(views), 2)))
    take("phase correlation", lambda: phase_correlation(views.numpy(), sim.tilt, extent))
    for method, register in stackreg_methods().items():
        take(method, lambda register=register: register(views.numpy()))
    take("cosine correlation", lambda: cosine_correlation(views.numpy(), sim.tilt, extent))
    take("cumulative", lambda: cumulative_correlation(views.numpy(), sim.tilt, extent))
    if peers is not None:
        for method, (shifts, seconds) in peer_shifts(peers, views.numpy(), sim.tilt).items():
            score(method, shifts, seconds)
    if not quick:
        take("projection matching", lambda: projection_matching(views.numpy(), sim.tilt, extent))
    start = take("prealign", lambda: prealign(views, valid, sim.tilt, extent, good=model.good).shifts)
    for method, solver in (("published", PublishedSolver), ("joint", JointSolver)):
        case = {"n_z": PLANES, "extent": extent, "noise": model.relative_noise}
        take(method, lambda solver=solver, case=case: solver(views, valid, sim.tilt, start, **case).run().shifts)
    results["bound"] = (cramer_rao(sim), math.nan, 0.0)
    return results


def table(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """The phantoms, all methods; then the median over the seeds."""
    rows: list[dict[str, object]] = []
    print(f"{'phantom':8} {'seed':>6} {'method':20} {'RMS px':>8} {'worst px':>9} {'CPU s':>8}")
    for kind in ("object", "section"):
        every: dict[str, list[float]] = {}
        for seed in (0,) if arguments.quick else (0, 1, 2):
            for method, (rms, worst, seconds) in errors_of(kind, seed, arguments.quick, arguments.peers_python).items():
                print(f"{kind:8} {seed:6} {method:20} {rms:8.3f} {worst:9.2f} {seconds:8.1f}", flush=True)
                every.setdefault(method, []).append(rms)
                for metric, value, unit in (
                    ("rms", rms, "px"),
                    ("worst view", worst, "px"),
                    ("CPU time", seconds, "s"),
                ):
                    rows.append(entry(f"{kind} seed {seed}", method, metric, value, unit))
        for method, found in every.items():
            print(f"{kind:8} {'median':>6} {method:20} {np.median(found):8.3f}")
            rows.append(entry(kind, method, "median rms", float(np.median(found)), "px"))
    return rows


def entry(case: str, method: str, metric: str, value: float, unit: str) -> dict[str, object]:
    """A row of the JSON file."""
    return {"case": case, "method": method, "metric": metric, "value": value, "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, without projection matching")
    parser.add_argument("--peers-python", type=Path, help="Python with ETSpy and torch-tiltxcorr (not ours)")
    parser.add_argument("--shrec", action="store_true", help="a series of 512 px instead, beside SHREC'21's errors")
    parser.add_argument("--needle", action="store_true", help="the real needle of ../shared/data instead")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.shrec or arguments.needle:
        import alignment_cases

        found = alignment_cases.shrec() if arguments.shrec else alignment_cases.needle()
        rows = [entry(*row) for row in found]
        for row in rows:
            print(f"{row['case']:24} {row['method']:28} {row['metric']:26} {row['value']:9.4g} {row['unit']}")
    else:
        rows = table(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
