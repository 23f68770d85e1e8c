"""Compile ahead of time what numba compiles: ``python -m gigascope.warm`` fills its cache, as `make setup` does.

Kernels by calling each; the loops around the compressed file by compressing a few voxels, without loss and with; those
of the simulated instrument by looking through it, those of phantoms by placing a few nuclei. In two processes that
share no kernel: compiling takes one core each. Then the source of all stages is read once, for their fingerprints.
"""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from gigascope.compress import compress, decompress
from gigascope.compression.bench_volume import bench_volume
from gigascope.kernels import warm as kernels
from gigascope.registry import stages
from gigascope.runtime.fingerprint import fingerprint
from gigascope.synthesis.phantom import warm as phantom
from gigascope.topography import warm as topography


def warm() -> None:
    """Fill the cache."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(work) for work in (_warm_volumes, _warm_views)]:
            done.result()
    for stage in stages():
        fingerprint(*stage.functions)


def _warm_volumes() -> None:
    logging.disable(logging.WARNING)
    kernels.warm_volumes()
    kernels.warm_cultures()
    phantom.warm()
    volume = np.ascontiguousarray(bench_volume((16, 48, 48), seed=1, cells=1).volume[:8, :32, :32])
    options: dict[str, Any] = {"brick": (8, 16, 16), "halo": 4, "iterations": 5, "sweeps": 0}
    for bound in (None, 0):
        data = compress(volume, device="cpu", gate={"mode": "intensity"}, max_error=bound, **options)
        decompress(data, device="cpu")


def _warm_views() -> None:
    logging.disable(logging.WARNING)
    kernels.warm_views()
    topography.warm()


if __name__ == "__main__":
    warm()
