"""Frames of ellipsoids: of the 48 quaternions that describe one, a single one; and grids over what is left.

Permuting the axes and turning the frame by 180 degrees about an axis leave the ellipsoid as it is. The canonical frame
has sigma_1 >= sigma_2 >= sigma_3 and, of the four frames that are left, the smallest angle of rotation: w is positive
and no other component of the quaternion is larger.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from gigascope.compression.gmix import exact

_S = math.sqrt(0.5)
# Quaternion of the rotation whose column k is the axis order[k] (the last column negated for odd orders), by
# 9 order[0] + 3 order[1] + order[2].
_ORDERS = {
    (0, 1, 2): (1.0, 0.0, 0.0, 0.0),
    (1, 2, 0): (0.5, 0.5, 0.5, 0.5),
    (2, 0, 1): (0.5, -0.5, -0.5, -0.5),
    (1, 0, 2): (0.0, _S, _S, 0.0),
    (0, 2, 1): (_S, _S, 0.0, 0.0),
    (2, 1, 0): (_S, 0.0, -_S, 0.0),
}
_SORTING = torch.zeros(27, 4, dtype=torch.float64)
for _order, _quaternion in _ORDERS.items():
    _SORTING[9 * _order[0] + 3 * _order[1] + _order[2]] = torch.tensor(_quaternion, dtype=torch.float64)


@functools.cache
def _sorting(device: torch.device) -> Tensor:
    return _SORTING.to(device)


def multiply(p: Tensor, q: Tensor) -> Tensor:
    """Hamilton product of quaternions (N, 4), (w, x, y, z): the rotation q first, then p."""
    a, b, c, d = p.unbind(1)
    w, x, y, z = q.unbind(1)
    return torch.stack(
        (
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ),
        dim=1,
    )


def conjugate(q: Tensor) -> Tensor:
    """The inverse of unit quaternions (N, 4)."""
    return torch.cat((q[:, :1], -q[:, 1:]), dim=1)


def matrices(q: Tensor) -> Tensor:
    """(N, 3, 3) rotation matrices of unit quaternions (N, 4)."""
    w, x, y, z = q.unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def normalised(q: Tensor) -> Tensor:
    """Quaternions (N, 4) of length 1; the identity for a length of 0."""
    square = q[:, 0] * q[:, 0] + q[:, 1] * q[:, 1] + q[:, 2] * q[:, 2] + q[:, 3] * q[:, 3]
    q = torch.where(square[:, None] > 0, q, q.new_tensor([1.0, 0.0, 0.0, 0.0]))
    return q / torch.sqrt(torch.where(square > 0, square, torch.ones_like(square)))[:, None]


def sort_axes(log_scales: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Permute the own axes so that the scales descend.

    Parameters
    ----------
    log_scales : (N, 3) float64
    q : (N, 4) float64, of length 1

    Returns
    -------
    log scales and quaternions in the sorted frame; (N, 3) int64, `order[k]` the old place of the new axis k; (N, 4) the
    quaternions g of the change, new = multiply(old, g)
    """
    log_scales, order = torch.sort(log_scales, dim=1, descending=True, stable=True)
    change = _sorting(q.device)[9 * order[:, 0] + 3 * order[:, 1] + order[:, 2]]
    return log_scales, multiply(q, change), order, change


def unsort_scales(log_scales: Tensor, order: Tensor) -> Tensor:
    """Undo the permutation of :func:`sort_axes`."""
    return torch.empty_like(log_scales).scatter_(1, order, log_scales)


def smallest_angle(q: Tensor) -> Tensor:
    """Of the four frames of an ellipsoid with these axes the one with the smallest rotation, w > 0."""
    return aligned(q, torch.zeros_like(q).index_fill_(1, torch.zeros(1, dtype=torch.int64, device=q.device), 1.0))


