"""How a section of the config trains, and what that will need, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gigascope.config.topography_network import Train
from gigascope.runtime.resources import Estimate
from gigascope.topography.inference.plan import NETWORK_BYTES, NETWORK_SLICE_BYTES

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.topography.plan import TopographyHeader
    from gigascope.topography.training.course import Course, Shapes

# Patches of the presets: a third of the patch is a chunk.
MOST_PATCH, CHUNKS = 576, 3
# Steps for every place of the mosaic that is as large as half a patch.
STEPS_PER_PLACE = 4
LEAST_STEPS, MOST_STEPS = 300, 2000
# Peaks of `gigascope run` on presets XS and S with patches of 32 to 288 pixels. Python with torch, numba, zarr and what
# trains; without what trains.
TRAIN_BYTES, LIGHT_BYTES = 570 * 2**20, 300 * 2**20
# For each pixel of the crops of a step: in mode recommended, in mode parity and there for each slice more, and of the
# patches that the network is judged by.
STEP_BYTES, PARITY_BYTES, PARITY_SLICE_BYTES, JUDGED_BYTES = 1100, 1100, 60, 500
# For each pixel of a view, what is kept of its evidence, see `training.view_evidence`.
EVIDENCE_BYTES = 2 * 24 + 4 * 4
TILE = 1024


def patch_of(cfg: Train, size: tuple[int, int], chunk: int) -> int:
    """Side of the crops, pixels: even, no larger than a view."""
    return cfg.patch_px or min(MOST_PATCH, CHUNKS * chunk, *(n // 2 * 2 for n in size))


def steps_of(cfg: Train, mosaic: tuple[int, int], patch: int) -> int:
    """Steps of the training."""
    if cfg.steps is not None:
        return cfg.steps
    if cfg.mode == "parity":
        return 100_001
    places = math.prod(mosaic) / (patch / 2) ** 2
    return round(min(MOST_STEPS, max(LEAST_STEPS, STEPS_PER_PLACE * places / cfg.positions)))


def filters_of(cfg: Train, patch: int) -> tuple[int, ...]:
    """Channels of the published network's levels."""
    levels = cfg.levels or (6 if patch >= 576 else 5 if patch >= 192 else 3)
    return (32,) * min(3, levels) + (64,) * (levels - 3)


def processes_of(cfg: Train, n_gpus: int) -> int:
    """Processes that share a step: as the section says, else one for each GPU as far as they have a place each."""
    if cfg.processes is not None:
        return cfg.processes
    return max(n for n in range(1, max(1, n_gpus) + 1) if cfg.positions % n == 0)


def course_of(cfg: Train, shapes: Shapes, seed: int) -> Course:
    """The section as the training takes it."""
    from gigascope.topography.network.losses import PARITY, RECOMMENDED
    from gigascope.topography.network.model import Architecture
    from gigascope.topography.network.training import PARITY_SCHEDULE, Schedule, recommended
    from gigascope.topography.streaming.loader import Loading
    from gigascope.topography.training.course import Course

    parity, patch, n_z = cfg.mode == "parity", patch_of(cfg, shapes.size, shapes.chunk), shapes.n_z
    steps = steps_of(cfg, shapes.mosaic, patch)
    weights = {name: value for name, value in cfg.weights.model_dump().items() if value is not None}
    objective = replace(PARITY if parity else RECOMMENDED, **weights, t1=cfg.thresholds[0], t2=cfg.thresholds[1])
    schedule = PARITY_SCHEDULE if parity else Schedule(lr=2e-3, warm_up=min(100, steps // 10))
    given: dict[str, Any] = {"lr": cfg.lr, "average": cfg.average, "recompute": cfg.recompute}
    schedule = replace(schedule, steps=steps, **{name: value for name, value in given.items() if value is not None})
    loading = Loading(
        patch=patch,
        snap=None if cfg.crops == "aligned" else 2,
        max_views=cfg.max_views,
        budget_bytes=round(cfg.prefetch_mb * 1e6),
    )
    return Course(
        architecture=Architecture(n_z, filters_of(cfg, patch)) if parity else recommended(n_z, cfg.levels or 3),
        objective=objective,
        schedule=schedule,
        loading=loading,
        positions=cfg.positions,
        order=cfg.order,
        seed=seed,
        evidence_bytes=round(cfg.evidence_mb * 1e6),
    )


def estimate_train(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """In each process evidence of the views, crops read ahead, and what a step holds of its crops."""
    cfg, n_z, size = dataset.train, header.shape[2], header.shape[3:]
    if cfg.method == "focus" or (header.n_views == 1 and cfg.mode == "recommended"):
        return Estimate(LIGHT_BYTES, 0, 5, 10**4, 8, "no network")
    patch, processes = patch_of(cfg, size, dataset.ingest.chunk_px), processes_of(cfg, 1)
    steps = steps_of(cfg, _mosaic(header), patch)
    positions = -(-cfg.positions // processes)
    crops = positions * min(cfg.max_views, header.n_views) * patch * patch
    view = EVIDENCE_BYTES * math.prod(size)
    views = header.n_views * view
    whole = views if views <= 1e6 * cfg.evidence_mb else 0
    ahead = min(1e6 * cfg.prefetch_mb, 6 * crops * n_z * header.itemsize)
    if cfg.mode == "parity":
        few = min(whole, positions * cfg.max_views * view)
        step = max((PARITY_BYTES + PARITY_SLICE_BYTES * n_z) * crops + few, whole + JUDGED_BYTES * crops)
    else:
        step = STEP_BYTES * crops + whole
    tile = min(TILE**2, math.prod(size)) if whole else 0
    held = step + ahead + (NETWORK_BYTES + NETWORK_SLICE_BYTES * n_z) * tile
    seconds = 10 + steps * crops * processes * (1e-6 if cfg.mode == "recommended" else 4e-6)
    seconds += 1e-7 * n_z * (whole / EVIDENCE_BYTES if whole else steps * crops * processes)
    what = f"a network, {steps} steps of {cfg.positions} places"
    return Estimate(int(processes * (TRAIN_BYTES + held)), int(held), seconds, 4 * 10**6, 44, what)


def _mosaic(header: TopographyHeader) -> tuple[int, int]:
    """(rows, columns), as simulated; of files, whose views may overlap by half, a guess."""
    rows, cols = header.mosaic_shape
    return (rows, cols) if rows else (header.shape[0] * header.shape[3] // 2, header.shape[1] * header.shape[4] // 2)
