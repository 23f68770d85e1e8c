"""How a volume is cut along the tilt axis: bands, slabs and their halos. Arithmetic only.

Slices across the tilt axis touch each other only through the total variation, by one neighbour in each iteration. So a
slab that knows `round` slices on either side can do `round` iterations alone (time skewing); what it then knows of its
own slices is what the whole volume would have given, and the halo is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gigascope.store.plan import ShardPlan
from gigascope.tomography.layout import Layout

if TYPE_CHECKING:
    from gigascope.config.tomography import Halves, Reconstruct

GIB = 2**30
F32 = 4
# What a job holds for each voxel and each sample of a slab: u, ubar, p (3) and A^T q; views, mask, weights, q and
# projection.
VOXEL_BYTES = 24
SAMPLE_BYTES = 17
# Bytes of a chunk of the state, about: it is written and read in whole bands.
CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Slabs:
    """Cut of `n` slices along the tilt axis.

    Attributes
    ----------
    n : slices
    round : iterations of a round, slices of a halo, and slices of a band: what slabs consist of
    size : slices of a slab, whole bands; the last one may have fewer
    """

    n: int
    round: int
    size: int

    def __post_init__(self) -> None:
        if self.size % self.round and self.size < self.n:
            raise ValueError(f"slabs of {self.size} slices are not whole bands of {self.round}")

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def rows(self, slab: int) -> slice:
        """Slices of a slab."""
        return slice(slab * self.size, min((slab + 1) * self.size, self.n))

    def window(self, slab: int) -> slice:
        """Slices that a slab needs for a round: one more behind it, for the difference across its end."""
        rows = self.rows(slab)
        return slice(max(0, rows.start - self.round), min(self.n, rows.stop + self.round + 1))

    def bands(self, rows: slice | None = None) -> Iterator[slice]:
        """Bands of the volume, or of some whole bands of it."""
        rows = rows or slice(0, self.n)
        return (slice(a, min(a + self.round, rows.stop)) for a in range(rows.start, rows.stop, self.round))


def cut(
    sizes: Layout,
    bin: int,
    n_views: int,
    *,
    round: int,
    slab: int | None,
    parts: int,
    gib: float,
    method: str = "tv",
) -> Slabs:
    """Choose the slabs of a reconstruction; its result does not depend on them.

    Parameters
    ----------
    n_views : of one reconstruction
    round : iterations of a round
    slab : slices of a slab, rounded up to whole bands; none: as many as fit into the memory, and one for each part
    parts : jobs that are to have something to do
    gib : memory that a job may take for its slab, GiB
    method : SIRT and CGLS are done whole: sums over all slices say when they end
    """
    n, of_parts = sizes.shape(bin)[2], slab is None
    if slab is None:
        held = int(gib * GIB / row_bytes(sizes, bin, n_views))
        if held < n:
            held = max(round, (held - 2 * round - 1) // round * round)
        slab = max(1, min(n, held, -(-n // parts)))
    if slab >= n or method in ("sirt", "cgls"):
        return Slabs(n, round, n)
    # as even as bands allow, for parts too: a thin last slab would be all halo
    n_bands, n_slabs = -(-n // round), -(-n // slab)
    if of_parts:
        n_slabs = -(-n_slabs // parts) * parts
    n_slabs = min(n_bands, n_slabs)
    return Slabs(n, round, round * -(-n_bands // n_slabs))


def row_bytes(sizes: Layout, bin: int, n_views: int) -> int:
    """Memory that one slice of a reconstruction takes while it is iterated."""
    n_z, n_x, _ = sizes.shape(bin)
    return VOXEL_BYTES * n_z * n_x + SAMPLE_BYTES * n_views * (sizes.frame[0] // bin)


def state_plan(lead: int, shape: tuple[int, int, int], band: int) -> ShardPlan:
    """Cut of an array (lead, a, b, y): a file for each band of each of the leading ones."""
    a, b, n = shape
    rows = min(band, n)
    chunk = max(1, min(a, CHUNK_BYTES // (F32 * b * rows)))
    return ShardPlan((lead, a, b, n), F32, (1, chunk, b, rows), (1, -(-a // chunk) * chunk, b, rows))


def samples_plan(shape: tuple[int, int, int], itemsize: int, band: int) -> ShardPlan:
    """Cut of an array of samples (tilt, s, y): a file for each band."""
    n_views, n_s, n = shape
    rows = min(band, n)
    chunk = max(1, min(n_views, CHUNK_BYTES // (itemsize * n_s * rows)))
    return ShardPlan(shape, itemsize, (chunk, n_s, rows), (-(-n_views // chunk) * chunk, n_s, rows))


def output_blocks(plan: ShardPlan) -> list[slice]:
    """Stretches of the tilt axis (the last axis but one) that are whole shards of an output store."""
    n, step = plan.shape[-2], plan.shards[-2]
    return [slice(a, min(a + step, n)) for a in range(0, n, step)]


def coarse_rows(rows: slice, factor: int, n: int) -> tuple[slice, slice]:
    """Rows of a volume binned by `factor` that linear interpolation of `rows` needs, and where these lie in the result.

    `n` : rows of the binned volume
    """
    first = max(0, rows.start // factor - 1)
    last = min(n, -(-rows.stop // factor) + 1)
    return slice(first, last), slice(rows.start - first * factor, rows.stop - first * factor)


def n_rounds(iterations: int, round: int) -> int:
    """Rounds that so many iterations take."""
    return math.ceil(iterations / round)


def reconstruct_rounds(cfg: Reconstruct) -> int:
    """Rounds of iterations, and one that writes the tomogram."""
    return 1 + (0 if cfg.method == "wbp" else n_rounds(cfg.iterations, cfg.round))


def halves_rounds(cfg: Halves) -> int:
    """Rounds of iterations, as many as there may be, and one that writes the halves."""
    return 1 + n_rounds(cfg.iterations, cfg.round)