def aligned(q: Tensor, reference: Tensor) -> Tensor:
    """Of the four frames (times two signs) of an ellipsoid the one nearest to `reference` (N, 4)."""
    relative = multiply(conjugate(q), reference)
    place = _first_largest(relative.abs())
    sign = torch.where(relative.gather(1, place) < 0, -1.0, 1.0)
    unit = torch.zeros_like(q).scatter_(1, place, sign.to(q.dtype))
    return multiply(q, unit)


def _first_largest(sizes: Tensor) -> Tensor:
    """(N, 1) place of the largest of (N, 4), the first where several are equal, which argmax does not promise."""
    place = torch.zeros_like(sizes[:, :1], dtype=torch.int64)
    largest = sizes[:, :1]
    for k in range(1, sizes.shape[1]):
        place = torch.where(sizes[:, k : k + 1] > largest, k, place)
        largest = torch.maximum(largest, sizes[:, k : k + 1])
    return place


def directions(n_rings: Tensor, ring: Tensor, azimuth: Tensor) -> Tensor:
    """(N, 3) unit vectors at the cell centres of grids on the half sphere about the first axis.

    `n_rings` rings of equal height in polar angle, ring k with :func:`ring_cells` cells; 0 rings is the pole alone.
    """
    height = _ring_height(n_rings)
    sine, cosine = exact.sincos((ring.to(torch.float64) + 0.5) * height)
    none = n_rings == 0
    sine, cosine = sine.masked_fill(none, 0.0), cosine.masked_fill(none, 1.0)
    turn = (azimuth.to(torch.float64) + 0.5) * (2 * math.pi) / ring_cells(n_rings, ring).to(torch.float64)
    sine_turn, cosine_turn = exact.sincos(turn)
    return torch.stack((cosine, sine * cosine_turn, sine * sine_turn), dim=1)


def ring_cells(n_rings: Tensor, ring: Tensor) -> Tensor:
    """(N,) int64, cells of ring `ring` of `n_rings`, so many that they are about as wide as they are high."""
    height = _ring_height(n_rings)
    sine, _ = exact.sincos((ring.to(torch.float64) + 0.5) * height)
    cells = torch.round((2 * math.pi) * sine / height).to(torch.int64)
    return torch.where(n_rings == 0, 1, torch.clamp(cells, min=1))


def _ring_height(n_rings: Tensor) -> Tensor:
    count = torch.clamp(n_rings, min=1).to(torch.float64)
    # a number divided by a tensor would be its product with the reciprocal, which rounds twice
    return torch.full_like(count, math.pi / 2) / count


def nearest_cell(n_rings: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Ring and azimuth of the cells in which directions (N, 3), or their opposites, lie."""
    direction = torch.where(direction[:, :1] < 0, -direction, direction)
    polar = torch.acos(torch.clamp(direction[:, 0], -1.0, 1.0))
    count = n_rings.to(torch.float64)
    ring = torch.clamp((polar * count / (math.pi / 2)).to(torch.int64), min=0)
    ring = torch.minimum(ring, torch.clamp(n_rings - 1, min=0))
    cells = ring_cells(n_rings, ring)
    turn = torch.atan2(direction[:, 2], direction[:, 1]) * cells.to(torch.float64) / (2 * math.pi)
    return ring, torch.remainder(torch.floor(turn).to(torch.int64), cells)


def about_pole(direction: Tensor, angle: Tensor) -> Tensor:
    """(N, 4) rotations by `angle` about the first axis, which is then carried to `direction` by the shortest way.

    `direction` (N, 3) has a first component >= 0, `angle` (N,) is in 0 .. 2 pi.
    """
    zero = torch.zeros_like(angle)
    arc = torch.stack((1 + direction[:, 0], zero, -direction[:, 2], direction[:, 1]), dim=1)
    sine, cosine = exact.sincos(angle / 2)
    return multiply(normalised(arc), torch.stack((cosine, sine, zero, zero), dim=1))
