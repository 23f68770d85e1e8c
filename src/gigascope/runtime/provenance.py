"""What is kept of a run in every store: stage, config, code, versions, inputs, device, seed, times, memory."""

from __future__ import annotations

import platform
import socket
import time
from datetime import UTC, datetime
from typing import Any

import gigascope
from gigascope.runtime import memory
from gigascope.runtime.fingerprint import Fingerprint

_started = time.monotonic()


def record(
    *,
    stage: str,
    dataset: str,
    config: dict[str, Any],
    code: Fingerprint,
    inputs: dict[str, dict[str, Any]],
    device: str,
    seed: int,
    command: list[str],
    **more: Any,
) -> dict[str, Any]:
    """The provenance of a finished stage, as JSON values; `more` is added as it is."""
    return {
        "stage": stage,
        "dataset": dataset,
        "config": config,
        "code": code.code,
        "modules": code.modules,
        "packages": code.packages,
        "gigascope": gigascope.__version__,
        "python": platform.python_version(),
        "inputs": inputs,
        "device": device,
        "seed": seed,
        "host": socket.gethostname(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_s": round(time.monotonic() - _started, 3),
        "peak_memory_bytes": memory.peak_bytes(),
        "peak_gpu_memory_bytes": memory.peak_gpu_bytes(),
        "command": command,
        **more,
    }
