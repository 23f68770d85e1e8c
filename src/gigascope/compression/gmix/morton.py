"""Z-order of positions in a box whose sides may have different numbers of bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bit_axes(bits: Sequence[int]) -> list[tuple[int, int]]:
    """(axis, bit of that axis) of each bit of the code, the most significant first; long axes begin earlier."""
    return [
        (axis, bit) for bit in reversed(range(max(bits, default=0))) for axis in range(len(bits)) if bit < bits[axis]
    ]


def encode(points: ArrayLike, bits: Sequence[int]) -> NDArray[np.uint64]:
    """Z-order code of integer points.

    Parameters
    ----------
    points : (..., n) integers, component j below ``2**bits[j]``
    bits : bits of each component, at most 64 in all

    Returns
    -------
    (...) uint64
    """
    points = np.asarray(points).astype(np.uint64)
    code = np.zeros(points.shape[:-1], np.uint64)
    for axis, bit in bit_axes(bits):
        code = (code << np.uint64(1)) | ((points[..., axis] >> np.uint64(bit)) & np.uint64(1))
    return code


def decode(codes: ArrayLike, bits: Sequence[int]) -> NDArray[np.int64]:
    """(..., n) int64, the points of (...) codes."""
    codes = np.asarray(codes).astype(np.uint64)
    points = np.zeros((*codes.shape, len(bits)), np.uint64)
    for place, (axis, bit) in enumerate(reversed(bit_axes(bits))):
        points[..., axis] |= ((codes >> np.uint64(place)) & np.uint64(1)) << np.uint64(bit)
    return points.astype(np.int64)


def bits_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Bits that hold every index below `shape`, per axis."""
    return tuple(max(0, int(n) - 1).bit_length() for n in shape)
