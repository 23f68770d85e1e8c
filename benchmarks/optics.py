"""Blur of simulated cultures in core-seconds per million voxels, beside scipy and direct summation; prints a table.

    python benchmarks/optics.py [--quick] [--device auto|cpu|cuda] [--json FILE]

A field of 64 x 256 x 256 output voxels on a grid 2 x 4 x 4 as fine, a PSF of 15 x 25 x 25 = 9375 voxels, one kernel
and six whose shares change with depth, in blocks of 64 x 128 x 128 output voxels. Time is what the process takes of
all its cores (on a GPU: of the wall), without and with the spectra of the PSF, which are made once for all blocks of
one shape. Peers blur one kernel, in float32, a part of the field of a size that suits them; they do not sample.
--quick takes an eighth.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import scipy.signal
import torch
from projector import Table, arguments, choose_device

from gigascope.synthesis.optics.blocks import Blur, Window, window
from gigascope.synthesis.optics.depth_psf import DepthPsf

PSF = (15, 25, 25)
OVERSAMPLE = (2, 4, 4)
VOXEL_Z_UM = 0.75


def clocked(run: Callable[[], object], device: torch.device) -> float:
    """Time of all cores together, on a GPU of the wall."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def core_seconds(run: Callable[[], object], device: torch.device, n_runs: int, budget_s: float = 20.0) -> float:
    """Smallest of several times, until they add up to the budget."""
    best, spent = math.inf, 0.0
    for _ in range(n_runs):
        taken = clocked(run, device)
        best, spent = min(best, taken), spent + taken
        if spent > budget_s:
            break
    return best


def made_up_psf(n_kernels: int, depth_um: float) -> DepthPsf:
    """Kernels of the same size, Gaussians of different width, whose shares change with depth."""
    z, y, x = (np.arange(n) - n // 2 for n in PSF)
    radius = (z[:, None, None] / 3) ** 2 + (y[:, None] / 4) ** 2 + (x / 4) ** 2
    kernels = np.array([np.exp(-radius / (1 + 0.2 * k)) for k in range(n_kernels)], np.float32)
    kernels /= kernels.sum((1, 2, 3), keepdims=True)
    depths = np.linspace(0, depth_um, max(2, n_kernels))
    shares = np.exp(-(((depths[:, None] / depth_um - np.linspace(0, 1, n_kernels)) / 0.3) ** 2))
    shares /= shares.sum(1, keepdims=True)
    return DepthPsf(kernels, shares, depths, np.ones(len(depths)), depths)


def blur_field(table: Table, size: tuple[int, int, int], block: tuple[int, int, int], device: torch.device) -> None:
    """Our blur of a whole field, block by block."""
    n_voxels = math.prod(n * o for n, o in zip(size, OVERSAMPLE)) / 1e6
    case = f"{' x '.join(map(str, size))}, oversample {' x '.join(map(str, OVERSAMPLE))}"
    unit = "core-s/Mvoxel" if device.type == "cpu" else "s/Mvoxel"
    for n_kernels in (1, 6):
        psf = made_up_psf(n_kernels, size[0] * OVERSAMPLE[0] * VOXEL_Z_UM)
        tiny = blocks((8, 8, 8), (8, 8, 8), psf)
        blur_blocks(Blur(psf, device), torch.zeros(tiny[0].shape, device=device), tiny)  # loads what is compiled
        blur = Blur(psf, device)
        parts = blocks(size, block, psf)
        volume = torch.rand(parts[0].shape, device=device)
        first = clocked(lambda: blur_blocks(blur, volume, parts[:1]), device)  # noqa: B023
        taken = core_seconds(lambda: blur_blocks(blur, volume, parts), device, 3)  # noqa: B023
        spectra = max(0.0, first - taken / len(parts))
        name = f"K = {n_kernels}"
        table.add(case, device.type, f"{name}, blur and sampling", taken / n_voxels, unit)
        table.add(case, device.type, f"{name}, with spectra of the PSF", (taken + spectra) / n_voxels, unit)
        border = math.prod(parts[0].fft_shape) * len(parts) / n_voxels / 1e6
        table.add(case, device.type, f"{name}, voxels with borders / voxels", border, "")


def blocks(size: tuple[int, int, int], block: tuple[int, int, int], psf: DepthPsf) -> list[Window]:
    """Windows that cover the field."""
    corners = itertools.product(*(range(0, n, b) for n, b in zip(size, block)))
    return [window(corner, block, OVERSAMPLE, psf.half) for corner in corners]


def blur_blocks(blur: Blur, volume: torch.Tensor, parts: list[Window]) -> None:
    """Blur every block."""
    for part in parts:
        blur(volume, part, part.positions(VOXEL_Z_UM))


def peers(table: Table, shape: tuple[int, int, int], small: tuple[int, int, int]) -> None:
    """scipy's convolutions and direct summation."""
    kernel = made_up_psf(1, 1.0).kernels[0]
    volume = np.random.default_rng(1).random(shape, dtype=np.float32)
    crop = np.ascontiguousarray(volume[tuple(slice(0, n) for n in small)])
    tensor, weights = torch.from_numpy(crop)[None, None], torch.from_numpy(kernel)[None, None]
    cpu = torch.device("cpu")
    half = tuple(n // 2 for n in PSF)
    work: list[tuple[str, np.ndarray, int, Callable[[], object]]] = [
        ("scipy fftconvolve", volume, 2, lambda: scipy.signal.fftconvolve(volume, kernel, mode="same")),
        ("scipy oaconvolve", volume, 2, lambda: scipy.signal.oaconvolve(volume, kernel, mode="same")),
        ("torch conv3d, direct", crop, 1, lambda: torch.nn.functional.conv3d(tensor, weights, padding=half)),
        ("scipy convolve, direct", crop, 1, lambda: scipy.signal.convolve(crop, kernel, mode="same", method="direct")),
    ]
    for name, data, n_runs, run in work:
        case = " x ".join(map(str, data.shape))
        table.add(case, name, "K = 1, blur", core_seconds(run, cpu, n_runs) / data.size * 1e6, "core-s/Mvoxel")


def main() -> None:
    """Measure ours and the peers."""
    options = arguments(__doc__)
    device = choose_device(options.device)
    table = Table()
    size, block = (32, 128, 128) if options.quick else (64, 256, 256), (64, 128, 128)
    blur_field(table, size, tuple(min(a, b) for a, b in zip(size, block)), device)
    peers(table, (64, 256, 256) if options.quick else (64, 512, 512), (16, 40, 40))
    table.write(options.json)


if __name__ == "__main__":
    main()
