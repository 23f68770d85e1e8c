"""Builds a complete result folder of the tomography chain without running it: real stores, made-up numbers.

For tests of what comes after the chain (report, viewer, info). The volume and the views are of a phantom; the shifts
are the true ones with small errors, the curves are of the shape that real ones have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.store.table import write_tsv
from gigascope.tomography.phantom import object_phantom, section_phantom, simulate


@dataclass(frozen=True)
class Made:
    """What was built: the folder and the numbers that went in."""

    folder: Path
    tilt_deg: NDArray[np.float64]
    true_shifts: NDArray[np.float64]
    found_shifts: NDArray[np.float64]
    volume: NDArray[np.float32]


def build_result(
    folder: Path,
    *,
    size: int = 96,
    n_tilts: int = 21,
    kind: str = "object",
    seed: int = 0,
    simulated: bool = True,
    halves: bool = True,
    warnings: tuple[str, ...] = (),
    pixel_nm: float = 1.5,
) -> Made:
    """Write every output of the tomography chain that report and viewer read into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 77])
    tilt = np.deg2rad(np.linspace(-60, 60, n_tilts))
    phantom = object_phantom(seed) if kind == "object" else section_phantom(seed)
    width = size if kind == "object" else 2 * size
    sim = simulate(phantom, seed=seed, tilt=tilt, shape=(size, size), width=width)
    signal = sim.absorbance()
    true = sim.shifts_true
    found = true + rng.normal(0, 0.12, true.shape)
    coarse = true + rng.normal(0, 0.6, true.shape)
    made = Made(folder, np.rad2deg(tilt), true, found, sim.volume)
    used = np.ones(n_tilts, bool)
    used[[3, n_tilts - 1]] = False
    order = rng.permutation(n_tilts)  # stores keep file order, which need not be sorted
    _tilt_series(made, sim.views, sim.i0, kind, order, used, simulated, warnings, pixel_nm)
    prealigned = _aligned(signal, coarse)
    _views_store(folder / "prealigned.zarr", prealigned, order, pixel_nm, _record("tomography.prealign", folder, 2.3))
    _views_store(
        folder / "aligned.zarr",
        _aligned(signal, found),
        order,
        pixel_nm,
        _record("tomography.reconstruct", folder, 41.0),
    )
    _prealigned_table(made, coarse, order, used)
    _tomogram(made, used, order, kind, rng, pixel_nm)
    if halves:
        _halves(made, rng, pixel_nm)
    _text_files(made, order, rng, halves, pixel_nm, simulated)
    return made


def _record(stage: str, folder: Path, wall_s: float, **more: Any) -> dict[str, Any]:
    sections = {
        "tomography.ingest": {
            "inputs": {"phantom": {"kind": "object"}},
            "ingest": {"signal": "transmission", "exclude": [], "i0": None},
        },
        "tomography.prealign": {"prealign": {"width": 1024, "low_pass": 0.12}},
        "tomography.reconstruct": {
            "reconstruct": {"method": "tv", "lambda": 0.1, "extent": "auto", "bin": 1, "align": {"groups": 4}}
        },
        "tomography.halves": {"halves": {"enabled": True, "bin": 2}},
    }
    return {
        "stage": stage,
        "dataset": folder.name,
        "config": sections[stage],
        "code": "3f" * 32,
        "packages": {"numpy": np.__version__, "torch": "2.13.0"},
        "gigascope": "0.1.0",
        "python": "3.11.2",
        "inputs": {"tilt_series": {"path": f"results/{folder.name}/tilt_series.zarr", "digest": "ab" * 32}},
        "device": "CPU (2 cores)",
        "seed": 0,
        "host": "bench",
        "finished": "2025-01-31T12:00:00+00:00",
        "wall_s": wall_s,
        "peak_memory_bytes": 900 * 2**20,
        "peak_gpu_memory_bytes": 0,
        "command": ["/somewhere/bin/gigascope", "run", stage, "--config", f"config/datasets/{folder.name}.yaml"],
        "warnings": [],
        **more,
    }


