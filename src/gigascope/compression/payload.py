"""The Gaussians of one brick as a string of bytes.

In the order of the stream: the cells, as numbers of Gaussians in the halves of the halves of the brick; amplitude and
scales row by row; ring, azimuth and roll, or the three components of the quaternion; places in the cells. What is
coded with equal probabilities has as many values as the steps that follow from what came before allow.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression import adaptive_law, fixed_law, frames, morton
from gigascope.compression.entropy import BITS, Damaged, Decoder, Tables, encode, take, take_uniform, uniform
from gigascope.compression.models import CHUNK, MOST_SPLIT, Models, ModelTables, ring_table
from gigascope.compression.quantise import Symbols, cell_codes
from gigascope.compression.quantiser import Quantiser

I64 = NDArray[np.int64]
# Numbers of Gaussians up to this are coded in a brick; more than one per 16 voxels of the largest useful brick.
MOST = 65_000

_njit = numba.njit(cache=True, nogil=True, error_model="numpy")


class Coder:
    """Encodes and decodes bricks of one file.

    Parameters
    ----------
    models : the file's
    shape : (z, y, x) of a whole brick
    quantiser : the law
    """

    def __init__(self, models: Models, shape: tuple[int, int, int], quantiser: Quantiser) -> None:
        self.shape = shape
        self.quantiser = quantiser
        self.tables = ModelTables(models, shape, quantiser)

    def encode(self, symbols: Symbols) -> bytes:
        """One brick; none for no Gaussians."""
        if len(symbols) == 0:
            return b""
        parts = [
            self._cell_parts(symbols),
            self._parameter_parts(symbols),
            *self._rotation_parts(symbols),
            _interleaved(uniform(symbols.place[:, axis], self._counts(symbols)[:, axis]) for axis in range(3)),
        ]
        return encode(*(np.concatenate(column) for column in zip(*parts)))

    def decode(self, data: bytes, n: int) -> Symbols:
        """The brick of `n` Gaussians.

        Raises
        ------
        Damaged : not what :meth:`encode` wrote
        """
        if n == 0:
            return Symbols.empty()
        decoder = Decoder(data)
        cell = morton.decode(self._read_cells(decoder, n), self.tables.bits)
        amplitude, scales = self._read_parameters(decoder, n)
        rotation = self._read_rotation(decoder, scales, amplitude)
        symbols = Symbols(*(column.astype(np.int32) for column in (cell, 0 * cell, scales, rotation, amplitude)))
        counts = self._counts(symbols)
        place = decoder.uniform(counts.ravel()).reshape(n, 3)
        decoder.end()
        return Symbols(symbols.cell, place.astype(np.int32), symbols.scales, symbols.rotation, symbols.amplitude)

    def _cell_parts(self, symbols: Symbols) -> tuple[I64, I64]:
        codes = cell_codes(symbols.cell, self.shape).astype(np.int64)
        parts = np.empty((len(codes) * (sum(self.tables.bits) + 1) + 1, 2), np.int64)
        tables = self.tables.cells
        n = _divide(codes, sum(self.tables.bits), tables.cumulative, tables.first, parts)
        return parts[:n, 0], parts[:n, 1]

    def _read_cells(self, decoder: Decoder, n: int) -> I64:
        tables = self.tables.cells
        return _gather(decoder.data, decoder.state, n, sum(self.tables.bits), tables.cumulative, tables.first)

    def _parameter_parts(self, symbols: Symbols) -> tuple[I64, I64]:
        steps = self.tables.steps
        size = np.abs(symbols.amplitude.astype(np.int64)) + steps.shift
        classes = steps.classes(symbols.amplitude)
        low, high = (bound.numpy() for bound in adaptive_law.class_bounds(torch.from_numpy(classes)))
        scales = symbols.scales.astype(np.int64)
        differences = (scales[:, 0] - steps.low[classes], scales[:, 0] - scales[:, 1], scales[:, 1] - scales[:, 2])
        rest, width = size - low, high - low
        below = np.maximum(0, _bit_length(width) - CHUNK)
        return _interleaved(
            [
                self.tables.amplitude.parts(classes, np.zeros_like(classes)),
                self.tables.amplitude.parts((symbols.amplitude < 0).astype(np.int64), np.ones_like(classes)),
                uniform(rest >> below, width >> below),
                uniform(rest & ((1 << below) - 1), 1 << below),
                *(self.tables.scales.parts(d, 3 * classes + k) for k, d in enumerate(differences)),
            ]
        )

    def _read_parameters(self, decoder: Decoder, n: int) -> tuple[I64, I64]:
        steps = self.tables.steps
        values = np.empty((n, 4), np.int64)
        _read_rows(
            decoder.data,
            decoder.state,
            *(self.tables.amplitude.cumulative, self.tables.amplitude.first),
            *(self.tables.scales.cumulative, self.tables.scales.first),
            *(steps.low, steps.shift, values),
        )
        return values[:, 0], values[:, 1:]

    def _rotation_parts(self, symbols: Symbols) -> list[tuple[I64, I64]]:
        rotation = symbols.rotation.astype(np.int64)
        if not self.quantiser.adaptive:
            width = np.full(len(symbols), fixed_law.rotation_values(self.quantiser))
            return [_interleaved(uniform(rotation[:, axis], width) for axis in range(3))]
        grid = self._grid(symbols.scales, symbols.amplitude)
        tables, which = _ring_tables(grid.n_rings.numpy())
        cells = frames.ring_cells(grid.n_rings, torch.from_numpy(rotation[:, 0])).numpy()
        turns = (uniform(rotation[:, 1], cells), uniform(rotation[:, 2], grid.n_rolls.numpy()))
        return [tables.parts(rotation[:, 0], which), _interleaved(turns)]

    def _read_rotation(self, decoder: Decoder, scales: I64, amplitude: I64) -> I64:
        n = len(amplitude)
        if not self.quantiser.adaptive:
            return decoder.uniform(np.full(3 * n, fixed_law.rotation_values(self.quantiser))).reshape(n, 3)
        grid = self._grid(scales, amplitude)
        ring = decoder.tables(*_ring_tables(grid.n_rings.numpy()))
        cells = frames.ring_cells(grid.n_rings, torch.from_numpy(ring)).numpy()
        turns = decoder.uniform(np.column_stack((cells, grid.n_rolls.numpy())).ravel()).reshape(n, 2)
        return np.column_stack((ring, turns))

    def _grid(self, scales: NDArray, amplitude: NDArray) -> adaptive_law.RotationGrid:
        given, sizes = (torch.from_numpy(np.asarray(values, np.int64)) for values in (scales, amplitude))
        return adaptive_law.RotationGrid.of(given, sizes, self.quantiser)

    def _counts(self, symbols: Symbols) -> I64:
        """(N, 3) places in a cell."""
        _, _, scales, rotation, amplitude = symbols.tensors
        if self.quantiser.adaptive:
            return adaptive_law.geometry(scales, rotation, amplitude, self.quantiser)[2].numpy()
        return fixed_law.geometry(scales, rotation, self.quantiser)[2].numpy()


def _interleaved(columns: Iterable[tuple[I64, I64]]) -> tuple[I64, I64]:
    """Parts of columns of equal length, row by row."""
    starts, frequencies = zip(*columns)
    return np.stack(starts, axis=1).ravel(), np.stack(frequencies, axis=1).ravel()


def _ring_tables(n_rings: I64) -> tuple[Tables, I64]:
    found, which = np.unique(n_rings, return_inverse=True)
    return Tables([_ring_table(int(n)) for n in found]), which.astype(np.int64)


@functools.lru_cache(maxsize=4096)
def _ring_table(n_rings: int) -> I64:
    return ring_table(n_rings)


def _bit_length(values: I64) -> I64:
    return np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1


@_njit
def _divide(codes, n_levels, cumulative, first, parts):  # type: ignore[no-untyped-def]
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


@_njit
def _gather(data, state, n_codes, n_levels, cumulative, first):  # type: ignore[no-untyped-def]
    """The sorted codes whose divisions :func:`_divide` coded."""
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


@_njit
def _read_rows(data, state, amplitude, amplitude_first, scales, scales_first, low, shift, values):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        c = take(data, state, amplitude, amplitude_first[0], amplitude_first[1])
        negative = take(data, state, amplitude, amplitude_first[1], amplitude_first[2])
        octave = 1 << c // 2
        middle = octave + (octave + 1) // 2
        start, width = (middle, 2 * octave - middle) if c % 2 == 1 else (octave, middle - octave)
        below = 0
        while width >> below > 1 << CHUNK:
            below += 1
        size = take_uniform(data, state, max(1, width >> below)) << below
        size += start + take_uniform(data, state, 1 << below) - shift
        values[i, 0] = -size if negative else size
        largest = low[c] + take(data, state, scales, scales_first[3 * c], scales_first[3 * c + 1])
        second = largest - take(data, state, scales, scales_first[3 * c + 1], scales_first[3 * c + 2])
        values[i, 1] = largest
        values[i, 2] = second
        values[i, 3] = second - take(data, state, scales, scales_first[3 * c + 2], scales_first[3 * c + 3])


__all__ = ["MOST", "Coder", "Damaged"]
