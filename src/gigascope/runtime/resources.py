"""What a stage will need, stated from shapes before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

# Python with torch, numba and zarr loaded, before any data (measured: peak of `gigascope run` on the smallest dataset).
BASE_BYTES = 700 * 2**20


@dataclass(frozen=True)
class Estimate:
    """Needs of one stage.

    Attributes
    ----------
    memory : peak resident memory, bytes
    gpu_memory : peak GPU memory if it runs on one, bytes
    seconds : run time on this machine's CPU, roughly
    disk : bytes written, uncompressed
    files : number of files written
    shape : what it writes, for a person
    """

    memory: int
    gpu_memory: int
    seconds: float
    disk: int
    files: int
    shape: str
