"""A view as a row of numbers: both directions of its map as matrices, its foot and its distance.

After the radial distortion, a pinhole looking at a plane is a projective map, so that 3 x 3 matrices on (y, x, 1) and
(row, col, 1) hold pose, tilt and mosaic offset, and any affine map of the mosaic (an origin, a scale, a dither) too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# (y, x, 1) undistorted -> (row, col, 1), and back; rows of the matrices one after the other
FORWARD, INVERSE = slice(0, 9), slice(9, 18)
# (row, col) of the foot of the perpendicular from the pinhole, and its distance in the units of heights
FOOT, DISTANCE = slice(18, 20), 20
N_COLUMNS = 21


def view_table(
    size: Sequence[int],
    focal: Tensor | float,
    height: Tensor,
    normal: Tensor,
    angle: Tensor,
    translation: Tensor,
    distance: Tensor | None = None,
) -> Tensor:
    """Rows of views from their poses; differentiable.

    Parameters
    ----------
    size : (R, C) pixels of a view
    focal : image distance
    height : (n,) float64 along the optical axis, in the units of `focal`
    normal : (n, 3) float64 (x, y, z), length 1, z < 0
    angle : (n,) float64, radians
    translation : (n, 2) float64 (row, col), mosaic pixels, with the global offset
    distance : (n,) float64 from pinhole to plane in the units of the heights that :func:`coordinates` gets; none where
        there are no heights

    Returns
    -------
    (n, 21) float64
    """
    rows, columns = size
    larger = float(max(rows, columns))
    zero, one = torch.zeros_like(height), torch.ones_like(height)
    f = one * focal
    nx, ny, nz = normal.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    # (y, x, 1) -> direction of the ray (x', y', f)
    ray = _matrix((sin, cos, zero), (cos, -sin, zero), (zero, zero, f))
    # minimal rotation of n to (0, 0, -1), its first two rows
    share = 1 / (1 - nz)
    turn_x = torch.stack((1 - nx * nx * share, -nx * ny * share, nx), dim=1)
    turn_y = torch.stack((-nx * ny * share, 1 - ny * ny * share, ny), dim=1)
    # point of the plane times n . ray: h (n_z ray - e_z (n . ray))
    axis = torch.stack((zero, zero, one), dim=1)
    meet = height[:, None, None] * (
        nz[:, None, None] * torch.eye(3, dtype=height.dtype, device=height.device) - axis[:, :, None] * normal[:, None]
    )
    plane = torch.stack((turn_y, turn_x, normal), dim=1)
    project = torch.cat((plane[:, :2] @ meet, plane[:, 2:]), dim=1) @ ray
    start = translation + translation.new_tensor([rows / 2, columns / 2])
    place = _matrix((larger * one, zero, start[:, 0]), (zero, larger * one, start[:, 1]), (zero, zero, one))
    forward = place @ project / (nz * f)[:, None, None]

    unplace = _matrix(
        (one / larger, zero, -start[:, 0] / larger), (zero, one / larger, -start[:, 1] / larger), (zero, zero, one)
    )
    # (Y, X, 1) -> point of the ray over h; then (x', y', f) -> (y, x, 1)
    lay = torch.stack((turn_y, turn_x, height[:, None] * axis), dim=2) / height[:, None, None]
    unray = _matrix((f * sin, f * cos, zero), (f * cos, -f * sin, zero), (zero, zero, one))
    inverse = unray @ lay @ unplace

    foot = start - larger * height[:, None] * torch.stack((ny, nx), dim=1)
    far = torch.full_like(height, torch.inf) if distance is None else distance
    return torch.cat((forward.flatten(1), inverse.flatten(1), foot, far[:, None]), dim=1)


def moved(table: Tensor, matrix: Tensor) -> Tensor:
    """Rows of the same views on a mosaic that was moved: (row, col) -> matrix[:, :2] @ (row, col) + matrix[:, 2].

    Parameters
    ----------
    table : (n, 21) float64
    matrix : (2, 3) or (n, 2, 3) float64, such as an origin to subtract, a scale, or a rotation with a translation

    Returns
    -------
    (n, 21) float64; differentiable
    """
    n = table.shape[0]
    last = table.new_tensor([0.0, 0.0, 1.0]).expand(n, 1, 3)
    full = torch.cat((matrix.expand(n, 2, 3), last), dim=1)
    forward = full @ table[:, FORWARD].reshape(n, 3, 3)
    back = torch.linalg.inv(full[:, :2, :2])
    undo = torch.cat((torch.cat((back, -back @ full[:, :2, 2:]), dim=2), last), dim=1)
    inverse = table[:, INVERSE].reshape(n, 3, 3) @ undo
    foot = (full[:, :2, :2] @ table[:, FOOT, None]).squeeze(2) + full[:, :2, 2]
    return torch.cat((forward.flatten(1), inverse.flatten(1), foot, table[:, DISTANCE:]), dim=1)


def _matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """(n, 3, 3) from entries of (n,)."""
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
