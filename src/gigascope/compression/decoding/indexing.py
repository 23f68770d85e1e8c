"""What an index of an array means, and how to serve it block by block."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Box = tuple[slice, slice, slice]

# Samples that are decoded in one go: 16 MiB of float32, and as much again of what the kernel needs.
BLOCK_SAMPLES = 1 << 22
# Of a range with a wider step, single samples are decoded, not all between them: tiles of the kernels are 8 planes.
WIDE_STEP = 8


@dataclass(frozen=True)
class Selection:
    """What an index picks.

    Attributes
    ----------
    ranges : the places along each axis
    squeezed : axes that an integer picked from, which the result does not have
    """

    ranges: tuple[range, ...]
    squeezed: tuple[int, ...]

    @staticmethod
    def of(key: Any, shape: Sequence[int]) -> Selection:
        """Read an index as numpy does.

        Parameters
        ----------
        key : integers, slices and at most one ellipsis, in a tuple where there are several

        Raises
        ------
        IndexError : too many, out of range, or anything else than these
        """
        items = list(key) if isinstance(key, tuple) else [key]
        n_dots = sum(item is Ellipsis for item in items)
        if n_dots > 1 or len(items) - n_dots > len(shape):
            raise IndexError(f"{len(items)} indices for {len(shape)} axes")
        dots = items.index(Ellipsis) if n_dots else len(items)
        items[dots : dots + 1] = [slice(None)] * (len(shape) - len(items) + n_dots)
        ranges, squeezed = [], []
        for axis, (item, n) in enumerate(zip(items, shape)):
            if isinstance(item, slice):
                ranges.append(range(*item.indices(n)))
                continue
            index = _integer(item)
            if not -n <= index < n:
                raise IndexError(f"index {index} is out of range: axis {axis} has {n} samples")
            ranges.append(range(index % n, index % n + 1))
            squeezed.append(axis)
        return Selection(tuple(ranges), tuple(squeezed))

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples along each axis, before axes are dropped."""
        return tuple(len(r) for r in self.ranges)


def _integer(item: Any) -> int:
    if isinstance(item, bool) or item is None:
        raise IndexError(f"{item!r} is no index here: use integers, slices and an ellipsis")
    try:
        return operator.index(item)
    except TypeError:
        raise IndexError(
            f"an index of type {type(item).__name__} is not served: use integers, slices and an ellipsis, "
            "or np.asarray(volume) first"
        ) from None


def block_shape(lengths: Sequence[int], brick: Sequence[int], samples: int = BLOCK_SAMPLES) -> tuple[int, int, int]:
    """Whole bricks that are decoded together for a region of these lengths: at most about `samples`, long in x."""
    size = [min(b, n) for b, n in zip(brick, lengths)]
    block = list(brick)
    for axis in (2, 1, 0):
        fits = max(1, samples // max(1, math.prod(size)))
        block[axis] *= min(fits, -(-lengths[axis] // brick[axis]) + 1)
        size[axis] = min(block[axis], lengths[axis])
    return block[0], block[1], block[2]


def boxes(box: Sequence[slice], block: Sequence[int]) -> Iterator[Box]:
    """A box cut along the lattice of blocks."""
    cuts = [[piece.stretch for piece in pieces(range(b.start, b.stop), n)] for b, n in zip(box, block)]
    yield from itertools.product(*cuts)


@dataclass(frozen=True)
class Piece:
    """The part of a range that lies in one block: `target` in the result, `source` in the `stretch` to decode."""

    target: slice
    stretch: slice
    source: slice


def pieces(places: range, block: int) -> Iterator[Piece]:
    """An ascending range cut along the lattice of a block."""
    step, n = places.step, len(places)
    index = 0
    while index < n:
        first = places[index]
        inside = 1 if step > WIDE_STEP else -(-((first // block + 1) * block - first) // step)
        end = min(n, index + inside)
        yield Piece(slice(index, end), slice(first, places[end - 1] + 1), slice(None, None, step))
        index = end
