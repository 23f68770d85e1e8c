"""One step of the relaxation, compiled: neighbours, overlaps, and where they push.

Every body is moved by the iteration that owns it, from the positions before the step, over its neighbours in a fixed
order: the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from gigascope.kernels.parallel import exact_inline_kernel, exact_parallel_kernel, serial_kernel
from gigascope.synthesis.phantom.region_kernel import grid_value


@serial_kernel
def sort_into_cells(centre: Any, cell: float, shape: Any, start: Any, member: Any) -> None:
    """Bodies by the cells of a grid that begins at 0: `member[start[i]:start[i + 1]]`, rising."""
    start[:] = 0
    for i in range(centre.shape[0]):
        start[_cell(centre, i, cell, shape) + 1] += 1
    for k in range(len(start) - 1):
        start[k + 1] += start[k]
    filled = start.copy()
    for i in range(centre.shape[0]):
        k = _cell(centre, i, cell, shape)
        member[filled[k]] = i
        filled[k] += 1


@exact_inline_kernel
def _cell(centre: Any, i: int, cell: float, shape: Any) -> int:
    z = min(max(int(centre[i, 0] / cell), 0), shape[0] - 1)
    y = min(max(int(centre[i, 1] / cell), 0), shape[1] - 1)
    x = min(max(int(centre[i, 2] / cell), 0), shape[2] - 1)
    return (z * shape[1] + y) * shape[2] + x


@exact_parallel_kernel
def find_neighbours(
    centre: Any, reach: Any, skin: float, cell: float, shape: Any, start: Any, member: Any, first: Any, found: Any
) -> None:
    """Count (`found` empty) into first[i + 1], or write from first[i] on, all that may touch body i."""
    writing = len(found) > 0
    for i in prange(centre.shape[0]):
        k = first[i] if writing else 0
        c = _cell(centre, i, cell, shape)
        cz, cy, cx = c // (shape[1] * shape[2]), (c // shape[2]) % shape[1], c % shape[2]
        for z in range(max(0, cz - 1), min(shape[0], cz + 2)):
            for y in range(max(0, cy - 1), min(shape[1], cy + 2)):
                row = (z * shape[1] + y) * shape[2]
                last = row + min(shape[2], cx + 2)
                for m in range(start[row + max(0, cx - 1)], start[last]):
                    j = member[m]
                    if j == i:
                        continue
                    d0 = centre[i, 0] - centre[j, 0]
                    d1 = centre[i, 1] - centre[j, 1]
                    d2 = centre[i, 2] - centre[j, 2]
                    far = reach[i] + reach[j] + skin
                    if d0 * d0 + d1 * d1 + d2 * d2 < far * far:
                        if writing:
                            found[k] = j
                        k += 1
        if not writing:
            first[i + 1] = k


@exact_parallel_kernel
def place_balls(centre: Any, rotation: Any, offset: Any, ball: Any) -> None:
    """Centres (n, 5, 3) of the balls relative to those of their bodies: R(q)ᵀ offset."""
    for i in prange(centre.shape[0]):
        w, a, b, c = rotation[i, 0], -rotation[i, 1], -rotation[i, 2], -rotation[i, 3]
        for k in range(offset.shape[1]):
            x, y, z = offset[i, k, 0], offset[i, k, 1], offset[i, k, 2]
            # v + 2 q × (q × v + w v)
            t0 = b * z - c * y + w * x
            t1 = c * x - a * z + w * y
            t2 = a * y - b * x + w * z
            ball[i, k, 0] = x + 2.0 * (b * t2 - c * t1)
            ball[i, k, 1] = y + 2.0 * (c * t0 - a * t2)
            ball[i, k, 2] = z + 2.0 * (a * t1 - b * t0)


@exact_inline_kernel
def deepest(i: int, j: int, centre: Any, ball: Any, radius: Any) -> tuple[float, int, int]:
    """Largest overlap of a ball of i with one of j, and which; negative where none overlap."""
    most, at_i, at_j = -1e30, 0, 0
    d0, d1, d2 = centre[i, 0] - centre[j, 0], centre[i, 1] - centre[j, 1], centre[i, 2] - centre[j, 2]
    for k in range(radius.shape[1]):
        if radius[i, k] == 0.0:
            continue
        e0, e1, e2 = d0 + ball[i, k, 0], d1 + ball[i, k, 1], d2 + ball[i, k, 2]
        for m in range(radius.shape[1]):
            if radius[j, m] == 0.0:
                continue
            r = radius[i, k] + radius[j, m]
            f0, f1, f2 = e0 - ball[j, m, 0], e1 - ball[j, m, 1], e2 - ball[j, m, 2]
            s = f0 * f0 + f1 * f1 + f2 * f2
            # a square root only where it can be more than what was found
            if most < r and s < (r - most) * (r - most):
                most, at_i, at_j = r - math.sqrt(s), k, m
    return most, at_i, at_j


@exact_inline_kernel
def _push(i: int, arm: Any, n0: float, n1: float, n2: float, inertia: float, move: float, step: Any) -> None:
    """Add a movement of the point `arm` by `move` along n to the body's step (shift, turn)."""
    c0 = arm[1] * n2 - arm[2] * n1
    c1 = arm[2] * n0 - arm[0] * n2
    c2 = arm[0] * n1 - arm[1] * n0
    weight = 1.0 + (c0 * c0 + c1 * c1 + c2 * c2) / inertia
    share = move / weight
    step[0] += share * n0
    step[1] += share * n1
    step[2] += share * n2
    step[3] += share * c0 / inertia
    step[4] += share * c1 / inertia
    step[5] += share * c2 / inertia


