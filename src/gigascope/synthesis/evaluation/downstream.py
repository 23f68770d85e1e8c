"""What the images are made for: a segmenter that learned from them alone, tested on real images.

Networks of equal budget and seeds learn from simulated, from adapted and from both kinds of images; what they find in
real images with labels says what each kind is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.synthesis.adaptation.loader import Crops
from gigascope.synthesis.adaptation.mapping import Mapping
from gigascope.synthesis.adaptation.segmentation import Fit, fit_segmenter, segment
from gigascope.synthesis.adaptation.segmenter import BASE, Segmenter, Targets, targets_of
from gigascope.synthesis.evaluation.scores import Scores, Segment, score, segment_set
from gigascope.synthesis.evaluation.tiles import Grey
from gigascope.synthesis.evaluation.volumes import ImageSet, Region, Volume

Progress = Callable[..., Iterable[Any]]
BATCH = 2
# Crops are drawn again, so many times at most, until one shows this share of nuclei.
TRIES, LEAST_SHARE = 8, 0.02


@dataclass(frozen=True, eq=False)
class Lesson:
    """Images to learn from, with the scale of their grey values."""

    images: ImageSet
    grey: Grey


class Learner(Protocol):
    """Makes a segmenter from images with labels."""

    def __call__(self, lessons: Sequence[Lesson], test: Grey, random: np.random.Generator, seed: int) -> Segment:
        """Learn from all lessons; `test` is the scale of the images that will be segmented."""


@dataclass(frozen=True)
class NetworkLearner:
    """The built-in network.

    Parameters
    ----------
    steps : of training
    crop : voxels (z, y, x)
    device : where it computes
    base : channels of the first level
    """

    steps: int
    crop: tuple[int, int, int]
    device: torch.device
    base: int = BASE

    def __call__(self, lessons: Sequence[Lesson], test: Grey, random: np.random.Generator, seed: int) -> Segment:
        """Train a network from scratch; see :class:`Learner`."""
        fit = Fit(self.steps, seed, base=self.base)
        voxel = lessons[0].images.voxel_um
        network, _ = fit_segmenter(self._crops(lessons, random), fit, voxel, self.device)
        return NetworkSegmenter(network, Mapping(test.low, test.high), self.device)

    def _crops(self, lessons: Sequence[Lesson], random: np.random.Generator) -> Iterator[Crops]:
        """Batches of crops of all lessons alike, some mirrored in the plane, without end."""
        while True:
            images, targets = [], []
            for _ in range(BATCH):
                lesson = lessons[int(random.integers(len(lessons)))]
                volumes = lesson.images.labelled
                volume = volumes[int(random.integers(len(volumes)))]
                region, labels = self._crop(volume, random)
                flips = [k for k in (1, 2) if random.random() < 0.5]
                image = Mapping(lesson.grey.low, lesson.grey.high).apply(volume.read(region))
                images.append(np.flip(image, tuple(flips)).copy())
                found = targets_of(labels, volume.voxel_um)
                targets.append(np.flip(found, tuple(k + 1 for k in flips)).copy())
            t = torch.from_numpy(np.stack(targets))
            image_batch = torch.from_numpy(np.stack(images)[:, None])
            depth = torch.zeros(BATCH, 1, image_batch.shape[2], 1, 1)
            yield Crops(image_batch, depth, Targets(t[:, :1], t[:, 1:2], t[:, 2:]))

    def _crop(self, volume: Volume, random: np.random.Generator) -> tuple[Region, NDArray]:
        size = [min(c, n) for c, n in zip(self.crop, volume.shape)]
        for _ in range(TRIES):
            low = [int(random.integers(0, n - s + 1)) for n, s in zip(volume.shape, size)]
            z, y, x = (slice(a, a + s) for a, s in zip(low, size))
            labels = volume.read_labels((z, y, x))
            if (labels > 0).mean() >= LEAST_SHARE:
                break
        return (z, y, x), labels


@dataclass(frozen=True, eq=False)
class NetworkSegmenter:
    """A network that was trained, as a segmenter of volumes.

    Attributes
    ----------
    network : of the adaptation, or of :class:`NetworkLearner`
    grey : scale of the images that are segmented
    device : where it computes
    """

    network: Segmenter
    grey: Mapping
    device: torch.device

    def __call__(self, volume: Volume, region: Region) -> NDArray[np.int32]:
        """(z, y, x) labels of a region, as if there were nothing around it."""

        def read(part: tuple[slice, ...]) -> NDArray[np.float32]:
            z, y, x = (slice(r.start + p.start, r.start + p.stop) for r, p in zip(region, part))
            return self.grey.apply(volume.read((z, y, x)))

        z, y, x = (r.stop - r.start for r in region)
        return segment(read, (z, y, x), self.network.to(self.device), volume.voxel_um, self.device)


@dataclass(frozen=True)
class Lessons:
    """What one kind of images is worth, over seeds.

    Attributes
    ----------
    name : kinds that were learned from, joined by +
    scores : of each seed
    """

    name: str
    scores: list[Scores]


def downstream(
    lessons: Sequence[Lesson],
    test: Lesson,
    learn: Learner,
    *,
    seeds: int,
    most: int,
    thresholds: Sequence[float],
    random: Callable[..., np.random.Generator],
    progress: Progress = lambda items, **_: items,
) -> list[Lessons]:
    """Learn from each kind of images, and from all together, and test on others.

    Parameters
    ----------
    lessons : simulated images, and adapted ones where there are any
    test : images with labels that nothing was learned from
    learn : makes a segmenter
    seeds : networks of each kind
    most : voxels that are segmented
    random : a generator for a purpose, as a context gives it
    """
    kinds = [[lesson] for lesson in lessons] + ([list(lessons)] if len(lessons) > 1 else [])
    work = [(kind, seed) for kind in kinds for seed in range(seeds)]
    found: dict[str, list[Scores]] = {}
    for kind, seed in progress(work, what="training segmenters", unit="network"):
        name = "+".join(lesson.images.key for lesson in kind)
        segment = learn(kind, test.grey, random("downstream", seed), seed)
        found.setdefault(name, []).append(score(segment_set(test.images, segment, most), thresholds))
    return [Lessons(name, scores) for name, scores in found.items()]
