"""What each frame of a compressed file takes, so that frames can be measured one by one and their bytes add up."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

from gigascope.compression.quality.evaluate import Account
from gigascope.metrics.image import Box

if TYPE_CHECKING:
    from gigascope.compression.gmix.container import Gmix


def frame_accounts(gmix: Gmix) -> list[Account]:
    """The account of every frame; over all of them each component has as many bytes as in the file.

    Payload and residual of a frame are those of its bricks, everything else is shared alike.
    """
    parts, n_frames = gmix.bytes_by_component(), gmix.header.n_frames
    payloads = [sum(gmix.payload_bytes(f, b) for b in gmix.bricks(f)) for f in range(n_frames)]
    residuals = [_residual_bytes(gmix, f) for f in range(n_frames)]
    # an archive may add some bytes to what the bricks have
    own = {"payload": _scaled(parts["payload"], payloads), "residual": _scaled(parts["residual"], residuals)}
    found = []
    for frame in range(n_frames):
        shared = {k: _share(v, n_frames, frame) for k, v in parts.items() if k not in own}
        components = {k: own[k][frame] if k in own else shared[k] for k in parts}
        n_gaussians = sum(gmix.count(frame, b) for b in gmix.bricks(frame))
        rest = sum(shared.values()) + own["residual"][frame]
        found.append(Account(components, n_gaussians, functools.partial(_bytes_in, gmix, frame, rest)))
    return found


def _bytes_in(gmix: Gmix, frame: int, rest: int, box: Box) -> int:
    """Bytes of a box: of each brick the share of its voxels that lies inside, and as much of what has no place."""
    grid = gmix.header.grid
    found = rest * math.prod(cut.stop - cut.start for cut in box) / math.prod(grid.shape)
    filled = set(gmix.bricks(frame))
    for index in grid.touching([(cut.start, cut.stop) for cut in box]):
        if index in filled:
            span = grid.span(index)
            inside = math.prod(min(cut.stop, b) - max(cut.start, a) for cut, (a, b) in zip(box, span))
            found += gmix.payload_bytes(frame, index) * inside / math.prod(b - a for a, b in span)
    return max(1, round(found))


def _residual_bytes(gmix: Gmix, frame: int) -> int:
    if gmix.residual is None:
        return 0
    return sum(len(gmix.residual.read(frame, index)) for index in gmix.header.grid.indices())


def _share(total: int, n: int, i: int) -> int:
    return total * (i + 1) // n - total * i // n


def _scaled(total: int, weights: list[int]) -> list[int]:
    """A total cut in proportion to weights; alike where all are zero."""
    weights = weights if any(weights) else [1] * len(weights)
    edges = [0]
    for weight in weights:
        edges.append(edges[-1] + weight)
    return [total * b // edges[-1] - total * a // edges[-1] for a, b in itertools.pairwise(edges)]
