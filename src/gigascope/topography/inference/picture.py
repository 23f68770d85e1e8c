"""The picture of a view in focus: each pixel from the slices around the one in focus there, in colour where it has any.

Of a Bayer mosaic only the slices that are taken are demosaiced, bilinearly within each colour as
:func:`gigascope.topography.capture.bayer.demosaic`: at a pixel, all neighbours come from its own slice.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gigascope.topography.focus.fuse import Mix, fuse
from gigascope.topography.streaming.view_stack import ViewStack

# Rows that are worked on at once.
BAND = 256
_TENT = (0.5, 1.0, 0.5)


def in_focus(stack: ViewStack, index: Tensor, mix: Mix) -> NDArray:
    """All-in-focus picture of a view.

    Parameters
    ----------
    stack : with its colours, see :func:`gigascope.topography.streaming.view_stack.read_colours`
    index : (r, c) float32, slices
    mix : linear, the two slices around the index by their distance; nearest

    Returns
    -------
    (r, c, colours) of the stack's dtype
    """
    rows, columns = stack.size
    out = np.empty((rows, columns, stack.colours), stack.values.dtype)
    for top in range(0, rows, BAND):
        band = slice(top, min(rows, top + BAND))
        if stack.kind == "bayer":
            out[band] = _demosaiced(stack, index[band], band, mix)
        elif stack.kind == "rgb":
            out[band] = fuse(_signed(np.moveaxis(stack.values[..., band, :], 1, -1)), index[band], mix=mix)
        else:
            out[band, :, 0] = fuse(_signed(stack.green(band).numpy()), index[band], mix=mix)
    return out


def _signed(values: NDArray) -> Tensor:
    """torch computes little on uint16."""
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.int32) if values.dtype == np.uint16 else values))


def _demosaiced(stack: ViewStack, index: Tensor, band: slice, mix: Mix) -> NDArray:
    """(rows of the band, c, 3) of the stack's dtype."""
    rows, last = stack.size[0], stack.n_z - 1
    above, below = min(1, band.start), min(1, rows - band.stop)
    wide = _signed(stack.values[:, band.start - above : band.stop + below])
    wide = functional.pad(wide, (1, 1, 1 - above, 1 - below))
    place = index.clamp(0, last)
    if mix == "nearest":
        colours = _pick(wide, place.round().long(), stack.pattern or "", band.start, rows)
    else:
        low = place.floor().long().clamp_max(max(0, last - 1))
        share = (place - low)[..., None]
        pair = [_pick(wide, (low + d).clamp_max(last), stack.pattern or "", band.start, rows) for d in (0, 1)]
        colours = pair[0] + share * (pair[1] - pair[0])
    top = np.iinfo(stack.values.dtype).max
    return colours.round().clamp(0, top).numpy().astype(stack.values.dtype)


def _pick(wide: Tensor, slices: Tensor, pattern: str, first: int, rows: int) -> Tensor:
    """(h, c, 3) float32 colours of one slice for every pixel.

    Parameters
    ----------
    wide : (z, h + 2, c + 2), the pixels with a border of one
    first : row of the view of the first pixel
    rows : of the view
    """
    h, c = slices.shape
    down, along = torch.arange(h)[:, None], torch.arange(c)[None]
    sums, norms = torch.zeros(h, c, 3), torch.zeros(h, c, 3)
    sites = _sites(pattern)
    own = sites[(first + down) % 2, along % 2] > 0
    for i in (-1, 0, 1):
        row = first + down + i
        for j in (-1, 0, 1):
            column = along + j
            inside = ((row >= 0) & (row < rows) & (column >= 0) & (column < c)).float()
            colour = sites[row % 2, column % 2] * (inside * _TENT[i + 1] * _TENT[j + 1])[..., None]
            values = wide[slices, down + 1 + i, along + 1 + j].float()[..., None]
            sums += colour * values
            norms += colour
    # a site keeps its own value
    return torch.where(own, wide[slices, down + 1, along + 1].float()[..., None], sums / norms)


def _sites(pattern: str) -> Tensor:
    """(2, 2, 3) float32, 1 for the colour of each site."""
    colours = [[float(letter == name) for name in "RGB"] for letter in pattern]
    return torch.tensor(colours).reshape(2, 2, 3)
