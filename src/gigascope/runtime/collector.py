"""Python's collector of reference cycles, kept from looking again and again at what libraries have loaded.

PyTorch, numba and the configuration are half a million objects that stay. With its usual thresholds the collector goes
through them dozens of times while they load, and several times more when the process ends: a third of the CPU time of a
stage that has little to do (`python benchmarks/startup.py`).
"""

from __future__ import annotations

import atexit
import gc

# Objects more than were given back before the young ones are looked at; rounds of that before the older ones are.
_LOADING = (100_000, 20, 50)
_usual: tuple[int, int, int] | None = None


def collect_rarely() -> None:
    """From now on, while libraries load or a graph is built, and at the end of the process not at all."""
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(*_LOADING)
        atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """Before data is worked on: arrays in cycles are given back soon. What is there by now is not looked at again."""
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
