"""What the Gaussians around one say about it, compiled: whoever decodes has the same neighbours and so the same answer.

Rows are in the order of the file. All cells are known before the first row; parameters only of earlier rows.
"""

from __future__ import annotations

import numpy as np

from gigascope.compression.gmix.compiled import compiled

# Rows on either side among which neighbours are looked for: near in Z-order is near in space, mostly.
WINDOW = 256
# Earlier neighbours whose parameters count, and neighbours whose places count; see benchmarks/container.py.
N_EARLIER = 4
N_PLACES = 12
# Squared distances, cells, are increased by this before they become weights.
SOFTEN_EARLIER = 1
SOFTEN_PLACES = 4


@compiled
def find(cells, i, rows, squares):  # type: ignore[no-untyped-def]
    """The nearest rows to row i: N_EARLIER of those before it, then N_PLACES of all; missing ones are -1.

    Of equally near ones the nearest in the order come first. Fills `rows` and `squares` (squared distances, cells).
    """
    rows[:] = -1
    squares[:] = 1 << 40
    for side in range(2):
        step = 1 if side else -1
        end = min(len(cells), i + WINDOW + 1) if side else max(-1, i - WINDOW - 1)
        for j in range(i + step, end, step):
            d = 0
            for k in range(3):
                difference = cells[j, k] - cells[i, k]
                d += difference * difference
            if not side and d < squares[N_EARLIER - 1]:
                _insert(rows, squares, 0, N_EARLIER, j, d)
            if d < squares[N_EARLIER + N_PLACES - 1]:
                _insert(rows, squares, N_EARLIER, N_EARLIER + N_PLACES, j, d)


@compiled
def _insert(rows, squares, first, stop, row, square):  # type: ignore[no-untyped-def]
    place = stop - 1
    while place > first and squares[place - 1] > square:
        rows[place], squares[place] = rows[place - 1], squares[place - 1]
        place -= 1
    rows[place], squares[place] = row, square


@compiled
def means(rows, squares, values, usual, result):  # type: ignore[no-untyped-def]
    """Weighted means of integer columns over the earlier neighbours; `usual` where there are none."""
    total = 0
    result[:] = 0
    for place in range(N_EARLIER):
        if rows[place] >= 0:
            weight = (1 << 16) // (squares[place] + SOFTEN_EARLIER)
            total += weight
            for k in range(len(result)):
                result[k] += weight * values[rows[place], k]
    for k in range(len(result)):
        result[k] = result[k] // total if total > 0 else usual[k]


@compiled
def alignment(cells, i, rows, squares, poles, strengths, tensor):  # type: ignore[no-untyped-def]
    """Symmetric tensor (3, 3) of trace 1, large along the direction in which things run near row i.

    Half of it comes from the axes of the earlier neighbours, half from where all neighbours lie.
    """
    tensor[:] = 0.0
    for half in range(2):
        first, stop = (N_EARLIER, N_EARLIER + N_PLACES) if half else (0, N_EARLIER)
        soften = SOFTEN_PLACES if half else SOFTEN_EARLIER
        total = 0.0
        for place in range(first, stop):
            if rows[place] >= 0:
                total += 1.0 / (squares[place] + soften)
        round_share = 0.5
        for place in range(first, stop):
            j = rows[place]
            if j < 0 or (half and squares[place] == 0):
                continue
            weight = 0.5 / (squares[place] + soften) / total
            weight = weight / squares[place] if half else weight * strengths[j]
            for a in range(3):
                for b in range(3):
                    u = (cells[j, a] - cells[i, a]) if half else poles[j, a]
                    v = (cells[j, b] - cells[i, b]) if half else poles[j, b]
                    tensor[a, b] += weight * u * v
            round_share -= weight * squares[place] if half else weight
        for a in range(3):
            tensor[a, a] += round_share / 3


def buffers() -> tuple[np.ndarray, np.ndarray]:
    """`rows` and `squares` of :func:`find`."""
    return np.empty(N_EARLIER + N_PLACES, np.int64), np.empty(N_EARLIER + N_PLACES, np.int64)
