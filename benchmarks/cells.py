"""Rasterising nuclei: core-seconds per million voxels, beside numpy and scipy nucleus by nucleus; prints a table.

    python benchmarks/cells.py [--quick] [--device auto|cpu|cuda] [--json FILE]

Nuclei of 9.5 µm with harmonics to degree 6, texture, rim and nucleoli on a jittered lattice that they fill to 0.35, on
voxels of 0.75 x 0.25 x 0.25 µm; labels from 2 x 2 x 2 samples on voxels of twice that. On a CPU the process's CPU time
counts, on a GPU wall time; the smallest of several runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import scipy.ndimage
import torch
from projector import Table, arguments, choose_device, seconds

from gigascope.kernels import cells

STEP_UM = (0.75, 0.25, 0.25)
DIAMETER_UM, FILL = 9.5, 0.35


def culture(size_um: tuple[float, float, float]) -> cells.NucleiTable:
    """Nuclei that touch here and there, with all that the default settings give them."""
    rng = np.random.default_rng(1)
    one = math.pi / 6 * DIAMETER_UM**3
    spacing = (one / FILL) ** (1 / 3)
    number = [max(1, round(s / spacing)) for s in size_um]
    lattice = np.stack(np.meshgrid(*[np.arange(k) for k in number], indexing="ij"), -1).reshape(-1, 3)
    n = len(lattice)
    centre = (lattice + 0.5 + rng.uniform(-0.15, 0.15, (n, 3))) * (np.array(size_um) / number)
    axes = torch.from_numpy(np.stack([np.ones(n), rng.uniform(0.75, 1, n), rng.uniform(0.6, 1, n)], 1))
    axes = axes * (DIAMETER_UM / 2 / axes.prod(1, keepdim=True) ** (1 / 3))
    exponent = torch.full((n,), 2.0, dtype=torch.float64)
    waves = torch.from_numpy(rng.standard_normal((n, 81))) * cells.harmonic_scales(0.06, 1.8)
    waves = cells.volume_factor(axes, exponent, waves, torch.full((n,), one, dtype=torch.float64))
    spots = rng.uniform(-2, 2, (n, 4, 4))
    spots[..., 3] = rng.uniform(0.6, 1.3, (n, 4)) * (np.arange(4) < rng.poisson(1.8, n)[:, None])
    return cells.nuclei_table(
        torch.from_numpy(centre),
        torch.from_numpy(rng.standard_normal((n, 4))),
        axes,
        exponent,
        waves,
        intensity=torch.from_numpy(rng.lognormal(0, 0.25, n)),
        texture_sigma=0.25,
        rim=0.15,
        nucleoli=torch.from_numpy(spots),
    )


def by_numpy(table: cells.NucleiTable, shape: tuple[int, int, int], texture: bool) -> np.ndarray:
    """What a user would write: the box of one nucleus after the other, smoothed noise for its texture."""
    rng = np.random.default_rng(0)
    nearest, out = np.full(shape, 1.0, np.float32), np.zeros(shape, np.float32)
    turned = cells.rotation_matrices(table.rotation).numpy()
    for i in range(table.n):
        centre, reach = table.centre[i].numpy(), float(table.reach[i])
        low = [max(0, math.floor((c - reach) / s)) for c, s in zip(centre, STEP_UM)]
        high = [min(n, math.ceil((c + reach) / s)) for c, s, n in zip(centre, STEP_UM, shape)]
        box = tuple(slice(a, b) for a, b in zip(low, high))
        lines = [(np.arange(a, b) + 0.5) * s - c for a, b, s, c in zip(low, high, STEP_UM, centre)]
        body = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 3) @ turned[i].T
        away = np.linalg.norm(body, axis=1)
        u = torch.from_numpy(body / np.maximum(away, 1e-12)[:, None])
        r = cells.radius(table.semi_axes[i : i + 1], table.exponent[i : i + 1], table.harmonics[i : i + 1], u)
        rho = (away / r[0].numpy()).reshape([b - a for a, b in zip(low, high)])
        value = np.float32(i + 1)
        if texture:
            noise = rng.standard_normal(rho.shape)
            octaves = [
                scipy.ndimage.gaussian_filter(noise, [0.5 * 1.5 * 0.5**k / s for s in STEP_UM]) for k in range(3)
            ]
            value = sum(0.5**k * octave / octave.std() for k, octave in enumerate(octaves))
            value = np.maximum(0, 1 + 0.25 * value / 1.146) * (1 + 0.15 * np.exp((rho - 1) * r.mean().item() / 0.5))
        nearer = rho < nearest[box]
        out[box] = np.where(nearer, value, out[box])
        nearest[box] = np.minimum(rho, nearest[box])
    return out


def core_seconds(run: Callable[[], object], n_runs: int) -> float:
    """Smallest CPU time of all threads, after one run to warm up."""
    run()
    taken = []
    for _ in range(n_runs):
        begin = time.process_time()
        run()
        taken.append(time.process_time() - begin)
    return min(taken)


def main() -> None:
    """Measure every op."""
    options = arguments(__doc__)
    device = choose_device(options.device)
    shape = (32, 192, 192) if options.quick else ((64, 512, 512) if device.type == "cpu" else (256, 1024, 1024))
    size_um = tuple(n * s for n, s in zip(shape, STEP_UM))
    table = culture(size_um)  # type: ignore[arg-type]
    there, rows, n_runs = table.to(device), Table(), 3 if options.quick else 5
    coarse = [n // 2 for n in shape], [2 * s for s in STEP_UM]
    work = [
        ("labels of 2 x 2 x 2 samples", lambda: cells.labels(there, (0, 0, 0), *coarse)),
        ("density", lambda: cells.density(there, (0, 0, 0), shape, STEP_UM)),
        (
            "volume fraction, cells of 2 µm",
            lambda: cells.fraction(there, (0, 0, 0), [int(s / 2) for s in size_um], [2.0] * 3),
        ),
    ]
    million = math.prod(shape) / 1e6
    for name, run in work:
        if device.type == "cpu":
            taken = core_seconds(run, n_runs)
            rows.add(name, "gigascope", "per M samples of the fine grid", taken / million, "core-s")
        else:
            rows.add(name, "gigascope", "rate", million / seconds(run, device, n_runs), "M samples/s")
    if device.type == "cpu":
        rows.add(
            "owned voxels",
            "gigascope",
            "per nucleus",
            core_seconds(lambda: cells.owned(table, coarse[1]), 2) / table.n,
            "core-s",
        )
        part = (16, 96, 96)
        few = culture(tuple(n * s for n, s in zip(part, STEP_UM)))  # type: ignore[arg-type]
        for name, texture in (("labels", False), ("density", True)):
            taken = core_seconds(lambda texture=texture: by_numpy(few, part, texture), 1)  # type: ignore[misc]
            rows.add(name, "numpy, scipy", "per M voxels", taken / math.prod(part) * 1e6, "core-s")
    rows.write(options.json)


if __name__ == "__main__":
    main()
