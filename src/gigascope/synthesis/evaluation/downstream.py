"""What the images are made for: a segmenter that learned from them alone, tested on real images.

Networks of equal budget and seeds learn from simulated, from adapted and from both kinds of images; what they find in
real images with labels says what each kind is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.synthesis.adaptation.segmenter import Segmenter, Targets, segmenter_loss, targets_of
from gigascope.synthesis.evaluation.scores import Scores, Segment, score, segment_set
from gigascope.synthesis.evaluation.segmenting import LEAST, peaks, without_specks
from gigascope.synthesis.evaluation.tiles import Grey
from gigascope.synthesis.evaluation.volumes import ImageSet, Region, Volume

Progress = Callable[..., Iterable[Any]]
RATE, BATCH = 1e-3, 2
# Crops are drawn again, so many times at most, until one shows this share of nuclei.
TRIES, LEAST_SHARE = 8, 0.02
# Of an expected nucleus' diameter: how near two centres may lie; centre distance below which a peak is none.
APART, LEAST_PEAK = 0.4, 0.3
# Voxels (z, y, x) that go through the network at once.
WINDOW = (32, 192, 192)


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
    nucleus_um : expected diameter
    device : where it computes
    base : channels of the first level
    """

    steps: int
    crop: tuple[int, int, int]
    nucleus_um: float
    device: torch.device
    base: int = 16

    def __call__(self, lessons: Sequence[Lesson], test: Grey, random: np.random.Generator, seed: int) -> Segment:
        """Train a network from scratch; see :class:`Learner`."""
        voxel = lessons[0].images.voxel_um
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Segmenter(self.base, flat=voxel[0] > 1.5 * voxel[2]).to(self.device)
        optimiser = torch.optim.Adam(network.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 1.0 - k / max(1, self.steps))
        for _ in range(self.steps):
            image, targets = self._batch(lessons, random)
            loss = segmenter_loss(network(image), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        return NetworkSegmenter(network.eval(), test, self.nucleus_um, self.device)

    def _batch(self, lessons: Sequence[Lesson], random: np.random.Generator) -> tuple[torch.Tensor, Targets]:
        images, targets = [], []
        for _ in range(BATCH):
            lesson = lessons[int(random.integers(len(lessons)))]
            volumes = lesson.images.labelled
            volume = volumes[int(random.integers(len(volumes)))]
            region, labels = self._crop(volume, random)
            flips = [k for k in (1, 2) if random.random() < 0.5]
            images.append(np.flip(lesson.grey(volume.read(region)), tuple(flips)).copy())
            targets.append(np.flip(targets_of(labels, volume.voxel_um), tuple(k + 1 for k in flips)).copy())
        found = torch.from_numpy(np.stack(targets)).to(self.device)
        parts = Targets(found[:, :1], found[:, 1:2], found[:, 2:])
        return torch.from_numpy(np.stack(images)[:, None]).to(self.device), parts

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
    nucleus_um : expected diameter
    device : where it computes
    """

    network: Segmenter
    grey: Grey
    nucleus_um: float
    device: torch.device

    @torch.no_grad()
    def __call__(self, volume: Volume, region: Region) -> NDArray[np.int32]:
        """(z, y, x) labels of a region, by windows with what the network sees around them."""
        shape = [r.stop - r.start for r in region]
        said = np.empty((2, *shape), np.float32)
        for corner in np.ndindex(*(-(-n // w) for n, w in zip(shape, WINDOW))):
            inner = [slice(c * w, min((c + 1) * w, n)) for c, w, n in zip(corner, WINDOW, shape)]
            step = self.network.stride
            # windows start on the lattice of the coarsest level, so that they give what the whole gives
            outer = [
                slice(max(0, (i.start - r) // s * s), min(n, i.stop + r))
                for i, r, s, n in zip(inner, self.network.reach, step, shape)
            ]
            read = tuple(slice(o.start + r.start, o.stop + r.start) for o, r in zip(outer, region))
            image = torch.from_numpy(self.grey(volume.read((read[0], read[1], read[2]))))[None, None]
            answer = self.network(image.to(self.device))[0].cpu().numpy()
            cut = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer))
            said[(slice(None), *inner)] = answer[(slice(None), *cut)]
        return self._instances(said, volume.voxel_um)

    def _instances(self, said: NDArray[np.float32], voxel_um: tuple[float, float, float]) -> NDArray[np.int32]:
        from skimage.segmentation import watershed

        mask = said[0] > 0
        if not mask.any():
            return np.zeros(mask.shape, np.int32)
        near = ndimage.gaussian_filter(said[1], [0.06 * self.nucleus_um / v for v in voxel_um])
        seeds = peaks(near, mask & (near > LEAST_PEAK), voxel_um, APART * self.nucleus_um)
        found = watershed(-near, seeds, mask=mask).astype(np.int32)
        return without_specks(found, LEAST * math.pi / 6 * self.nucleus_um**3 / math.prod(voxel_um))


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
