"""Height from focus and the all-in-focus picture of one view: our estimators and peers in one run.

    python benchmarks/topography_focus.py [--data FOLDER] [--views N] [--pictures FOLDER] [--json FILE]

simulated  views of the synthetic instrument (preset S: 384 px, 17 slices, dz 40 um): height RMSE and 95th percentile in
           micrometres after one offset, PSNR in dB of the fused green picture to that made with the true index (both
           have the same noise: what is left is what the choice of slices costs), seconds per view
real       focus stacks of FOLDER (subfolders of PNG or JPEG files; `expected.jpg` in one is the result of focus-stack):
           ours, Debian's `enfuse` where it is installed, and focus-stack, all on our registration

Sharpness of pictures: Tenengrad (mean squared Sobel gradient of the luminance); mean S with a window of 4 pixels; and
*agreement*, the median over blocks of 32 pixels of the block's Tenengrad over that of the sharpest slice there (1: as
sharp as the best slice; halos and noise of a method can exceed it).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import io

from gigascope.kernels.filters import sharpness
from gigascope.topography.capture.bayer import demosaic
from gigascope.topography.focus.fuse import fuse, fuse_pyramid
from gigascope.topography.focus.order import focus_order
from gigascope.topography.focus.peak import METHODS
from gigascope.topography.focus.registration import apply_registration, register_stack
from gigascope.topography.focus.stream import focus_peak, luminance, settle
from gigascope.topography.instrument.instrument import Instrument

BLOCK = 32
BORDER = 20


def rows_of(case: str, method: str, figures: dict[str, tuple[float, str]]) -> Iterator[dict[str, object]]:
    for metric, (value, unit) in figures.items():
        yield {"case": case, "method": method, "metric": metric, "value": value, "unit": unit}


def simulated(n_views: int) -> list[dict[str, object]]:
    """Estimators against the truth of the instrument."""
    results: list[dict[str, object]] = []
    print(f"{'simulated':14} {'method':14} {'RMSE um':>8} {'p95 um':>7} {'PSNR dB':>8} {'seconds':>8}")
    for renderer in ("fast", "reference") if n_views > 4 else ("fast",):
        instrument = Instrument("S", seed=0, specimen="relief", renderer=renderer)
        dz = 1000.0 * instrument.capture.dz_mm
        views = [(i // 8, i % 8) for i in np.linspace(0, 63, n_views).astype(int)]
        errors: dict[str, list[NDArray]] = {}
        psnr: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        for view in views:
            stack = instrument.simulate(*view)
            pattern = instrument.capture.pattern
            green = np.stack([demosaic(s, pattern)[..., 1] for s in stack]) if pattern else stack
            green = green.astype(np.float32)
            true = instrument.truth.index(*view)
            good = instrument.truth.visible(*view) & (instrument.truth.view_texture(*view) > 0.5)
            good[:BORDER], good[-BORDER:], good[:, :BORDER], good[:, -BORDER:] = False, False, False, False
            best = fuse(green, torch.from_numpy(true.astype(np.float32)))
            for method in (*METHODS, "combined"):
                begun = time.perf_counter()
                peak = focus_peak(green, method=method)
                index = settle(peak) if method == "combined" else peak.index
                seconds[method] = seconds.get(method, 0.0) + (time.perf_counter() - begun) / len(views)
                error = dz * (index.numpy() - true)[good]
                errors.setdefault(method, []).append(error)
                # noise of one picture is in both: what is left is what the choice of slices costs
                difference = (fuse(green, index) - best)[good]
                psnr.setdefault(method, []).append(10 * np.log10(255.0**2 / max(float(np.mean(difference**2)), 1e-9)))
        for method, values in errors.items():
            # one offset for all views: the datum is known
            error = np.concatenate(values)
            error = error - np.median(error)
            rms, p95 = float(np.sqrt(np.mean(error**2))), float(np.quantile(np.abs(error), 0.95))
            picture = float(np.mean(psnr[method]))
            print(f"{renderer:14} {method:14} {rms:8.2f} {p95:7.2f} {picture:8.1f} {seconds[method]:8.2f}", flush=True)
            figures = {
                "height_rmse": (rms, "um"),
                "height_p95": (p95, "um"),
                "psnr_to_true_index": (picture, "dB"),
                "time": (seconds[method], "s"),
            }
            results += rows_of(f"S {renderer}", method, figures)
    return results


def tenengrad(image: NDArray) -> NDArray:
    grey = luminance(image[None])[0].numpy()
    return ndimage.sobel(grey, 0) ** 2 + ndimage.sobel(grey, 1) ** 2


def blocks(values: NDArray) -> NDArray:
    rows, columns = (n // BLOCK * BLOCK for n in values.shape)
    return values[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).mean((1, 3))


def figures_of(
    image: NDArray, best: NDArray, inside: tuple[slice, slice], seconds: float
) -> dict[str, tuple[float, str]]:
    energy = tenengrad(image)[inside]
    s = sharpness(luminance(image[None]).contiguous(), 4.0, 2.0)[0].numpy()[inside]
    found = blocks(energy)
    textured = best > np.quantile(best, 0.25)
    return {
        "tenengrad": (float(energy.mean()), "counts^2"),
        "mean_sharpness": (float(s.mean()), "1"),
        "agreement": (float(np.median(found[textured] / best[textured])), "1"),
        "time": (seconds, "s"),
    }


def enfused(folder: Path, stack: NDArray) -> tuple[NDArray, float] | None:
    """Debian's enfuse with its settings for focus stacks, on slices that are registered already."""
    if shutil.which("enfuse") is None:
        return None
    names = []
    for k, image in enumerate(stack):
        names.append(str(folder / f"slice_{k:03}.tif"))
        io.imsave(names[-1], image, check_contrast=False)
    weights = ["--exposure-weight=0", "--saturation-weight=0", "--contrast-weight=1", "--hard-mask"]
    command = ["enfuse", *weights, "--contrast-window-size=5", f"--output={folder / 'fused.tif'}", *names]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return io.imread(folder / "fused.tif")[..., :3], time.perf_counter() - begun


