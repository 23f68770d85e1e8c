"""The six numbers of a view that a calibration looks for, and what the exact map does when they change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gigascope.topography.geometry.poses import Poses, to_mosaic

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# log height, slope of the normal along x and y, angle, translation along rows and columns
N_POSE = 6
# Steps of the central differences of the map, about the cube root of rounding over each number's effect in pixels.
STEPS = np.array([1e-5, 1e-4, 1e-4, 1e-5])
DISTORTION_STEP = 1e-4


def parameters(poses: Poses) -> F64:
    """(V, 6): log(height / focal), slopes of the normal along x and y, angle, translation row and column."""
    slopes = poses.normal[:, :2] / -poses.normal[:, 2:]
    return np.column_stack((np.log(poses.height / poses.focal), slopes, poses.angle, poses.translation))


def with_parameters(poses: Poses, x: F64, distortion: F64) -> Poses:
    """Poses from what :func:`parameters` gives."""
    return replace(
        poses,
        height=poses.focal * np.exp(x[:, 0]),
        normal=np.column_stack((x[:, 1:3], np.full(len(x), -1.0))),
        angle=x[:, 3],
        translation=x[:, 4:],
        distortion=distortion,
    )


def derivatives(poses: Poses, view: I64, rc: F64) -> tuple[F64, F64]:
    """Derivatives of the exact map at pixels, by central differences: every pixel depends on its own view alone.

    Returns
    -------
    (n, 2, 6) by what :func:`parameters` gives, and (n, 2, order) by the distortion
    """
    x = parameters(poses)
    by_pose, by_distortion = np.empty((len(rc), 2, N_POSE)), np.empty((len(rc), 2, poses.distortion.size))
    for k in range(4):
        ends = [x.copy(), x.copy()]
        ends[0][:, k] += STEPS[k]
        ends[1][:, k] -= STEPS[k]
        up, down = (to_mosaic(with_parameters(poses, end, poses.distortion), view, rc) for end in ends)
        by_pose[:, :, k] = (up - down) / (2 * STEPS[k])
    by_pose[:, :, 4:] = np.eye(2)
    for q in range(poses.distortion.size):
        step = np.zeros_like(poses.distortion)
        step[q] = DISTORTION_STEP
        up, down = (to_mosaic(replace(poses, distortion=poses.distortion + s * step), view, rc) for s in (1, -1))
        by_distortion[:, :, q] = (up - down) / (2 * DISTORTION_STEP)
    return by_pose, by_distortion
