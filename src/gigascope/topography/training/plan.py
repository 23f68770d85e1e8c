"""How a section of the config trains, and what that will need, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gigascope.config.topography_network import Train
from gigascope.runtime.resources import Estimate

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.topography.plan import TopographyHeader
    from gigascope.topography.training.course import Course, Shapes

# Patches of the presets: a third of the patch is a chunk.
MOST_PATCH, CHUNKS = 576, 3
# Steps for every place of the mosaic that is as large as half a patch.
STEPS_PER_PLACE = 10
LEAST_STEPS, MOST_STEPS = 300, 2000


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
    """Crops read ahead, evidence of the views, and what a step holds."""
    return Estimate(2**30, 2**30, 60, 10**6, 40, "a network")
