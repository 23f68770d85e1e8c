"""The bricks of a volume: their order, their neighbours, and which may be fitted at the same time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Index = tuple[int, int, int]
Span = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

# Bricks of one colour do not touch, so none of them sees another change: parity along z, y and x.
N_COLOURS = 8


@dataclass(frozen=True)
class BrickGrid:
    """A volume (z, y, x) cut into bricks; those at the far ends may be smaller.

    Attributes
    ----------
    shape : of the volume, voxels
    brick : of a brick, voxels
    """

    shape: Index
    brick: Index

    @property
    def counts(self) -> Index:
        """Bricks along each axis."""
        z, y, x = (-(-n // b) for n, b in zip(self.shape, self.brick))
        return z, y, x

    def indices(self) -> list[Index]:
        """Every brick, in Morton order: neighbours in space are near each other in the file."""
        found = itertools.product(*(range(n) for n in self.counts))
        return sorted(found, key=morton)  # type: ignore[arg-type]

    def span(self, index: Index) -> Span:
        """(first, last + 1) voxel of a brick along each axis."""
        z, y, x = ((i * b, min((i + 1) * b, n)) for i, b, n in zip(index, self.brick, self.shape))
        return z, y, x

    def neighbours(self, index: Index) -> list[Index]:
        """The at most 26 bricks that touch one, in Morton order."""
        ranges = (range(max(0, i - 1), min(n, i + 2)) for i, n in zip(index, self.counts))
        return sorted((n for n in itertools.product(*ranges) if n != index), key=morton)  # type: ignore[misc]

    def touching(self, spans: Sequence[tuple[int, int]]) -> Iterator[Index]:
        """Bricks that a box of voxels reaches into, in Morton order."""
        ranges = [range(max(0, a // b), -(-min(e, n) // b)) for (a, e), b, n in zip(spans, self.brick, self.shape)]
        yield from sorted(itertools.product(*ranges), key=morton)  # type: ignore[arg-type, misc]


def colour(index: Index) -> int:
    """0 to 7."""
    z, y, x = index
    return (z & 1) << 2 | (y & 1) << 1 | (x & 1)


def morton(index: Index) -> int:
    """Bits of z, y and x interleaved, x lowest."""
    code = 0
    for bit in range(21):
        for place, i in enumerate(reversed(index)):
            code |= (i >> bit & 1) << (3 * bit + place)
    return code
