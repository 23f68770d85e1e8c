"""How the work of a stage is shared out: items, rounds, and the part that each item falls to. Arithmetic only.

An item is what one call of the stage's `item` function does (a brick, a shard). A part is a job that does its share of
the items of one round. Which items there are follows from the data and the config, never from the number of parts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# An item without weight costs its start; as a fraction of the mean weight.
LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class WorkPlan:
    """What the `open` function of a scattered stage decided.

    Attributes
    ----------
    rounds : items of each round, numbers from 0, in the order in which they are shared out: neighbours beside each
        other (see :func:`space_filling`), so that every part gets a bit of everything
    weights : cost of each item in any unit, by its number; none: all cost the same
    facts : JSON values that every item and the gather may look up
    """

    rounds: Sequence[Sequence[int]]
    weights: Sequence[float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, items in enumerate(self.rounds):
            if len(set(items)) != len(items):
                raise ValueError(f"round {number} names an item twice")
            if items and min(items) < 0:
                raise ValueError(f"round {number} names item {min(items)}: numbers start at 0")
        highest = max((max(items) for items in self.rounds if items), default=-1)
        if self.weights is not None and len(self.weights) <= highest:
            raise ValueError(f"there are {len(self.weights)} weights, and an item {highest}")

    def share(self, round_: int, part: int, parts: int) -> list[int]:
        """Items of one part of a round, those that cost most first."""
        return assign(self.rounds[round_], parts, self.weights)[part]

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        rounds = [
            {"start": r.start, "stop": r.stop, "step": r.step} if isinstance(r, range) else [int(i) for i in r]
            for r in self.rounds
        ]
        weights = None if self.weights is None else [float(w) for w in self.weights]
        return {"rounds": rounds, "weights": weights, "facts": dict(self.facts)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> WorkPlan:
        """From what :meth:`values` gave."""
        rounds = [range(r["start"], r["stop"], r["step"]) if isinstance(r, dict) else r for r in values["rounds"]]
        return cls(rounds, values["weights"], values["facts"])


def assign(items: Iterable[int], n_parts: int, weights: Sequence[float] | None = None) -> list[list[int]]:
    """Share items out among parts.

    Parameters
    ----------
    items : numbers of the items, in a space-filling order
    n_parts : number of parts; some are empty if there are fewer items
    weights : cost of each item, by its number

    Returns
    -------
    items of each part. Without weights they are dealt out in turn. With them the dearest go first, each to the part
    that has least to do (Graham 1969: at most 4/3 of the best possible), and stand first in their part.

    Raises
    ------
    ValueError : no part, or a weight that is negative or not finite
    """
    items = list(items)
    if n_parts < 1:
        raise ValueError(f"work cannot be shared out among {n_parts} parts")
    if weights is None:
        return [items[part::n_parts] for part in range(n_parts)]
    costs = np.array([weights[item] for item in items], dtype=np.float64)
    if not (np.isfinite(costs).all() and (costs >= 0).all()):
        raise ValueError("weights of items are costs: finite, and not negative")
    costs = costs + (LEAST_WEIGHT * costs.mean() if costs.any() else 1.0)
    shares: list[list[int]] = [[] for _ in range(n_parts)]
    loads = [(0.0, part) for part in range(n_parts)]
    for place in np.argsort(-costs, kind="stable"):
        load, part = loads[0]
        shares[part].append(items[place])
        heapq.heapreplace(loads, (load + float(costs[place]), part))
    return shares


def space_filling(shape: Sequence[int]) -> list[int]:
    """Numbers of the cells of a grid (last axis fastest) in Morton order, along which neighbours stay close.

    Parameters
    ----------
    shape : cells along each axis
    """
    indices = np.indices(shape, dtype=np.uint64).reshape(len(shape), -1)
    keys = np.zeros(indices.shape[1], np.uint64)
    n_bits = max((int(n) - 1).bit_length() for n in shape)
    if n_bits * len(shape) > 64:
        raise ValueError(f"a grid of {tuple(shape)} cells has no Morton order in 64 bits")
    for bit in range(n_bits):
        for axis, index in enumerate(reversed(indices)):
            keys |= ((index >> np.uint64(bit)) & np.uint64(1)) << np.uint64(bit * len(shape) + axis)
    return [int(i) for i in np.argsort(keys, kind="stable")]
