"""Constants of the splat that all implementations share."""

from __future__ import annotations

# standard deviation of the truncated Gaussian, pixels: 1 px wide at half its maximum
SIGMA = 0.42465
# coordinates beyond are nowhere: their whole number would not fit 32 bits
FAR = float(1 << 30)
# what becomes of a pixel beyond the canvas: nothing, its place on a canvas without end, or the nearest border
BORDERS = ("drop", "wrap", "clamp")
