"""Level 0: Gaussians as plain columns of integers, one row each, that any reader of Zarr can decode.

Row i has a position (Z-order code of the place in the brick, in fixed point), three indices of log scales, a quaternion
(smallest three) and an amplitude (square root, with its sign). The law is :data:`LEVEL_0`, the fixed law.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression.gmix import fixed_law, morton
from gigascope.compression.gmix.quantise import CELL, LEVEL_0, Symbols, dequantise, quantise
from gigascope.compression.gmix.spool import Spool
from gigascope.compression.mixture import Mixture

# Bits of a component of the quaternion, and of the number of the one left out, which is always w in this frame.
ROTATION_BITS = LEVEL_0.rotation_bits


class Columns:
    """The columns of level 0 while bricks come in."""

    def __init__(self, folder: Path, brick: Sequence[int]) -> None:
        self.brick = brick
        self.bits = position_bits(brick)
        self.rows = 0
        self.largest = 0.0
        self._spools = {name: Spool(folder) for name in ("pos", "scl", "rot", "amp")}

    @property
    def position_dtype(self) -> np.dtype:
        """uint32 where the code fits."""
        return np.dtype(np.uint32 if sum(self.bits) <= 32 else np.uint64)

    @property
    def amplitude_scale(self) -> float:
        """Amplitude of the largest integer."""
        return self.largest or 1.0

    def append(self, mixture: Mixture) -> None:
        """The Gaussians of the next brick, means relative to its first voxel."""
        symbols, order = quantise(mixture, self.brick, LEVEL_0)
        position = symbols.cell.astype(np.int64) * (CELL << LEVEL_0.position_bits) + symbols.place
        codes = morton.encode(position, self.bits)
        rank = np.argsort(codes, kind="stable")
        x, y, z = symbols.rotation[rank].astype(np.uint32).T
        amplitudes = mixture.amplitudes.numpy()[order][rank]
        columns = {
            "pos": codes[rank].astype(self.position_dtype),
            "scl": symbols.scales[rank].astype(np.uint8),
            "rot": x | y << ROTATION_BITS | z << 2 * ROTATION_BITS,
            # as they are: the scale is known at the end
            "amp": amplitudes.astype(np.float32),
        }
        for name, values in columns.items():
            self._spools[name].append(np.ascontiguousarray(values).tobytes())
        self.rows += len(mixture)
        self.largest = max(self.largest, float(np.abs(amplitudes).max(initial=0.0)))

    def piece(self, name: str, start: int, stop: int) -> NDArray:
        """Rows of a column, as they stand in the file."""
        width = {"pos": (self.position_dtype, 1), "scl": (np.dtype(np.uint8), 3), "rot": (np.dtype(np.uint32), 1)}
        dtype, n = width.get(name, (np.dtype(np.float32), 1))
        size = dtype.itemsize * n
        values = np.frombuffer(self._spools[name].part(start * size, stop * size), dtype)
        if name == "amp":
            given = torch.from_numpy(values.astype(np.float64))
            return fixed_law.amplitude_integers(given, LEVEL_0, self.amplitude_scale).numpy().astype(np.int16)
        return values.reshape(-1, n) if n > 1 else values

    def close(self) -> None:
        """Drop the temporary files."""
        for spool in self._spools.values():
            spool.close()


def position_bits(brick: Sequence[int]) -> tuple[int, ...]:
    """Bits of the position along each axis."""
    return morton.bits_of([n << LEVEL_0.position_bits for n in brick])


def decode(
    pos: NDArray, scl: NDArray, rot: NDArray, amp: NDArray, brick: Sequence[int], amplitude_scale: float
) -> Mixture:
    """Gaussians of rows of the columns, means relative to the brick's first voxel."""
    position = morton.decode(pos, position_bits(brick))
    cell, place = np.divmod(position, CELL << LEVEL_0.position_bits)
    mask = (1 << ROTATION_BITS) - 1
    rotation = np.stack([rot >> shift & mask for shift in (0, ROTATION_BITS, 2 * ROTATION_BITS)], axis=1)
    columns = (column.astype(np.int32) for column in (cell, place, scl, rotation, amp))
    return dequantise(Symbols(*columns), brick, LEVEL_0, amplitude_scale)
