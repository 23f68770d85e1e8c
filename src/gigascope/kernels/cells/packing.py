"""Nuclei as rows of float32 that the rasterisers read: made in float64, element by element, the same on every device.

The harmonics are turned into polynomials of the direction u = (z, y, x): with (x + i y)^m = C_m + i S_m,
Σ q_lm Y_lm(u) = Σ_m A_m(z) C_m + B_m(z) S_m. Degrees and powers are summed one after the other, so that a row has the
same bits whatever other rows are made with it.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.cells.harmonics import DEGREE, normalisation
from gigascope.kernels.cells.shape import rotation_matrices
from gigascope.kernels.cells.table import RIM_LENGTH_UM, NucleiTable

# columns of a row of the shape: rotation (9), 1 / semi-axes (3), exponent e, 2 / e, and the polynomials
ROTATION, INVERSE_AXES, EXPONENT, ROOT, WAVES = 0, 9, 12, 13, 14
N_SHAPE = WAVES + (DEGREE + 1) ** 2
# columns of a row of the look: brightness, texture, rim, exponent of the library texture, 4 nucleoli (z, y, x, radius),
# and from WAVE on per octave the frequency, the offsets along z, y, x and the amplitude
INTENSITY, SIGMA, RIM, GAMMA, NUCLEOLI, OCTAVE = 0, 1, 2, 3, 4, 20
N_OCTAVE = 5
RIM_RATE = -math.log2(math.e) / RIM_LENGTH_UM
NUCLEOLUS_DEPTH, NUCLEOLUS_EDGE_UM = 0.5, 0.3
# multipliers of the hash: of the lattice's three axes (primes of Teschner et al., Optimized spatial hashing, 2003), and
# of the finaliser lowbias32 (C. Wellons, hash-prospector)
AXES = (73856093, 19349663, 83492791)
MIX = (0x21F0AAAD, 0xD35A2D97)
# gradients have three components of ten bits, 0 to 1023 about this middle
COMPONENT_BITS, COMPONENT_MIDDLE = 10, 511.5
_MASK = 0xFFFFFFFF


class Looks(NamedTuple):
    """What the rasteriser of brightness reads beside the shapes.

    Attributes
    ----------
    rows : (n, 20 + 5 octaves) float32
    keys : (n, octaves) int32, key of the lattice's hash
    crop : (n,) int32, row of the library's crops, or -1
    """

    rows: Tensor
    keys: Tensor
    crop: Tensor


def wave_start(order: int) -> int:
    """First coefficient of A_m among the polynomials, highest power first; B_m follows it."""
    return 0 if order == 0 else sum((1 if m == 0 else 2) * (DEGREE + 1 - m) for m in range(order))


def degree_of(table: NucleiTable) -> int:
    """Largest degree with a coefficient that is not 0; what lies above adds exact zeros."""
    used = table.harmonics.ne(0).any(dim=0).nonzero()
    return 0 if len(used) == 0 else math.isqrt(int(used.max()))


def shape_rows(table: NucleiTable) -> Tensor:
    """(n, 95) float32."""
    rows = torch.zeros(N_SHAPE, table.n, dtype=torch.float64, device=table.centre.device)
    rows[ROTATION:INVERSE_AXES] = rotation_matrices(table.rotation).flatten(1).T
    rows[INVERSE_AXES:EXPONENT] = 1 / table.semi_axes.T
    rows[EXPONENT] = table.exponent
    rows[ROOT] = 2 / table.exponent
    q = table.harmonics.double().T.contiguous()
    for index, column, number in _terms():
        rows[WAVES + column] += q[index] * number
    return rows.T.float().contiguous()


def look_rows(table: NucleiTable) -> Looks:
    """Rows of the look and keys of the noise."""
    n, octaves = table.n, table.octaves
    rows = torch.zeros(n, OCTAVE + N_OCTAVE * octaves, dtype=torch.float64, device=table.centre.device)
    for column, name in ((INTENSITY, "intensity"), (SIGMA, "texture_sigma"), (RIM, "rim"), (GAMMA, "gamma")):
        rows[:, column] = getattr(table, name)
    rows[:, NUCLEOLI:OCTAVE] = table.nucleoli.flatten(1)
    low, high = table.seed & _MASK, (table.seed >> 32) & _MASK
    keys = torch.zeros(n, octaves, dtype=torch.int64, device=table.centre.device)
    total = math.sqrt(sum(0.25**octave for octave in range(octaves)))
    for octave in range(octaves):
        key = mixed(low ^ mixed((high + octave * 0x9E3779B9) & _MASK))
        keys[:, octave] = key
        at = OCTAVE + N_OCTAVE * octave
        rows[:, at] = 2.0**octave / table.texture_scale
        for axis in range(3):
            # the lattice begins elsewhere in every nucleus: the noise is 0 on its points
            rows[:, at + 1 + axis] = mixed(key ^ (axis + 1)).double() * 2.0**-32
        rows[:, at + 4] = 0.5**octave / (total * lattice_deviation())
    signed = torch.where(keys > 0x7FFFFFFF, keys - (1 << 32), keys).to(torch.int32)
    return Looks(rows.float(), signed, table.texture)


def mixed(word: Tensor) -> Tensor:
    """32 bits, in int64, so mixed that each depends on all."""
    word = word ^ (word >> 16)
    word = (word * MIX[0]) & _MASK
    word = word ^ (word >> 15)
    word = (word * MIX[1]) & _MASK
    return word ^ (word >> 15)


@functools.cache
def lattice_deviation() -> float:
    """Standard deviation of one octave of gradient noise, over gradients and places.

    n(x) = Σ_corners w(d_z) w(d_y) w(d_x) g · d with w(t) = 1 - t³ (t (6 t - 15) + 10) and independent components of g:
    the mean square is 8 · 3 · σ_g² · (∫w²)² · ∫w² t².
    """
    fade = np.polynomial.Polynomial([1, 0, 0, -10, 15, -6]) ** 2
    moments = [(fade * np.polynomial.Polynomial([0, 1]) ** n).integ()(1.0) for n in (0, 2)]
    variance = ((1 << 2 * COMPONENT_BITS) - 1) / 12
    return math.sqrt(24 * variance * moments[0] ** 2 * moments[1])


@functools.cache
def _terms() -> list[tuple[int, int, float]]:
    """Coefficient q, column of the polynomials it goes into, and the factor, for -2 log2(e) times the sum."""
    terms = []
    for m in range(DEGREE + 1):
        for degree, polynomial in enumerate(_associated(m), start=m):
            size = -2 * math.log2(math.e) * normalisation(degree, m)
            for power, number in enumerate(polynomial):
                if number != 0:
                    column = wave_start(m) + DEGREE - m - power
                    terms.append((degree * degree + degree + m, column, size * float(number)))
                    if m > 0:
                        sine = column + DEGREE + 1 - m
                        terms.append((degree * degree + degree - m, sine, size * float(number)))
    return terms


def _associated(order: int) -> list[NDArray[np.float64]]:
    """Coefficients of P_lm without sign and sin^m θ as polynomials of cos θ, l = m .. 8, ascending powers."""
    z = np.polynomial.Polynomial([0.0, 1.0])
    sectoral = float(np.prod(np.arange(1.0, 2 * order, 2)))
    previous, current = 0 * z, 0 * z + sectoral
    found = [current]
    for degree in range(order + 1, DEGREE + 1):
        following = ((2 * degree - 1) * z * current - (degree + order - 1) * previous) / (degree - order)
        previous, current = current, following
        found.append(current)
    return [np.asarray(polynomial.coef, np.float64) for polynomial in found]
