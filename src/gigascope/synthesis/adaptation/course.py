"""What a training is told, and what follows from the images: grey values, crops, batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gigascope.errors import UserError
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.domain import Domain, Place
from gigascope.synthesis.adaptation.loader import Loader, Loading
from gigascope.synthesis.adaptation.mapping import ROOM, Mapping
from gigascope.synthesis.adaptation.networks import Networks
from gigascope.synthesis.adaptation.objective import Objective
from gigascope.synthesis.adaptation.sampler import Sampler
from gigascope.synthesis.adaptation.schedule import Schedule
from gigascope.synthesis.adaptation.stored import load_start
from gigascope.synthesis.adaptation.survey import Survey, survey
from gigascope.synthesis.adaptation.training import Means
from gigascope.synthesis.seeds import seed_of

# Of weights, by their dimensions.
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Course:
    """How an adaptation is trained.

    Attributes
    ----------
    architecture, objective, schedule, means, loading : see there
    crop : (z, y, x) voxels
    batch : crops of each domain in a step, over all processes together
    foreground, turns : see :class:`Sampler`
    percentiles : of grey values that become -1 and 1; none: 0 and 255 do
    seed : of weights, crops and pools
    start : file of networks to begin with
    """

    architecture: Architecture
    objective: Objective
    schedule: Schedule
    means: Means
    loading: Loading
    crop: tuple[int, int, int]
    batch: int
    foreground: float
    turns: Literal["all", "one"]
    percentiles: tuple[float, float] | None
    seed: int
    start: str | None = None

    def words(self) -> str:
        """For a person."""
        a, crop = self.architecture, " x ".join(map(str, self.crop))
        return (
            f"{self.schedule.steps} steps of {self.batch} crops of {crop} voxels of each domain, {a.kind} of width "
            f"{a.width} with {a.blocks} blocks and norm {a.norm}, at a rate of {self.schedule.lr:g}"
        )

    def networks(self, device: torch.device) -> Networks:
        """The networks to begin with."""
        seed = seed_of(self.seed, "train", "weights")
        networks = Networks(self.architecture, segmenter=self.objective.label > 0, seed=seed)
        if self.start is not None:
            load_start(networks, Path(self.start))
        # also on a CPU: the first and last layer of a generator take 0.7 of the time there
        networks = networks.to(device)
        for parameter in networks.parameters():
            # the segmenter has three dimensions beside generators of two
            if parameter.dim() in _LAYOUTS:
                parameter.data = parameter.data.contiguous(memory_format=_LAYOUTS[parameter.dim()])
        return networks


@dataclass(frozen=True, eq=False)
class Material:
    """Both domains, looked through.

    Attributes
    ----------
    real, cultures : domains a and b
    surveys : of each
    """

    real: Domain
    cultures: Domain
    surveys: tuple[Survey, Survey]

    @staticmethod
    def look_through(real: Domain, cultures: Domain, course: Course) -> Material:
        """Read all images once, or twice."""
        by_labels = all(volume.labels is not None for volume in cultures.volumes)
        threads = course.loading.threads
        a = survey(real, course.crop, by_labels=False, threads=threads)
        b = survey(cultures, course.crop, by_labels=by_labels, threads=threads)
        return Material(real, cultures, (a, b))

    @staticmethod
    def of(real: Place, cultures: Place, surveys: list[dict[str, Any]]) -> Material:
        """As another process, or an earlier attempt, found it."""
        a, b = (Survey.from_dict(values) for values in surveys)
        return Material(real.open(), cultures.open(), (a, b))

    def to_list(self) -> list[dict[str, Any]]:
        """The surveys as plain values."""
        return [found.to_dict() for found in self.surveys]

    def mappings(self, course: Course) -> tuple[Mapping, Mapping]:
        """Of the grey values of both domains.

        Raises
        ------
        UserError : the range of 8 bits for images of more
        """
        most = ROOM if course.architecture.skip else 1.0
        if course.percentiles is None:
            for domain in (self.real, self.cultures):
                if domain.dtype != np.uint8:
                    what = f"holds {domain.dtype}, and the published mapping is that of 8 bits."
                    do = "Set train.norm_percentiles, such as [0.1, 99.9], or give images of 8 bits."
                    raise UserError(what, where=domain.path, do=do)
            return Mapping(0, 255, most), Mapping(0, 255, most)
        low, high = course.percentiles
        found = []
        for domain, seen in zip((self.real, self.cultures), self.surveys):
            try:
                found.append(Mapping(seen.percentile(low), seen.percentile(high), most))
            except UserError as error:
                raise UserError(error.what, where=domain.path, do=error.do) from None
        return found[0], found[1]

    def samplers(self, course: Course, *purpose: str) -> tuple[Sampler, Sampler]:
        """Crops of both domains; a purpose other than training has crops of its own."""
        seed = seed_of(course.seed, *purpose) if purpose else course.seed

        def of(domain: Domain, found: Survey, name: Literal["a", "b"]) -> Sampler:
            return Sampler(
                [volume.shape for volume in domain.volumes],
                found,
                course.crop,
                course.batch,
                seed,
                name,
                every=name == "b",
                foreground=course.foreground,
                turns=course.turns,
                square=abs(domain.voxel_um[1] / domain.voxel_um[2] - 1) < 0.01,
            )

        return of(self.real, self.surveys[0], "a"), of(self.cultures, self.surveys[1], "b")

    def loader(
        self,
        course: Course,
        device: torch.device,
        *purpose: str,
        rank: int = 0,
        ranks: int = 1,
        last: int | None = None,
    ) -> Loader:
        """Batches of the training, or for another purpose."""
        return Loader(
            self.real,
            self.cultures,
            self.samplers(course, *purpose),
            self.mappings(course),
            course.loading,
            targets=course.objective.label > 0,
            rank=rank,
            ranks=ranks,
            device=device,
            last=last,
        )
