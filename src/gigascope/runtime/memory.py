"""Memory of a stage: what was used, and what an out-of-memory error means in plain words."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from gigascope.errors import UserError

GIB = 2**30


def peak_bytes() -> int:
    """Peak resident memory of this process so far, bytes."""
    try:
        # The kernel's other count, ru_maxrss, starts from what the process held that started this one.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    # Linux counts in KiB.
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def peak_gpu_bytes() -> int:
    """Peak memory that torch held on CUDA devices in this process, bytes; 0 without one."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))


def human_bytes(count: float) -> str:
    """`12.3 GiB` and the like."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB" if count < 1024 else f"{count / 1024:.2f} TiB"


def out_of_memory(stage: str, error: BaseException) -> UserError:
    """Rewrite an allocation failure for a person."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        free, total = torch.cuda.mem_get_info()
        return UserError(
            f"{stage} ran out of GPU memory: {human_bytes(free)} of {human_bytes(total)} free.",
            do=(
                "Set device: cpu, a coarser `bin` or fewer `groups`, or use a larger GPU; `gigascope check` "
                "prints what is needed."
            ),
        )
    return UserError(
        f"{stage} ran out of memory ({human_bytes(peak_bytes())} used): {error}.",
        do="Give the job more memory; `gigascope check` prints what is needed.",
    )
