"""Builds a complete result folder of the topography chain without its slow stages: simulated stacks, true poses.

For tests of what comes after the mosaic (evaluation, report). Stacks, truth and their ingest are those of the chain;
heights are those of the classical estimator, blended in one piece; what comes after is measured for real.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gigascope.config.dataset import TopographyDataset, load_dataset
from gigascope.kernels.ortho import blend, view_table
from gigascope.runtime.run import run_stage
from gigascope.store.commit import finish
from gigascope.store.create import create_image, create_store
from gigascope.store.open import StoreReader, open_store
from gigascope.store.plan import ShardPlan
from gigascope.store.table import write_tsv
from gigascope.topography.calibration.field import terms
from gigascope.topography.calibration.result import Calibration, InstrumentId, from_known_poses
from gigascope.topography.calibration.stored import write_calibration
from gigascope.topography.capture.bayer import demosaic, unpack_green
from gigascope.topography.evaluation.labels import TABLES
from gigascope.topography.focus.fuse import fuse
from gigascope.topography.focus.stream import focus_peak, settle
from gigascope.topography.geometry.candidates import find_candidates
from gigascope.topography.geometry.poses import Poses
from gigascope.topography.synth import SHADE_POINTS, build_instrument, shading

STORES = ("sample", "target", "truth", "raw", "calibration", "training", "views", "mosaic", "evaluation")
CHANNELS = ("red", "green", "blue", "height", "height_std", "weight", "n_views")


@dataclass(frozen=True)
class MadeTopography:
    """What was built: the result folder, and the dataset."""

    folder: Path
    config: Path

    @property
    def dataset(self) -> TopographyDataset:
        """As the stages read it."""
        found = load_dataset(self.config)
        assert isinstance(found, TopographyDataset)
        return found

    def paths(self) -> dict[str, Path]:
        """Stores, tables and metrics by name, those that are there."""
        found = {name: self.folder / f"{name}.zarr" for name in STORES}
        found |= {name: self.folder / f"{name}.tsv" for name in (*TABLES, "losses")}
        found["metrics"] = self.folder / "metrics.json"
        return {name: path for name, path in found.items() if path.exists()}

    def store(self, name: str) -> StoreReader:
        """A finished store."""
        return open_store(self.folder / f"{name}.zarr")


def build_topography(
    folder: Path, *, specimen: str = "relief", seed: int = 0, warnings: tuple[str, ...] = (), **instrument: Any
) -> MadeTopography:
    """Stores of a simulated XS acquisition up to the mosaic, in `folder`."""
    import json

    folder.mkdir(parents=True)
    config = folder.parent / f"{folder.name}.yaml"
    inputs = json.dumps({"instrument": {"preset": "XS", "specimen": specimen, **instrument}})
    name = "".join(c if c.isalnum() else "_" for c in folder.name)
    text = f"pipeline: topography\nname: {name}\nseed: {seed}\ninputs: {inputs}\ningest: {{chunk_px: 32}}\n"
    config.write_text(text)
    made = MadeTopography(folder, config)
    run_stage("topography.synth", config, {}, {n: folder / f"{n}.zarr" for n in ("sample", "target", "truth")})
    inputs_ = {n: folder / f"{n}.zarr" for n in ("sample", "target")}
    run_stage("topography.ingest", config, inputs_, {"raw": folder / "raw.zarr"})
    calibration = true_calibration(made)
    _after_ingest(made, calibration, warnings)
    return made


def build_focus_stack(folder: Path, size: tuple[int, int] = (96, 120), n_z: int = 7) -> MadeTopography:
    """Stores of pictures of one camera up to the mosaic, in `folder`: a slanted plane of noise, no truth, no step."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    (folder.parent / "stack").mkdir()
    from scipy import ndimage

    texture = ndimage.gaussian_filter(rng.normal(0, 1, (*size, 3)), (0.7, 0.7, 0))
    texture = np.clip(110 + 90 * texture / texture.std(), 0, 255)
    best = np.linspace(0, n_z - 1, size[1])
    for k in range(n_z):
        blurred = [texture] + [ndimage.gaussian_filter(texture, (s, s, 0)) for s in np.arange(1, n_z)]
        away = np.abs(best - k)
        low = np.minimum(np.floor(away).astype(int), n_z - 2)
        share = (away - low)[None, :, None]
        columns = np.arange(size[1])
        stack = np.stack(blurred)
        image = (1 - share) * stack[low, :, columns].swapaxes(0, 1) + share * stack[low + 1, :, columns].swapaxes(0, 1)
        Image.fromarray(image.astype(np.uint8)).save(folder.parent / "stack" / f"s{k}.png")
    config = folder.parent / f"{folder.name}.yaml"
    config.write_text(
        f"pipeline: topography\nname: {folder.name}\ninputs: {{images: '{folder.parent}/stack/s*.png'}}\n"
    )
    made = MadeTopography(folder, config)
    run_stage("topography.ingest", config, {}, {"raw": folder / "raw.zarr"})
    pose = Poses(
        size, 1.0, np.ones(1), np.array([[0, 0, -1.0]]), np.zeros(1), np.zeros((1, 2)), np.zeros(1), np.zeros(2)
    )
    raw = made.store("raw")
    z = np.asarray(raw.member("z_stage_mm")[0, 0])
    known = from_known_poses(pose, InstrumentId((0,), (0,), (1, 1), size), focus_plane=np.array([z[-1]]))
    _after_ingest(made, known, (), in_um=False)
    return made