def _tilt_series(
    made: Made, views: NDArray, i0: float, kind: str, order: NDArray, used: NDArray, simulated: bool,
    warnings: tuple[str, ...], pixel_nm: float,
) -> None:  # fmt: skip
    stack = views.transpose(0, 2, 1)[order]
    writer = create_image(
        made.folder / "tilt_series.zarr",
        shape=stack.shape,
        dtype=np.float32,
        spacing={"y": pixel_nm, "x": pixel_nm},
        access="views",
    )
    writer[:] = stack
    writer.create_array("mask", stack.shape, np.uint8, access="views")[:] = 1
    n = len(order)
    reason = np.where(~used, np.where(np.arange(n) == 3, "excluded", "dark"), "")
    columns = {
        "view": np.arange(n),
        "tilt_deg": made.tilt_deg[order],
        "excluded": ~used[order],
        "reason": reason[order].astype("T"),
    }
    if simulated:
        columns |= {"true_f_s_px": made.true_shifts[order, 0], "true_f_y_px": made.true_shifts[order, 1]}
    writer.write_table("views", columns, {"tilt_deg": "degree"})
    writer.attrs |= {
        "pixel_size_nm": pixel_nm, "tilt_axis_deg": 0.0, "tilt_sign": 1,
        "source": "phantom" if simulated else "cell.st", "notes": [],
        "signal": {
            "signal": "transmission", "i0": i0, "scale": 0.31, "extent": kind, "extent_contrast": [18.2, 24.9, 11.0],
        },
    }  # fmt: skip
    finish(writer, _record("tomography.ingest", made.folder, 0.9, warnings=list(warnings)))


def _aligned(signal: NDArray[np.float32], shifts: NDArray[np.float64]) -> NDArray[np.float32]:
    """(tilt, s, y) views moved so that their shifts are undone, as (tilt, y, x)."""
    moved = [shift(view, -f, order=1, mode="constant") for view, f in zip(signal, shifts)]
    return np.ascontiguousarray(np.stack(moved).transpose(0, 2, 1), dtype=np.float32)


def _views_store(path: Path, stack: NDArray, order: NDArray, pixel_nm: float, record: dict[str, Any]) -> None:
    writer = create_image(
        path, shape=stack.shape, dtype=np.float32, spacing={"y": pixel_nm, "x": pixel_nm}, access="views"
    )
    writer[:] = stack[order]
    if path.name == "aligned.zarr":
        finish(writer, record)


def _prealigned_table(made: Made, coarse: NDArray, order: NDArray, used: NDArray) -> None:
    from gigascope.store.create import open_writer

    writer = open_writer(made.folder / "prealigned.zarr")
    n = len(order)
    columns = {
        "view": np.arange(n), "tilt_deg": made.tilt_deg[order], "f_s_px": coarse[order, 0], "f_y_px": coarse[order, 1],
        "peak": np.cos(np.deg2rad(made.tilt_deg[order])) * 0.6,
        "flag": np.where(order == 5, "weak", np.where(~used[order], "excluded", "")).astype("T"),
    }  # fmt: skip
    writer.write_table("shifts", columns, {"f_s_px": "pixel", "f_y_px": "pixel"})
    writer.attrs |= {"bin": 1, "method": "correlation", "residuals": {"correlation": 0.142, "centre of mass": 0.171}}
    finish(writer, _record("tomography.prealign", made.folder, 2.3))


def _tomogram(made: Made, used: NDArray, order: NDArray, kind: str, rng: np.random.Generator, pixel_nm: float) -> None:
    volume = gaussian_filter(made.volume, 0.8) + rng.normal(0, 0.004, made.volume.shape)
    volume = np.ascontiguousarray(volume.transpose(0, 2, 1), dtype=np.float32)
    spacing = dict.fromkeys("zyx", pixel_nm)
    writer = create_image(
        made.folder / "tomogram.zarr", shape=volume.shape, dtype=np.float32, axes=("z", "y", "x"), spacing=spacing
    )
    writer[:] = volume
    n = len(order)
    sigma = 0.08 / np.cos(np.deg2rad(made.tilt_deg[order]))
    flag = np.where(order == 8, "residual", "")
    residual = 0.1 + 0.05 * np.deg2rad(made.tilt_deg[order]) ** 2 + rng.normal(0, 0.003, n)
    columns = {
        "view": np.arange(n), "tilt_deg": made.tilt_deg[order], "f_s_px": made.found_shifts[order, 0],
        "f_y_px": made.found_shifts[order, 1], "sigma_s_px": np.where(used[order], sigma, np.inf),
        "sigma_y_px": np.where(used[order], sigma, np.inf), "residual": np.where(used[order], residual, np.nan),
        "overlap": 0.99 - 0.02 * rng.random(n), "flag": flag.astype("T"),
    }  # fmt: skip
    writer.write_table("shifts", columns, {"f_s_px": "pixel", "f_y_px": "pixel"})
    writer.write_table("offsets", {"view": np.arange(n), "offset": rng.normal(0, 0.01, n)})
    writer.attrs |= {
        "extent": kind, "hz": 1.0, "bin": 1, "lambda": 0.1, "method": "tv", "align_bins": [4, 2],
        "values": "absorbance per pixel length",
        "thickness_nm": volume.shape[0] * pixel_nm, "thickness_guessed": True,
    }  # fmt: skip
    finish(writer, _record("tomography.reconstruct", made.folder, 41.0))


