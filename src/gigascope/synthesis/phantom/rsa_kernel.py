"""Attempts of the sequential placement, compiled: one after the other, against what has been placed."""

from __future__ import annotations

from typing import Any

from gigascope.kernels.parallel import exact_inline_kernel, serial_kernel
from gigascope.synthesis.phantom.region_kernel import grid_value
from gigascope.synthesis.phantom.relax_kernel import deepest


@serial_kernel
def attempt(
    tried: Any, balls: Any, radii: Any, reaches: Any, volumes: Any,
    centre: Any, ball: Any, radius: Any, reach: Any, n: int, state: Any, limits: Any,
    head: Any, link: Any, cell: float, shape: Any, distance: Any, low: Any, spacing: Any, taken: Any,
) -> int:  # fmt: skip
    """Try all candidates in their order, and append those that fit to the n placed ones; how many there are then.

    `state` is (failures in a row, volume placed), `limits` what ends it, and what a place outside
    counts; `taken` marks the candidates that fitted.
    """
    head[:] = -1
    for i in range(n):
        place = _cell(centre, i, cell, shape)
        link[i], head[place] = head[place], i
    for candidate in range(tried.shape[0]):
        if state[0] >= limits[0] or state[1] >= limits[1]:
            break
        if grid_value(tried[candidate, 0], tried[candidate, 1], tried[candidate, 2], distance, low, spacing) > 0.0:
            # outside: else no attempt, so that the fill does not depend on how much of its box a region takes
            state[0] += limits[2]
            continue
        centre[n], ball[n], radius[n] = tried[candidate], balls[candidate], radii[candidate]
        reach[n] = reaches[candidate]
        if not _fits(n, centre, ball, radius, reach, head, link, cell, shape, distance, low, spacing):
            state[0] += 1.0
            continue
        state[0] = 0.0
        state[1] += volumes[candidate]
        taken[candidate] = True
        place = _cell(centre, n, cell, shape)
        link[n], head[place] = head[place], n
        n += 1
    return n


@exact_inline_kernel
def _fits(
    i: int, centre: Any, ball: Any, radius: Any, reach: Any, head: Any, link: Any, cell: float, shape: Any,
    distance: Any, low: Any, spacing: Any,
) -> bool:  # fmt: skip
    """Body i is in the region and overlaps none of those in the lists."""
    for k in range(radius.shape[1]):
        if radius[i, k] > 0.0:
            z, y, x = centre[i, 0] + ball[i, k, 0], centre[i, 1] + ball[i, k, 1], centre[i, 2] + ball[i, k, 2]
            if grid_value(z, y, x, distance, low, spacing) > -radius[i, k]:
                return False
    c = _cell(centre, i, cell, shape)
    cz, cy, cx = c // (shape[1] * shape[2]), (c // shape[2]) % shape[1], c % shape[2]
    for z in range(max(0, cz - 1), min(shape[0], cz + 2)):
        for y in range(max(0, cy - 1), min(shape[1], cy + 2)):
            for x in range(max(0, cx - 1), min(shape[2], cx + 2)):
                other = head[(z * shape[1] + y) * shape[2] + x]
                while other >= 0:
                    d0, d1, d2 = (
                        centre[i, 0] - centre[other, 0],
                        centre[i, 1] - centre[other, 1],
                        centre[i, 2] - centre[other, 2],
                    )
                    far = reach[i] + reach[other]
                    if d0 * d0 + d1 * d1 + d2 * d2 < far * far and deepest(i, other, centre, ball, radius)[0] > 0.0:
                        return False
                    other = link[other]
    return True


@exact_inline_kernel
def _cell(centre: Any, i: int, cell: float, shape: Any) -> int:
    z = min(max(int(centre[i, 0] / cell), 0), shape[0] - 1)
    y = min(max(int(centre[i, 1] / cell), 0), shape[1] - 1)
    x = min(max(int(centre[i, 2] / cell), 0), shape[2] - 1)
    return (z * shape[1] + y) * shape[2] + x
