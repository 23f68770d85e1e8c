"""Chunks as they lie in the store into stacks, on the device: squares joined, packed green put on the full grid.

On a processor both are one pass, in one thread for each square: 2.2 GB/s of packed green. torch's passes take ten times
as long, and each of their ends waits for the slower thread.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.parallel import inline_kernel, serial_kernel


def unpack_square(chunks: Tensor, first: tuple[int, int], offset: int, out: Tensor) -> None:
    """A square of a stack on the full grid, out of the chunks of packed green that cover it.

    Parameters
    ----------
    chunks : (i, j, z, a, b) uint8 or uint16, see :func:`join_chunks`
    first : (row, column) of the square in the grid of packed samples
    offset : column of the green site in its even rows
    out : (z, rows, columns) of the same dtype and device, written: see :func:`unpack_green`

    Raises
    ------
    ShapeError : the square is not covered, or another shape or dtype
    """
    z, rows, columns = out.shape
    if out.device.type != "cpu":
        unpack_green(join_chunks(chunks, first, (rows, columns // 2)), offset, out)
        return
    _check_covered(chunks, first, (rows, columns // 2))
    _check_packed(out, (z, rows, columns // 2), offset)
    arrays = chunks.contiguous().numpy(), out.numpy()
    place = np.int64(first[0]), np.int64(first[1]), np.int64(offset)
    # holds the sum of four
    wide = np.empty(0, np.uint16 if out.dtype == torch.uint8 else np.uint32)
    _unpack_slices(*arrays, *place, wide)


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
    _check_covered(chunks, first, shape)
    i, j, z, a, b = chunks.shape
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
    _check_packed(packed, (z, rows, half), offset)
    if out is None:
        out = packed.new_empty((z, rows, 2 * half))
    elif out.shape != (z, rows, 2 * half) or out.dtype != packed.dtype:
        raise ShapeError(f"unpack_green: out: expected {(z, rows, 2 * half)} {packed.dtype}, got {tuple(out.shape)}")
    _unpack(packed, offset, out)
    return out


def _check_covered(chunks: Tensor, first: tuple[int, int], shape: tuple[int, int]) -> None:
    i, j, _, a, b = chunks.shape
    if min(first) < 0 or first[0] + shape[0] > i * a or first[1] + shape[1] > j * b:
        raise ShapeError(f"a square of {shape} at {first} is not within {i} x {j} chunks of {(a, b)}")


def _check_packed(values: Tensor, shape: tuple[int, int, int], offset: int) -> None:
    if min(shape[1:]) < 2 or values.dtype not in (torch.uint8, torch.uint16) or offset not in (0, 1):
        raise ShapeError(f"unpack_green: got packed green of {shape} {values.dtype}, offset {offset}")


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


@serial_kernel
def _unpack_slices(chunks, out, row, col, offset, wide):  # type: ignore[no-untyped-def]
    n_z, n_rows, n_cols = out.shape
    half, a, b = n_cols // 2, chunks.shape[3], chunks.shape[4]
    # a slice of the square stays in the cache
    packed, total = np.empty((n_rows, half), out.dtype), np.zeros(half, wide.dtype)
    for k in range(n_z):
        for r in range(n_rows):
            n = (row + r) // a
            i = row + r - n * a
            c = 0
            while c < half:
                m = (col + c) // b
                j = col + c - m * b
                run = min(b - j, half - c)
                packed[r, c : c + run] = chunks[n, m, k, i, j : j + run]
                c += run
        for r in range(n_rows):
            o = (r + offset) % 2
            side = 1 - 2 * o
            full = out[k, r]
            if r == 0 or r == n_rows - 1:
                for j in range(half):
                    full[2 * j + o] = packed[r, j]
                    full[2 * j + 1 - o] = _edge_mean(packed, r, j, side)
                continue
            own, above, below = packed[r], packed[r - 1], packed[r + 1]
            # separate loops over short integers: so each of them is vectorised
            if o == 0:
                for j in range(half - 1):
                    total[j] = own[j] + own[j + 1] + above[j] + below[j] + 2
            else:
                for j in range(1, half):
                    total[j] = own[j] + own[j - 1] + above[j] + below[j] + 2
            if o == 0:
                for j in range(half):
                    full[2 * j] = own[j]
                    full[2 * j + 1] = total[j] >> 2
            else:
                for j in range(half):
                    full[2 * j] = total[j] >> 2
                    full[2 * j + 1] = own[j]
            j = 0 if o == 1 else half - 1
            full[2 * j + 1 - o] = _edge_mean(packed, r, j, side)


@inline_kernel
def _edge_mean(packed, r, j, side):  # type: ignore[no-untyped-def]
    """Of the neighbours that are there: above, below, the pair's own green, and that of the pair on the other side."""
    n_rows, half = packed.shape
    total, count = np.int64(packed[r, j]), 1
    if r > 0:
        total += np.int64(packed[r - 1, j])
        count += 1
    if r < n_rows - 1:
        total += np.int64(packed[r + 1, j])
        count += 1
    if 0 <= j + side < half:
        total += np.int64(packed[r, j + side])
        count += 1
    return (2 * total + count) // (2 * count)
