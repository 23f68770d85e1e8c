"""How a gate is cut into the regions that jobs work on: arithmetic only, so that `gigascope check` can ask."""

from __future__ import annotations

from collections.abc import Sequence

from gigascope.store.plan import ShardPlan

# Shard of a gate: 16 MiB, because one is what a job works on at a time, with 30 bytes for each voxel.
SHARD = (64, 512, 512)


def gate_plan(shape: Sequence[int]) -> ShardPlan:
    """Chunks and shards of a gate with the axes ([t,] [c,] z, y, x)."""
    leading = (1,) * (len(shape) - 3)
    chunks = tuple(min(64, n) for n in shape[-3:])
    shards = tuple(min(wanted, -(-n // c) * c) for wanted, n, c in zip(SHARD, shape[-3:], chunks))
    return ShardPlan(tuple(shape), 1, (*leading, *chunks), (*leading, *shards))
