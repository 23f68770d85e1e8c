"""Placement by relaxation: bodies start anywhere in the region and push each other apart until none overlap.

Jacobi iterations: every pair that overlaps moves apart by 0.8 of the overlap, half of it each, along the line between
the balls that overlap most; a body of several balls is turned too (the shift of a point of a free rigid body,
Müller et al., Detailed Rigid Body Simulation with Extended Position Based Dynamics, SCA 2020, eq. 2-9). Positions are
rounded to 1/1024 µm in every iteration, and a body's pushes are summed in a fixed order: the result depends neither on
threads nor on what runs beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigascope.synthesis.phantom import relax_kernel as kernel
from gigascope.synthesis.phantom.bodies import Bodies
from gigascope.synthesis.phantom.nuclei import F64
from gigascope.synthesis.phantom.region import DistanceGrid

GAIN = 0.8
# Neighbours are looked for within this more than touching, and again when a body has come half as far.
SKIN_UM = 1.0
LONGEST_STEP_UM = 2.0


@dataclass(frozen=True)
class Relaxed:
    """Where bodies have come to rest.

    Attributes
    ----------
    centre : (n, 3) float64 µm, multiples of 1/1024
    rotation : (n, 4) float64
    overlap_um : largest overlap that is left, of balls with each other or with the outside
    iterations : that were made
    """

    centre: F64
    rotation: F64
    overlap_um: float
    iterations: int


def relax(
    centre: F64, rotation: F64, bodies: Bodies, region: DistanceGrid, *, tol_um: float = 0.02, max_iter: int = 600
) -> Relaxed:
    """Push bodies apart, and into the region.

    Parameters
    ----------
    centre, rotation : (n, 3) µm and (n, 4), where they start
    region : signed distance, negative inside
    tol_um : overlap that is let be
    max_iter : iterations after which it is given up
    """
    centre = np.round(np.ascontiguousarray(centre, np.float64) * 1024) / 1024
    rotation = np.array(rotation, np.float64)
    n = len(centre)
    if n == 0:
        return Relaxed(centre, rotation, 0.0, 0)
    ball, step, worst = np.empty_like(bodies.offset), np.empty((n, 6)), np.empty(n)
    neighbours = _Neighbours(bodies.reach, region)
    for iteration in range(max_iter + 1):
        first, found = neighbours.of(centre)
        kernel.place_balls(centre, rotation, bodies.offset, ball, work=100.0 * n)
        kernel.push_apart(
            centre, ball, bodies.radius, bodies.inertia, first, found,
            region.values, region.low, region.spacing, GAIN, step, worst, work=50.0 * len(found) + 200.0 * n,
        )  # fmt: skip
        overlap = float(worst.max())
        if overlap <= tol_um or iteration == max_iter:
            break
        kernel.take_step(centre, rotation, step, LONGEST_STEP_UM, work=50.0 * n)
    return Relaxed(centre, rotation, overlap, iteration)


class _Neighbours:
    """Lists of bodies that may touch, made anew when one has moved by half of the skin."""

    def __init__(self, reach: F64, region: DistanceGrid) -> None:
        self._reach = reach
        self._cell = max(2.0 * float(reach.max()) + SKIN_UM, 1e-3)
        high = region.low + np.array(region.values.shape) * region.spacing
        self._shape = np.maximum(1, np.ceil(high / self._cell)).astype(np.int64)
        self._at: F64 | None = None
        self._first, self._found = np.zeros(len(reach) + 1, np.int64), np.zeros(0, np.int32)

    def of(self, centre: F64) -> tuple[np.ndarray, np.ndarray]:
        """(first, found): those of body i are found[first[i]:first[i + 1]]."""
        if self._at is None or float(np.abs(centre - self._at).max()) > SKIN_UM / 2 / 3**0.5:
            self._make(centre)
            self._at = centre.copy()
        return self._first, self._found

    def _make(self, centre: F64) -> None:
        n = len(centre)
        start = np.zeros(int(np.prod(self._shape)) + 1, np.int64)
        member = np.empty(n, np.int32)
        kernel.sort_into_cells(centre, self._cell, self._shape, start, member)
        grid = (centre, self._reach, SKIN_UM, self._cell, self._shape, start, member)
        self._first[:] = 0
        kernel.find_neighbours(*grid, self._first, np.zeros(0, np.int32), work=1000.0 * n)
        np.cumsum(self._first, out=self._first)
        self._found = np.empty(max(1, int(self._first[-1])), np.int32)
        kernel.find_neighbours(*grid, self._first, self._found, work=1000.0 * n)
