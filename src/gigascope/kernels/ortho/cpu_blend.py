"""Blended gather on the CPU: blocks of the tile, the views of a block row by row, then its pixels one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import prange
from torch import Tensor

from gigascope.kernels.ortho.blocks import BLOCK, members
from gigascope.kernels.ortho.lines import SCRATCH, pixel_line
from gigascope.kernels.ortho.reference_blend import MAD, SNAP
from gigascope.kernels.parallel import inline_kernel, parallel_kernel


def blend(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    heights: Tensor,
    colours: Tensor,
    confidence: Tensor | None,
    clarity: Tensor | None,
    photometric: Tensor,
    corners: Tensor,
    start: Sequence[int],
    shape: Sequence[int],
    least_gate: float,
    gate: float,
    feather: float,
    epsilon: float,
    mode: str,
    sampling: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :func:`gigascope.kernels.ortho.blend`; all contiguous."""
    lists = members(table, distortion, size, corners, heights.shape[1:], start, shape)
    owners = lists.flatten(0, 1).nonzero()
    starts = np.searchsorted(owners[:, 0].numpy(), np.arange(lists.shape[0] * lists.shape[1] + 1))
    n_channels = colours.shape[3]
    colour, rest = torch.empty(*shape, n_channels), torch.empty(4, *shape)
    none = np.empty((0, 0, 0), dtype=np.float32)
    trust, clear = (none if maps is None else maps.numpy() for maps in (confidence, clarity))
    views = table.numpy(), distortion.numpy(), np.array(size), photometric.numpy(), corners.numpy()
    options = (float(least_gate), float(gate), float(feather), float(epsilon), mode == "best", sampling == "cubic")
    work = 200 * rest.numel() * owners.shape[0] / max(1, lists.shape[0] * lists.shape[1])
    _blend(
        *views, starts, owners[:, 1].contiguous().numpy(), lists.shape[1], np.array(start), *options,
        heights.numpy(), trust, clear, colours.numpy(), colour.numpy(), rest.numpy(), work=work,
    )  # fmt: skip
    return colour.movedim(2, 0).contiguous(), *rest.unbind(0)  # type: ignore[return-value]


@inline_kernel
def _bilinear(values, i, j, below, right, f, g):
    """Sample of a map at row i + f and column j + g."""
    upper = (1.0 - g) * values[i, j] + g * values[i, right]
    return (1.0 - f) * upper + f * ((1.0 - g) * values[below, j] + g * values[below, right])


@inline_kernel
def _cubic(f, out):
    """Weights of the samples at -1, 0, 1, 2 for a place f of 0 to 1."""
    out[0] = ((-0.5 * f + 1.0) * f - 0.5) * f
    out[1] = (1.5 * f - 2.5) * f * f + 1.0
    out[2] = ((-1.5 * f + 2.0) * f + 0.5) * f
    out[3] = (0.5 * f - 0.5) * f * f


@inline_kernel
def _sample_cubic(colour, i, k, f, g, taps, out):
    """Samples of all channels at row i + f and column k + g by cubic convolution, borders repeated."""
    last_r, last_c = colour.shape[0] - 1, colour.shape[1] - 1
    _cubic(f, taps[0])
    _cubic(g, taps[1])
    if out.size == 3:
        # sums in registers: a loop over channels that the compiler cannot count takes three times as long
        red = green = blue = 0.0
        for a in range(4):
            row = np.uint64(min(max(i + a - 1, 0), last_r))
            for b in range(4):
                col, weight = np.uint64(min(max(k + b - 1, 0), last_c)), taps[0, a] * taps[1, b]
                red += weight * colour[row, col, 0]
                green += weight * colour[row, col, 1]
                blue += weight * colour[row, col, 2]
        out[0], out[1], out[2] = red, green, blue
        return
    for channel in range(out.size):
        total = 0.0
        for a in range(4):
            row = np.uint64(min(max(i + a - 1, 0), last_r))
            for b in range(4):
                total += taps[0, a] * taps[1, b] * colour[row, np.uint64(min(max(k + b - 1, 0), last_c)), channel]
        out[channel] = total


