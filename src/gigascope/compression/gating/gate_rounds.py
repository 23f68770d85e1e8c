"""The gate region by region, in rounds, so that jobs can share the regions and none holds more than one.

Mode `threshold`: label the candidates of each region; list the labels that meet on its faces; settle all components at
once, from the lists; drop those that do not stay; add the margin. Mode `network` goes on from the settled objects: draw
voxels to train with; train; evaluate. A region is a shard of the gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gating.gate import Evidence, Read, dilated, inside, reader, widened
from gigascope.compression.gating.gate_components import find_candidates, meeting, neighbours, settle, without
from gigascope.store.plan import Region, ShardPlan

if TYPE_CHECKING:
    import torch

    from gigascope.compression.gating.gate_network import Settings

U8 = NDArray[np.uint8]

# What is done in the rounds of each mode. `settle` is one item, `train` one for each frame, others one for each region.
ROUNDS = {
    "threshold": ("label", "match", "settle", "clean", "dilate"),
    "intensity": ("above",),
    "network": ("label", "match", "settle", "clean", "sample", "train", "infer"),
}


@dataclass(frozen=True)
class Thresholds:
    """Of the mode `threshold`: see :class:`gigascope.config.compression.Gate`."""

    seed: float
    grow: float
    min_voxels: int
    dilate: tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    """Of the mode `network`.

    Attributes
    ----------
    settings : of the training
    tau : probability above which a voxel is occupied; none: of the best F1
    voxel_size : (z, y, x), any unit of length
    device : to train and evaluate on
    """

    settings: Settings
    tau: float | None
    voxel_size: tuple[float, float, float]
    device: torch.device


class GateRegions:
    """The regions of a gate, numbered as its shards are, last axis fastest, and what each round does to one.

    The methods named after rounds take `work`: it has ``array(name)`` for the shared arrays `candidates`, `objects` and
    `gate`, ``save(**arrays)``, ``read(item, round)`` for what was saved in an earlier round, and ``metrics``.

    Parameters
    ----------
    volume : array of ([t,] [c,] z, y, x)
    plan : of the gate
    frames : evidence of every frame
    thresholds : of the objects
    levels : grey value of every frame that the mode `intensity` goes by
    """

    def __init__(
        self,
        volume: Any,
        plan: ShardPlan,
        thresholds: Thresholds,
        frames: Sequence[Evidence] = (),
        levels: Sequence[float] = (),
        network: Network | None = None,
    ) -> None:
        self.volume = volume
        self.plan = plan
        self.thresholds = thresholds
        self.frames = frames
        self.levels = levels
        self.network = network
        self.regions = list(plan.regions())
        self._grid = plan.grid[-3:]
        self._per_frame = math.prod(self._grid)

    def frame(self, number: int) -> int:
        """Number of the frame that a region is part of."""
        return number // self._per_frame

    def box(self, number: int) -> Region:
        """Slices along z, y and x."""
        return self.regions[number][-3:]

    def place(self, number: int) -> tuple[int, ...]:
        """Index of the frame that a region is part of."""
        return tuple(s.start for s in self.regions[number][:-3])

    def read(self, number: int) -> Read:
        """Box -> grey values of the frame that a region is part of."""
        return reader(self.volume, self.place(number))

    def beside(self, number: int) -> list[tuple[int, int, int]]:
        """Axis, face and number of the neighbours of a region."""
        first = self.frame(number) * self._per_frame
        return [(axis, end, first + other) for axis, end, other in neighbours(self._grid, number - first)]

    def write(self, work: Any, name: str, number: int, block: NDArray) -> None:
        """A region's (z, y, x) block into a shared array."""
        shape = [s.stop - s.start for s in self.regions[number]]
        work.array(name)[self.regions[number]] = block.astype(np.uint8).reshape(shape)
        if name == "gate":
            work.metrics["voxels"] = int(np.count_nonzero(block))

    def around(self, work: Any, name: str, number: int, box: Region) -> U8:
        """A box of a region's frame from a shared array."""
        block = np.asarray(work.array(name)[(*self.place(number), *box)])
        return block.reshape([b.stop - b.start for b in box])

    # rounds

    def label(self, work: Any, number: int) -> None:
        """Candidates of a region, and what its neighbours will want to know."""
        evidence, box = self.frames[self.frame(number)], self.box(number)
        # read once, with the margin: read piece by piece, a chunk of the store would be decoded nine times
        wide = widened(box, evidence.margin, evidence.shape)
        voxels = self.read(number)(wide)
        seen = evidence.of(lambda piece: voxels[inside(piece, wide)], box)
        low, high = seen > self.thresholds.grow, seen > self.thresholds.seed
        open_faces = [(axis, end) for axis, end, _ in self.beside(number)]
        found = find_candidates(low, high, self.thresholds.min_voxels, open_faces)
        self.write(work, "candidates", number, found.mask)
        work.save(**found.columns())

    def match(self, work: Any, number: int) -> None:
        """Pairs of components that meet on the faces towards the lower neighbours, one array for each axis."""
        own, pairs = work.read(number, _LABEL), {}
        for axis, end, other in self.beside(number):
            if end == 0:
                pairs[f"pairs_{axis}"] = meeting(own[f"face_{axis}_0"], work.read(other, _LABEL)[f"face_{axis}_1"])
        work.save(**pairs)

    def settle(self, work: Any, number: int) -> None:
        """Which components that reach a neighbour stay: `stays`, from `start[n]` on for region n."""
        # one region at a time: the labels on the faces of all of them would grow with the volume
        labelled = (work.read(n, _LABEL) for n in range(len(self.regions)))
        size, seeded = zip(*((found["size"], found["seeded"]) for found in labelled))
        start = np.cumsum([0, *(s.size for s in size)])
        pairs = [np.zeros((0, 2), np.int64)]
        for n in range(len(self.regions)):
            found = work.read(n, _MATCH)
            for axis, end, other in self.beside(n):
                if end == 0:
                    pairs.append(found[f"pairs_{axis}"] + (start[n], start[other]))
        stays = settle(np.concatenate(size), np.concatenate(seeded), np.concatenate(pairs), self.thresholds.min_voxels)
        work.save(start=start, stays=stays)

    def clean(self, work: Any, number: int) -> None:
        """The objects of a region: its candidates without the components that do not stay."""
        settled = work.read(0, _SETTLE)
        mine = slice(int(settled["start"][number]), int(settled["start"][number + 1]))
        candidates = self.around(work, "candidates", number, self.box(number)).astype(bool)
        first = work.read(number, _LABEL)["first"]
        self.write(work, "objects", number, without(candidates, first, settled["stays"][mine]))

    def dilate(self, work: Any, number: int) -> None:
        """The gate of a region."""
        self.write(work, "gate", number, self.dilated(work, number)[0])

    def dilated(self, work: Any, number: int, further: int = 0) -> tuple[U8, Region]:
        """The objects with their margin, of a region and `further` voxels around it, and the box that this is."""
        shape = self.plan.shape[-3:]
        box = widened(self.box(number), (further,) * 3, shape)
        wide = widened(box, self.thresholds.dilate, shape)
        found = dilated(self.around(work, "objects", number, wide), self.thresholds.dilate)
        return found[inside(box, wide)], box

    def above(self, work: Any, number: int) -> None:
        """The voxels of a region above a grey value."""
        self.write(work, "gate", number, self.read(number)(self.box(number)) > self.levels[self.frame(number)])

    # rounds of the network

    def sample(self, work: Any, number: int, rng: np.random.Generator) -> None:
        """Voxels of a region to train with."""
        from gigascope.compression.gating import gate_network as networks

        gate, box = self.dilated(work, number, networks.SHELL)
        work.save(**networks.sample_region(gate, box, self.box(number), networks.quota(self._per_frame), rng))

    def training(self, work: Any, frame: int, seed: int) -> Any:
        """The training of a frame's network, a resumable computation."""
        from gigascope.compression.gating import gate_network as networks

        first = frame * self._per_frame
        found = [work.read(n, _SAMPLE) for n in range(first, first + self._per_frame)]
        network = self.untrained(seed)
        points = networks.Points(found, network.scale.device)
        return networks.Training(network, points, self._of_network.settings, seed)

    def trained(self, work: Any, training: Any) -> None:
        """Keep a trained network and the probability that its frame is gated by."""
        from gigascope.compression.gating import gate_network as networks

        tau = self._of_network.tau
        tau = networks.best_threshold(training.network, training.points) if tau is None else tau
        work.metrics["tau"] = tau
        work.save(tau=np.array([tau]), **networks.weights_of(training.network))

    def infer(self, work: Any, number: int) -> None:
        """The gate of a region by the network of its frame."""
        from gigascope.compression.gating import gate_network as networks

        found = work.read(self.frame(number), _TRAIN)
        tau = float(found.pop("tau")[0])
        network = networks.load_weights(self.untrained(0), found)
        self.write(work, "gate", number, network.occupied(self.box(number), tau))

    def untrained(self, seed: int) -> Any:
        """A network for any of the frames, on the device."""
        from gigascope.compression.gating import gate_network as networks

        parts = self._of_network
        new = networks.new_network(self.plan.shape[-3:], parts.voxel_size, parts.settings, seed)
        return new.to(parts.device)

    @property
    def _of_network(self) -> Network:
        if self.network is None:
            raise ValueError("only the mode `network` has a network")
        return self.network


def fractions(counts: Sequence[int], shape: Sequence[int], n_frames: int) -> list[float]:
    """Share of the voxels of each frame that are in the gate, from those of its regions."""
    per_frame = len(counts) // n_frames
    return [sum(counts[f * per_frame : (f + 1) * per_frame]) / math.prod(shape[-3:]) for f in range(n_frames)]


def warnings(found: Sequence[float]) -> list[str]:
    """What a person should know about a gate, in plain words."""
    empty = [str(f) for f, fraction in enumerate(found) if fraction == 0]
    if not empty:
        return []
    where = "The gate" if len(found) == 1 else f"The gate of frame {', '.join(empty)}"
    return [f"{where} is empty: no voxel stands out of the background (see gate.seed_sd)."]


_LABEL, _MATCH, _SETTLE = (ROUNDS["threshold"].index(name) for name in ("label", "match", "settle"))
_SAMPLE, _TRAIN = (ROUNDS["network"].index(name) for name in ("sample", "train"))
