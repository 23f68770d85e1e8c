"""Random numbers of the synthesis chain: hashes of what they are for, never the next of a sequence.

The seed of a purpose of spheroid 17 is the same however many spheroids are asked for, and a nucleus has its numbers
from its own seed, whatever is computed before it or beside it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def seed_of(root: int, *purpose: str | int) -> int:
    """64 bits for one purpose, such as ``seed_of(seed, "spheroid", 17, "placement")``: the first 8 bytes of BLAKE2b."""
    text = "\x1f".join(str(part) for part in (root, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(root: int, *purpose: str | int) -> np.random.Generator:
    """A numpy generator (Philox, counter-based) for one purpose: few numbers, drawn in sequence."""
    return np.random.Generator(np.random.Philox(key=seed_of(root, *purpose)))


def seeds_of(root: int, index: NDArray[np.integer]) -> U64:
    """(n,) uint64: a seed for each index, all different under one root."""
    return hashed(np.full(index.shape, root, np.uint64) ^ _mix(index.astype(np.uint64) * _GOLDEN), 0)


def hashed(seeds: U64, slot: int) -> U64:
    """(n,) uint64: the number of a slot of each seed. SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), by counter."""
    with np.errstate(over="ignore"):
        return _mix(_mix(seeds) + np.uint64(slot + 1) * _GOLDEN)


def uniform(seeds: U64, slot: int) -> F64:
    """(n,) float64 in (0, 1), never 0 or 1: 52 bits and a half."""
    return ((hashed(seeds, slot) >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52


def normal(seeds: U64, slot: int) -> F64:
    """(n,) float64, standard normal, by the quantile function."""
    return np.asarray(ndtri(uniform(seeds, slot)))


def lognormal(seeds: U64, slot: int, mean: float, cv: float) -> F64:
    """(n,) float64 of that mean and that standard deviation over mean."""
    variance = np.log1p(cv * cv)
    return np.asarray(mean * np.exp(np.sqrt(variance) * normal(seeds, slot) - variance / 2.0))


def _mix(z: U64) -> U64:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
