"""A lock on a stage's scratch folder, so that an attempt that outlived its job never meets its successor.

The lock is a file that names host, process and job, and that its holder touches every few seconds. A dead holder's lock
(no such process on this host; no heartbeat from another host) is taken over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gigascope.errors import UserError

HEARTBEAT_S = 5.0
SILENT_S = 60.0
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(folder: Path, wait_s: float = 90.0) -> Iterator[None]:
    """Hold the folder's lock; wait for a living holder at most `wait_s` seconds.

    Raises
    ------
    UserError : another process is at work in this folder
    """
    path = folder / "lock"
    _acquire(path, wait_s)
    stop = threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        path.unlink(missing_ok=True)


def living_holder(path: Path) -> str:
    """Process, host and job that hold a lock; empty: nobody does, or its holder is gone."""
    holder = _holder(path)
    return "" if holder is None or _dead(path, holder) else _describe(holder)


def _heartbeat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)


def _acquire(path: Path, wait_s: float) -> None:
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "start": _start(os.getpid()),
    }
    end = time.monotonic() + wait_s
    told = False
    while True:
        # The holder before may have removed the folder when it was done with it.
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            holder = _holder(path)
            if holder is not None and _dead(path, holder):
                _log.warning("taking over the lock of %s, which is gone", _describe(holder))
                # Renaming first: of several successors only one gets the file.
                taken = path.with_name(f"lock.{os.getpid()}.stale")
                with contextlib.suppress(FileNotFoundError):
                    os.rename(path, taken)
                    taken.unlink()
                continue
            if time.monotonic() > end:
                raise UserError(
                    f"{_describe(holder)} is at work on this stage.",
                    where=path.parent,
                    do="Wait for it or stop it; two runs must not write one result.",
                ) from None
            if not told:
                _log.info("waiting for %s, which is at work on this stage", _describe(holder))
                told = True
            time.sleep(0.5)
        else:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(owner, file)
            return


def _holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lock; an empty record while it is being written; none when it is gone."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, ValueError):
        return {}


def _dead(path: Path, holder: dict[str, Any]) -> bool:
    try:
        silent = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    if holder.get("host") == socket.gethostname() and holder.get("pid"):
        # The start time tells a process from a later one with the same number.
        return _start(int(holder["pid"])) != holder.get("start")
    return silent > SILENT_S


def _start(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def _describe(holder: dict[str, Any] | None) -> str:
    if not holder:
        return "another process"
    job = f", job {holder['job']}" if holder.get("job") else ""
    return f"process {holder.get('pid')} on {holder.get('host')}{job}"
