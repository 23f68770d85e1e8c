"""Science of the toy chain: blocks of a volume, their neighbours and colours, and what is done to each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = (2, 3, 4)


def grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks along each axis."""
    return tuple(-(-n // b) for n, b in zip(shape, BLOCK))


def region(shape: tuple[int, ...], number: int) -> tuple[slice, ...]:
    """A block as slices."""
    place = np.unravel_index(number, grid(shape))
    return tuple(slice(int(i) * b, min((int(i) + 1) * b, n)) for i, b, n in zip(place, BLOCK, shape))


def neighbours(shape: tuple[int, ...], number: int) -> list[int]:
    """Numbers of the up to 26 blocks around a block."""
    cells = grid(shape)
    place = np.unravel_index(number, cells)
    around = (tuple(int(p) + d for p, d in zip(place, step)) for step in itertools.product((-1, 0, 1), repeat=3))
    inside = [a for a in around if all(0 <= i < n for i, n in zip(a, cells))]
    return [n for n in (int(np.ravel_multi_index(a, cells)) for a in inside) if n != number]


def colour(shape: tuple[int, ...], number: int) -> int:
    """Of a block, so that no two neighbours have one: parities of its place."""
    z, y, x = np.unravel_index(number, grid(shape))
    return int(4 * (z % 2) + 2 * (y % 2) + x % 2)


def picked(volume: NDArray, where: tuple[slice, ...], threshold: float) -> dict[str, NDArray]:
    """Places and values of the bright voxels of a block, unknown how many."""
    found = np.argwhere(volume[where] > threshold)
    places = found + np.array([w.start for w in where])
    return {"places": places.astype(np.int64), "values": volume[tuple(places.T)]}


def thinned(own: dict[str, NDArray], others: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    """Without those that lie beside a brighter one of a neighbour."""
    keep = np.ones(len(own["values"]), bool)
    for other in others:
        near = np.abs(own["places"][:, None] - other["places"][None]).max(axis=2) <= 1 if len(other["values"]) else None
        if near is not None:
            keep &= ~(near & (other["values"][None] > own["values"][:, None])).any(axis=1)
    return {name: array[keep] for name, array in own.items()}


class Steps:
    """A computation that can be stopped: an exponential average, step by step."""

    def __init__(self, start: float, n: int, pause_s: float) -> None:
        self.value, self.n, self.done, self.pause_s = start, n, 0, pause_s

    def updates(self) -> Iterator[int]:
        """To the end."""
        import time

        while self.done < self.n:
            time.sleep(self.pause_s)
            self.done += 1
            self.value = 0.5 * self.value + 1.0 / self.done
            yield self.done

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"value": self.value, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.value, self.done = state["value"], state["done"]
