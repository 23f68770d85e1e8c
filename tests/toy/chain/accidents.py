"""What befalls the toy chain: a process that is killed while it writes, one that takes much memory."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def die_at_the_next_write(folder: Path) -> None:
    """Have this process killed when a file is written and not yet renamed; once for a folder."""
    mark = folder / "killed"
    if mark.exists():
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = die  # type: ignore[assignment]


def take_memory(megabytes: int, seconds: float) -> None:
    """Hold so much memory for some seconds."""
    held = bytearray(megabytes * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(seconds)
