"""A training on streamed crops that can be stopped between two steps: its batches, losses as they come, pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from gigascope.learning.live import LiveEvents, LiveLosses
from gigascope.learning.processes import crew
from gigascope.topography.network.batch import Batch
from gigascope.topography.network.model import HeightNetwork, new_network
from gigascope.topography.network.training import Training
from gigascope.topography.streaming.crops import Crops
from gigascope.topography.streaming.loader import Loader
from gigascope.topography.streaming.sampler import Sampler
from gigascope.topography.streaming.stats import Loaded, LoaderStats
from gigascope.topography.streaming.view_stack import green_pattern
from gigascope.topography.training.course import Acquisition, Course, HeldOut
from gigascope.topography.training.pictures import Picture, strips, take_picture
from gigascope.topography.training.trial import Trial, judge
from gigascope.topography.training.view_evidence import ViewEvidence

# Folder of what TensorBoard shows.
EVENTS = "events"
# Steps of patches that the network is judged by.
JUDGED = 8
# The seed of their points is that of the training and this.
_APART = 0x5EED


@dataclass(frozen=True)
class Update:
    """One step, for progress."""

    losses: str
    loaded: Loaded

    def summary(self) -> str:
        """In words."""
        return f"{self.losses}; {self.loaded.summary()}"


class Learning:
    """Training of a network on an acquisition, on one or several processes.

    Parameters
    ----------
    acquisition : stacks and scene; the other processes open them by their paths
    calibration : folder of the calibration
    course : settings
    device : of this process
    processes : that share the positions of a step
    live : file to which the losses are written as they come, with `events` for TensorBoard beside it; none: nowhere

    Attributes
    ----------
    processes : that share a step
    training : of the network, once :meth:`updates` has begun
    pictures : of the same patches before the first step, half way and after the last
    stats : what loading cost, of all processes together
    trial : whether the network is better than the prior, after the last step
    """

    def __init__(
        self,
        acquisition: Acquisition,
        calibration: Path,
        course: Course,
        device: torch.device,
        *,
        processes: int = 1,
        live: Path | None = None,
    ) -> None:
        self.acquisition, self.course = acquisition, course
        self.training: Training | None = None
        self.pictures: list[Picture] = []
        self.stats = LoaderStats(budget_bytes=course.loading.budget_bytes)
        self.trial: Trial | None = None
        self.processes = processes
        self._calibration, self._device, self._live = calibration, device, live
        self._complete = _Complete(acquisition, course, device)
        self._resumed: dict[str, Any] | None = None

    @property
    def network(self) -> HeightNetwork:
        """The network for inference."""
        if self.training is None:
            raise RuntimeError("the training has not begun")
        return self.training.result

    @property
    def n_parameters(self) -> int:
        """Numbers that are trained."""
        return 0 if self.training is None else self.training.network.n_parameters

    @property
    def curves(self) -> list[dict[str, float]]:
        """Losses of all steps so far."""
        return [] if self.training is None else self.training.curves

    def updates(self) -> Iterator[Update]:
        """Go on to the end, and judge what came out."""
        others = (self.acquisition.stacks.path, self._calibration, self.course, _packed(self._resumed))
        steps = self.course.schedule.steps
        with ExitStack() as stack:
            stack.enter_context(crew(self.processes, self._device, _take_part, *others))
            mine = _Share(self.acquisition, self.course, self._complete, self._device, 0, self.processes)
            share = stack.enter_context(mine)
            self.training = training = share.training(self._resumed)
            live = events = None
            if self._live is not None:
                live = LiveLosses(self._live, training.curves)
                events = stack.enter_context(closing(LiveEvents(self._live.with_name(EVENTS), training.step)))
            moments = {0, steps // 2, steps}
            # before the first step; a state that was saved has it already
            self._look_at(training, moments)
            for losses in training.updates():
                self._look_at(training, moments)
                self.stats.batches.append(share.loaded)
                self.stats.peak_bytes = share.loader.stats.peak_bytes
                if live is not None and events is not None:
                    live.add(training.curves[-1], last=training.step == steps)
                    events.add(training.curves[-1], lambda: strips(self._picture(training)))
                yield Update(losses, share.loaded)
        self.trial = judge(self.network, (batch for batch, _ in self._judged(JUDGED)))

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        if self.training is None:
            raise RuntimeError("the training has not begun")
        columns, _ = self.stats.table()
        loaded = {name: torch.from_numpy(values) for name, values in columns.items()}
        pictures = [picture.to_dict() for picture in self.pictures]
        return {"training": self.training.state_dict(), "loaded": loaded, "pictures": pictures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self._resumed = state["training"]
        rows = zip(*(values.tolist() for values in state["loaded"].values()))
        self.stats.batches = [Loaded(*row) for row in rows]
        self.pictures = [Picture.from_dict(values) for values in state["pictures"]]

    def result(self) -> dict[str, Any]:
        """The network as inference takes it: :meth:`Training.state_dict` without the optimiser."""
        if self.training is None:
            raise RuntimeError("the training has not begun")
        state = self.training.state_dict()
        return {name: state[name] for name in ("architecture", "step", "network", "average")}

    def _look_at(self, training: Training, moments: set[int]) -> None:
        if training.step in moments and all(p.step != training.step for p in self.pictures):
            self.pictures.append(self._picture(training))

    def _picture(self, training: Training) -> Picture:
        batch, crops = next(self._judged(1))
        return take_picture(training.result, batch, crops, training.step)

    def _judged(self, n: int) -> Iterator[tuple[Batch, Crops]]:
        """The first batches of the patches that the network is judged by."""
        scene, course = self.acquisition.scene, self.course
        loading = replace(course.loading, ahead=1)
        least = 2 if self.acquisition.overlap else 1
        sampler = Sampler(
            scene,
            course.seed ^ _APART,
            course.positions,
            patch=loading.patch,
            min_views=least,
        )
        with _loader(self.acquisition, sampler, course, self._device, 0, 1, loading.ahead) as loader:
            for step in range(n):
                yield self._complete(loader(step), loader.crops(step)), loader.crops(step)


class _Complete:
    """Adds evidence and held-out pixels to batches."""

    def __init__(self, acquisition: Acquisition, course: Course, device: torch.device) -> None:
        scene = acquisition.scene
        n_views, size = int(scene.present.sum()), scene.poses.size
        budget = course.evidence_bytes
        self._evidence = ViewEvidence(acquisition.stacks, scene.grid, size, n_views, budget, device)
        self._held = HeldOut(scene.candidates.shape, course.seed)

    def __call__(self, batch: Batch, crops: Crops) -> Batch:
        held = self._held.mask(batch.coords, crops.point[crops.group])
        return replace(self._evidence.add_to(batch, crops), held=held)


class _Share:
    """What one process does of every step."""

    def __init__(
        self,
        acquisition: Acquisition,
        course: Course,
        complete: _Complete,
        device: torch.device,
        rank: int,
        processes: int,
    ) -> None:
        self._course, self._complete, self._device, self._processes = course, complete, device, processes
        sampler = Sampler(
            acquisition.scene,
            course.seed,
            course.positions,
            order=course.order,
            patch=course.loading.patch,
            min_views=2 if acquisition.overlap else 1,
        )
        self.loader = _loader(acquisition, sampler, course, device, rank, processes, course.loading.ahead)
        self.loaded = Loaded(0, 0, 0, 0, 0.0, 0.0)

    def training(self, resumed: dict[str, Any] | None) -> Training:
        """The training, from its start or from where it was stopped."""
        course = self._course
        network = new_network(course.architecture, course.seed).to(self._device)
        shared = self._processes > 1
        training = Training(network, self._batch, course.objective, course.schedule, course.seed, shared)
        if resumed is not None:
            training.load_state_dict(resumed)
        return training

    def _batch(self, step: int) -> Batch:
        batch = self.loader(step)
        self.loaded = self._over_all(self.loader.stats.batches.pop())
        return batch if self._course.architecture.prior == "none" else self._complete(batch, self.loader.crops(step))

    def _over_all(self, mine: Loaded) -> Loaded:
        """Views and bytes of all processes, and their mean times."""
        if self._processes == 1:
            return mine
        values = torch.tensor(
            [mine.views, mine.bytes_read, mine.bytes_used, mine.wait_s, mine.total_s],
            dtype=torch.float64,
            device=self._device,
        )
        distributed.all_reduce(values)
        views, read, used, wait, total = values.tolist()
        n = self._processes
        return Loaded(mine.step, int(views), int(read), int(used), wait / n, total / n)

    def __enter__(self) -> _Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.close()


def _take_part(
    rank: int,
    processes: int,
    device: torch.device,
    stacks: Path,
    calibration: Path,
    course: Course,
    resumed: bytes | None,
) -> None:
    """All steps of another process."""
    state = None if resumed is None else torch.load(io.BytesIO(resumed), map_location="cpu", weights_only=True)
    acquisition = Acquisition.open(stacks, calibration)
    with _Share(acquisition, course, _Complete(acquisition, course, device), device, rank, processes) as share:
        for _ in share.training(state).updates():
            pass


def _packed(state: dict[str, Any] | None) -> bytes | None:
    """A state for another process: tensors would be shared with it, and both move the optimiser's in place."""
    if state is None:
        return None
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _loader(
    acquisition: Acquisition,
    sampler: Sampler,
    course: Course,
    device: torch.device,
    rank: int,
    ranks: int,
    ahead: int,
) -> Loader:
    stacks, loading = acquisition.stacks, replace(course.loading, ahead=ahead)
    return Loader(
        stacks.path,
        stacks.member("green"),
        sampler,
        loading,
        pattern=green_pattern(stacks),
        rank=rank,
        ranks=ranks,
        device=device,
        last=course.schedule.steps,
    )