@inline_kernel
def _snapped(at, last):
    """A coordinate that rounding has put beyond the outermost pixel centre, on it."""
    if at < 0.0 and at >= -SNAP:
        return 0.0
    if at > last and at <= last + SNAP:
        return last
    return at


@inline_kernel
def _light(correction, y, x):
    """Factor of the illumination polynomial."""
    linear = 1.0 + correction[2] + correction[3] * x + correction[4] * y
    return linear + correction[5] * x * x + correction[6] * y * y + correction[7] * x * y


@inline_kernel
def _sort(values, n):
    """Insertion: a pixel has about six views."""
    for a in range(1, n):
        value, b = values[a], a
        while b > 0 and values[b - 1] > value:
            values[b] = values[b - 1]
            b -= 1
        values[b] = value


@inline_kernel
def _robust_limits(h, n, gate, least_gate, scratch):
    """Median of n heights, and how far from it one may be."""
    for a in range(n):
        scratch[a] = h[a]
    _sort(scratch, n)
    middle = 0.5 * (scratch[(n - 1) // 2] + scratch[n // 2])
    for a in range(n):
        scratch[a] = abs(h[a] - middle)
    _sort(scratch, n)
    spread = MAD * 0.5 * (scratch[(n - 1) // 2] + scratch[n // 2])
    return middle, gate * max(spread, least_gate)


@inline_kernel
def _sample_view(
    height, trust, clear, colour, correction, corner, size, rows, columns, feather, epsilon, cubic, taps, h_line,
    w_line, v_line, c_lines,
):  # fmt: skip
    """Heights, weights (0 where unseen), those of the colours, and colours of one view along a line of the mosaic."""
    crop_r, crop_c = height.shape
    larger = float(max(size[0], size[1]))
    for j in range(rows.size):
        r, c = _snapped(rows[j], size[0] - 1.0), _snapped(columns[j], size[1] - 1.0)
        edge = min(min(r, size[0] - 1.0 - r), min(c, size[1] - 1.0 - c))
        at_r, at_c = r - corner[0], c - corner[1]
        w_line[j] = 0.0
        # a comparison that fails where the coordinates are no numbers
        if not (edge >= 0.0 and at_r >= 0.0 and at_c >= 0.0 and at_r <= crop_r - 1.0 and at_c <= crop_c - 1.0):
            continue
        i, k = np.uint64(at_r), np.uint64(at_c)
        f, g = at_r - i, at_c - k
        # unsigned: numba asks of every signed index whether it counts from the end
        below, right = np.uint64(min(at_r + 1.0, crop_r - 1.0)), np.uint64(min(at_c + 1.0, crop_c - 1.0))
        h = _bilinear(height, i, k, below, right, f, g)
        confidence = epsilon
        if trust.size > 0:
            confidence += _bilinear(trust, i, k, below, right, f, g)
        fall = min(1.0, (edge + 0.5) / feather)
        weight = fall * fall * confidence
        if h != h or not weight > 0.0:
            continue
        h_line[j], w_line[j], v_line[j] = h, weight, weight
        if clear.size > 0:
            v_line[j] *= _bilinear(clear, i, k, below, right, f, g)
        light = _light(correction, (r - 0.5 * size[0]) / larger, (c - 0.5 * size[1]) / larger)
        if cubic:
            _sample_cubic(colour, np.int64(at_r), np.int64(at_c), f, g, taps, c_lines[j])
            for channel in range(colour.shape[2]):
                c_lines[j, channel] = (correction[0] * c_lines[j, channel] + correction[1]) * light
            continue
        for channel in range(colour.shape[2]):
            upper = (1.0 - g) * colour[i, k, channel] + g * colour[i, right, channel]
            lower = (1.0 - g) * colour[below, k, channel] + g * colour[below, right, channel]
            value = (1.0 - f) * upper + f * lower
            c_lines[j, channel] = (correction[0] * value + correction[1]) * light


@inline_kernel
def _blend_pixel(h, w, v, colours, n, limits, best, out_colour, out):
    """Blend the n views of a pixel, given in their order; `out` is height, weight, number, deviation."""
    middle, limit = limits
    total = mean = largest = clear = clearest = 0.0
    n_used, chosen, shown = 0, 0, 0
    out_colour[:] = 0
    for a in range(n):
        if abs(h[a] - middle) <= limit:
            n_used += 1
            total += w[a]
            mean += w[a] * (h[a] - middle)
            clear += v[a]
            if w[a] > largest:
                largest, chosen = w[a], a
            if v[a] > clearest:
                clearest, shown = v[a], a
            for channel in range(out_colour.size):
                out_colour[channel] += v[a] * colours[a, channel]
    mean = middle + mean / total
    variance = 0.0
    for a in range(n):
        if abs(h[a] - middle) <= limit:
            variance += w[a] * (h[a] - mean) * (h[a] - mean)
    for channel in range(out_colour.size):
        out_colour[channel] = colours[shown, channel] if best else out_colour[channel] / clear
    out[0] = h[chosen] if best else mean
    out[1], out[2] = total, n_used
    out[3] = np.sqrt(variance / total) if n_used > 1 else np.nan


@parallel_kernel
def _blend(
    table, distortion, size, photometric, corners, starts, owners, n_across, start, least_gate, gate, feather, epsilon,
    best, cubic, heights, trust, clear, colours, colour, rest,
):  # fmt: skip
    n_rows, n_cols, n_channels = colour.shape
    for block in prange(starts.size - 1):
        row_0, col_0 = block // n_across * BLOCK, block % n_across * BLOCK
        width, n_views = min(BLOCK, n_cols - col_0), starts[block + 1] - starts[block]
        scratch, rc, taps = np.empty((SCRATCH, width)), np.empty((2, width)), np.empty((2, 4))
        h_lines, w_lines, v_lines = np.empty((n_views, width)), np.empty((n_views, width)), np.empty((n_views, width))
        c_lines = np.empty((n_views, width, n_channels))
        h, w, v, order = np.empty(n_views), np.empty(n_views), np.empty(n_views), np.empty(n_views)
        c = np.empty((n_views, n_channels))
        out, out_colour = np.empty(4), np.empty(n_channels)
        for row in range(row_0, min(row_0 + BLOCK, n_rows)):
            for a in range(n_views):
                k = owners[starts[block] + a]
                at_row, at_col = float(start[0] + row), float(start[1] + col_0)
                pixel_line(table[k], distortion, size, at_row, at_col, scratch, rc[0], rc[1])
                confidence = trust[k] if trust.size > 0 else trust[:, :, 0]
                clarity = clear[k] if clear.size > 0 else clear[:, :, 0]
                _sample_view(
                    heights[k], confidence, clarity, colours[k], photometric[k], corners[k], size, rc[0], rc[1],
                    feather, epsilon, cubic, taps, h_lines[a], w_lines[a], v_lines[a], c_lines[a],
                )  # fmt: skip
            for j in range(width):
                n = 0
                for a in range(n_views):
                    if w_lines[a, j] > 0.0:
                        h[n], w[n], v[n] = h_lines[a, j], w_lines[a, j], v_lines[a, j]
                        for channel in range(n_channels):
                            c[n, channel] = c_lines[a, j, channel]
                        n += 1
                col = col_0 + j
                if n > 0:
                    limits = _robust_limits(h, n, gate, least_gate, order)
                    _blend_pixel(h, w, v, c, n, limits, best, out_colour, out)
                    colour[row, col, :] = out_colour
                    rest[:, row, col] = out
                else:
                    colour[row, col, :] = np.nan
                    rest[0, row, col], rest[1, row, col], rest[2, row, col], rest[3, row, col] = np.nan, 0, 0, np.nan
