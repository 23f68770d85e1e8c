"""Asymmetric numeral systems: integers in as many bits as their probabilities say, and tables of such probabilities.

rANS (Duda, arXiv:1311.2540) with 32-bit states, bytes, and frequencies that sum to 2^16. What was coded last is decoded
first, so coders collect all (start, frequency) in the order of decoding and hand them over at once. The state begins
at 0 and not, as usual, at the lower end of its interval: a stream costs its information and two bytes on average.
A decoder that ends with another state than 0, or with bytes left, has not read what was written; the reverse does not
hold, so files have checksums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.compression.gmix.compiled import compiled
from gigascope.errors import ShapeError

BITS = 16
TOTAL = 1 << BITS
# states of a running decoder are at least this large
LOW = 1 << 23

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


class Damaged(ValueError):
    """A stream is not one that :func:`encode` wrote."""


def encode(starts: ArrayLike, frequencies: ArrayLike) -> bytes:
    """One stream of symbols that are given by their part of the interval 0 .. 2^16, in the order of decoding.

    Raises
    ------
    ShapeError : parts that are empty or not within the interval
    """
    starts, frequencies = np.asarray(starts, np.int64), np.asarray(frequencies, np.int64)
    if starts.shape != frequencies.shape or starts.ndim != 1:
        raise ShapeError(f"starts {starts.shape} and frequencies {frequencies.shape} are no two lists of one length")
    if len(starts) and (starts.min() < 0 or frequencies.min() < 1 or (starts + frequencies).max() > TOTAL):
        raise ShapeError("a symbol to be coded has no probability")
    buffer = np.empty(2 * len(starts) + 4, np.uint8)
    first = _encode(starts, frequencies, buffer)
    return buffer[first:].tobytes()


def uniform(values: ArrayLike, counts: ArrayLike) -> tuple[I64, I64]:
    """Start and frequency of values with equal probabilities among `counts` (at most 2^16)."""
    values, counts = np.asarray(values, np.int64), np.asarray(counts, np.int64)
    starts = values * TOTAL // counts
    return starts, (values + 1) * TOTAL // counts - starts


class Decoder:
    """A stream while it is decoded; kernels take `data` and `state`, and leave the state behind the last symbol."""

    def __init__(self, data: bytes) -> None:
        self.data: U8 = np.frombuffer(data, np.uint8)
        self.state: NDArray[np.uint64] = np.zeros(2, np.uint64)
        _refill(self.data, self.state)

    def uniform(self, counts: I64) -> I64:
        """(N,) int64, values with equal probabilities among `counts` (N,)."""
        return _uniform(self.data, self.state, np.ascontiguousarray(counts, np.int64))

    def tables(self, tables: Tables, which: I64) -> I64:
        """(N,) int64, values by the tables `which` (N,)."""
        return _by_tables(self.data, self.state, tables.cumulative, tables.first, np.ascontiguousarray(which, np.int64))

    def end(self) -> None:
        """Check that all has been read.

        Raises
        ------
        Damaged : it has not
        """
        if self.state[0] != 0 or int(self.state[1]) != len(self.data):
            raise Damaged("the decoder did not end where the coder began")


class Tables:
    """Probabilities of the values 0, 1, ... for several kinds of symbols.

    Attributes
    ----------
    cumulative : int64, for table t the entries first[t] .. first[t + 1]: 0, ..., 2^16
    first : (n + 1,) int64
    """

    def __init__(self, tables: Sequence[I64]) -> None:
        lengths = np.array([len(table) for table in tables], np.int64)
        self.first: I64 = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        self.cumulative: I64 = np.concatenate(tables).astype(np.int64) if tables else np.zeros(0, np.int64)

    def parts(self, values: I64, which: I64) -> tuple[I64, I64]:
        """Start and frequency of `values` (N,) by the tables `which` (N,)."""
        at = self.first[which] + values
        if len(at) and ((values < 0) | (at + 1 >= self.first[which + 1])).any():
            raise ShapeError("a value to be coded is outside its table")
        return self.cumulative[at], self.cumulative[at + 1] - self.cumulative[at]


def cumulative(weights: ArrayLike) -> I64:
    """(n + 1,) int64, 0 .. 2^16, from n weights >= 0; every value gets a probability. Integer arithmetic throughout."""
    weights = np.asarray(weights, np.int64)
    if not 0 < len(weights) < TOTAL // 2:
        raise ShapeError(f"a table has 1 to {TOTAL // 2} values, got {len(weights)}")
    sums = np.concatenate(([0], np.cumsum(weights)))
    places = np.arange(len(sums), dtype=np.int64)
    if sums[-1] == 0:
        return places * TOTAL // len(weights)
    return sums * (TOTAL - len(weights)) // sums[-1] + places


# integers of unknown distribution


def encode_integers(columns: Sequence[ArrayLike]) -> bytes:
    """One stream of columns of integers, |v| < 2^62; learns the distribution of each column as it goes.

    A value is the length of its binary form (coded bit by bit, given the length of the value before it) and what
    follows the leading bit. Good for short columns of small or slowly changing numbers.
    """
    lengths = np.array([np.size(column) for column in columns], np.int64)
    values = np.concatenate([np.asarray(column, np.int64).ravel() for column in columns] or [np.zeros(0, np.int64)])
    # the length in unary, and the digits after the first; zigzag doubles the size
    digits = np.frexp(np.abs(values).astype(np.float64))[1].astype(np.int64) + 2
    parts = np.empty((int((2 * digits + 1).sum()) + 1, 2), np.int64)
    n_parts = _model_integers(values, lengths, parts)
    return encode(parts[:n_parts, 0], parts[:n_parts, 1])


def decode_integers(data: bytes, lengths: Sequence[int]) -> list[I64]:
    """The columns, whose lengths are known.

    Raises
    ------
    Damaged : not what :func:`encode_integers` wrote for columns of these lengths
    """
    decoder = Decoder(data)
    columns = [integers(decoder, length) for length in lengths]
    decoder.end()
    return columns


def integers(decoder: Decoder, length: int) -> I64:
    """The next column of a stream of :func:`encode_integers`."""
    values = np.empty(length, np.int64)
    if not _read_integers(decoder.data, decoder.state, values):
        raise Damaged("an integer is too long")
    return values


@compiled
def _encode(starts, frequencies, buffer):  # type: ignore[no-untyped-def]
    x = np.uint64(0)
    place = len(buffer)
    for i in range(len(starts) - 1, -1, -1):
        frequency = np.uint64(frequencies[i])
        while x >= frequency << np.uint64(15):
            place -= 1
            buffer[place] = x & np.uint64(255)
            x >>= np.uint64(8)
        x = ((x // frequency) << np.uint64(BITS)) + x % frequency + np.uint64(starts[i])
    while x > 0:
        place -= 1
        buffer[place] = x & np.uint64(255)
        x >>= np.uint64(8)
    return place


@compiled
def _refill(data, state):  # type: ignore[no-untyped-def]
    x, place = state[0], state[1]
    while x < LOW and place < len(data):
        x = (x << np.uint64(8)) | np.uint64(data[place])
        place += np.uint64(1)
    state[0], state[1] = x, place


@compiled
def advance(data, state, start, frequency):  # type: ignore[no-untyped-def]
    """Take the symbol with this part of the interval off the stream."""
    x = state[0]
    state[0] = np.uint64(frequency) * (x >> np.uint64(BITS)) + (x & np.uint64(TOTAL - 1)) - np.uint64(start)
    _refill(data, state)


@compiled
def take_uniform(data, state, count):  # type: ignore[no-untyped-def]
    """Next of `count` equally probable values."""
    slot = np.int64(state[0] & np.uint64(TOTAL - 1))
    value = ((slot + 1) * count - 1) >> BITS
    start = value * TOTAL // count
    advance(data, state, start, (value + 1) * TOTAL // count - start)
    return value


@compiled
def take(data, state, cumulative, first, stop):  # type: ignore[no-untyped-def]
    """Next value by the table `cumulative[first:stop]`."""
    slot = np.int64(state[0] & np.uint64(TOTAL - 1))
    low, high = first, stop - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if cumulative[middle] <= slot:
            low = middle
        else:
            high = middle
    advance(data, state, cumulative[low], cumulative[low + 1] - cumulative[low])
    return low - first


@compiled
def _uniform(data, state, counts):  # type: ignore[no-untyped-def]
    values = np.empty(len(counts), np.int64)
    for i in range(len(counts)):
        values[i] = take_uniform(data, state, counts[i])
    return values


@compiled
def _by_tables(data, state, cumulative, first, which):  # type: ignore[no-untyped-def]
    values = np.empty(len(which), np.int64)
    for i in range(len(which)):
        values[i] = take(data, state, cumulative, first[which[i]], first[which[i] + 1])
    return values


# Adaptive bits: probability of a 1 in 1/65536, and how many were seen. The first are weighed like the estimate of
# Krichevsky and Trofimov, later ones so that the last 64 count.
_MEMORY = 64
_LENGTHS = 64


@compiled
def _learn(model, bit):  # type: ignore[no-untyped-def]
    model[1] = min(model[1] + 1, _MEMORY)
    target = TOTAL * bit
    model[0] += (target - model[0]) * 2 // (2 * model[1] + 1)
    model[0] = min(max(model[0], 64), TOTAL - 64)


@compiled
def _new_models():  # type: ignore[no-untyped-def]
    # [length before, at most 8][bit of the unary length], then [length][second bit]
    models = np.zeros((10, _LENGTHS, 2), np.int64)
    models[:, :, 0] = TOTAL // 2
    return models


@compiled
def _model_integers(values, lengths, parts):  # type: ignore[no-untyped-def]
    n = 0
    place = 0
    for length in lengths:
        models = _new_models()
        before = 0
        for _ in range(length):
            v = values[place]
            place += 1
            # 0, -1, 1, -2, ... become 1, 2, 3, 4, ...
            u = (v << 1 ^ v >> 63) + 1
            size = 0
            while u >> size > 1:
                size += 1
            for k in range(size + 1):
                model = models[before, k]
                bit = 1 if k < size else 0
                p = model[0]
                parts[n, 0] = 0 if bit else p
                parts[n, 1] = p if bit else TOTAL - p
                n += 1
                _learn(model, bit)
            for k in range(size - 1, -1, -1):
                bit = u >> k & 1
                model = models[9, size]
                p = model[0] if k == size - 1 else TOTAL // 2
                parts[n, 0] = 0 if bit else p
                parts[n, 1] = p if bit else TOTAL - p
                n += 1
                if k == size - 1:
                    _learn(model, bit)
            before = min(size, 8)
    return n


@compiled
def _take_bit(data, state, p):  # type: ignore[no-untyped-def]
    if np.int64(state[0] & np.uint64(TOTAL - 1)) < p:
        advance(data, state, 0, p)
        return 1
    advance(data, state, p, TOTAL - p)
    return 0


@compiled
def _read_integers(data, state, values):  # type: ignore[no-untyped-def]
    models = _new_models()
    before = 0
    for i in range(len(values)):
        size = 0
        while True:
            model = models[before, size]
            bit = _take_bit(data, state, model[0])
            _learn(model, bit)
            if bit == 0:
                break
            size += 1
            if size >= _LENGTHS:
                return False
        u = 1
        for k in range(size - 1, -1, -1):
            model = models[9, size]
            bit = _take_bit(data, state, model[0] if k == size - 1 else TOTAL // 2)
            if k == size - 1:
                _learn(model, bit)
            u = u << 1 | bit
        u -= 1
        values[i] = u >> 1 ^ -(u & 1)
        before = min(size, 8)
    return True
