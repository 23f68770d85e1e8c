"""Chunks as they lie in the store into stacks, on the device: squares joined, packed green put on the full grid."""

from __future__ import annotations

import torch
from torch import Tensor

from gigascope.errors import ShapeError

# Slices that a processor fills at once, bytes of packed green: temporaries stay in its cache.
_CACHED = 1 << 18


def join_chunks(chunks: Tensor, first: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """A square of a stack out of the chunks that cover it.

    Parameters
    ----------
    chunks : (i, j, z, a, b), a grid of chunks of b columns
    first : (row, column) of the square in the grid, samples
    shape : (rows, columns) of the square

    Returns
    -------
    (z, rows, columns), of the same dtype

    Raises
    ------
    ShapeError : the square is not covered
    """
    i, j, z, a, b = chunks.shape
    if min(first) < 0 or first[0] + shape[0] > i * a or first[1] + shape[1] > j * b:
        raise ShapeError(f"join_chunks: {shape} at {first} is not within {i} x {j} chunks of {(a, b)}")
    out = chunks.new_empty((z, *shape))
    # chunk by chunk: one copy of what is needed, and none of the borders
    for n in range(i):
        rows = max(first[0], n * a), min(first[0] + shape[0], (n + 1) * a)
        for m in range(j):
            cols = max(first[1], m * b), min(first[1] + shape[1], (m + 1) * b)
            if rows[0] < rows[1] and cols[0] < cols[1]:
                part = chunks[n, m, :, rows[0] - n * a : rows[1] - n * a, cols[0] - m * b : cols[1] - m * b]
                out[:, rows[0] - first[0] : rows[1] - first[0], cols[0] - first[1] : cols[1] - first[1]] = part
    return out


def unpack_green(packed: Tensor, offset: int, out: Tensor | None = None) -> Tensor:
    """Packed green on the full grid; the other sites get the mean of their neighbours above, below, left and right.

    Parameters
    ----------
    packed : (z, rows, columns / 2) uint8 or uint16, rows and columns / 2 of 2 at least; entry (r, j) is the site
        (r, 2 j + (r + offset) mod 2)
    offset : column of the green site in even rows, 0 or 1, see :func:`gigascope.topography.capture.bayer.green_offset`
    out : where the result goes, of its shape and dtype

    Returns
    -------
    (z, rows, columns) of the same dtype; means are rounded half up, at borders the neighbours that are there count

    Raises
    ------
    ShapeError : another shape or dtype

    Notes
    -----
    A quincunx lattice: all four neighbours of a site that is not green are. :func:`..capture.bayer.unpack_green` is the
    same on arrays.
    """
    z, rows, half = packed.shape
    if min(rows, half) < 2 or packed.dtype not in (torch.uint8, torch.uint16) or offset not in (0, 1):
        raise ShapeError(f"unpack_green: got {tuple(packed.shape)} {packed.dtype}, offset {offset}")
    if out is None:
        out = packed.new_empty((z, rows, 2 * half))
    elif out.shape != (z, rows, 2 * half) or out.dtype != packed.dtype:
        raise ShapeError(f"unpack_green: out: expected {(z, rows, 2 * half)} {packed.dtype}, got {tuple(out.shape)}")
    step = max(1, _CACHED // (rows * half)) if packed.device.type == "cpu" else z
    for first in range(0, z, step):
        _unpack(packed[first : first + step], offset, out[first : first + step])
    return out


def _unpack(packed: Tensor, offset: int, out: Tensor) -> None:
    # torch has no arithmetic on uint16
    p = packed.to(torch.int16 if packed.dtype == torch.uint8 else torch.int32)
    half = p.shape[2]
    total = p.clone()
    total[:, 1:] += p[:, :-1]
    total[:, :-1] += p[:, 1:]
    # rows whose green comes first in a pair: the site after it has the next pair's green on its right, and so on
    early, late = slice(offset, None, 2), slice(1 - offset, None, 2)
    total[:, early, :-1] += p[:, early, 1:]
    total[:, late, 1:] += p[:, late, :-1]
    mean = (total + 2) >> 2
    count = torch.full((p.shape[1], half), 4, dtype=p.dtype, device=p.device)
    count[0] -= 1
    count[-1] -= 1
    count[early, -1] -= 1
    count[late, 0] -= 1
    for edge in ((slice(0, 1),), (slice(-1, None),), (slice(None), slice(0, 1)), (slice(None), slice(-1, None))):
        at = (slice(None), *edge)
        mean[at] = (2 * total[at] + count[edge]).div(2 * count[edge], rounding_mode="floor")
    out[:, early, 0::2], out[:, early, 1::2] = packed[:, early], mean[:, early].to(out.dtype)
    out[:, late, 1::2], out[:, late, 0::2] = packed[:, late], mean[:, late].to(out.dtype)
