"""What placing phantoms will need, from their keys alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gigascope.config.sampled import Choice, LogNormal, Normal, Uniform
from gigascope.runtime.resources import Estimate

if TYPE_CHECKING:
    from gigascope.config.synthesis_phantoms import Phantoms
    from gigascope.stage import JobKind

# Python with torch, numba and the kernels loaded.
LIGHT_BYTES = 430 * 2**20
# Grids of distances and what is made of them; columns of a nucleus, twice and in two forms while contacts are measured
# (412,655 nuclei: 1503 MiB when they were placed, 2272 then).
GRID_BYTES, NUCLEUS_BYTES = 60 * 2**20, 4500
# Columns of a nucleus as they are kept.
KEPT_BYTES, FILES_OF_ONE = 760, 45
# Nuclei that are placed, drawn and measured in a second of one core: four fifths of it go into the contacts.
NUCLEI_PER_S, SECONDS_OF_A_START = 550.0, 15.0
# Of a spheroid, to write what is known of its nuclei into the store that all share.
GATHER_SECONDS = 1.0


def largest(value: Any) -> float:
    """The number of a key, or about the largest that its distribution gives."""
    if isinstance(value, Uniform):
        return value.high
    if isinstance(value, Choice):
        return max(float(v) for v in value.values)
    if isinstance(value, (Normal, LogNormal)):
        wide = value.mean + 3 * (value.std if isinstance(value, Normal) else value.cv * value.mean)
        return wide if value.high is None else min(wide, value.high)
    return float(value)


def smallest(value: Any) -> float:
    """The number of a key, or about the smallest that its distribution gives."""
    if isinstance(value, Uniform):
        return value.low
    if isinstance(value, Choice):
        return min(float(v) for v in value.values)
    if isinstance(value, (Normal, LogNormal)):
        spread = value.std if isinstance(value, Normal) else value.cv * value.mean
        return max(0.2 * value.mean, value.mean - 3 * spread if value.low is None else value.low)
    return float(value)


def most_nuclei(cfg: Phantoms) -> int:
    """Nuclei of the largest spheroid, about."""
    region = cfg.region
    if region.mask.path is not None:
        from gigascope.synthesis.phantom.source import open_mask

        source, voxel = open_mask(region.mask)
        # a mask seldom takes more of its box than an ellipsoid does
        volume = math.pi / 6 * math.prod(n * v for n, v in zip(source.shape[2:], voxel))
    else:
        axes = [largest(value) for value in region.semi_axes_um]
        volume = 4 / 3 * math.pi * math.prod(axes * 3 if len(axes) == 1 else axes)
    nucleus = math.pi / 6 * smallest(cfg.nuclei.diameter_um.mean) ** 3
    return max(1, math.ceil(largest(cfg.placement.volume_fraction) * volume / nucleus))


def estimate_phantoms(dataset: Any, header: Any) -> Estimate:
    """One spheroid at a time."""
    cfg: Phantoms = dataset.phantoms
    n = most_nuclei(cfg)
    held = LIGHT_BYTES + GRID_BYTES + n * NUCLEUS_BYTES
    seconds = SECONDS_OF_A_START + cfg.n_spheroids * (1.0 + n / NUCLEI_PER_S)
    disk = cfg.n_spheroids * n * KEPT_BYTES
    files = cfg.n_spheroids * FILES_OF_ONE + 3
    return Estimate(held, 0, seconds, disk, files, f"{cfg.n_spheroids} spheroids of about {n} nuclei")


def estimate_phantoms_job(dataset: Any, header: Any, job: JobKind) -> Estimate:
    """A part has its share of the spheroids; the gather puts their nuclei into one store."""
    whole, cfg = estimate_phantoms(dataset, header), dataset.phantoms
    if job == "part":
        files = -(-whole.files // cfg.parts)
        return replace(whole, seconds=whole.seconds / cfg.parts, disk=whole.disk // cfg.parts, files=files)
    if job == "gather":
        return replace(whole, seconds=SECONDS_OF_A_START + cfg.n_spheroids * GATHER_SECONDS)
    return replace(whole, seconds=SECONDS_OF_A_START, disk=0, files=4)