def _halves(made: Made, rng: np.random.Generator, pixel_nm: float) -> None:
    coarse = made.volume[::2, ::2, ::2].transpose(0, 2, 1)
    both = np.stack([coarse + rng.normal(0, 0.01, coarse.shape) for _ in range(2)]).astype(np.float32)
    writer = create_image(
        made.folder / "halves.zarr",
        shape=both.shape,
        dtype=np.float32,
        axes=("c", "z", "y", "x"),
        spacing=dict.fromkeys("zyx", 2 * pixel_nm),
    )
    writer[:] = both
    finish(writer, _record("tomography.halves", made.folder, 12.0))


def _text_files(
    made: Made, order: NDArray, rng: np.random.Generator, halves: bool, pixel_nm: float, simulated: bool
) -> None:
    n, folder = len(order), made.folder
    updates, iterations = np.arange(1, 31), np.arange(10, 101, 10)
    joint, last = len(updates), len(iterations)
    write_tsv(
        folder / "history.tsv",
        {
            "stage": ["joint"] * joint + ["tomogram"] * last,
            "bin": np.r_[np.where(updates <= 15, 4, 2), np.ones(last, int)],
            "update": np.r_[(updates - 1) % 15 + 1, iterations],
            "objective": np.r_[40 + 60 * np.exp(-updates / 5), 100 + 300 * np.exp(-iterations / 20)],
            "residual": np.r_[0.1 + 0.2 * np.exp(-updates / 5), np.full(last, np.nan)],
            "step_rms_px": np.r_[0.8 * np.exp(-(((updates - 1) % 15) + 1) / 3), np.full(last, np.nan)],
            "step_max_px": np.r_[2.4 * np.exp(-(((updates - 1) % 15) + 1) / 3), np.full(last, np.nan)],
            "overlap": np.r_[np.full(joint, 0.97), np.full(last, np.nan)],
            "event": np.r_[np.full(joint, ""), np.full(last, "")].astype("T"),
        },
        {"step_rms_px": "px", "step_max_px": "px"},
    )
    k = np.linspace(0, 0.5, 33)
    half = 1 / (1 + (k / 0.17) ** 6) + rng.normal(0, 0.01, len(k))
    write_tsv(
        folder / "fsc.tsv",
        {
            "frequency": k / pixel_nm,
            "fsc": half,
            "fsc_full": 2 * half / (1 + half),
            "fsc_raw": half**4,
            "fsc_prealigned": half**2,
        },
        {"frequency": "1/nm"},
    )
    t = np.deg2rad(made.tilt_deg[order])
    write_tsv(
        folder / "frc_views.tsv",
        {
            "view": np.arange(n), "tilt_deg": made.tilt_deg[order], "residual_raw": 0.3 + 0.1 * t**2,
            "residual_prealigned": 0.14 + 0.06 * t**2, "residual_aligned": 0.1 + 0.05 * t**2,
            "resolution_0.5_nm": 6 + 3 * t**2, "resolution_0.143_nm": 4 + 2 * t**2,
        },
    )  # fmt: skip
    metrics: dict[str, Any] = {
        "residual_raw": {"value": 0.31, "unit": "", "label": "Leave-group-out residual, raw views"},
        "residual_prealigned": {"value": 0.142, "unit": "", "label": "Leave-group-out residual, pre-aligned views"},
        "residual_aligned": {"value": 0.108, "unit": "", "label": "Leave-group-out residual, aligned views"},
        "warnings": [],
    }
    if halves:
        metrics["resolution_fsc_0.5"] = {"value": 8.8, "unit": "nm", "label": "Resolution at FSC 0.5"}
        metrics["resolution_fsc_0.143"] = {"value": 6.4, "unit": "nm", "label": "Resolution at FSC 0.143"}
    if simulated:
        metrics["alignment_error_px"] = {"value": 0.17, "unit": "px", "label": "Error of the shifts, aligned, RMS"}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
