"""Several processes that train as one: this one is the first, the others are started here, one for each device."""

from __future__ import annotations

import contextlib
import json
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from gigascope.errors import UserError


@contextlib.contextmanager
def crew(n: int, device: torch.device, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Start n - 1 processes beside this one, all of one process group, and wait for them at the end.

    Parameters
    ----------
    n : processes, this one among them; 1: nothing is started
    device : of this process; on CUDA process r gets device r, and they speak NCCL, else gloo
    work : `work(rank, n, device, *arguments)` in each of the others; must take part in everything that this one does

    Raises
    ------
    UserError : what one of the others ran into
    """
    if n == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="gigascope-training-") as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        failure = Path(folder) / "failure.json"
        threads = max(1, torch.get_num_threads() // (1 if device.type == "cuda" else n))
        own = (n, device.type, meeting, threads, failure, work, arguments)
        others = multiprocessing.spawn(_other, own, nprocs=n - 1, join=False, daemon=True)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            _join(0, n, device.type, meeting)
            yield
            while not others.join():
                pass
        except (RuntimeError, multiprocessing.ProcessRaisedException):
            # what is said here is that a connection was lost; why, the other one knows
            for process in others.processes:
                process.join(timeout=10)
            if failure.exists():
                raise UserError(**json.loads(failure.read_text(encoding="utf-8"))) from None
            raise
        finally:
            for process in others.processes:
                process.kill()
            torch.set_num_threads(before)
            if distributed.is_initialized():
                distributed.destroy_process_group()


def _join(rank: int, n: int, kind: str, meeting: str) -> None:
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo", meeting, rank=rank, world_size=n)


def _other(
    place: int, n: int, kind: str, meeting: str, threads: int, failure: Path, work: Callable[..., None], arguments: Any
) -> None:
    # a scheduler asks all processes of a job to stop: the first one saves, and then ends this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    rank = place + 1
    torch.set_num_threads(threads)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    _join(rank, n, kind, meeting)
    try:
        work(rank, n, device, *arguments)
    except UserError as error:
        said = {"what": error.what, "where": error.where, "do": error.do}
        failure.write_text(json.dumps(said), encoding="utf-8")
        raise
    finally:
        distributed.destroy_process_group()
