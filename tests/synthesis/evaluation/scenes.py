"""Small images of balls as nuclei, with labels, and the same seen by another camera: a planted gap between domains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from gigascope.store.commit import finish
from gigascope.store.ensemble import create_ensemble
from gigascope.synthesis.evaluation.volumes import ImageSet, Volume

VOXEL = (1.5, 0.5, 0.5)
SHAPE = (24, 96, 96)
SPACING = dict(zip("zyx", VOXEL))


def balls(seed: int, shape=SHAPE, diameter: float = 9.0, gap: float = 0.5, radius: float | None = None):
    """Label image of balls that do not touch, within a ball of `radius` micrometres in the middle."""
    random = np.random.default_rng(seed)
    size = np.array(shape) * VOXEL
    reach = radius or 0.46 * float(size.min() if size.min() > 40 else size.max())
    centres: list[np.ndarray] = []
    for _ in range(4000):
        at = random.uniform(0, 1, 3) * size
        if np.linalg.norm((at - size / 2) * (1, 1, 1)) > reach:
            continue
        if all(np.linalg.norm(at - other) > diameter + gap for other in centres):
            centres.append(at)
    labels = np.zeros(shape, np.uint32)
    grid = np.stack(np.meshgrid(*((np.arange(n) + 0.5) * v for n, v in zip(shape, VOXEL)), indexing="ij"), -1)
    for k, at in enumerate(centres):
        labels[np.linalg.norm(grid - at, axis=-1) <= diameter / 2] = k + 1
    return labels, np.array(centres)


def seen(
    labels: np.ndarray, seed: int, *, blur: float = 0.6, photons: float = 200, gain: float = 1.0, haze: float = 0.1
):
    """What a camera with depth attenuation makes of labels."""
    random = np.random.default_rng(seed)
    light = (labels > 0).astype(float)
    light *= np.exp(-np.arange(len(labels)) * VOXEL[0] / 60)[:, None, None]
    light = ndimage.gaussian_filter(light, [blur * 1.5 / VOXEL[0], blur / VOXEL[1], blur / VOXEL[2]])
    light = (1 - haze) * light + haze * ndimage.gaussian_filter(light, [3, 12, 12])
    expected = photons * light + 5
    return np.clip(
        np.round(100 + gain * random.poisson(expected) + random.normal(0, 1.5, labels.shape)), 0, 65535
    ).astype(np.uint16)


def make_set(key: str, seeds, labelled: bool = True, phantoms=None, shape=SHAPE, **camera: float) -> ImageSet:
    """Images in memory; `phantoms` are the seeds of the labels, by default those of the noise."""
    volumes = []
    for n, seed in enumerate(seeds):
        labels, _ = balls((phantoms or list(seeds))[n], shape)
        volumes.append(Volume(f"s{n:04d}", seen(labels, 1000 + seed, **camera), labels if labelled else None, VOXEL))
    return ImageSet(key, tuple(volumes))


def write_set(
    path: Path,
    images: ImageSet,
    prefix: str = "s",
    labels: bool = True,
    attrs: dict | None = None,
    warnings: tuple[str, ...] = (),
) -> Path:
    """The same as a finished ensemble, with a table of nuclei."""
    store = create_ensemble(path)
    for n, volume in enumerate(images.volumes):
        image = store.create_image(f"{prefix}{n:04d}", shape=volume.shape, dtype=np.uint16, spacing=SPACING)
        image[:] = volume.image
        if labels and volume.labels is not None:
            image.create_label("nuclei", np.uint32)[:] = volume.labels
            image.write_table("nuclei", nuclei_table(volume), {"volume_um3": "um^3"})
        image.attrs |= attrs or {}
    finish(store, provenance(path.stem) | {"warnings": list(warnings)})
    return path


def nuclei_table(volume: Volume) -> dict[str, Any]:
    """As the simulation writes it."""
    ids, counts = np.unique(volume.labels[volume.labels > 0], return_counts=True)
    places = np.array(ndimage.center_of_mass(volume.labels > 0, volume.labels, ids)) * VOXEL
    return {
        "label_id": ids.astype(np.int64),
        "volume_um3": counts * float(np.prod(VOXEL)),
        "centroid_z": places[:, 0],
        "centroid_y": places[:, 1],
        "centroid_x": places[:, 2],
        "depth_um": places[:, 0],
        "clip_fraction": np.zeros(len(ids)),
        "class": np.where(ids % 4 == 0, 4, 1).astype(np.int64),
    }


def provenance(stage: str) -> dict[str, Any]:
    """A record as a stage leaves it."""
    return {"stage": f"synthesis.{stage}", "dataset": "balls", "config": {}, "inputs": {}, "wall_s": 1.0}


OTHER_CAMERA = {"blur": 1.0, "photons": 100, "gain": 2.0, "haze": 0.3}
SMALL = {
    "tile": [16, 32, 32],
    "patches": 1000,
    "bootstrap": 20,
    "nucleus_um": 9.0,
    "edge": {"tile_um": 16, "min_length_um": 10},
}


def write_stores(
    folder: Path, *, real: bool = True, adapted: bool = True, n: int = 2, warnings: tuple[str, ...] = ()
) -> dict[str, Path]:
    """The stores that the evaluation reads."""
    found = {"cultures": write_set(folder / "cultures.zarr", make_set("naive", range(n)), warnings=warnings)}
    if real:
        images = make_set("real", range(10, 10 + n), **OTHER_CAMERA)
        found["real"] = write_set(folder / "real.zarr", images, "a", attrs={"domain": "A", "use": "train"})
    if adapted:
        images = make_set("adapted", range(20, 20 + n), phantoms=list(range(n)), **OTHER_CAMERA)
        found["adapted"] = write_set(folder / "adapted.zarr", images, labels=False)
    return found


def write_config(folder: Path, **evaluate: Any) -> Path:
    """A dataset's file; JSON is YAML."""
    path = folder / "data.yaml"
    path.write_text(
        json.dumps({"pipeline": "synthesis", "name": "balls", "device": "cpu", "evaluate": SMALL | evaluate})
    )
    return path


def outputs(folder: Path) -> dict[str, Path]:
    """What the evaluation writes."""
    from gigascope.synthesis.evaluation.labels import TABLES

    found = {"metrics": folder / "metrics.json", "evaluation": folder / "evaluation.zarr"}
    return found | {name: folder / f"{name}.tsv" for name in TABLES}


def write_training(path: Path) -> Path:
    """A training that is made up."""
    from gigascope.store.create import create_store
    from gigascope.store.plan import ShardPlan

    store = create_store(path)
    for name, shape in (("naive", (2, 24, 32)), ("real", (2, 24, 32)), ("adapted", (3, 2, 24, 32))):
        values = np.random.default_rng(len(shape)).uniform(-1, 1, shape).astype(np.float32)
        store.create_member(name, ShardPlan(shape, 4, shape, shape), np.float32)[...] = values
    store.attrs |= {"method": "cyclegan3d", "steps": 300, "moments": [0, 150, 300]}
    step = np.arange(0, 300, 3)
    random = np.random.default_rng(0)
    columns = {"step": step, "cycle": 2 / (1 + step / 50) + random.uniform(0, 0.1, len(step)), "label": step / 300}
    store.write_table("losses", columns)
    finish(store, provenance("train"))
    return path
