"""The parameters of the Gaussians of a brick as symbols, one row after the other, compiled.

One function codes and decodes, so that the two cannot differ: it goes through the rows, works out how likely each value
of each symbol is, and either notes the part of the interval that the value has, or takes the value off the stream.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gmix import direction_bins, law_rows, neighbours
from gigascope.compression.gmix.compiled import compiled
from gigascope.compression.gmix.entropy import TOTAL, U8, advance, take, take_uniform

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

# Binary digits of log scales behind the point, where their distributions are concerned.
POINT = 16
# Fine steps of the distributions of the scales, and the binary digits of their sums.
N_FINE = 512
SUM_BITS = 24
# Weights of a prediction have this many binary digits behind the point.
WEIGHT_BITS = 6
# What predicts a log scale: 1, class, largest and second log scale, means of the three scales and the class around.
N_INPUTS = 8
# Binary digits of an integer that are coded with equal probabilities in one step.
CHUNK = 12


class RowModel(NamedTuple):
    """Probabilities as compiled code takes them; see :mod:`gigascope.compression.gmix.models`.

    Attributes
    ----------
    classes : cumulative table of the classes of the amplitude
    negative : by octave of the amplitude, of 2^16, how many are negative
    low, high : by class, smallest and largest integer of a log scale
    step, base : by class, and of the integer 0, log scales with POINT binary digits
    usual : means of the log scales and of the class, for a row without neighbours
    weights : (3, N_INPUTS) of the predictions
    width : (3,) half the range of the distributions around the predictions
    density : (3, N_FINE + 1) their sums
    turns : (N_KINDS, N_ALIGNED) weights of directions by alignment
    centres : directions of the bins
    counted : cells of the grids of directions; see direction_bins.cells_of
    """

    classes: I64
    negative: I64
    low: I64
    high: I64
    step: I64
    base: int
    usual: I64
    weights: I64
    width: I64
    density: I64
    turns: I64
    centres: F64
    counted: I64


class Stream(NamedTuple):
    """Where symbols come from, or go to.

    Attributes
    ----------
    decoding : which of the two
    data, state : of a running decoder
    parts : (n, 2) starts and frequencies
    filled : (1,) how many there are
    """

    decoding: bool
    data: U8
    state: NDArray[np.uint64]
    parts: I64
    filled: I64


@compiled
def _put(stream, start, frequency):  # type: ignore[no-untyped-def]
    n = stream.filled[0]
    stream.parts[n, 0], stream.parts[n, 1] = start, frequency
    stream.filled[0] = n + 1


@compiled
def _uniform(stream, value, count):  # type: ignore[no-untyped-def]
    if stream.decoding:
        return take_uniform(stream.data, stream.state, count)
    start = value * TOTAL // count
    _put(stream, start, (value + 1) * TOTAL // count - start)
    return value


@compiled
def _by_table(stream, value, cumulative):  # type: ignore[no-untyped-def]
    if stream.decoding:
        return take(stream.data, stream.state, cumulative, 0, len(cumulative))
    _put(stream, cumulative[value], cumulative[value + 1] - cumulative[value])
    return value


@compiled
def _bit(stream, value, share):  # type: ignore[no-untyped-def]
    """A bit that is 1 in `share` of 2^16 cases."""
    if stream.decoding:
        slot = np.int64(stream.state[0] & np.uint64(TOTAL - 1))
        value = 1 if slot < share else 0
        advance(stream.data, stream.state, 0 if value else share, share if value else TOTAL - share)
    else:
        _put(stream, 0 if value else share, share if value else TOTAL - share)
    return value


@compiled
def _amplitude(model, law, stream, value):  # type: ignore[no-untyped-def]
    size = abs(value) + law.shift
    c = law_rows.amplitude_class(size) if not stream.decoding else 0
    c = _by_table(stream, c, model.classes)
    negative = _bit(stream, 1 if value < 0 else 0, model.negative[c // 2])
    low, high = law_rows.class_bounds(c)
    width = high - low
    below = 0
    while width >> below > 1 << CHUNK:
        below += 1
    rest = size - low
    upper = _uniform(stream, rest >> below, max(1, width >> below))
    lower = _uniform(stream, rest & (1 << below) - 1, 1 << below)
    size = low + (upper << below | lower) - law.shift
    return (-size if negative else size), c


@compiled
def _edge(i, first, last, step, base, width, density):  # type: ignore[no-untyped-def]
    """Start, of 2^16, of the integer i of a log scale, first <= i <= last; `base` is relative to the prediction."""
    if i <= first:
        return 0
    if i > last:
        return TOTAL
    x = min(max(base + i * step - step // 2 + width, 0), 2 * width) * N_FINE
    cell = min(x // (2 * width), N_FINE - 1)
    rest = x - cell * 2 * width
    value = density[cell] + (density[cell + 1] - density[cell]) * rest // (2 * width)
    return (value * (TOTAL - (last - first + 1)) >> SUM_BITS) + i - first


@compiled
def _scale(stream, value, first, last, step, base, width, density):  # type: ignore[no-untyped-def]
    if stream.decoding:
        slot = np.int64(stream.state[0] & np.uint64(TOTAL - 1))
        low, high = first, last + 1
        while high - low > 1:
            middle = (low + high) >> 1
            if _edge(middle, first, last, step, base, width, density) <= slot:
                low = middle
            else:
                high = middle
        value = low
    start = _edge(value, first, last, step, base, width, density)
    frequency = _edge(value + 1, first, last, step, base, width, density) - start
    if stream.decoding:
        advance(stream.data, stream.state, start, frequency)
    else:
        _put(stream, start, frequency)
    return value


@compiled
def predicted(weights, inputs):  # type: ignore[no-untyped-def]
    """Log scale that the inputs let expect, POINT binary digits."""
    total = 0
    for k in range(N_INPUTS):
        total += weights[k] * inputs[k]
    return total >> WEIGHT_BITS


@compiled
def fill_inputs(inputs, c, around):  # type: ignore[no-untyped-def]
    """Inputs of the predictions but the scales of the row itself."""
    inputs[0] = 1 << POINT
    inputs[1] = c << POINT - 2
    inputs[2] = inputs[3] = 0
    for k in range(4):
        inputs[4 + k] = around[k]


@compiled
def _direction(model, stream, n_rings, ring, azimuth, kind, bins, scratch):  # type: ignore[no-untyped-def]
    counts = direction_bins.cells_of(n_rings, model.counted, scratch)
    total, n_some = 0, 0
    for k in range(direction_bins.N_BINS):
        if counts[k] > 0:
            total += counts[k] * model.turns[kind, bins[k]]
            n_some += 1
    room = TOTAL - n_some
    wanted, place = -1, 0
    slot = np.int64(0)
    if stream.decoding:
        slot = np.int64(stream.state[0] & np.uint64(TOTAL - 1))
    else:
        wanted, place = direction_bins.place_in_bin(n_rings, ring, azimuth)
    start, sums, before = 0, 0, 0
    for k in range(direction_bins.N_BINS):
        if counts[k] == 0:
            continue
        sums += counts[k] * model.turns[kind, bins[k]]
        before += 1
        end = sums * room // total + before
        if k == wanted or (stream.decoding and slot < end):
            wanted = k
            break
        start = end
    if stream.decoding:
        advance(stream.data, stream.state, start, end - start)
    else:
        _put(stream, start, end - start)
    place = _uniform(stream, place, counts[wanted])
    if stream.decoding:
        return direction_bins.cell_at(n_rings, wanted, place)
    return ring, azimuth


@compiled
def strength(l_pole, l_1, l_2):  # type: ignore[no-untyped-def]
    """How much the square of a scale stands out of the other two, -1/2 .. 1, 0 for a sphere."""
    a, b, c = law_rows.exp(2 * l_pole), law_rows.exp(2 * l_1), law_rows.exp(2 * l_2)
    return (a - (b + c) / 2) / (a + b + c)


@compiled
def code(model, law, stream, cells, scales, rotation, amplitude, place):  # type: ignore[no-untyped-def]
    """Code the rows, or decode them into the four arrays, int64."""
    n = len(cells)
    values = np.empty((n, 4), np.int64)
    poles, strengths = np.zeros((n, 3)), np.zeros(n)
    rows = np.empty(neighbours.N_EARLIER + neighbours.N_PLACES, np.int64)
    squares = np.empty_like(rows)
    around, inputs = np.empty(4, np.int64), np.empty(N_INPUTS, np.int64)
    tensor, bins = np.empty((3, 3)), np.empty(direction_bins.N_BINS, np.int64)
    scratch = np.empty_like(bins)
    for i in range(n):
        neighbours.find(cells, i, rows, squares)
        amplitude[i], c = _amplitude(model, law, stream, amplitude[i])
        neighbours.means(rows, squares, values, model.usual, around)
        fill_inputs(inputs, c, around)
        step, last = model.step[c], model.high[c]
        for k in range(3):
            base = model.base - predicted(model.weights[k], inputs)
            width, density = model.width[k], model.density[k]
            scales[i, k] = _scale(stream, scales[i, k], model.low[c], last, step, base, width, density)
            last = scales[i, k]
            values[i, k] = model.base + last * step
            if k < 2:
                inputs[2 + k] = values[i, k]
        values[i, 3] = c << POINT - 2
        if law.adaptive:
            near = rows, squares, poles, strengths
            _code_frame(model, law, stream, cells, i, c, scales[i], rotation[i], near, tensor, bins, scratch)
        else:
            for k in range(3):
                rotation[i, k] = _uniform(stream, rotation[i, k], 2 * law.half + 1)
        counts = law_rows.geometry(law, c, scales[i], rotation[i])[2]
        for k in range(3):
            place[i, k] = _uniform(stream, place[i, k], counts[k])


@compiled
def _code_frame(model, law, stream, cells, i, c, scales, rotation, near, tensor, bins, scratch):  # type: ignore[no-untyped-def]
    rows, squares, poles, strengths = near
    step = law.step[c]
    n_rings, n_rolls, last = law_rows.rotation_grid(scales[0], scales[1], scales[2], law.delta[c], step)
    if n_rings > 0:
        neighbours.alignment(cells, i, rows, squares, poles, strengths, tensor)
        direction_bins.aligned(tensor, model.centres, bins)
        difference = max(scales[0] - scales[1], scales[1] - scales[2]) * step
        kind = direction_bins.kind_of(last, difference)
        rotation[0], rotation[1] = _direction(model, stream, n_rings, rotation[0], rotation[1], kind, bins, scratch)
    elif stream.decoding:
        rotation[0] = rotation[1] = 0
    rotation[2] = _uniform(stream, rotation[2], n_rolls)
    z, y, x = law_rows.direction(n_rings, rotation[0], rotation[1])
    poles[i, 0], poles[i, 1], poles[i, 2] = z, y, x
    l_1, l_2, l_3 = scales[0] * step, scales[1] * step, scales[2] * step
    strengths[i] = strength(l_3, l_1, l_2) if last else strength(l_1, l_2, l_3)


@compiled
def describe(model, law, cells, scales, rotation, amplitude, around, kinds, mass, seen):  # type: ignore[no-untyped-def]
    """What the fit of the probabilities needs of each row, with the weights of the model left out of account.

    Fills `around` (n, 4), the means over the neighbours; `kinds` (n,), -1 without a direction; `mass` (n, N_ALIGNED),
    the cells of the grid of directions by alignment; `seen` (n,), the alignment of the direction.
    """
    n = len(cells)
    values = np.empty((n, 4), np.int64)
    poles, strengths = np.zeros((n, 3)), np.zeros(n)
    rows = np.empty(neighbours.N_EARLIER + neighbours.N_PLACES, np.int64)
    squares = np.empty_like(rows)
    tensor, bins = np.empty((3, 3)), np.empty(direction_bins.N_BINS, np.int64)
    scratch = np.empty_like(bins)
    for i in range(n):
        neighbours.find(cells, i, rows, squares)
        neighbours.means(rows, squares, values, model.usual, around[i])
        c = law_rows.amplitude_class(abs(amplitude[i]) + law.shift)
        for k in range(3):
            values[i, k] = model.base + scales[i, k] * model.step[c]
        values[i, 3] = c << POINT - 2
        kinds[i] = -1
        if not law.adaptive:
            continue
        step = law.step[c]
        n_rings, _, last = law_rows.rotation_grid(scales[i, 0], scales[i, 1], scales[i, 2], law.delta[c], step)
        z, y, x = law_rows.direction(n_rings, rotation[i, 0], rotation[i, 1])
        poles[i, 0], poles[i, 1], poles[i, 2] = z, y, x
        l_1, l_2, l_3 = scales[i, 0] * step, scales[i, 1] * step, scales[i, 2] * step
        strengths[i] = strength(l_3, l_1, l_2) if last else strength(l_1, l_2, l_3)
        if n_rings == 0:
            continue
        neighbours.alignment(cells, i, rows, squares, poles, strengths, tensor)
        direction_bins.aligned(tensor, model.centres, bins)
        kinds[i] = direction_bins.kind_of(last, max(scales[i, 0] - scales[i, 1], scales[i, 1] - scales[i, 2]) * step)
        counts = direction_bins.cells_of(n_rings, model.counted, scratch)
        for k in range(direction_bins.N_BINS):
            mass[i, bins[k]] += counts[k]
        chosen, _ = direction_bins.place_in_bin(n_rings, rotation[i, 0], rotation[i, 1])
        seen[i] = bins[chosen]
