"""The shape of a labelled nucleus as spherical harmonics of its log radius, in its own frame.

The frame has the principal axes of the body, the longest along component 0, so that what is known of a body's axes
holds for a prototype too. Conventions of :mod:`gigascope.kernels.cells.table`: body = R (x - centre), triples
(z, y, x) in µm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.kernels.cells.harmonics import N_HARMONICS, real_harmonics, sphere_rule

# Of the sum of squared coefficients, times (l (l + 1))²: half a percent at degree 8 where points lie all around, and a
# bound where a small nucleus has hardly more surface than coefficients.
_SMOOTH = 1e-6
# Samples along a ray from the centre, as fractions of the smallest voxel size.
_STEP = 0.5

Size3 = tuple[float, float, float]


@dataclass(frozen=True)
class ShapeFit:
    """A star-convex shape that was fitted to a mask.

    Attributes
    ----------
    centre : (3,) µm, from the corner of the mask's array
    frame : (3, 3) float64, R of body = R (x - centre)
    radius : µm, geometric mean over all directions
    harmonics : (81,) float32 of log(r / radius), the first 0
    residual : RMS distance of the surface from the fit along the ray, over the mean radius
    hidden : share of the volume that is not seen from the centre; 1 if the centre is not inside
    """

    centre: NDArray[np.float64]
    frame: NDArray[np.float64]
    radius: float
    harmonics: NDArray[np.float32]
    residual: float
    hidden: float


def fit_shape(mask: NDArray[np.bool_], voxel_um: Size3) -> ShapeFit:
    """Fit the log radius by least squares over the voxel faces between inside and outside.

    Faces lie half-way between the centres of two voxels, on average where the surface is; each counts by the solid
    angle that it fills.

    Parameters
    ----------
    mask : (z, y, x), True inside; one connected body that does not touch the array's border
    voxel_um : (z, y, x), micrometres
    """
    centre, frame = principal_frame(mask, voxel_um)
    points, areas = surface_faces(mask, voxel_um)
    offset = points - centre
    r = np.linalg.norm(offset, axis=1)
    solid = np.abs((areas * offset).sum(axis=1)) / r**3
    solid *= 4 * math.pi / solid.sum()
    waves = real_harmonics(torch.from_numpy(offset @ frame.T / r[:, None])).numpy()
    degree = np.floor(np.sqrt(np.arange(N_HARMONICS)))
    ridge = np.diag(_SMOOTH * (degree * (degree + 1)) ** 2)
    weighted = waves * solid[:, None]
    found = np.linalg.solve(waves.T @ weighted + ridge, weighted.T @ np.log(r))
    miss = r - np.exp(waves @ found)
    residual = math.sqrt(float((solid * miss**2).sum()) / (4 * math.pi))
    radius = math.exp(found[0] / math.sqrt(4 * math.pi))
    harmonics = found.astype(np.float32)
    harmonics[0] = 0
    return ShapeFit(centre, frame, radius, harmonics, residual / radius, hidden_share(mask, voxel_um, centre))


def principal_frame(mask: NDArray[np.bool_], voxel_um: Size3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centroid (3,) µm, and the rotation (3, 3) into the principal axes, longest first, right-handed."""
    size = np.asarray(voxel_um)
    points = (np.argwhere(mask) + 0.5) * size
    centre = points.mean(axis=0)
    offset = points - centre
    # a voxel is no point: its own spread makes single layers bodies
    spread = offset.T @ offset / len(points) + np.diag(size**2 / 12)
    _, vectors = np.linalg.eigh(spread)
    frame = vectors.T[::-1].copy()
    for axis in (0, 1):
        # one of the two directions of an axis: the one of the longer tail
        if ((offset @ frame[axis]) ** 3).sum() < 0:
            frame[axis] *= -1
    frame[2] = np.cross(frame[0], frame[1])
    return centre, frame


def surface_faces(mask: NDArray[np.bool_], voxel_um: Size3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of the faces between inside and outside, (k, 3) µm, and their area along their axis, (k, 3) µm²."""
    size = np.asarray(voxel_um)
    padded = np.pad(mask, 1)
    points, areas = [], []
    for axis in range(3):
        low = padded.take(range(padded.shape[axis] - 1), axis=axis)
        high = padded.take(range(1, padded.shape[axis]), axis=axis)
        at = np.argwhere(low != high).astype(np.float64)
        # of padded voxel i the centre is at i - 1/2; the face lies between i and i + 1
        at -= 0.5
        at[:, axis] += 0.5
        points.append(at * size)
        area = np.zeros_like(at)
        area[:, axis] = size.prod() / size[axis]
        areas.append(area)
    return np.concatenate(points), np.concatenate(areas)


def hidden_share(mask: NDArray[np.bool_], voxel_um: Size3, centre: NDArray[np.float64]) -> float:
    """Share of a body's volume that lies behind a gap, seen from its centre; 1 if the centre is outside.

    Rays in 1152 directions; a gap is longer than a voxel, so that steps of the grid are none.
    """
    size = np.asarray(voxel_um)
    directions, weights = (tensor.numpy() for tensor in sphere_rule(24))
    far = float(np.linalg.norm(np.asarray(mask.shape) * size))
    step = _STEP * float(size.min())
    along = np.arange(0, far, step)
    places = centre[:, None, None] + directions.T[:, :, None] * along
    index = places / size[:, None, None] - 0.5
    inside = ndimage.map_coordinates(mask.astype(np.float32), index.reshape(3, -1), order=1).reshape(-1, len(along))
    inside = inside >= 0.5
    if not inside[:, 0].all():
        return 1.0
    gap = math.ceil(float(size.max()) / step)
    # where the last `gap` samples were all outside, the ray has left
    left = ndimage.minimum_filter1d((~inside).astype(np.uint8), gap, axis=1, origin=(gap - 1) // 2, mode="constant")
    gone = np.maximum.accumulate(left, axis=1) > 0
    shells = weights[:, None] * along**2
    whole = float((shells * inside).sum())
    return float((shells * (inside & gone)).sum()) / whole if whole else 1.0
