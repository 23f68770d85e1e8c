"""All measures of simulated, adapted and real images: what is computed in which order, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.synthesis.evaluation.alignment import Alignment, alignment
from gigascope.synthesis.evaluation.distances import DepthDistance, Distance, Part, Reference, by_depth, distances
from gigascope.synthesis.evaluation.downstream import Learner, Lesson, Lessons, downstream
from gigascope.synthesis.evaluation.labels import PAIRS
from gigascope.synthesis.evaluation.parity import ParityScores, parity_scores
from gigascope.synthesis.evaluation.profiles import PARITY, EdgeCurve, EdgeForm, edge_curve, edge_distances
from gigascope.synthesis.evaluation.scores import Found, Scores, Segment, blobs, score, segment_set
from gigascope.synthesis.evaluation.segmenting import Classical
from gigascope.synthesis.evaluation.tiles import (
    Grey,
    Measured,
    SetMeasures,
    choose_tiles,
    grey_scale,
    look_around,
    measure_set,
    tile_size,
)
from gigascope.synthesis.evaluation.volumes import ADAPTED, NAIVE, REAL, ImageSet

Progress = Callable[..., Iterable[Any]]
# Images smaller than this along y or x show too little of anything.
LEAST_SIDE, LEAST_SLICES = 16, 4
# Relative difference of edges of voxels that counts as none.
SAME_VOXELS = 0.02


@dataclass(frozen=True)
class Plan:
    """What is measured; see the section `evaluate` of the config.

    Attributes
    ----------
    tile : voxels (z, y, x), at most
    own_scale : simulated images are on a scale of their own, not on that of the real ones
    downstream_steps, downstream_seeds : 0 steps: no networks are trained
    """

    edge: EdgeForm = field(default_factory=EdgeForm)
    closing_um: float = 15.0
    tile: tuple[int, int, int] = (32, 128, 128)
    max_tiles: int = 200
    patches: int = 20_000
    bootstrap: int = 200
    own_scale: bool = True
    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    nucleus_um: float = 9.5
    max_segmented: int = 2**24
    downstream_steps: int = 0
    downstream_seeds: int = 3
    parity: bool = False
    parity_closing: int = 15
    parity_erosion: int = 2


@dataclass(eq=False)
class Results:
    """What came out; keys are those of sets (`real`, `naive`, `adapted`) and of pairs of them.

    Attributes
    ----------
    sizes : images of each set
    scales : grey values of each set that became -1 and 1
    tile : voxels (z, y, x) of the tiles
    voxel_um : edges (z, y, x) of the simulated images
    """

    sizes: dict[str, int] = field(default_factory=dict)
    scales: dict[str, Grey] = field(default_factory=dict)
    tile: tuple[int, int, int] = (0, 0, 0)
    voxel_um: tuple[float, float, float] = (1.0, 1.0, 1.0)
    measures: dict[str, SetMeasures] = field(default_factory=dict)
    distances: dict[str, list[Distance]] = field(default_factory=dict)
    by_depth: dict[str, list[DepthDistance]] = field(default_factory=dict)
    edges: dict[str, EdgeCurve] = field(default_factory=dict)
    edge_distances: dict[str, list[float]] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    found: dict[str, list[Found]] = field(default_factory=dict)
    alignments: list[Alignment] = field(default_factory=list)
    new_blobs: dict[str, int] = field(default_factory=dict)
    downstream: list[Lessons] = field(default_factory=list)
    parity: dict[str, ParityScores] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Evaluation:
    """Evaluation of an ensemble.

    Parameters
    ----------
    naive : simulated images with labels
    real : images that they should look like; none: there are none
    adapted : what a network made of the simulated ones, with their labels
    plan : what is measured
    segmenter : finds nuclei in images of a kind, by its key; none: the classical one
    learner : for networks that learn from the images; none: none is trained
    test : real images with labels for those networks; none: all of `real` with labels
    classes : by name of a simulated image: class of each label
    random : a generator for a purpose
    device : where networks compute

    Raises
    ------
    UserError : images too small to be measured
    """

    def __init__(
        self,
        naive: ImageSet,
        real: ImageSet | None = None,
        adapted: ImageSet | None = None,
        *,
        plan: Plan,
        random: Callable[..., np.random.Generator],
        segmenter: Callable[[str], Segment] | None = None,
        learner: Learner | None = None,
        test: ImageSet | None = None,
        classes: Mapping[str, Mapping[int, int]] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._sets = {s.key: s for s in (real, naive, adapted) if s is not None}
        self._plan, self._random, self._device = plan, random, device or torch.device("cpu")
        self._classical = Classical(plan.nucleus_um)
        self._segmenter = segmenter or (lambda _: self._classical)
        self._learner, self._test, self._classes = learner, test, classes or {}
        sizes = np.min([s.smallest() for s in self._sets.values()], axis=0)
        if min(sizes[1:]) < LEAST_SIDE or sizes[0] < LEAST_SLICES:
            what = f"the smallest image has {' x '.join(map(str, sizes))} voxels (z, y, x)"
            least = f"{LEAST_SLICES} x {LEAST_SIDE} x {LEAST_SIDE}"
            raise UserError(f"{what}; at least {least} are needed.", do="Simulate or give larger images.")
        tile = tile_size(list(self._sets.values()), plan.tile)
        self.results = Results(sizes={k: len(s.volumes) for k, s in self._sets.items()}, tile=tile)
        self.results.voxel_um = naive.voxel_um
        if real is not None and not np.allclose(real.voxel_um, naive.voxel_um, rtol=SAME_VOXELS):
            sizes = [" x ".join(f"{v:g}" for v in s.voxel_um) for s in (real, naive)]
            self.results.warnings.append(
                f"Voxels of the real images are {sizes[0]} µm large (z, y, x), of the simulated ones {sizes[1]}: "
                "spectra, patches and features compare voxels, and so tell the two apart. "
                "Set simulate.grid.output_voxel_um, or ingest.output_voxel_um."
            )

    def measure(self, progress: Progress = lambda items, **_: items) -> Results:
        """Measure everything."""
        around = {k: look_around(s, self._plan.closing_um, self._classical) for k, s in self._sets.items()}
        self._measure_sets(around, progress)
        self._compare()
        self._edges(around, progress)
        self._segment(progress)
        self._align(progress)
        self._downstream(progress)
        if self._plan.parity and REAL in self._sets:
            self._parity(around, progress)
        return self.results

    # parts

    def _measure_sets(self, around: Mapping[str, Measured], progress: Progress) -> None:
        out = self.results
        tiles = {k: choose_tiles(m, out.tile, self._plan.max_tiles) for k, m in around.items()}
        for key in self._sets:
            shared = key != REAL and REAL in self._sets and (key == ADAPTED or not self._plan.own_scale)
            out.scales[key] = out.scales[REAL] if shared else grey_scale(self._sets[key], tiles[key])
        for key in self._sets:
            out.measures[key] = measure_set(
                around[key],
                tiles[key],
                out.scales[key],
                patches=self._plan.patches,
                random=self._random("patches", key),
                device=self._device,
                progress=progress,
            )

    def _compare(self) -> None:
        out, plan = self.results, self._plan
        first = REAL if REAL in self._sets else NAIVE
        reference = Reference.of(out.measures[first], self._random("directions"))
        parts = {k: Part.of(m, reference) for k, m in out.measures.items()}
        for pair, (a, b) in PAIRS.items():
            if a == b:
                if a == first:
                    one, other = (Part.of(out.measures[a], reference, k) for k in (0, 1))
                    draw = self._random("draws", pair)
                    out.distances[pair] = distances(one, other, out.tile, plan.bootstrap, draw)
                    out.by_depth[pair] = by_depth(*out.measures[a].by_depth)
            elif a in parts and b in parts:
                draw = self._random("draws", pair)
                out.distances[pair] = distances(parts[a], parts[b], out.tile, plan.bootstrap, draw)
                sums = [out.measures[k].by_depth.sum(axis=0) for k in (a, b)]
                out.by_depth[pair] = by_depth(*sums)

    def _edges(self, around: Mapping[str, Measured], progress: Progress) -> None:
        out = self.results
        for key in progress(list(self._sets), what="measuring edges", unit="kind of images"):
            out.edges[key] = edge_curve(around[key], out.scales[key], self._plan.edge)
        for pair, (a, b) in PAIRS.items():
            if a != b and a in out.edges and b in out.edges:
                out.edge_distances[pair] = edge_distances(out.edges[a], out.edges[b])

    def _segment(self, progress: Progress) -> None:
        out = self.results
        for key, images in self._sets.items():
            if not images.labelled:
                out.notes.append(f"The {images.title} images have no labels: no scores of a segmenter on them.")
                continue
            segment = self._segmenter(key)
            out.found[key] = segment_set(images, segment, self._plan.max_segmented, progress)
            classes = self._classes if key != REAL else None
            if any(f.overlaps.references.ids.size for f in out.found[key]):
                out.scores[key] = score(out.found[key], self._plan.thresholds, classes)

    def _align(self, progress: Progress) -> None:
        out = self.results
        if ADAPTED not in self._sets:
            return
        origins = {v.name: v for v in self._sets[NAIVE].volumes if v.labels is not None}
        pairs = [(v, origins[v.name]) for v in self._sets[ADAPTED].volumes if v.name in origins]
        each = max(1, self._plan.max_tiles // max(1, len(pairs)))
        for volume, origin in pairs:
            out.alignments.append(alignment(volume, origin, each, progress=progress))
        before = {f.volume.name: f for f in out.found.get(NAIVE, [])}
        for found in out.found.get(ADAPTED, []):
            other = before.get(found.volume.name)
            if other is not None and other.region == found.region:
                out.new_blobs[found.volume.name] = blobs(found, other)

    def _downstream(self, progress: Progress) -> None:
        out, plan = self.results, self._plan
        if not plan.downstream_steps or self._learner is None:
            return
        test = self._test or self._sets.get(REAL)
        if test is None or not test.labelled:
            out.notes.append(
                "No real images with labels: networks were not trained, nothing could tell what they learn."
            )
            return
        lessons = [Lesson(self._sets[k], out.scales[k]) for k in (NAIVE, ADAPTED) if k in self._sets]
        out.downstream = downstream(
            [lesson for lesson in lessons if lesson.images.labelled],
            Lesson(test, out.scales[REAL]),
            self._learner,
            seeds=plan.downstream_seeds,
            most=plan.max_segmented,
            thresholds=plan.thresholds,
            random=self._random,
            progress=progress,
        )

    def _parity(self, around: Mapping[str, Measured], progress: Progress) -> None:
        out, plan = self.results, self._plan
        curves = {k: edge_curve(m, out.scales[k], PARITY) for k, m in around.items()}
        others = [k for k in (NAIVE, ADAPTED) if k in self._sets]
        for key in progress(others, what="measures as published", unit="kind of images"):
            scores = parity_scores(around[REAL], around[key], plan.parity_closing, plan.parity_erosion)
            out.parity[key] = ParityScores(scores, edge_distances(curves[REAL], curves[key]))


def picture_planes(images: ImageSet, found: Sequence[Found] | None, most: int) -> dict[str, NDArray]:
    """Slices through the middle of the first image, to be looked at.

    Parameters
    ----------
    found : of a segmenter, whose slice is given too where it has segmented it
    most : pixels along a side; of larger ones the middle

    Returns
    -------
    "xy", "xz" grey values; "xy_labels", "xz_labels" where there are labels; "xy_found"
    """
    volume = images.volumes[0]
    z, y, x = volume.shape
    rows, cols = (slice((n - min(n, most)) // 2, (n - min(n, most)) // 2 + min(n, most)) for n in (y, x))
    across = (slice(z // 2, z // 2 + 1), rows, cols)
    along = (slice(0, z), slice(y // 2, y // 2 + 1), cols)
    planes = {"xy": volume.read(across)[0], "xz": volume.read(along)[:, 0]}
    if volume.labels is not None:
        planes |= {"xy_labels": volume.read_labels(across)[0], "xz_labels": volume.read_labels(along)[:, 0]}
    for one in found or []:
        if one.volume is volume:
            plane = np.zeros((y, x), np.int32)
            plane[one.region[1:]] = one.labels[z // 2 - one.region[0].start]
            planes["xy_found"] = plane[rows, cols]
    return planes
