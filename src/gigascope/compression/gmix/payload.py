"""The Gaussians of one brick as a string of bytes.

First the cells, as numbers of Gaussians in the halves of the halves of the brick, then the parameters row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gmix import cell_code, law_rows, models, morton, row_code
from gigascope.compression.gmix.entropy import Damaged, Decoder, encode
from gigascope.compression.gmix.models import Models
from gigascope.compression.gmix.quantise import Symbols, cell_bits, cell_codes
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.gmix.row_code import Stream

I64 = NDArray[np.int64]
# Numbers of Gaussians up to this are coded in a brick; more than one per 16 voxels of the largest useful brick.
MOST = 65_000
# Symbols of a row at most: class, sign, two of the amplitude, scales, two of a direction, roll, places.
_PER_ROW = 16


class Coder:
    """Encodes and decodes bricks of one file.

    Parameters
    ----------
    found : the file's probabilities
    shape : (z, y, x) of a whole brick
    quantiser : the law
    """

    def __init__(self, found: Models, shape: tuple[int, int, int], quantiser: Quantiser) -> None:
        self.shape = shape
        self.bits = cell_bits(shape)
        self.law = law_rows.law_rows(quantiser, 1.0)
        self.model = models.row_model(found, quantiser, self.law)
        self.splits = models.split_tables(found, sum(self.bits))

    def encode(self, symbols: Symbols) -> bytes:
        """One brick; none for no Gaussians."""
        return encode(*self.parts(symbols)) if len(symbols) else b""

    def parts(self, symbols: Symbols) -> tuple[I64, I64]:
        """Start and frequency of each symbol of a brick."""
        n, n_levels = len(symbols), sum(self.bits)
        codes = cell_codes(symbols.cell, self.shape).astype(np.int64)
        parts = np.empty((n * (n_levels + 1 + _PER_ROW) + 1, 2), np.int64)
        count = cell_code.divide(codes, n_levels, self.splits.cumulative, self.splits.first, parts)
        stream = Stream(False, np.zeros(0, np.uint8), np.zeros(2, np.uint64), parts, np.array([count]))
        cell, place, scales, rotation, amplitude = (column.astype(np.int64) for column in symbols.columns)
        row_code.code(self.model, self.law, stream, cell, scales, rotation, amplitude, place)
        return parts[: stream.filled[0], 0], parts[: stream.filled[0], 1]

    def decode(self, data: bytes, n: int) -> Symbols:
        """The brick of `n` Gaussians.

        Raises
        ------
        Damaged : not what :meth:`encode` wrote
        """
        if n == 0:
            return Symbols.empty()
        decoder = Decoder(data)
        tables = self.splits
        codes = cell_code.gather(decoder.data, decoder.state, n, sum(self.bits), tables.cumulative, tables.first)
        cell = morton.decode(codes, self.bits)
        scales, rotation, place = (np.zeros((n, 3), np.int64) for _ in range(3))
        amplitude = np.zeros(n, np.int64)
        stream = Stream(True, decoder.data, decoder.state, np.zeros((0, 2), np.int64), np.zeros(1, np.int64))
        row_code.code(self.model, self.law, stream, cell, scales, rotation, amplitude, place)
        decoder.end()
        return Symbols(*(column.astype(np.int32) for column in (cell, place, scales, rotation, amplitude)))


__all__ = ["MOST", "Coder", "Damaged"]
