"""Bins of directions on the half sphere, compiled: bands of rings by sectors, and how likely each of them is.

A grid of directions (see :mod:`frames`) has any number of rings; its cells fall into the same bins whatever it is.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gmix import law_rows
from gigascope.compression.gmix.compiled import compiled

I64 = NDArray[np.int64]

N_BANDS, N_SECTORS = 8, 24
N_BINS = N_BANDS * N_SECTORS
# Grids of fewer rings are counted beforehand.
N_COUNTED = 128
# Kinds of Gaussians: the pole is the longest or the shortest axis, and how much it differs from the next one.
N_KINDS = 8
LIMITS = (0.2, 0.45, 0.7)
# Steps of the alignment of a direction with its surroundings, 0 .. 1.
N_ALIGNED = 8


@compiled
def _band_start(n_rings, band):  # type: ignore[no-untyped-def]
    return (n_rings * band + 3) // N_BANDS


@compiled
def _sector_start(n_cells, sector):  # type: ignore[no-untyped-def]
    return (n_cells * sector + 11) // N_SECTORS


@compiled
def centres():  # type: ignore[no-untyped-def]
    """(N_BINS, 3) float64 direction of each bin."""
    found = np.empty((N_BINS, 3))
    for band in range(N_BANDS):
        sine, cosine = law_rows.sincos((band + 0.5) * (math.pi / 2) / N_BANDS)
        for sector in range(N_SECTORS):
            sine_turn, cosine_turn = law_rows.sincos((sector + 0.5) * (2 * math.pi) / N_SECTORS)
            at = band * N_SECTORS + sector
            found[at, 0], found[at, 1], found[at, 2] = cosine, sine * cosine_turn, sine * sine_turn
    return found


@compiled
def count_cells(n_rings, counts):  # type: ignore[no-untyped-def]
    """Fill `counts` (N_BINS,) with the cells of the grid in each bin."""
    counts[:] = 0
    for band in range(N_BANDS):
        for ring in range(_band_start(n_rings, band), _band_start(n_rings, band + 1)):
            n_cells = law_rows.ring_cells(n_rings, ring)
            for sector in range(N_SECTORS):
                n = _sector_start(n_cells, sector + 1) - _sector_start(n_cells, sector)
                counts[band * N_SECTORS + sector] += n


@compiled
def cells_of(n_rings, counted, scratch):  # type: ignore[no-untyped-def]
    """(N_BINS,) cells of the grid in each bin: a row of `counted`, or of a finer grid `scratch`, filled."""
    if n_rings < len(counted):
        return counted[n_rings]
    count_cells(n_rings, scratch)
    return scratch


@compiled
def place_in_bin(n_rings, ring, azimuth):  # type: ignore[no-untyped-def]
    """Bin of a cell of the grid, and its number among the cells of the bin."""
    band = N_BANDS - 1
    while _band_start(n_rings, band) > ring:
        band -= 1
    n_cells = law_rows.ring_cells(n_rings, ring)
    sector = N_SECTORS - 1
    while _sector_start(n_cells, sector) > azimuth:
        sector -= 1
    place = azimuth - _sector_start(n_cells, sector)
    for r in range(_band_start(n_rings, band), ring):
        n_cells = law_rows.ring_cells(n_rings, r)
        place += _sector_start(n_cells, sector + 1) - _sector_start(n_cells, sector)
    return band * N_SECTORS + sector, place


@compiled
def cell_at(n_rings, chosen, place):  # type: ignore[no-untyped-def]
    """Ring and azimuth of a cell by its bin and number; undoes :func:`place_in_bin`."""
    band, sector = chosen // N_SECTORS, chosen % N_SECTORS
    ring = _band_start(n_rings, band)
    while True:
        n_cells = law_rows.ring_cells(n_rings, ring)
        first = _sector_start(n_cells, sector)
        n = _sector_start(n_cells, sector + 1) - first
        if place < n:
            return ring, first + place
        place -= n
        ring += 1


@compiled
def kind_of(last, difference):  # type: ignore[no-untyped-def]
    """Kind of a Gaussian whose pole differs from the next axis by `difference` in the log scale."""
    kind = 4 if last else 0
    for limit in LIMITS:
        if difference >= limit:
            kind += 1
    return kind


@compiled
def aligned(tensor, directions, bins):  # type: ignore[no-untyped-def]
    """Fill `bins` with the step of alignment of each direction with a tensor of trace 1."""
    for i in range(len(bins)):
        z, y, x = directions[i, 0], directions[i, 1], directions[i, 2]
        value = z * z * tensor[0, 0] + y * y * tensor[1, 1] + x * x * tensor[2, 2]
        value += 2 * (z * y * tensor[0, 1] + z * x * tensor[0, 2] + y * x * tensor[1, 2])
        bins[i] = min(N_ALIGNED - 1, max(0, np.int64(value * N_ALIGNED)))


@functools.cache
def counted() -> I64:
    """(n, N_BINS) cells of the grids of few rings, which nearly all are."""
    table = np.zeros((N_COUNTED, N_BINS), np.int64)
    for n_rings in range(1, N_COUNTED):
        count_cells(n_rings, table[n_rings])
    return table