def evaluated(made: MadeTopography) -> MadeTopography:
    """The same with a made-up training and a real evaluation."""
    _training(made)
    inputs = {n: p for n, p in made.paths().items() if n in ("raw", "calibration", "views", "mosaic", "truth")}
    outputs = {"metrics": made.folder / "metrics.json", "evaluation": made.folder / "evaluation.zarr"}
    outputs |= {name: made.folder / f"{name}.tsv" for name in TABLES}
    run_stage("topography.evaluate", made.config, inputs, outputs)
    return made


def _training(made: MadeTopography) -> None:
    """A training that found nothing: patches of noise, losses that fall."""
    rng = np.random.default_rng(2)
    steps = np.arange(200)
    losses = {"step": steps, "rate": np.full(200, 1e-3), "gradient": rng.uniform(0.1, 1, 200)}
    losses |= {"loss": 1 + np.exp(-steps / 50) + rng.normal(0, 0.05, 200), "agreement": rng.uniform(0, 1, 200)}
    write_tsv(made.folder / "losses.tsv", losses)
    store = create_store(made.folder / "training.zarr")
    if "truth" not in made.paths():
        why = "No network was trained, focus alone is used: there is one view."
        store.attrs |= {"method": "focus", "use": "focus", "why": why}
        write_tsv(made.folder / "losses.tsv", {name: values[:0] for name, values in losses.items()})
    else:
        for name, lead in (("slice", (2,)), ("prior", (2,)), ("in_focus", (3, 2)), ("network", (3, 2))):
            values = rng.normal(100 if name in ("slice", "in_focus") else 4, 1, (*lead, 48, 48)).astype(np.float32)
            plan = ShardPlan(values.shape, 4, values.shape, values.shape)
            store.create_member(name, plan, np.float32)[...] = values
        loader = {"step": steps, "wait_s": rng.uniform(0, 0.01, 200), "total_s": rng.uniform(0.05, 0.06, 200)}
        store.write_table("loader", loader, {"wait_s": "s", "total_s": "s"})
        store.attrs |= {
            "method": "network", "use": "focus", "why": "The network is not used, focus alone is: it was made up.",
            "moments": [0, 100, 199], "n_parameters": 1234, "steps": 200, "judged_pixels": 999,
            "loader_batches": 200.0, "loader_read_MB": 55.5, "loader_used_MB": 50.0, "loader_amplification": 1.11,
            "loader_wait_share": 0.09, "loader_read_MB_s": 5.0, "loader_peak_MB": 3.0, "loader_budget_MB": 8.0,
        }  # fmt: skip
    finish(store, _record(made, "topography.train"))


