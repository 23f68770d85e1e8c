"""A training on streamed crops that can be stopped between two steps: batches, losses as they come, pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from gigascope.learning.events import EventFile
from gigascope.learning.live import LiveLosses
from gigascope.learning.processes import crew
from gigascope.synthesis.adaptation.course import Course, Material
from gigascope.synthesis.adaptation.domain import Domain, Place
from gigascope.synthesis.adaptation.events import add_losses, add_picture
from gigascope.synthesis.adaptation.loader import Loaded, Loader, LoaderStats
from gigascope.synthesis.adaptation.mapping import Mapping
from gigascope.synthesis.adaptation.pictures import Picture, take_picture
from gigascope.synthesis.adaptation.training import Training

# A picture before the first step and after each of so many shares of the training.
SHARES = 4


class Learning:
    """Training of an adaptation, on one or several processes.

    Parameters
    ----------
    real, cultures : domains a and b
    course : settings
    device : of this process
    processes : that share the crops of a step
    live : folder for losses that can be looked at meanwhile, `losses.tsv` and events for TensorBoard; none: nowhere

    Attributes
    ----------
    training : once :meth:`updates` has begun
    material : the domains as they were looked through
    pictures : of the same crops at moments of the training
    stats : what loading cost this process
    """

    def __init__(
        self,
        real: Domain,
        cultures: Domain,
        course: Course,
        device: torch.device,
        *,
        processes: int = 1,
        live: Path | None = None,
    ) -> None:
        self.course, self.processes = course, processes
        self.training: Training | None = None
        self.material: Material | None = None
        self.pictures: list[Picture] = []
        self.stats = LoaderStats()
        self._domains, self._device, self._live = (real, cultures), device, live
        self._resumed: dict[str, Any] | None = None

    @property
    def curves(self) -> list[dict[str, float]]:
        """Losses of all steps so far."""
        return [] if self.training is None else self.training.curves

    def result(self) -> tuple[Training, tuple[Mapping, Mapping]]:
        """The training at its end, and the grey values of the domains."""
        if self.training is None or self.material is None:
            raise RuntimeError("the training has not begun")
        return self.training, self.material.mappings(self.course)

    def updates(self) -> Iterator[str]:
        """Go on to the end."""
        real, cultures = self._domains
        course, device, resumed = self.course, self._device, self._resumed
        material = self.material = self.material or Material.look_through(real, cultures, course)
        packed = _packed({"training": resumed, "surveys": material.to_list()})
        with ExitStack() as stack:
            stack.enter_context(crew(self.processes, device, _take_part, real.place, cultures.place, course, packed))
            mine = material.loader(course, device, ranks=self.processes, last=course.schedule.steps)
            loader = stack.enter_context(mine)
            training = self.training = _training(loader, course, device, 0, self.processes, resumed)
            watch = stack.enter_context(_Watch(self._live, training.curves))
            self._look_at(training, material, watch)
            for losses in training.updates():
                loaded = loader.stats.batches.pop()
                self.stats.batches.append(loaded)
                self.stats.peak_bytes = loader.stats.peak_bytes
                self._look_at(training, material, watch)
                watch.add(training.curves[-1], loaded)
                yield losses

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        if self.training is None or self.material is None:
            raise RuntimeError("the training has not begun")
        return {
            "training": self.training.state_dict(),
            "surveys": self.material.to_list(),
            "loaded": self.stats.table(),
            "pictures": [picture.to_dict() for picture in self.pictures],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        real, cultures = self._domains
        self._resumed = state["training"]
        self.material = Material.of(real.place, cultures.place, state["surveys"])
        self.stats.batches = [Loaded(*row) for row in zip(*(column.tolist() for column in state["loaded"].values()))]
        self.pictures = [Picture(**values) for values in state["pictures"]]

    def _look_at(self, training: Training, material: Material, watch: _Watch) -> None:
        steps = training.schedule.steps
        moments = {round(n * steps / SHARES) for n in range(SHARES + 1)}
        if training.collapsed:
            moments.add(training.step)
        if training.step not in moments or any(p.step == training.step for p in self.pictures):
            return
        with material.loader(self.course, self._device, "pictures", last=1) as loader:
            picture = take_picture(training.used["to_a"], loader(0), training.step)
        self.pictures.append(picture)
        watch.show(picture)


class _Watch:
    """Losses and pictures for people who look while it runs."""

    def __init__(self, folder: Path | None, curves: list[dict[str, float]]) -> None:
        self._table = None if folder is None else LiveLosses(folder / "losses.tsv", curves)
        self._events = None if folder is None else EventFile(folder / "events.out.tfevents.train")
        if self._events is not None:
            for row in curves:
                add_losses(self._events, row)

    def add(self, row: dict[str, float], loaded: Loaded) -> None:
        if self._table is not None and self._events is not None:
            self._table.add(row)
            add_losses(self._events, row)
            seconds = {"loader/wait_s": loaded.wait_s, "loader/step_s": loaded.total_s}
            self._events.scalars(int(row["step"]), seconds)
            self._events.flush()

    def show(self, picture: Picture) -> None:
        if self._events is not None:
            add_picture(self._events, picture)
            self._events.flush()

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.close()


def _training(
    loader: Loader, course: Course, device: torch.device, rank: int, ranks: int, resumed: dict[str, Any] | None
) -> Training:
    """The training, from its start or from where it was stopped."""
    training = Training(
        course.networks(device),
        loader,
        course.objective,
        course.schedule,
        course.means,
        course.seed,
        rank=rank,
        ranks=ranks,
    )
    if resumed is not None:
        training.load_state_dict(resumed)
    return training


def _take_part(
    rank: int, ranks: int, device: torch.device, real: Place, cultures: Place, course: Course, packed: bytes
) -> None:
    """All steps of another process."""
    known = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False)
    material = Material.of(real, cultures, known["surveys"])
    last = course.schedule.steps
    with material.loader(course, device, rank=rank, ranks=ranks, last=last) as loader:
        for _ in _training(loader, course, device, rank, ranks, known["training"]).updates():
            pass


def _packed(state: dict[str, Any]) -> bytes:
    """A state for another process: tensors would be shared with it, and both move the optimiser's in place."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
