"""Compile ahead of time what numba compiles: ``python -m gigascope.warm`` fills its cache, as `make setup` does.

Kernels by calling each; the loops around the compressed file by compressing a few voxels, without loss and with; those
of the simulated instrument by looking through it.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from gigascope.compress import compress, decompress
from gigascope.compression.bench_volume import bench_volume
from gigascope.kernels import warm as kernels
from gigascope.topography import warm as topography


def warm() -> None:
    """Fill the cache."""
    kernels.warm()
    volume = np.ascontiguousarray(bench_volume((16, 48, 48), seed=1, cells=1).volume[:8, :32, :32])
    options: dict[str, Any] = {"brick": (8, 16, 16), "halo": 4, "iterations": 5, "sweeps": 0}
    for bound in (None, 0):
        data = compress(volume, device="cpu", gate={"mode": "intensity"}, max_error=bound, **options)
        decompress(data, device="cpu")
    topography.warm()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warm()
