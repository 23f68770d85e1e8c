"""Cells as rigid bodies of one to five balls, which is what placement keeps apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.synthesis.phantom.nuclei import F64, Cells

N_BALLS = 5
# Axes that differ by less are not told apart: such a body is one ball of the same volume.
NEARLY_ROUND = 1.06
# Balls at the ends of an axis have the radius of curvature there, but are not smaller than this share of the axis:
# flat bodies would else be covered at their rim and in the middle only. What they stand out above and below is room.
LEAST_BALL = 0.42
# Balls of bodies that are not round are larger than those that fit inside, for what bulges between them and for rough
# surfaces. Chosen on balls of 60 µm: at φ = 0.45 nuclei lose 0.2 % of their volume to others; larger costs iterations.
SWELL = 1.06


@dataclass(frozen=True)
class Bodies:
    """n bodies.

    Attributes
    ----------
    offset : (n, 5, 3) float64 µm in the body frame
    radius : (n, 5) float64 µm; 0: no ball
    reach : (n,) float64 µm, of a ball around the centre that holds all of them
    inertia : (n,) float64 µm², moment of inertia for a mass of 1
    """

    offset: F64
    radius: F64
    reach: F64
    inertia: F64

    def __len__(self) -> int:
        return len(self.reach)

    def take(self, rows: NDArray) -> Bodies:
        """Some of them."""
        return Bodies(self.offset[rows], self.radius[rows], self.reach[rows], self.inertia[rows])


def bodies_of(cells: Cells, gap_um: float = 0.0) -> Bodies:
    """Balls that cover the ellipsoids of cells, enlarged by half of the gap that is to be kept between them."""
    a, b, c = cells.extent.T
    n = len(cells)
    offset, radius = np.zeros((n, N_BALLS, 3)), np.zeros((n, N_BALLS))
    radius[:, 0] = np.maximum(c, LEAST_BALL * b)
    for axis, first, length in ((0, 1, a), (1, 3, b)):
        ball = np.clip(c * c / length, LEAST_BALL * length, None)
        long = length > NEARLY_ROUND * c
        for k, sign in ((first, 1.0), (first + 1, -1.0)):
            offset[long, k, axis] = sign * (length - ball)[long]
            radius[long, k] = ball[long]
    radius *= SWELL
    round_ = a <= NEARLY_ROUND * c
    radius[round_, 0] = np.cbrt(a * b * c)[round_]
    _pairs(cells, offset, radius)
    # offsets stand along the axes of the ellipsoid, which are not those of the body where it is a prototype
    offset = np.einsum("nki,nij->nkj", offset, cells.frame)
    grown = np.where(radius > 0, radius + gap_um / 2, 0.0)
    reach = np.max(np.where(radius > 0, np.linalg.norm(offset, axis=2) + grown, 0.0), axis=1) if n else np.zeros(0)
    return Bodies(offset, grown, reach, 0.4 * np.maximum(reach, 1e-3) ** 2)


def _pairs(cells: Cells, offset: F64, radius: F64) -> None:
    """The two plates of an anaphase are one body until they are placed: two balls for each plate."""
    double = np.flatnonzero(cells.pair > 0)
    ball = 0.55 * cells.semi_axes[double, 0]
    offset[double], radius[double] = 0.0, 0.0
    for k, (along, across) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1)), start=1):
        offset[double, k, 0] = along * (cells.semi_axes[double, 0] - ball)
        offset[double, k, 2] = across * cells.pair[double] / 2
        radius[double, k] = ball
