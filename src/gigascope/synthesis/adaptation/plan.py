"""How the sections of the config train and adapt."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gigascope.config.synthesis_adapt import Infer, Train
from gigascope.runtime.resources import Estimate
from gigascope.store.ensemble import ensemble_plan
from gigascope.store.pyramid import level_plans

if TYPE_CHECKING:
    from gigascope.config.dataset import SynthesisDataset
    from gigascope.stage import JobKind
    from gigascope.synthesis.adaptation.architecture import Architecture
    from gigascope.synthesis.adaptation.course import Course
    from gigascope.synthesis.adaptation.domain import Domain
    from gigascope.synthesis.adaptation.objective import Objective
    from gigascope.synthesis.adaptation.schedule import Schedule

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
# Python with torch, numba and zarr; with what trains.
START_BYTES, TRAIN_START_BYTES = 330 * 2**20, 560 * 2**20
# For each voxel of the crops that go through the networks at a time and each channel of the first layer: what passes of
# generators and discriminators keep, and those of identities (223, 216 and 230 bytes at widths 8, 16 and 32, with
# identities 274 and 291 at 8 and 16, on crops of 16 x 64 x 64 and 24 x 96 x 96); and a segmenter.
CHANNEL_BYTES, IDENTITY_BYTES, SEGMENTER_BYTES = 230, 60, 1600
# Of each weight: itself, gradient, two means of Adam; a running mean of those of the generators.
WEIGHT_BYTES = 20
# For each voxel of what a network sees in inference and each channel of the first layer: layers at full resolution (18,
# 22 and 17 bytes at widths 8, 16 and 32, on 32 x 210 x 210).
LAYER_BYTES = 20
# Of a voxel of a file: sums, values, blocks that are compared.
FILE_BYTES = 12
# While pieces of images are counted, for each thread.
SURVEY_BYTES = 100 * 2**20
# Where generators add to the image. Cycles and identities are 0 there from the first step, at the tip of a cone:
# nothing that pulls more weakly than they push back moves anything. Spectrum and histogram pull the same way in every
# step, edges hold nuclei apart. Other values were tried (docs/synthesis.md, "How far the adaptation gets").
SKIP_WEIGHTS = {"cycle": 2.0, "identity": 0.0, "structure": 6.0, "spectrum": 20.0, "histogram": 300.0}
# Multiply-adds of a generator in a second of a core, and passes of a step, forth and back.
MADDS_PER_S, PASSES = 4e9, 20
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
    given: dict[str, Any] = {
        "width": cfg.width,
        "blocks": cfg.blocks,
        "norm": cfg.norm,
        "depth": cfg.depth_cond,
        "skip": cfg.skip,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return replace(base, discriminator=cfg.discriminator, **given)


def objective_of(cfg: Train) -> Objective:
    """What counts how much."""
    from gigascope.synthesis.adaptation.objective import Objective

    paper = cfg.preset == "paper"
    base = Objective(label=0.0) if paper else Objective()
    if cfg.skip if cfg.skip is not None else not paper:
        base = replace(base, **SKIP_WEIGHTS)
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


def naive_of(dataset: SynthesisDataset, header: Any, use: str) -> tuple[Shape, tuple[float, float, float], int]:
    """Shape (z, y, x) of the largest naive image, its voxels, and how many there are: from the config, or as given.

    Parameters
    ----------
    header : whose `domain` are headers of the images that were given; not looked at where cultures are simulated
    use : "train" or "inference", of given images
    """
    from gigascope.synthesis.simulation.geometry import image_grid
    from gigascope.synthesis.simulation.plan import field_of

    if dataset.gives_naive:
        given = [image for image in header.domain if image.domain == "B"]
        given = [image for image in given if image.use == use] or given
        largest = max(given, key=lambda image: math.prod(image.written))
        return largest.written, dataset.ingest.output_voxel_um or largest.voxel_um, len(given)
    grid = dataset.simulate.grid
    found = image_grid(field_of(dataset), grid.output_voxel_um, grid.oversample, grid.field_um)
    z, y, x = found.shape
    edges = grid.output_voxel_um
    return (z, y, x), (edges[0], edges[1], edges[2]), dataset.phantoms.n_spheroids


def estimate_train(dataset: SynthesisDataset, header: Any) -> Estimate:
    """What a step keeps of its crops, weights, pools, crops that are read ahead."""
    cfg, (shape, voxel, n) = dataset.train, naive_of(dataset, header, "train")
    if cfg.arch == "identity":
        return Estimate(START_BYTES, 0, 10, 10**5, 20, "no network")
    crop, architecture, steps = crop_of(cfg, shape), architecture_of(cfg, voxel), steps_of(cfg, n)
    processes = processes_of(cfg, 1)
    at_once = min(cfg.micro_batch or batch_of(cfg), batch_of(cfg) // processes) * math.prod(crop)
    objective = objective_of(cfg)
    label, channel = objective.label > 0, CHANNEL_BYTES + (IDENTITY_BYTES if objective.identity > 0 else 0)
    step = at_once * (channel * architecture.width + (SEGMENTER_BYTES if label else 0))
    pools = 2 * cfg.pool * math.prod(crop) * 2
    weights = WEIGHT_BYTES * weights_of(architecture)
    ahead = min(1e6 * cfg.prefetch_mb, 6 * batch_of(cfg) * math.prod(crop) * (20 if label else 8))
    held = weights + max(step + pools, cfg.readers * SURVEY_BYTES)
    seconds = 20 + steps * batch_of(cfg) * PASSES * math.prod(crop) * madds_of(architecture) / MADDS_PER_S
    what = f"{steps} steps of {batch_of(cfg)} crops of {' x '.join(map(str, crop))}"
    disk = weights_of(architecture) * 6 + 10**6
    return Estimate(int(processes * (TRAIN_START_BYTES + held + ahead)), int(held), seconds, disk, 40, what)


def estimate_infer(dataset: SynthesisDataset, header: Any) -> Estimate:
    """One file of an image, and a window in the network."""
    cfg, (shape, voxel, n) = dataset.infer, naive_of(dataset, header, "inference")
    plan = ensemble_plan(shape, "uint16", cfg.chunk, cfg.shard)
    levels = level_plans(plan, "zyx")
    window = math.prod(min(s, w + 2 * h) for s, w, h in zip(shape, cfg.window, cfg.halo))
    windows = math.prod(max(1.0, s / (w * (1 - o))) for s, w, o in zip(shape, cfg.window, cfg.overlaps))
    architecture = architecture_of(dataset.train, voxel)
    network = dataset.train.arch != "identity"
    work = window * LAYER_BYTES * architecture.width + 4 * weights_of(architecture) if network else 0
    memory = START_BYTES + work + FILE_BYTES * min(math.prod(plan.shards), math.prod(shape))
    voxels = sum(math.prod(level.shape) for level in levels)
    seconds = 20 + n * (windows * window * madds_of(architecture) / MADDS_PER_S if network else voxels * 1e-8)
    files = n * (sum(level.n_shards for level in levels) + 12) + 20
    z, y, x = shape
    return Estimate(int(memory), int(work), seconds, n * voxels * 2, files, f"{n} images of {x} x {y} x {z}")


def estimate_infer_job(dataset: SynthesisDataset, header: Any, job: JobKind) -> Estimate:
    """The empty images; a share of the files; every file read once, in blocks."""
    whole, parts = estimate_infer(dataset, header), dataset.infer.parts
    if job == "part":
        return replace(whole, seconds=20 + whole.seconds / parts, disk=whole.disk // parts, files=whole.files // parts)
    light = replace(whole, memory=START_BYTES, gpu_memory=0, seconds=20, disk=0, files=20)
    return light if job == "open" else replace(light, seconds=20 + whole.disk / 2e8)


def weights_of(architecture: Architecture) -> int:
    """Numbers that two generators and two discriminators of that architecture learn, about."""
    w, size = architecture.width, 3**architecture.dimensions
    generator = w * w * size * (2 * architecture.blocks * 16 + 2 * 2 + 2 * 8)
    return 2 * (generator + w * w * 42 * 4**architecture.dimensions) + 4 * 10**5


def madds_of(architecture: Architecture) -> float:
    """Multiply-adds of a generator for each voxel that goes in, about."""
    w, size = architecture.width, 3**architecture.dimensions
    first, whole = math.prod(architecture.strides[0]), math.prod(architecture.reduction)
    kernel = math.prod(architecture.ends[3 - architecture.dimensions :])
    ends = ((architecture.channels + 1) * w + int(architecture.skip)) * kernel
    return ends + size * w * w * (4 / first + 16 / whole + 2 * architecture.blocks * 16 / whole)
