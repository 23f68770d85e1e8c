"""How the CPU kernels are compiled and run with numba: parallel, cached on disk, safe from several Python threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numba

# reassociation and contraction let sums vectorise; nnan and ninf stay out, since a NaN in the data must stay visible
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

_WORKQUEUE_LOCK = threading.RLock()


def parallel_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use with `prange` over threads, keep the machine code on disk, release the GIL.

    Results never depend on the number of threads: a kernel may write each output from one iteration only.
    """
    compiled = numba.njit(parallel=True, nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")(function)
    first = threading.Lock()
    state = {"ready": False}

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        if not state["ready"]:
            # compilation is not safe against itself in every layer, and the layer is known only after a first launch
            with first, _WORKQUEUE_LOCK:
                result = compiled(*arguments)
                state["ready"] = True
                return result
        if numba.threading_layer() == "workqueue":  # the only layer that ends the process when two threads enter
            with _WORKQUEUE_LOCK:
                return compiled(*arguments)
        return compiled(*arguments)

    run.compiled = compiled  # type: ignore[attr-defined]
    return run


def inline_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that parallel kernels call."""
    return numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")(function)
