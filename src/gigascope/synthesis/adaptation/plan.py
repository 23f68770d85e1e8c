"""How the sections of the config train and adapt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gigascope.config.synthesis_adapt import Infer, Train

if TYPE_CHECKING:
    from gigascope.synthesis.adaptation.architecture import Architecture
    from gigascope.synthesis.adaptation.course import Course
    from gigascope.synthesis.adaptation.domain import Domain
    from gigascope.synthesis.adaptation.schedule import Schedule
    from gigascope.synthesis.adaptation.training import Objective

Shape = tuple[int, int, int]
STEPS = 30_000
PAPER_EPOCHS = (3500, 3500)
# Steps, and epochs, of a discriminator without anything to learn after which training ends.
COLLAPSE_STEPS, COLLAPSE_EPOCHS = 500, 10
# (z, y, x) of crops, by preset and arch.
CROPS: dict[tuple[str, str], Shape] = {
    ("small", "cyclegan3d"): (32, 128, 128),
    ("small", "cyclegan2d"): (8, 128, 128),
    ("paper", "cyclegan3d"): (32, 256, 256),
    ("paper", "cyclegan2d"): (1, 256, 256),
}
# Crops end at multiples of this, where they are cut down to the images.
CROP_STEP = 4


def crop_of(cfg: Train, smallest: Shape) -> Shape:
    """Voxels of a crop: as the section says, else as the preset has it and the images hold."""
    if cfg.crop is not None:
        return cfg.crop
    wanted = CROPS[cfg.preset, cfg.arch]
    z, y, x = (w if n >= w else max(1, n // CROP_STEP * CROP_STEP) for w, n in zip(wanted, smallest))
    return (z, y, x)


def batch_of(cfg: Train) -> int:
    """Crops of a domain in a step."""
    return cfg.batch or (1 if cfg.preset == "paper" else 2)


def epochs_of(cfg: Train) -> tuple[int, int] | None:
    """Epochs at the full rate and on the way down; none: it goes by steps."""
    if cfg.epochs is not None or cfg.preset == "small" or cfg.steps is not None:
        return cfg.epochs
    return PAPER_EPOCHS


def steps_of(cfg: Train, n_cultures: int) -> int:
    """Training steps."""
    epochs = epochs_of(cfg)
    if epochs is not None:
        return sum(epochs) * _epoch_steps(cfg, n_cultures)
    return STEPS if cfg.steps is None else cfg.steps


def processes_of(cfg: Train, n_gpus: int) -> int:
    """Processes that share a step: as the section says, else one for each GPU as far as they have a crop each."""
    if cfg.processes is not None:
        return cfg.processes
    batch = batch_of(cfg)
    return max(n for n in range(1, max(1, n_gpus) + 1) if batch % n == 0)


def architecture_of(cfg: Train, voxel_um: tuple[float, float, float]) -> Architecture:
    """The networks."""
    from gigascope.synthesis.adaptation.architecture import paper, small

    base = paper(cfg.arch) if cfg.preset == "paper" else small(cfg.arch, voxel_um)
    given: dict[str, Any] = {"width": cfg.width, "blocks": cfg.blocks, "norm": cfg.norm, "depth": cfg.depth_cond}
    given = {name: value for name, value in given.items() if value is not None}
    return replace(base, discriminator=cfg.discriminator, **given)


def objective_of(cfg: Train) -> Objective:
    """What counts how much."""
    from gigascope.synthesis.adaptation.training import Objective

    base = Objective(label=0.0) if cfg.preset == "paper" else Objective()
    return replace(base, **{name: value for name, value in cfg.weights.model_dump().items() if value is not None})


def schedule_of(cfg: Train, n_cultures: int) -> Schedule:
    """How long, how fast."""
    from gigascope.synthesis.adaptation.schedule import Schedule

    parity, epochs, epoch_steps = cfg.preset == "paper", epochs_of(cfg), _epoch_steps(cfg, n_cultures)
    collapse = COLLAPSE_STEPS if epochs is None else COLLAPSE_EPOCHS * epoch_steps
    return Schedule(
        steps=steps_of(cfg, n_cultures),
        lr=cfg.lr,
        betas=cfg.betas,
        decay_from=cfg.decay_from,
        epochs=epochs,
        epoch_steps=epoch_steps,
        d_every=cfg.d_every or (2 if parity else 1),
        ema=(0.0 if parity else 0.999) if cfg.ema is None else cfg.ema,
        collapse=collapse if cfg.stop_after is None else cfg.stop_after,
    )


def course_of(cfg: Train, real: Domain, cultures: Domain, seed: int, *, cuda: bool) -> Course:
    """The section as the training takes it.

    Parameters
    ----------
    cuda : it runs on a GPU
    """
    from gigascope.synthesis.adaptation.course import Course
    from gigascope.synthesis.adaptation.loader import Loading
    from gigascope.synthesis.adaptation.training import Means

    parity = cfg.preset == "paper"
    smallest = [min(a, b) for a, b in zip(real.smallest(), cultures.smallest())]
    foreground = (0.0 if parity else 0.8) if cfg.foreground is None else cfg.foreground
    return Course(
        architecture=architecture_of(cfg, cultures.voxel_um),
        objective=objective_of(cfg),
        schedule=schedule_of(cfg, len(cultures.volumes)),
        means=Means(cfg.pool, cfg.micro_batch, _on(cfg.amp, cuda), _on(cfg.checkpointing, cuda)),
        loading=Loading(budget_bytes=round(cfg.prefetch_mb * 1e6), threads=cfg.readers),
        crop=crop_of(cfg, (smallest[0], smallest[1], smallest[2])),
        batch=batch_of(cfg),
        foreground=foreground,
        turns="one" if parity else "all",
        percentiles=cfg.norm_percentiles or (None if parity else (0.1, 99.9)),
        seed=seed,
        start=cfg.start,
    )


def bfloat16_of(cfg: Infer, trained: bool, *, cuda: bool) -> bool:
    """Whether the network computes in it: as the section says, else on a GPU if it was trained so."""
    return _on(cfg.amp, cuda and trained)


def _epoch_steps(cfg: Train, n_cultures: int) -> int:
    return max(1, n_cultures // batch_of(cfg))


def _on(asked: str, usual: bool) -> bool:
    return usual if asked == "auto" else asked == "on"
