"""Volumes of files with a residual layer: whole bricks, predicted in integers and corrected, every voxel as encoded."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.correction.integer_decoder import integer_field
from gigascope.compression.correction.residual import ResidualSettings, decode_brick
from gigascope.compression.decoding.indexing import Box

if TYPE_CHECKING:
    from gigascope.compression.decoding.decode import BrickIndex, Decoder

# Corrected bricks that are kept: 32 of the default size in 16 bits. Planes are often read one after the other.
CACHED_BYTES = 64 << 20


class CorrectedBricks:
    """Decodes the bricks of one file with a residual layer; those read last are kept."""

    def __init__(self, decoder: Decoder) -> None:
        residual = decoder.gmix.residual
        assert residual is not None
        self.decoder = decoder
        self.residual = residual
        header = decoder.gmix.header
        self.settings = [ResidualSettings.from_attributes(residual.attributes, header.dtype, n) for n in header.noise]
        self._bricks: OrderedDict[tuple[int, BrickIndex], NDArray] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    def region(self, frame: int, roi: Box) -> Tensor:
        """(z, y, x) float32 grey values, which hold the integers of the file exactly; on the decoder's device.

        Raises
        ------
        UserError : a brick that was altered, or a prediction that is not the encoder's
        """
        out = np.empty([r.stop - r.start for r in roi], np.float32)
        sides = self.decoder.gmix.header.brick
        grid = [range(r.start // n, -(-r.stop // n)) for r, n in zip(roi, sides)]
        for z, y, x in itertools.product(*grid):
            corner = [i * n for i, n in zip((z, y, x), sides)]
            low = [max(r.start, c) for r, c in zip(roi, corner)]
            high = [min(r.stop, c + n) for r, c, n in zip(roi, corner, sides)]
            target = tuple(slice(a - r.start, b - r.start) for a, b, r in zip(low, high, roi))
            source = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner))
            out[target] = self.brick(frame, (z, y, x))[source]
        return torch.from_numpy(out).to(self.decoder.device)

    def brick(self, frame: int, index: BrickIndex) -> NDArray:
        """(z, y, x) voxels of a brick in the dtype of the file, clipped to the volume."""
        key = frame, index
        with self._lock:
            if key in self._bricks:
                self._bricks.move_to_end(key)
                return self._bricks[key]
        values = self._decoded(frame, index)
        with self._lock:
            if key not in self._bricks:
                self._bricks[key] = values
                self._cached += values.nbytes
            while self._cached > CACHED_BYTES and len(self._bricks) > 1:
                self._cached -= self._bricks.popitem(last=False)[1].nbytes
        return values

    def _decoded(self, frame: int, index: BrickIndex) -> NDArray:
        header = self.decoder.gmix.header
        z, y, x = (slice(i * n, min((i + 1) * n, m)) for i, n, m in zip(index, header.brick, header.frame_shape))
        prediction = integer_field(
            self.decoder.mixture(frame, (z, y, x))[0],
            self.decoder.gmix.background(frame),
            (z, y, x),
            offset=header.intensity[frame].offset,
            scale=header.intensity[frame].scale,
            c_max=header.c_max,
            eps=header.eps[frame],
            dtype=header.dtype,
            cell=header.cell,
            device=self.decoder.device,
        )
        return decode_brick(self.residual.read(frame, index), prediction.cpu().numpy(), self.settings[frame])