@exact_parallel_kernel
def push_apart(
    centre: Any, ball: Any, radius: Any, inertia: Any, first: Any, neighbour: Any,
    distance: Any, low: Any, spacing: Any, gain: float, step: Any, worst: Any,
) -> None:  # fmt: skip
    """Shift and turn (n, 6) of each body by its overlaps with others and with the outside; its largest overlap."""
    for i in prange(centre.shape[0]):
        step[i, :] = 0.0
        most = 0.0
        arm = np.empty(3)
        for p in range(first[i], first[i + 1]):
            j = neighbour[p]
            overlap, k, m = deepest(i, j, centre, ball, radius)
            if overlap <= 0.0:
                continue
            most = max(most, overlap)
            n0 = centre[i, 0] + ball[i, k, 0] - centre[j, 0] - ball[j, m, 0]
            n1 = centre[i, 1] + ball[i, k, 1] - centre[j, 1] - ball[j, m, 1]
            n2 = centre[i, 2] + ball[i, k, 2] - centre[j, 2] - ball[j, m, 2]
            size = math.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
            if size < 1e-9:
                # centres that coincide part along an axis, the one that comes first upwards
                n0, n1, n2, size = (1.0 if i < j else -1.0), 0.0, 0.0, 1.0
            n0, n1, n2 = n0 / size, n1 / size, n2 / size
            for x in range(3):
                arm[x] = ball[i, k, x]
            arm[0] -= radius[i, k] * n0
            arm[1] -= radius[i, k] * n1
            arm[2] -= radius[i, k] * n2
            _push(i, arm, n0, n1, n2, inertia[i], gain * 0.5 * overlap, step[i])
        deepest_out, at = 0.0, -1
        for k in range(radius.shape[1]):
            if radius[i, k] > 0.0:
                z, y, x = centre[i, 0] + ball[i, k, 0], centre[i, 1] + ball[i, k, 1], centre[i, 2] + ball[i, k, 2]
                out = grid_value(z, y, x, distance, low, spacing) + radius[i, k]
                if out > deepest_out:
                    deepest_out, at = out, k
        if at >= 0:
            z, y, x = centre[i, 0] + ball[i, at, 0], centre[i, 1] + ball[i, at, 1], centre[i, 2] + ball[i, at, 2]
            h = spacing[0]
            n0 = grid_value(z - h, y, x, distance, low, spacing) - grid_value(z + h, y, x, distance, low, spacing)
            n1 = grid_value(z, y - h, x, distance, low, spacing) - grid_value(z, y + h, x, distance, low, spacing)
            n2 = grid_value(z, y, x - h, distance, low, spacing) - grid_value(z, y, x + h, distance, low, spacing)
            size = math.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
            if size > 1e-9:
                n0, n1, n2 = n0 / size, n1 / size, n2 / size
                arm[0] = ball[i, at, 0] - radius[i, at] * n0
                arm[1] = ball[i, at, 1] - radius[i, at] * n1
                arm[2] = ball[i, at, 2] - radius[i, at] * n2
                _push(i, arm, n0, n1, n2, inertia[i], gain * deepest_out, step[i])
        worst[i] = max(most, deepest_out)


@exact_parallel_kernel
def take_step(centre: Any, rotation: Any, step: Any, longest: float) -> None:
    """Move and turn every body; positions on multiples of 1/1024 µm, steps no longer than `longest`."""
    for i in prange(centre.shape[0]):
        s0, s1, s2 = step[i, 0], step[i, 1], step[i, 2]
        size = math.sqrt(s0 * s0 + s1 * s1 + s2 * s2)
        share = longest / size if size > longest else 1.0
        centre[i, 0] = round((centre[i, 0] + share * s0) * 1024.0) / 1024.0
        centre[i, 1] = round((centre[i, 1] + share * s1) * 1024.0) / 1024.0
        centre[i, 2] = round((centre[i, 2] + share * s2) * 1024.0) / 1024.0
        # the body turns by the vector t in space: q · (1, -t/2), see nuclei.aligned
        w, a, b, c = rotation[i, 0], rotation[i, 1], rotation[i, 2], rotation[i, 3]
        t0, t1, t2 = -0.5 * share * step[i, 3], -0.5 * share * step[i, 4], -0.5 * share * step[i, 5]
        r0 = w - a * t0 - b * t1 - c * t2
        r1 = a + w * t0 + b * t2 - c * t1
        r2 = b + w * t1 - a * t2 + c * t0
        r3 = c + w * t2 + a * t1 - b * t0
        size = math.sqrt(r0 * r0 + r1 * r1 + r2 * r2 + r3 * r3)
        rotation[i, 0], rotation[i, 1], rotation[i, 2], rotation[i, 3] = r0 / size, r1 / size, r2 / size, r3 / size
