"""Builds a complete result folder of the compression chain without a fit: real stores and files, Gaussians made up.

For tests of what comes after the fit (evaluation, report, viewer, info). The volume is a small simulated one; Gaussians
sit on its brightest voxels, so that the decoded volume looks like it; everything after that is measured for real.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression.background import background_level, windows
from gigascope.compression.bench_volume import bench_volume
from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.compression.gmix.container import Header, Intensity, split, write_compact
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.mixture import Mixture
from gigascope.compression.noise import NoiseModel
from gigascope.compression.quality.frame_evaluation import frame_table, tables, together
from gigascope.compression.quality.result_evaluation import ResultEvaluation
from gigascope.store.commit import finish
from gigascope.store.create import create_image, create_store
from gigascope.store.open import open_store
from gigascope.store.table import write_tsv

STORES = ("volume", "gate", "gaussians", "decoded", "codec_pictures")
TABLES = {"bricks": "fit_bricks", "frames": "frames", "codecs": "codecs", "curves": "curves", "deciles": "deciles"}
TABLES |= {"components": "components"}


@dataclass(frozen=True)
class MadeCompression:
    """What was built: the folder and what went in.

    Attributes
    ----------
    volumes, clean : (frames, z, y, x)
    """

    folder: Path
    volumes: NDArray[np.uint16]
    clean: NDArray[np.float32]

    def paths(self) -> dict[str, Path]:
        """Inputs of the report by name, those that are there."""
        found = {name: self.folder / f"{name}.zarr" for name in STORES}
        found |= {name: self.folder / f"{file}.tsv" for name, file in TABLES.items()}
        found |= {"gmix": self.folder / "gaussians.gmix", "metrics": self.folder / "metrics.json"}
        return {name: path for name, path in found.items() if path.exists()}


def build_compression(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (24, 64, 64),
    n_channels: int = 1,
    seed: int = 0,
    simulated: bool = True,
    decoded: bool = True,
    codecs: tuple[str, ...] = ("sperr", "jpegxl"),
    warnings: tuple[str, ...] = (),
) -> MadeCompression:
    """Write every output of the compression chain that report and viewer read into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [bench_volume(shape, seed=seed + 7 + c, cells=2, peak=1500 / (1 + c)) for c in range(n_channels)]
    result = MadeCompression(folder, np.stack([m.volume for m in made]), np.stack([m.clean for m in made]))
    noise = [NoiseModel(m.gain, m.offset, m.read) for m in made]
    leading = () if n_channels == 1 else ("c",)
    _volume(result, noise, leading, simulated, warnings)
    _gate(result, leading)
    _file(result, noise, leading)
    if decoded:
        _decoded(result, leading)
    _bricks(result)
    _evaluation(result, codecs)
    return result


def _shaped(frames: NDArray[Any], leading: tuple[str, ...]) -> NDArray[Any]:
    return frames if leading else frames[0]


def _image(leading: tuple[str, ...]) -> dict[str, Any]:
    return {"axes": (*leading, "z", "y", "x"), "spacing": {"z": 0.5, "y": 0.2, "x": 0.2}, "unit": "micrometer"}


