"""A computation that is stopped goes on where it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gigascope.errors import Checkpointed
from gigascope.runtime.checkpoint import Checkpoints


class Counting:
    """Adds 1, 2, ..., n."""

    def __init__(self, n: int) -> None:
        self.n, self.i, self.total = n, 0, 0

    def updates(self) -> Iterator[int]:
        while self.i < self.n:
            self.i += 1
            self.total += self.i
            yield self.i

    def state_dict(self) -> dict[str, Any]:
        return {"i": self.i, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.i, self.total = state["i"], state["total"]


def test_stopped_computation_goes_on_to_the_same_result(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    updates = first.run("sum", Counting(10))
    assert [next(updates) for _ in range(4)] == [1, 2, 3, 4]
    first.stop_requested = True
    with pytest.raises(Checkpointed):
        next(updates)
    second = Counting(10)
    assert list(Checkpoints(tmp_path).run("sum", second)) == [5, 6, 7, 8, 9, 10]
    assert second.total == 55


def test_finished_computation_is_not_repeated(tmp_path: Path) -> None:
    list(Checkpoints(tmp_path).run("sum", Counting(3)))
    again = Counting(3)
    assert list(Checkpoints(tmp_path).run("sum", again)) == []
    assert again.total == 6


def test_sigterm_asks_to_stop(tmp_path: Path) -> None:
    previous = signal.getsignal(signal.SIGTERM)
    try:
        checkpoints = Checkpoints(tmp_path)
        checkpoints.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Checkpointed):
            list(checkpoints.run("sum", Counting(10)))
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_deadline_ends_the_computation_with_its_state_saved(tmp_path: Path) -> None:
    with pytest.raises(Checkpointed):
        list(Checkpoints(tmp_path, deadline=0.0).run("sum", Counting(10)))
    assert Checkpoints(tmp_path).load("sum") == {"i": 1, "total": 1}


def test_kill_while_saving_leaves_the_previous_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("sum", {"i": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save("sum", {"i": 2})
    assert checkpoints.load("sum") == {"i": 1}
