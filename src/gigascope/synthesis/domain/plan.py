"""What reading real images will need, from their shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gigascope.runtime.resources import Estimate
from gigascope.store.ensemble import ensemble_plan
from gigascope.store.pyramid import level_plans

if TYPE_CHECKING:
    from gigascope.config.synthesis_domain import Ingest, Planted, SynthesisInputs

# Python with scipy and zarr loaded. This and all below: peaks of the stage on 4 and 25 million voxels.
LIGHT_BYTES = 150 * 2**20
# Per voxel of the largest image, beside the image itself and a copy of it: float64 while it is resampled; ids of 32
# bits as they were read, as they are counted and as they are written; marks and distances where a mask is divided.
RESAMPLED_BYTES, LABEL_BYTES, DIVIDED_BYTES = 20, 20, 40
# While pyramids are made, of one array: a coarse shard, and pieces of the finer level.
SHARD_BYTES = 192 * 2**20
LABELS = 4


@dataclass(frozen=True)
class ImageHeader:
    """An image of a domain, without its voxels.

    Attributes
    ----------
    name : of its file
    shape : (z, y, x)
    itemsize : bytes of a voxel
    dtype : of the voxels
    labelled, divided : has labels; they are made of a mask and marks
    voxel_um : (z, y, x) in the file
    written : (z, y, x) in the store
    domain : A is real, B naive
    use : "train" or "inference"
    """

    name: str
    shape: tuple[int, int, int]
    itemsize: int
    dtype: str
    labelled: bool
    divided: bool
    voxel_um: tuple[float, float, float]
    written: tuple[int, int, int]
    domain: str
    use: str = "train"


def read_domain(inputs: SynthesisInputs, cfg: Ingest) -> tuple[ImageHeader, ...]:
    """Headers of all images of a dataset; their voxels are not read. Planted images have the size that is expected.

    Raises
    ------
    UserError : an image is missing, broken or not clear
    """
    from gigascope.synthesis.domain.resample import resampled_length
    from gigascope.synthesis.domain.source import open_sources

    if inputs.planted is not None:
        return _planted(inputs.planted)
    found = []
    for source in open_sources(inputs, cfg):
        target = cfg.output_voxel_um or source.voxel_um
        z, y, x = (resampled_length(n, v, t) for n, v, t in zip(source.shape, source.voxel_um, target))
        found.append(
            ImageHeader(
                source.name,
                source.shape,
                source.image.dtype.itemsize,
                source.image.dtype.name,
                source.labels is not None,
                source.centres is not None,
                source.voxel_um,
                (z, y, x),
                source.domain,
                source.use,
            )
        )
    return tuple(found)


def _planted(planted: Planted) -> tuple[ImageHeader, ...]:
    from gigascope.synthesis.simulation.geometry import image_grid
    from gigascope.synthesis.simulation.plan import field_of

    simulate = _sections(planted).simulate
    grid = image_grid(
        field_of(_sections(planted)), simulate.grid.output_voxel_um, simulate.grid.oversample, simulate.grid.field_um
    )
    dtype, itemsize = ("uint8", 1) if simulate.camera.bits <= 8 else ("uint16", 2)
    voxel = simulate.grid.output_voxel_um
    return tuple(
        ImageHeader(f"planted {n}", grid.shape, itemsize, dtype, True, False, voxel, grid.shape, "A")
        for n in range(planted.images)
    )


def _sections(planted: Planted) -> Any:
    """What stands for a dataset in the estimates of the simulation."""
    from types import SimpleNamespace

    from gigascope.config.synthesis_phantoms import Phantoms
    from gigascope.config.synthesis_simulate import Simulate

    return SimpleNamespace(phantoms=planted.phantoms or Phantoms(), simulate=planted.simulate or Simulate())


def describe_domain(images: tuple[ImageHeader, ...]) -> list[str]:
    """One line for each image, for a person."""
    lines = []
    for image in images:
        size = " x ".join(map(str, image.shape))
        voxel = " x ".join(f"{v:.4g}" for v in image.voxel_um)
        what = "real" if image.domain == "A" else "naive"
        labels = "with labels" if image.labelled else "no labels"
        lines.append(f"{what} image {image.name}: {size} voxels (z, y, x) of {image.dtype}, {voxel} um, {labels}")
    return lines


def estimate_ingest(dataset: Any, header: Any) -> Estimate:
    """One image after the other is held as a whole. `header.domain`: what :func:`read_domain` found."""
    images: tuple[ImageHeader, ...] = header.domain
    if dataset.inputs.planted is not None:
        return _estimate_planted(dataset.inputs.planted, images)
    held = disk = files = 0
    voxels = 0
    for image in images:
        n, written = math.prod(image.shape), math.prod(image.written)
        resampled = RESAMPLED_BYTES if dataset.ingest.output_voxel_um is not None else 0
        labels = LABEL_BYTES * image.labelled + DIVIDED_BYTES * image.divided
        shards = min(SHARD_BYTES, written * (LABELS if image.labelled else image.itemsize) // 2)
        held = max(held, n * (2 * image.itemsize + max(resampled, labels)) + shards)
        disk += int(1.15 * written * (image.itemsize + LABELS * image.labelled))
        plans = level_plans(ensemble_plan(image.written, image.dtype), ("z", "y", "x"))
        files += (1 + image.labelled) * (sum(p.n_shards for p in plans) + len(plans) + 2) + 16 * image.labelled
        voxels += n * (1 + 9 * image.labelled)
    shape = f"{len(images)} images"
    return Estimate(LIGHT_BYTES + held, 0, 3 + voxels / 2e7, disk, files + 12, shape)


def _estimate_planted(planted: Planted, images: tuple[ImageHeader, ...]) -> Estimate:
    """What the simulation of as many spheroids needs, with one image and its labels held as a whole."""
    from gigascope.synthesis.simulation.plan import estimate_simulate

    sections = _sections(planted)
    one = estimate_simulate(sections, None)
    share = planted.images / sections.phantoms.n_spheroids
    held = math.prod(images[0].written) * (images[0].itemsize + LABELS + 1)
    seconds, disk, files = one.seconds * share, int(one.disk * share), int(one.files * share)
    return Estimate(one.memory + held, 0, seconds, disk, files, f"{len(images)} simulated images")
