"""Gaussians as a fit of neurons gives them, without a fit: along random walks, in the distributions of such fits.

For the benchmarks and tests of the container, where the field itself does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression.mixture import Mixture

# Gaussians of one neurite, and their distance in standard deviations along it.
LENGTH = 40
SPACING = 1.4
# Share of negative amplitudes, which carve edges: small, weak, beside the others.
NEGATIVE = 0.15


def tubes(n: int, shape: Sequence[int], seed: int) -> Mixture:
    """`n` Gaussians inside a volume (z, y, x): sigma 0.8 to 4.5, aspect 1 to 3, amplitudes over two decades."""
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    while sum(map(len, parts)) < n:
        parts.append(_tube(rng, np.asarray(shape, np.float64)))
    rows = np.concatenate(parts)[:n]
    columns = rows[:, :3], rows[:, 3:6], rows[:, 6:10], rows[:, 10]
    return Mixture(*(torch.from_numpy(np.ascontiguousarray(column, np.float32)) for column in columns))


def _tube(rng: np.random.Generator, shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of means, log scales, quaternions and amplitudes along one walk."""
    place = rng.uniform(0, shape - 1)
    course = rng.normal(size=3) * (0.35, 1, 1)
    radius, level = rng.uniform(0.9, 2.4), math.exp(rng.uniform(-3, 0))
    rows = []
    for _ in range(LENGTH):
        course = course / np.linalg.norm(course) + rng.normal(size=3) * (0.1, 0.2, 0.2)
        course /= np.linalg.norm(course)
        long = np.clip(radius * math.exp(rng.uniform(0, 1.1)), 0.8, 4.5)
        place = place + course * long * SPACING
        if not ((place > 0) & (place < shape - 1)).all():
            break
        across = np.clip(radius * np.exp(rng.normal(0, 0.15, 2)), 0.6, 4.5)
        amplitude = np.clip(level * math.exp(rng.normal(0, 0.4)), 0.01, 1)
        shift = rng.normal(0, 0.4, 3)
        if rng.random() < NEGATIVE:
            amplitude, shift = -0.4 * amplitude, rng.normal(0, radius, 3)
        mean = np.clip(place + shift, -0.4, shape - 0.6)
        rows.append([*mean, *np.log([long, *across]), *_towards(course, rng), amplitude])
        radius = np.clip(radius * 0.99, 0.7, None)
    return np.array(rows).reshape(-1, 11)


def _towards(course: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Quaternion that carries the first axis to `course`, roughly, with any roll."""
    course = course + rng.normal(0, 0.2, 3)
    course = course / np.linalg.norm(course)
    if course[0] < 0:
        course = -course
    arc = np.array([1 + course[0], 0, -course[2], course[1]])
    arc = arc / np.linalg.norm(arc)
    half = rng.uniform(0, math.pi)
    w, s = math.cos(half), math.sin(half)
    a, _, c, d = arc
    return np.array([a * w, a * s, c * w + d * s, d * w - c * s])
