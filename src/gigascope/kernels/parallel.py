"""How the CPU kernels are compiled and run with numba: parallel, cached on disk, safe from several Python threads."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

# reassociation and contraction let sums vectorise; nnan and ninf stay out, since a NaN in the data must stay visible
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

# floating-point operations, or a tenth of the elements of a pass over memory, that are worth a thread: about 0.3 ms.
# Below that the wait for the slower thread costs more than it saves, and on a busy machine it costs a time slice
# (projection of 16 x 64 x 64, two cores with five other processes: 0.4 ms with one thread, 3.5 ms with two)
WORK_PER_THREAD = 1e7

_WORKQUEUE_LOCK = threading.RLock()
_config: Any = numba.config

# numba starts its threads from a thread that ends at once. OpenMP keeps a number of threads for each thread that asks,
# and numba, starting, sets its own there. PyTorch would take it over: the last bits of a result would depend on whether
# a kernel ran before.
_launcher = threading.Thread(target=numba.get_num_threads)
_launcher.start()
_launcher.join()


def parallel_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use with `prange` over threads, keep the machine code on disk, release the GIL.

    Results never depend on the number of threads: a kernel may write each output from one iteration only. The compiled
    function takes one more argument, `work`, the operations it is about to do, and uses no more threads than pay.
    """
    return _parallel(function, FASTMATH)


def exact_parallel_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same without FASTMATH: every operation rounds once and in the order that is written.

    For results that must be the same bits wherever a block begins and on a GPU; sums do not vectorise by themselves.
    """
    return _parallel(function, False)


def _parallel(function: Callable[..., Any], fastmath: set[str] | bool) -> Callable[..., Any]:
    with _cache_of_this_source():
        compiled = numba.njit(parallel=True, nogil=True, cache=True, fastmath=fastmath, error_model="numpy")(function)
    first = threading.Lock()
    state = {"ready": False}

    def call(*arguments: Any) -> Any:
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

    @functools.wraps(function)
    def run(*arguments: Any, work: float) -> Any:
        allowed = numba.get_num_threads()
        n_threads = min(allowed, max(1, int(work / WORK_PER_THREAD)))
        if n_threads == allowed:
            return call(*arguments)
        numba.set_num_threads(n_threads)
        try:
            return call(*arguments)
        finally:
            numba.set_num_threads(allowed)

    return run


def serial_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use for one thread, keep the machine code on disk, release the GIL."""
    with _cache_of_this_source():
        compiled = numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")(function)
    first = threading.Lock()
    state = {"ready": False}

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        if state["ready"]:
            return compiled(*arguments)
        with first:  # compilation is not safe against itself
            result = compiled(*arguments)
            state["ready"] = True
            return result

    return run


def inline_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that parallel kernels call."""
    return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function)


def exact_inline_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that exact kernels call, without FASTMATH."""
    return numba.njit(nogil=True, error_model="numpy")(function)


@contextlib.contextmanager
def _cache_of_this_source() -> Iterator[None]:
    """Let numba keep machine code in a folder named after the source of all kernels.

    By itself numba compiles again only when the file of the function changes, not when one does that it imports: a
    stage that reruns because of an edit here would go on with the old machine code.
    """
    before = _config.CACHE_DIR
    _config.CACHE_DIR = _cache_folder()
    try:
        yield
    finally:
        _config.CACHE_DIR = before


@functools.cache
def _cache_folder() -> str:
    """Below NUMBA_CACHE_DIR where it is set, else beside the source; empty, numba decides, where that is read-only."""
    source = Path(__file__).parent
    if _config.CACHE_DIR:
        base = Path(_config.CACHE_DIR)
    elif os.access(source, os.W_OK):
        base = source / "__pycache__"
    else:
        return ""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*.py")):
        digest.update(path.read_bytes())
    return str(base / f"numba-{digest.hexdigest()[:16]}")
