"""What the stages that put views together will need, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gigascope.runtime.resources import Estimate
from gigascope.store.pyramid import level_plans
from gigascope.topography.mosaic import layout

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.config.topography import Mosaic
    from gigascope.stage import JobKind
    from gigascope.store.plan import ShardPlan
    from gigascope.topography.plan import TopographyHeader

F32 = 4
# Measured with `gigascope run`; the peak is in its last line, and in `gigascope info`: mosaics of 0.1 to 34 million
# pixels from views of 256 to 3072 pixels. Python with torch, the compiled kernels and zarr; without torch.
START_BYTES, LIGHT_BYTES = 450 * 2**20, 102 * 2**20
# A tile while it is compressed, over itself; arrays of a block beside its channels.
WRITTEN, BLENDED = 2.05, 2.5
# Beside the tile of the pyramid that is made, blocks of the finer level, for each thread.
GATHER_BYTES = 330 * 2**20
# Of a GPU, beside what a block has: context and compiled kernels.
GPU_BYTES = 400 * 2**20
# A mesh: for each vertex, and for each pixel of the level it is taken from.
VERTEX_BYTES, LEVEL_BYTES = 150, 74
TIFF_BYTES = 95 * 2**20
# Pixels of a view that are blended in a second on two cores, and pixels of the mosaic that are written.
VIEW_PIXELS_PER_S, PIXELS_PER_S = 8e6, 6e6


@dataclass(frozen=True)
class Expected:
    """What can be said of a mosaic before it is made.

    Attributes
    ----------
    plan : how it is cut
    n_colours : 1 or 3
    views_per_pixel : on average, over the whole
    views_of_block : that a block may touch
    block, crop : sides of a block, and of what it reads of a view, at most, pixels
    ahead : the next block of a tile, which is read meanwhile, as a share of a whole one
    """

    plan: ShardPlan
    n_colours: int
    views_per_pixel: float
    views_of_block: int
    block: tuple[int, int]
    crop: tuple[int, int]
    ahead: float

    @property
    def n_pixels(self) -> int:
        """Of the mosaic."""
        return math.prod(self.plan.shape[1:])


def expect(header: TopographyHeader, cfg: Mosaic) -> Expected:
    """The mosaic of an acquisition whose views are where its drawing and its stage say."""
    n_views, size = header.shape[:2], header.shape[3:]
    # where it is not known how the views overlap: side by side
    shape = header.mosaic_shape if min(header.mosaic_shape) > 0 else tuple(n * m for n, m in zip(n_views, size))
    n_colours = 3 if header.pattern is not None or header.colours == 3 else 1
    plan = layout.mosaic_plan((shape[0], shape[1]), n_colours, cfg.tile)
    halo = layout.halo_of(cfg.band_px) if cfg.blend == "two_band" else 0
    block = [min(layout.BLOCK, side, n) + 2 * halo for side, n in zip(plan.shards[1:], shape)]
    crop = [min(b + 6, m) for b, m in zip(block, size)]
    steps = [max(1.0, (m - f) / max(1, n - 1)) for m, f, n in zip(shape, size, n_views)]
    touched = [min(n, math.floor((b + f) / s) + 1) for n, b, f, s in zip(n_views, block, size, steps)]
    covered = header.n_views * math.prod(size) / math.prod(shape)
    # blocks follow each other along the columns, then along the rows
    beyond = next((n - layout.BLOCK for n in reversed(plan.shards[1:]) if n > layout.BLOCK), 0)
    ahead = min(1.0, beyond / layout.BLOCK)
    places = (block[0], block[1]), (crop[0], crop[1])
    return Expected(plan, n_colours, covered, math.prod(touched), *places, ahead)


def mosaic_rounds(cfg: Mosaic) -> int:
    """Rounds of the tiles: blending, and before it, where offsets are refined, comparing and solving."""
    return len(layout.ROUNDS[cfg.refine])


def estimate_mosaic(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """A tile of all channels, what two of its blocks hold of the views, and the views that are being read."""
    cfg = dataset.mosaic
    found = expect(header, cfg)
    plan, n_channels = found.plan, found.plan.shape[0]
    block, crop = math.prod(found.block), math.prod(found.crop)
    of_pixel = (3 if cfg.clear_dz is not None else 2) * F32 + found.n_colours * header.itemsize
    # windows are filled with NaN, of the rest only what is read takes memory
    read = min(found.views_per_pixel * block, found.views_of_block * crop)
    windows = (1 + found.ahead) * (found.views_of_block * crop * F32 + read * (of_pixel - F32))
    reading = layout.READERS * crop * 2 * of_pixel
    held = windows + reading + BLENDED * n_channels * block * F32
    levels = level_plans(plan, ("c", "y", "x"))
    disk = sum(math.prod(level.shape) for level in levels) * F32
    files = sum(level.n_shards for level in levels) + 20
    twice = 2 if cfg.refine != "none" else 1
    seconds = 10 + found.n_pixels * (twice * found.views_per_pixel / VIEW_PIXELS_PER_S + 1 / PIXELS_PER_S)
    rows, cols = plan.shape[1:]
    return Estimate(
        START_BYTES + int(WRITTEN * plan.shard_nbytes + held),
        GPU_BYTES + int(windows / (1 + found.ahead) + BLENDED * n_channels * block * F32),
        seconds,
        disk,
        files,
        f"{cols} x {rows} float32, {n_channels} channels",
    )


def estimate_mosaic_job(dataset: TopographyDataset, header: TopographyHeader, job: JobKind) -> Estimate:
    """A part has its share of the tiles; the gather makes the pyramid."""
    whole = estimate_mosaic(dataset, header)
    cfg, cut = dataset.mosaic, expect(header, dataset.mosaic).plan
    tiles = math.prod(cut.shape) * F32
    if job == "part":
        jobs = cfg.parts * mosaic_rounds(cfg)
        files = -(-cut.n_shards // cfg.parts)
        return replace(whole, seconds=whole.seconds / jobs, disk=tiles // jobs, files=files)
    light = replace(whole, memory=GATHER_BYTES + int(cut.shard_nbytes), gpu_memory=0, disk=0, files=20, seconds=10.0)
    if job == "open":
        return light
    return replace(
        light, seconds=10 + whole.seconds / 10, disk=whole.disk - tiles, files=max(20, whole.files - cut.n_shards)
    )


def estimate_tiff(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """Some tiles at a time."""
    found = expect(header, dataset.mosaic)
    colour = found.n_colours * header.itemsize
    disk = found.n_pixels * (colour + F32) * 4 // 3
    # tiles that are read ahead, with the chunks they are taken from
    tile = math.prod(min(512, n) for n in found.plan.shape[1:]) * found.plan.shape[0] * F32
    ahead = min(12, -(-found.n_pixels // 512**2)) * tile
    return Estimate(TIFF_BYTES + ahead, 0, 5 + found.n_pixels / 2e6, disk, 2, "colour, height")


def estimate_mesh(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """A level of the pyramid, and the vertices."""
    found = expect(header, dataset.mosaic)
    shapes = [level.shape[1:] for level in level_plans(found.plan, ("c", "y", "x"))]
    pixels = math.prod(shapes[layout.choose_level(shapes, dataset.mesh.vertices)])
    n = min(dataset.mesh.vertices, found.n_pixels)
    level = pixels * LEVEL_BYTES * found.plan.shape[0] // 7
    return Estimate(LIGHT_BYTES + n * VERTEX_BYTES + level, 0, 3 + n / 4e5, 41 * n, 1, f"{n} vertices")
