"""Random numbers keyed by what they are for, so that parts, restarts and devices agree."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """A numpy generator for one purpose: Philox, counter-based, keyed by `(seed, *key)`.

    Parameters
    ----------
    seed : the dataset's seed
    key : what the numbers are for, such as ("tomography.ingest", "shifts", 3)

    Notes
    -----
    Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    digest = hashlib.blake2b("\x1f".join(map(str, (seed, *key))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