def real(folder: Path, pictures: Path | None) -> list[dict[str, object]]:
    """Ours and peers on one real stack."""
    pictured = (p for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg"})
    files = sorted(p for p in pictured if p.stem != "expected")
    stack = np.stack([io.imread(p) for p in files])
    size = (stack.shape[1], stack.shape[2])
    begun = time.perf_counter()
    order = focus_order(stack)
    ordering = time.perf_counter() - begun
    begun = time.perf_counter()
    found = register_stack(stack[order.order])
    stack, valid = apply_registration(stack[order.order], found)
    registering = time.perf_counter() - begun
    print(f"{folder.name}: {len(stack)} slices of {size[0]} x {size[1]}; {order.sentence}")
    print(f"{folder.name}: {found.summary(size)} ({ordering:.1f} s order, {registering:.1f} s registration)")
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    inside = (slice(rows[0] + 8, rows[-1] - 7), slice(columns[0] + 8, columns[-1] - 7))
    best = np.max([blocks(tenengrad(s)[inside]) for s in stack], axis=0)

    begun = time.perf_counter()
    index = settle(focus_peak(stack))
    measuring = time.perf_counter() - begun
    made: dict[str, tuple[NDArray, float]] = {"middle slice": (stack[len(stack) // 2], 0.0)}
    for method, make in (
        ("nearest", lambda: fuse(stack, index, mix="nearest")),
        ("linear", lambda: fuse(stack, index)),
        ("pyramid", lambda: fuse_pyramid(stack, index)),
    ):
        begun = time.perf_counter()
        made[f"ours, {method}"] = (make(), measuring + time.perf_counter() - begun)
    with tempfile.TemporaryDirectory() as scratch:
        peer = enfused(Path(scratch), stack)
    if peer is None:
        print("enfuse is not installed (apt-get install enfuse): left out")
    else:
        made["enfuse"] = peer
    expected = folder / "expected.jpg"
    if expected.exists():
        theirs = io.imread(expected)
        # its own geometry: brought onto ours, so that blocks show the same things
        pair = np.stack([made["ours, pyramid"][0], theirs])
        moved, _ = apply_registration(pair, register_stack(pair, reference=0, gaps=(1,)), brightness=False)
        made["focus-stack"] = (moved[1], float("nan"))
    results: list[dict[str, object]] = []
    print(f"{folder.name:14} {'method':14} {'Tenengrad':>10} {'mean S':>8} {'agreement':>10} {'seconds':>8}")
    for method, (image, seconds) in made.items():
        figures = figures_of(image, best, inside, seconds)
        ten, s, agreement, _ = (value for value, _ in figures.values())
        print(f"{folder.name:14} {method:14} {ten:10.0f} {s:8.4f} {agreement:10.3f} {seconds:8.2f}", flush=True)
        results += rows_of(folder.name, method, figures)
        if pictures:
            io.imsave(pictures / f"{folder.name}_{method.replace(', ', '_').replace(' ', '_')}.png", image)
    if pictures:
        import matplotlib.image

        matplotlib.image.imsave(pictures / f"{folder.name}_index.png", index.numpy(), cmap="turbo")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one subfolder per real focus stack")
    parser.add_argument("--views", type=int, default=4, help="simulated views; more than 4 also run the ray tracer")
    parser.add_argument("--pictures", type=Path, help="also write the pictures and index maps there")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    results = simulated(arguments.views)
    if arguments.data is None or not arguments.data.is_dir():
        print("no real stacks: give --data FOLDER")
    else:
        for name in ("heatsink", "pcb_edge"):
            if (arguments.data / name).is_dir():
                results += real(arguments.data / name, arguments.pictures)
            else:
                print(f"no {arguments.data / name}: left out")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
