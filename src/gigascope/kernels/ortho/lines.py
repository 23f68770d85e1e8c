"""Lines of pixels through the maps, in float64, as the CPU kernels call them."""

from __future__ import annotations

from gigascope.kernels.parallel import inline_kernel

NEWTON_STEPS = 3
# lines of float64 that `pixel_line` works in
SCRATCH = 4


@inline_kernel
def mosaic_line(row, distortion, y, x, step, scratch, out_row, out_col):
    """Mosaic coordinates of pixels at one y (normalised) and x, x + step, ...; `row` is that of the view's table."""
    n, s2, m = out_row.size, scratch[0], scratch[1]
    for j in range(n):
        at = x + step * j
        s2[j] = 2.0 * (y * y + at * at)
        m[j] = 0.0
    for q in range(distortion.size - 1, -1, -1):
        d = distortion[q]
        for j in range(n):
            m[j] = (m[j] + d) * s2[j]
    h0, h1, h2, h3, h4, h5, h6, h7, h8 = row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]
    for j in range(n):
        v, u = y * (1.0 + m[j]), (x + step * j) * (1.0 + m[j])
        w = 1.0 / (h6 * v + h7 * u + h8)
        out_row[j] = (h0 * v + h1 * u + h2) * w
        out_col[j] = (h3 * v + h4 * u + h5) * w


@inline_kernel
def pixel_line(row, distortion, size, at_row, at_col, scratch, out_row, out_col):
    """Pixels of a view that see mosaic pixels of one row and columns at_col, at_col + 1, ..."""
    n, t, ratio, m, slope = out_row.size, scratch[0], scratch[1], scratch[2], scratch[3]
    g0, g1, g2, g3, g4, g5, g6, g7, g8 = row[9], row[10], row[11], row[12], row[13], row[14], row[15], row[16], row[17]
    for j in range(n):
        c = at_col + j
        w = 1.0 / (g6 * at_row + g7 * c + g8)
        y, x = (g0 * at_row + g1 * c + g2) * w, (g3 * at_row + g4 * c + g5) * w
        out_row[j], out_col[j] = y, x
        t[j] = 2.0 * (y * y + x * x)
        ratio[j] = 1.0
    steps = NEWTON_STEPS if distortion.size > 0 else 0
    for _ in range(steps):
        for j in range(n):
            m[j] = 0.0
            slope[j] = 0.0
        for q in range(distortion.size, 0, -1):
            d, e = distortion[q - 1], (2 * q + 1) * distortion[q - 1]
            for j in range(n):
                s = t[j] * ratio[j] * ratio[j]
                m[j] = (m[j] + d) * s
                slope[j] = (slope[j] + e) * s
        for j in range(n):
            ratio[j] -= (ratio[j] * (1.0 + m[j]) - 1.0) / (1.0 + slope[j])
    larger = float(max(size[0], size[1]))
    half_r, half_c = 0.5 * size[0], 0.5 * size[1]
    for j in range(n):
        out_row[j] = out_row[j] * ratio[j] * larger + half_r
        out_col[j] = out_col[j] * ratio[j] * larger + half_c