def _record(stage: str, folder: Path, wall_s: float, **more: Any) -> dict[str, Any]:
    sections = {
        "compression.ingest": {"inputs": {"phantom": {"shape": [24, 64, 64]}}, "ingest": {"axes": None}},
        "compression.gate": {"gate": {"mode": "threshold", "seed_sd": 6.0, "grow_sd": 3.0}},
        "compression.fit": {"fit": {"ratio": 60.0, "lambda": None, "iterations": 400}},
        "compression.decode": {"decode": {"enabled": True, "factor": [1, 1, 1]}},
        "compression.evaluate": {"evaluate": {"rates": 2}},
    }
    return {
        "stage": stage,
        "dataset": folder.name,
        "config": sections[stage],
        "code": "3f" * 32,
        "packages": {"numpy": np.__version__},
        "gigascope": "0.1.0",
        "python": "3.11.2",
        "inputs": {"volume": {"path": f"results/{folder.name}/volume.zarr", "digest": "ab" * 32}},
        "device": "CPU (2 threads)",
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


def _volume(
    made: MadeCompression, noise: list[NoiseModel], leading: tuple[str, ...], simulated: bool, warnings: tuple[str, ...]
) -> None:
    values = _shaped(made.volumes, leading)
    writer = create_image(made.folder / "volume.zarr", shape=values.shape, dtype=np.uint16, **_image(leading))
    writer[:] = values
    if simulated:
        writer.create_array("clean", values.shape, np.float32)[:] = _shaped(made.clean, leading)
    cells = _shaped(np.stack([_background(v) for v in made.volumes]), leading)
    writer.create_array("background", cells.shape, np.float32)[:] = cells
    writer.attrs |= {
        "frame_axes": list(leading),
        "noise": [{"gain": n.gain, "offset": n.offset, "read": n.read} for n in noise],
        "range": [[float(v.min()), float(v.max())] for v in made.volumes],
        "voxel_size_um": [0.5, 0.2, 0.2],
        "source": "phantom" if simulated else "cell.tif",
        "source_hash": "5a" * 32,
        "notes": ["simulated neurons" if simulated else "voxel size from the file"],
    }
    finish(writer, _record("compression.ingest", made.folder, 1.2, warnings=list(warnings)))


def _background(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    levels = [
        [[background_level(np.sort(values[z, y, x].ravel())).centre for x in windows(values.shape[2], 32)]
         for y in windows(values.shape[1], 32)]
        for z in windows(values.shape[0], 32)
    ]  # fmt: skip
    return np.array(levels, np.float32)


def _gate(made: MadeCompression, leading: tuple[str, ...]) -> None:
    mask = (made.clean > 200).astype(np.uint8)
    values = _shaped(mask, leading)
    writer = create_image(
        made.folder / "gate.zarr", shape=values.shape, dtype=np.uint8, window=(0.0, 1.0), **_image(leading)
    )
    writer[:] = values
    writer.attrs |= {"mode": "threshold", "fraction": [float(m.mean()) for m in mask]}
    finish(writer, _record("compression.gate", made.folder, 0.8))


def _file(made: MadeCompression, noise: list[NoiseModel], leading: tuple[str, ...]) -> None:
    shape = _shaped(made.volumes, leading).shape
    low, high = ([float(f(v)) for v in made.volumes] for f in (np.min, np.max))
    header = Header(
        axes=(*leading, "z", "y", "x"),
        shape=shape,
        dtype="uint16",
        intensity=tuple(Intensity(a, b - a) for a, b in zip(low, high)),
        eps=(1e-3,) * len(made.volumes),
        quantiser=Quantiser(),
        voxel_size_um=(0.5, 0.2, 0.2),
        noise=tuple(noise),
        brick=(16, 32, 32),
        halo=8,
        source_hash="5a" * 8,
        encoder_version="0.1.0",
        lam=4.0,
    )
    bricks: dict[tuple[int, int, int, int], Mixture] = {}
    backgrounds = []
    for frame, (values, clean) in enumerate(zip(made.volumes, made.clean)):
        scale = high[frame] - low[frame]
        backgrounds.append((_background(values) - low[frame]) / scale)
        bricks |= split(_mixture(clean, low[frame], scale), header, frame)
    write_compact(made.folder / "gaussians.gmix", header, bricks, np.stack(backgrounds))
    store = create_store(made.folder / "gaussians.zarr")
    finish(store, _record("compression.fit", made.folder, 33.0))


def _mixture(clean: NDArray[np.float32], low: float, scale: float, n: int = 200) -> Mixture:
    """Round Gaussians on bright voxels, each covering its neighbourhood."""
    rng = np.random.default_rng(1)
    bright = np.argwhere(clean > low + 0.08 * scale)
    places = bright[rng.choice(len(bright), min(n, len(bright)), replace=False)]
    amplitudes = 0.4 * (clean[tuple(places.T)] - low) / scale
    columns = (places, np.full((len(places), 3), np.log(2.0)), np.tile([1.0, 0, 0, 0], (len(places), 1)), amplitudes)
    return Mixture(*(torch.from_numpy(np.ascontiguousarray(c, dtype=np.float32)) for c in columns))


def _decoded(made: MadeCompression, leading: tuple[str, ...]) -> None:
    values = np.asarray(GaussianVolume(made.folder / "gaussians.gmix"))
    writer = create_image(made.folder / "decoded.zarr", shape=values.shape, dtype=values.dtype, **_image(leading))
    writer[:] = values
    writer.attrs["factor"] = [1, 1, 1]
    finish(writer, _record("compression.decode", made.folder, 0.5))


def _bricks(made: MadeCompression) -> None:
    gmix = GaussianVolume(made.folder / "gaussians.gmix").decoder.gmix
    rows = [(f, *index, gmix.count(f, index)) for f in range(gmix.header.n_frames) for index in gmix.bricks(f)]
    frame, z, y, x, count = (np.array(column) for column in zip(*rows))
    rng = np.random.default_rng(0)
    columns = {"frame": frame, "z": z, "y": y, "x": x, "signal_voxels": rng.integers(100, 9000, len(rows))}
    columns |= {"gaussians": count, "psnr": rng.uniform(30, 42, len(rows))}
    write_tsv(made.folder / "fit_bricks.tsv", columns, {"psnr": "dB"})


def _evaluation(made: MadeCompression, codecs: tuple[str, ...]) -> None:
    folder = made.folder
    decoded = open_store(folder / "decoded.zarr") if (folder / "decoded.zarr").exists() else None
    compressed = GaussianVolume(folder / "gaussians.gmix")
    stores = [open_store(folder / f"{name}.zarr") for name in ("volume", "gate")]
    result = ResultEvaluation(*stores, compressed, decoded, codecs=codecs, rates=2)
    frames = [result.frame(n) for n in range(result.n_frames)]
    pictures = create_store(folder / "codec_pictures.zarr")
    result.pictures.write(pictures)
    finish(pictures, _record("compression.evaluate", folder, 9.0))
    found = tables(frames) | {"frames": frame_table(frames)}
    found["deciles"] = found.pop("residual")
    for name, (columns, units) in found.items():
        write_tsv(folder / f"{name}.tsv", columns, units)
    (folder / "metrics.json").write_text(json.dumps(together(frames)), encoding="utf-8")
