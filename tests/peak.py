"""The most memory that a stage held, run as `gigascope` runs it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

# The peak is asked for at the very end, after the record in the store is written.
PROGRAM = """
import atexit, sys
from gigascope.cli import main
from gigascope.runtime.memory import peak_bytes
from gigascope.store import plan

plan.SHARD_TARGET = int(sys.argv.pop(1)) or plan.SHARD_TARGET
atexit.register(lambda: print("peak", peak_bytes()))
main(sys.argv[1:])
"""
# What glibc keeps of what was freed, up to 200 MiB, depends on which thread ran when: let it keep nothing.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def peak_of(words: Sequence[str], shard_bytes: int = 0) -> int:
    """Bytes that `gigascope WORDS` holds at most, with shards that end at so many bytes; 0: at the usual ones."""
    command = [sys.executable, "-c", PROGRAM, str(shard_bytes), *words]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=os.environ | ALLOCATOR
    )
    return int(run.stdout.split("peak")[1])
