"""Which cells of a brick have Gaussians, compiled: numbers in the halves of the halves of the brick, in Z-order.

The order of the rows is thus given by the cells and costs nothing.
"""

from __future__ import annotations

import numpy as np

from gigascope.compression.gmix.compiled import compiled
from gigascope.compression.gmix.entropy import BITS, take, take_uniform

# Most Gaussians of a node whose division has a table of its own.
MOST_SPLIT = 64
# Binary digits of a lone Gaussian's cell that are coded in one step.
CHUNK = 12


@compiled
def divide(codes, n_levels, cumulative, first, parts):  # type: ignore[no-untyped-def]
    """Parts of the numbers in the first halves of the nodes of the tree over sorted codes; returns how many."""
    stack = np.empty((n_levels + 2, 3), np.int64)
    stack[0] = 0, len(codes), 0
    depth, n = 1, 0
    while depth > 0:
        depth -= 1
        low, high, level = stack[depth]
        count, rest = high - low, n_levels - level
        if rest == 0 or count == 0:
            continue
        if count == 1:
            # what is left of its code
            while rest > 0:
                chunk = min(rest, CHUNK)
                rest -= chunk
                parts[n, 1] = 1 << BITS - chunk
                parts[n, 0] = (codes[low] >> rest & (1 << chunk) - 1) * parts[n, 1]
                n += 1
            continue
        middle = low
        while middle < high and codes[middle] >> rest - 1 & 1 == 0:
            middle += 1
        left = middle - low
        if count <= MOST_SPLIT:
            at = first[level * (MOST_SPLIT - 1) + count - 2] + left
            parts[n, 0], parts[n, 1] = cumulative[at], cumulative[at + 1] - cumulative[at]
        else:
            start = left * (1 << BITS) // (count + 1)
            parts[n, 0], parts[n, 1] = start, (left + 1) * (1 << BITS) // (count + 1) - start
        n += 1
        stack[depth] = middle, high, level + 1
        stack[depth + 1] = low, middle, level + 1
        depth += 2
    return n


@compiled
def gather(data, state, n_codes, n_levels, cumulative, first):  # type: ignore[no-untyped-def]
    """The sorted codes whose divisions :func:`divide` coded."""
    codes = np.zeros(n_codes, np.int64)
    stack = np.empty((n_levels + 2, 4), np.int64)
    stack[0] = 0, n_codes, 0, 0
    depth = 1
    while depth > 0:
        depth -= 1
        low, high, level, code = stack[depth]
        count, rest = high - low, n_levels - level
        if count == 0:
            continue
        if rest == 0:
            codes[low:high] = code
            continue
        if count == 1:
            while rest > 0:
                chunk = min(rest, CHUNK)
                rest -= chunk
                code = code << chunk | take_uniform(data, state, 1 << chunk)
            codes[low] = code
            continue
        if count <= MOST_SPLIT:
            table = level * (MOST_SPLIT - 1) + count - 2
            left = take(data, state, cumulative, first[table], first[table + 1])
        else:
            left = take_uniform(data, state, count + 1)
        stack[depth] = low + left, high, level + 1, code << 1 | 1
        stack[depth + 1] = low, low + left, level + 1, code << 1
        depth += 2
    return codes
