"""Each Gaussian brought into the frame of the grid: from here on every CPU kernel walks rows of samples.

With ``d = i - nu`` in samples (z, y, x) the exponent is ``m = c_z^2 + c_y^2 + c_x^2`` of nested coordinates

    c_z = s_z d_z,    c_y = s_y (d_y + g d_z),    c_x = s_x (d_x + a d_y + b d_z)

the QR factorisation of ``diag(1 / sigma) R^T diag(spacing)`` with x first: in a row of x only c_x changes, the samples
inside the cut are an interval whose ends follow from one square root, and nothing cancels, however long and thin the
Gaussian is. The whitened coordinates along its own axes are ``y = Q c`` with an orthogonal Q.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from gigascope.kernels.parallel import inline_kernel, parallel_kernel

# columns of a frame, float64: nu (3), s (3), g, a, b, cut^2, Q (9, rows are own axes, columns c_z, c_y, c_x)
N_COLUMNS = 19
# exponents are in units of log 2: phi = 2^(-LOG2E_2 m)
LOG2E_2 = 0.5 * math.log2(math.e)
# 2^-122 is the least a kernel is asked for: float32 ends at 2^-126
LARGEST_CUT = 13.0
# operations to make a frame, and frames that share a scratch array
WORK, BATCH = 300, 64


@parallel_kernel
def prepare(means, log_scales, quaternions, cuts, origin, spacing, shape, frames, boxes):
    """Fill frames (N, N_COLUMNS) and boxes (N, 6): first and one past the last sample along z, y, x that may count.

    A Gaussian of numbers that are not finite gets a box of minus ones, an empty one gets zeros.
    """
    n = means.shape[0]
    for batch in prange((n + BATCH - 1) // BATCH):
        b = np.empty((3, 3))
        for i in range(batch * BATCH, min((batch + 1) * BATCH, n)):
            _frame(means[i], log_scales[i], quaternions[i], cuts[i], origin, spacing, shape, b, frames[i], boxes[i])


@inline_kernel
def _frame(mean, log_scale, quaternion, cut, origin, spacing, shape, b, frame, box):
    w, x, y, z = (
        np.float64(quaternion[0]),
        np.float64(quaternion[1]),
        np.float64(quaternion[2]),
        np.float64(quaternion[3]),
    )
    per_length = 1 / math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * per_length, x * per_length, y * per_length, z * per_length
    # rows are the own axes: columns of R
    b[0, 0], b[0, 1], b[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)
    b[1, 0], b[1, 1], b[1, 2] = 2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)
    b[2, 0], b[2, 1], b[2, 2] = 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)
    for k in range(3):
        per_sigma = math.exp(-np.float64(log_scale[k]))
        for j in range(3):
            b[k, j] *= per_sigma * spacing[j]
    reach = min(np.float64(cut), LARGEST_CUT)
    _factorise(b, frame)
    frame[9] = reach * reach
    known = not math.isnan(reach) and math.isfinite(frame[3] * frame[4] * frame[5])
    halves = half_sizes(frame)
    for j in range(3):
        frame[j] = (np.float64(mean[j]) - origin[j]) / spacing[j]
        known = known and abs(frame[j]) < 1e15 and halves[j] < 1e15
        # the margin is rounding; rows find their ends exactly
        low = min(max(frame[j] - halves[j] * (1 + 1e-9) - 1e-9, -1.0), shape[j] + 1.0) if known else 0.0
        high = min(max(frame[j] + halves[j] * (1 + 1e-9) + 1e-9, -1.0), shape[j] + 1.0) if known else 0.0
        box[2 * j] = max(math.ceil(low), 0)
        box[2 * j + 1] = max(min(math.floor(high) + 1, shape[j]), box[2 * j])
    if not known:
        box[:] = -1
    elif reach <= 0:
        box[:] = 0


@inline_kernel
def half_sizes(frame):
    """Half sizes (z, y, x) of the box around the cut ellipsoid, samples: the reach of d over all c within the cut."""
    reach, g, a = math.sqrt(frame[9]), frame[6], frame[7]
    z, y, x = reach / frame[3], reach / frame[4], reach / frame[5]
    turn = (a * g - frame[8]) * z
    return z, math.sqrt(y * y + g * g * z * z), math.sqrt(x * x + a * a * y * y + turn * turn)


@inline_kernel
def _factorise(b, frame):
    """Gram and Schmidt over the columns x, y, z of b; the last axis is the cross product of the first two."""
    q = frame[10:19].reshape(3, 3)
    s_x = math.sqrt(b[0, 2] * b[0, 2] + b[1, 2] * b[1, 2] + b[2, 2] * b[2, 2])
    xy = 0.0
    for k in range(3):
        q[k, 2] = b[k, 2] / s_x
        xy += q[k, 2] * b[k, 1]
    for k in range(3):
        q[k, 1] = b[k, 1] - xy * q[k, 2]
    s_y = math.sqrt(q[0, 1] * q[0, 1] + q[1, 1] * q[1, 1] + q[2, 1] * q[2, 1])
    for k in range(3):
        q[k, 1] /= s_y
    q[0, 0] = q[1, 1] * q[2, 2] - q[2, 1] * q[1, 2]
    q[1, 0] = q[2, 1] * q[0, 2] - q[0, 1] * q[2, 2]
    q[2, 0] = q[0, 1] * q[1, 2] - q[1, 1] * q[0, 2]
    s_z, yz, xz = 0.0, 0.0, 0.0
    for k in range(3):
        s_z += q[k, 0] * b[k, 0]
        yz += q[k, 1] * b[k, 0]
        xz += q[k, 2] * b[k, 0]
    if s_z < 0:  # Q is a rotation or a reflection, s_z a length
        s_z = -s_z
        for k in range(3):
            q[k, 0] = -q[k, 0]
    frame[3], frame[4], frame[5] = s_z, s_y, s_x
    frame[6], frame[7], frame[8] = yz / s_y, xy / s_x, xz / s_x