def true_calibration(made: MadeTopography) -> Calibration:
    """Calibration from the true poses and planes of focus."""
    cfg, seed = made.dataset.inputs.instrument, made.dataset.seed
    assert cfg is not None
    instrument = build_instrument(cfg, seed)
    capture, size = instrument.capture, instrument.size
    facts = capture.attributes()
    pixels = np.stack(np.indices((size.size, size.size)), axis=-1).reshape(-1, 2)[::37]
    basis = terms(pixels, (size.size, size.size))
    planes = []
    for row, col in np.ndindex(*size.views):
        flat = capture.z_flat_mm(row, col).reshape(-1)[::37]
        planes.append(np.linalg.lstsq(basis, flat, rcond=None)[0])
    rows, cols = size.cameras
    identity = InstrumentId(
        tuple(range(rows)), tuple(range(cols)), size.scan, (size.size, size.size), float(facts["sensor_pitch_um"]),
        float(facts["f_eff_mm"]), float(facts["m_ref"]), 0, capture.stage_sign,
    )  # fmt: skip
    light = [_light(field) for field in shading(instrument).reshape(rows * cols, SHADE_POINTS, SHADE_POINTS)]
    return from_known_poses(
        instrument.truth.poses, identity, focus_plane=np.array(planes),
        illumination=[a for a, _ in light], gain=[gain for _, gain in light],
    )  # fmt: skip


