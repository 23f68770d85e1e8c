"""Memory of fixed size for batches that are read, used and given back in the same order."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

# Blocks begin at multiples of this: any dtype can lie there.
ALIGNMENT = 64


class Ring:
    """Blocks of one buffer, first taken first given back; never more than the buffer.

    Parameters
    ----------
    n_bytes : of the buffer
    pinned : page-locked, for copies to a GPU that run beside other work

    Attributes
    ----------
    peak : most bytes that were taken at a time
    """

    def __init__(self, n_bytes: int, *, pinned: bool = False) -> None:
        self.buffer: Tensor = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=pinned)
        self.peak = 0
        self._held: deque[tuple[int, int]] = deque()

    @property
    def size(self) -> int:
        """Bytes of the buffer."""
        return self.buffer.numel()

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return sum(stop - start for start, stop in self._held)

    def take(self, n_bytes: int) -> Tensor | None:
        """(n_bytes,) uint8, part of the buffer; none where there is no room before something is given back."""
        length = -(-n_bytes // ALIGNMENT) * ALIGNMENT
        start = self._room(length)
        if start is None:
            return None
        self._held.append((start, start + length))
        self.peak = max(self.peak, self.used)
        return self.buffer[start : start + n_bytes]

    def give_back(self) -> None:
        """The block that was taken first is free again."""
        self._held.popleft()

    def _room(self, length: int) -> int | None:
        if not self._held:
            return 0 if length <= self.size else None
        first, end = self._held[0][0], self._held[-1][1]
        if end <= first:
            # the newest block lies before the oldest one
            return end if end + length <= first else None
        if end + length <= self.size:
            return end
        return 0 if length <= first else None
