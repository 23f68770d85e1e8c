"""Checkpoints of long stages: saved on a time budget and on SIGTERM, in the stage's scratch folder.

A scheduler sends SIGTERM about 30 s before it kills. The stage then saves and ends with exit code 75; started again
with the same config, code and inputs it goes on from there.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

from gigascope.errors import Checkpointed

EVERY_S = 120.0
# Left of a job's time for saving when the limit is known.
RESERVE_S = 60.0
U_co = TypeVar("U_co", covariant=True)
_log = logging.getLogger(__name__)


class Resumable(Protocol[U_co]):
    """A computation that can be stopped between two updates and go on."""

    def updates(self) -> Iterator[U_co]:
        """Go on from the present state to the end."""

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""


class Checkpoints:
    """Saves and restores the computations of one stage, each under a name of its own.

    Parameters
    ----------
    folder : where the checkpoints lie
    every_s : seconds between two saves
    deadline : `time.monotonic()` at which the job's time is up; none: no limit is known
    stop : says that the job has to stop for a reason of others
    """

    def __init__(
        self,
        folder: Path,
        every_s: float = EVERY_S,
        deadline: float | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self._folder = folder
        self._every_s = every_s
        self._deadline = deadline
        self._stop = stop
        self._last = time.monotonic()
        self.stop_requested = False

    def listen(self) -> None:
        """Take SIGTERM as the request to save and stop."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True

    @property
    def out_of_time(self) -> bool:
        """The job was asked to stop, or its time is nearly up."""
        late = self._deadline is not None and time.monotonic() > self._deadline - RESERVE_S
        return self.stop_requested or late or (self._stop is not None and self._stop())

    def inside(self, folder: Path) -> Checkpoints:
        """Checkpoints of a piece of the work, in a folder of its own; they stop when these have to."""
        return Checkpoints(folder, self._every_s, stop=lambda: self.out_of_time)

    def run(self, name: str, computation: Resumable[U_co]) -> Iterator[U_co]:
        """Updates of a computation, from its checkpoint if there is one, saving it now and then and at its end.

        Raises
        ------
        Checkpointed : the job has to stop; the state was saved
        """
        state = self.load(name)
        if state is not None:
            _log.info("%s: going on from a checkpoint", name)
            computation.load_state_dict(state)
        for update in computation.updates():
            yield update
            if self.out_of_time:
                self.save(name, computation.state_dict())
                raise Checkpointed(f"{name}: stopped with its state saved; start again to go on")
            if time.monotonic() - self._last > self._every_s:
                self.save(name, computation.state_dict())
        self.save(name, computation.state_dict())

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a state: beside, then renamed, so that a kill leaves the previous one."""
        import torch

        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        self._last = time.monotonic()

    def load(self, name: str) -> dict[str, Any] | None:
        """The saved state of that name, on the CPU, or none."""
        import torch

        path = self._path(name)
        if not path.is_file():
            return None
        # States hold numpy arrays too, and only this stage writes into its scratch folder.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
        return state

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.checkpoint"