def _light(shade: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Coefficients a0..a5 and gain of the correction of a camera's light."""
    points = np.stack(np.indices(shade.shape), axis=-1).reshape(-1, 2)
    # the last point is the last pixel: the grid is one point wider than the field
    q = np.linalg.lstsq(terms(points, (SHADE_POINTS, SHADE_POINTS)), 1 / shade.ravel(), rcond=None)[0]
    # terms are 1, x, y, x^2, x y, y^2; coefficients 1, x, y, x^2, y^2, x y
    coefficients = (q / q[0])[[0, 1, 2, 3, 5, 4]]
    coefficients[0] = 0.0
    return coefficients, float(q[0])


def _after_ingest(
    made: MadeTopography, calibration: Calibration, warnings: tuple[str, ...], in_um: bool = True
) -> None:
    candidates = find_candidates(calibration.poses, calibration.mosaic_shape)
    store = create_store(made.folder / "calibration.zarr")
    write_calibration(store, calibration, candidates)
    finish(store, _record(made, "topography.calibrate", warnings=list(warnings)))
    views = _views(made, calibration)
    _mosaic(made, calibration, *views, in_um)


def _views(made: MadeTopography, calibration: Calibration) -> tuple[NDArray, NDArray, NDArray]:
    """Classical focus of every view: index, confidence, picture."""
    raw = made.store("raw")
    pattern, green = raw.attrs["bayer"], raw.member("green")
    grid, size = green.shape[:2], calibration.instrument.size
    index, confidence = (np.full((*grid, *size), np.nan, np.float32) for _ in range(2))
    picture = np.zeros((*grid, *size, 3), np.uint8)
    for view in np.ndindex(*grid):
        stack = np.asarray(green[view])
        stack = stack if pattern is None else unpack_green(stack, pattern)
        colours = np.asarray(raw.member("rgb" if pattern is None else "bayer")[view])
        colours = np.moveaxis(colours, 1, -1) if pattern is None else colours
        colours = colours if pattern is None else np.clip(np.rint(demosaic(colours, pattern)), 0, 255).astype(np.uint8)
        peak = focus_peak(stack)
        found = settle(peak)
        index[view], confidence[view] = found.numpy(), peak.confidence.numpy()
        picture[view] = fuse(colours, found)
    store = create_store(made.folder / "views.zarr")
    axes = ("view_row", "view_col", "row", "col", "c")
    for name, values in (("index", index), ("confidence", confidence), ("aif", picture)):
        shard = (1, 1, *values.shape[2:])
        plan = ShardPlan(values.shape, values.dtype.itemsize, shard, shard)
        store.create_member(name, plan, values.dtype, axes=axes[: values.ndim])[...] = values
    store.attrs |= {"method": "focus", "why": "no network was asked for"}
    finish(store, _record(made, "topography.infer"))
    return index, confidence, picture


def _mosaic(
    made: MadeTopography, calibration: Calibration, index: NDArray, confidence: NDArray, picture: NDArray, in_um: bool
) -> None:
    raw, poses, size = made.store("raw"), calibration.poses, calibration.instrument.size
    n, (rows, cols) = poses.n_views, calibration.mosaic_shape
    z = np.asarray(raw.member("z_stage_mm")[...]).reshape(n, -1)
    flat = index.reshape(n, *size)
    heights = np.stack([1000 * calibration.height_mm(v, flat[v], z[v]) for v in range(n)])
    step = 1000 * raw.attrs["dz_mm"]
    scale, unit = (1.0, "micrometer") if in_um else (1 / step, "slice")
    light = np.stack([calibration.correction_field(v) for v in range(n)])[..., None]
    table = view_table(
        size, poses.focal, *(torch.from_numpy(np.array(a)) for a in (poses.height, poses.normal, poses.angle)),
        torch.from_numpy(poses.translation + poses.offset),
    )  # fmt: skip
    done = blend(
        table, torch.from_numpy(np.array(poses.distortion)), size,
        torch.from_numpy((scale * heights).astype(np.float32)),
        torch.from_numpy((picture.reshape(n, *size, 3) * light).astype(np.float32)),
        torch.zeros((n, 2), dtype=torch.int64), (0, 0), (rows, cols), 0.25 * step * scale,
        confidence=torch.from_numpy(confidence.reshape(n, *size)), feather=32.0,
    )  # fmt: skip
    values = np.concatenate(
        [done.colour, done.height[None], done.height_std[None], done.weight[None], done.n_views[None]]
    )
    pixel = calibration.instrument.pixel_mm
    spacing = {} if pixel is None else dict.fromkeys("yx", 1000 * pixel)
    image = create_image(
        made.folder / "mosaic.zarr", shape=values.shape, dtype=np.float32, axes=("c", "y", "x"), spacing=spacing,
        unit="micrometer", allow_nan=True,
    )  # fmt: skip
    image[:] = values
    image.attrs |= {"channels": list(CHANNELS), "height_unit": unit, "white": 255.0, "blend": "mean"}
    image.attrs["height_datum"] = calibration.source
    finish(image, _record(made, "topography.mosaic"))


def _record(made: MadeTopography, stage: str, **more: Any) -> dict[str, Any]:
    key = stage.split(".")[1]
    return {
        "stage": stage,
        "dataset": made.folder.name,
        "config": {key: {"parts": 1}},
        "code": "3f" * 32,
        "packages": {"numpy": np.__version__},
        "gigascope": "0.1.0",
        "python": "3.11.2",
        "inputs": {"raw": {"path": f"results/{made.folder.name}/raw.zarr", "digest": "ab" * 32}},
        "device": "CPU (2 threads)",
        "seed": 0,
        "host": "bench",
        "finished": "2025-01-31T12:00:00+00:00",
        "wall_s": 12.0,
        "peak_memory_bytes": 900 * 2**20,
        "peak_gpu_memory_bytes": 0,
        "command": ["/somewhere/bin/gigascope", "run", stage, "--config", f"config/datasets/{made.folder.name}.yaml"],
        "warnings": [],
        **more,
    }
