"""Compile what the topography chain compiles beside the kernels: unpacking of green, the simulated instrument."""

from __future__ import annotations

import numpy as np
import torch

from gigascope.topography.capture.bayer import pack_green
from gigascope.topography.instrument.instrument import Instrument
from gigascope.topography.network.consensus import from_others
from gigascope.topography.streaming.view_stack import ViewStack
from gigascope.topography.synth import tile_truth, view_truth


def warm() -> None:
    """Call each once: a view of the smallest instrument with its truth, packed green of both widths, a consensus."""
    instrument = Instrument("XS", seed=0)
    instrument.capture.read(0, 0)
    instrument.flat_capture.read(0, 0)
    view_truth(instrument, 0, 0)
    tile_truth(instrument, (slice(0, 64), slice(0, 64)))
    for dtype in (np.uint8, np.uint16):
        ViewStack(pack_green(np.ones((3, 8, 8), dtype), "GBRG"), "packed", "GBRG").green()
    values, coords = torch.ones(2, 4, 5), torch.zeros(2, 2, 4, 5)
    from_others(values, values, coords, torch.zeros(2, dtype=torch.int64), 1, (6, 6))
