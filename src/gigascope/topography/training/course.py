"""What a training is told, and what it is about: settings, stacks, scene."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gigascope.errors import UserError
from gigascope.store.open import StoreReader, open_store
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.geometry.poses import F64
from gigascope.topography.ingest import GREEN
from gigascope.topography.network.evidence import LEAST_SLICES
from gigascope.topography.network.losses import Objective
from gigascope.topography.network.model import Architecture
from gigascope.topography.network.training import Schedule
from gigascope.topography.streaming.loader import Loading
from gigascope.topography.streaming.sampler import Order, Sampler
from gigascope.topography.streaming.scene import Scene
from gigascope.topography.streaming.stored import scene_of

# Side of a cell that is held out, pixels, and the share of cells. The windows of teachers end after 8 pixels.
HELD_PX, HELD_SHARE = 32, 0.125
_HELD = 1


@dataclass(frozen=True)
class Course:
    """How a network is trained on an acquisition.

    Attributes
    ----------
    architecture, objective, schedule, loading : see there
    positions : mosaic points of a step, over all processes together
    order : of the points
    seed : of weights, points and dithering
    evidence_bytes : memory for the evidence of whole views; where that of all views does not fit, each crop's is found
        anew, with the border of a crop where a view goes on
    """

    architecture: Architecture
    objective: Objective
    schedule: Schedule
    loading: Loading
    positions: int
    order: Order
    seed: int
    evidence_bytes: int

    def words(self) -> str:
        """For a person."""
        loading, schedule = self.loading, self.schedule
        crops = f"{self.positions} places of up to {loading.max_views} views, {loading.patch} pixels wide"
        return f"{schedule.steps} steps of {crops}, at a rate of {schedule.lr:g}"


@dataclass(frozen=True)
class Shapes:
    """What settings follow from.

    Attributes
    ----------
    size : (rows, columns) of a view
    n_z : slices
    chunk : side of the chunks of the stacks, pixels
    mosaic : (rows, columns)
    """

    size: tuple[int, int]
    n_z: int
    chunk: int
    mosaic: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Calibrated stacks that are there to be read.

    Attributes
    ----------
    stacks : store `raw` or `registered`
    scene : its views
    """

    stacks: StoreReader
    scene: Scene

    @staticmethod
    def open(stacks: Path, calibration: Path) -> Acquisition:
        """From the stores.

        Raises
        ------
        UserError : they do not belong together
        """
        store = open_store(stacks)
        return Acquisition(store, scene_of(store, *read_calibration(open_store(calibration))))

    @property
    def n_z(self) -> int:
        """Slices of a stack."""
        return int(self.scene.z_mm.shape[1])

    @property
    def shapes(self) -> Shapes:
        """Of views and mosaic."""
        scene = self.scene
        return Shapes(scene.poses.size, self.n_z, self.stacks.member(GREEN).chunks[3], scene.candidates.shape)

    @functools.cached_property
    def overlap(self) -> bool:
        """Two views see the same somewhere, far enough from their borders."""
        try:
            Sampler(self.scene, 0, 1).at(0, 0)
        except UserError:
            return False
        return True

    def why_no_network(self, objective: Objective, architecture: Architecture) -> str | None:
        """Why no network can be trained on these stacks, in words; none: it can."""
        if architecture.prior == "focus" and self.n_z < LEAST_SLICES:
            return f"stacks of {self.n_z} slices: a network that corrects the focus looks at {LEAST_SLICES}"
        alone = objective.sharp or objective.arg
        if alone or self.overlap:
            return None
        if self.scene.present.sum() == 1:
            return "there is one view: a network learns from what other views find at the same place"
        return "no two views overlap: a network learns from what other views find at the same place"


class HeldOut:
    """Cells of the mosaic that are kept from training, and by which the network is judged.

    No pixel in them has a teacher in training. They lie all over the mosaic, so that they are like the rest of it.

    Parameters
    ----------
    mosaic : (rows, columns)
    seed : chooses them
    """

    def __init__(self, mosaic: tuple[int, int], seed: int) -> None:
        cells = [-(-n // HELD_PX) for n in mosaic]
        self.cells = torch.from_numpy(np.random.default_rng((seed, _HELD)).random(cells) < HELD_SHARE)

    def mask(self, coords: Tensor, point: F64) -> Tensor:
        """(n, h, w) bool, which pixels lie in them.

        Parameters
        ----------
        coords : (n, 2, h, w) float32, of the mosaic, from a point for each
        point : (n, 2) float64, these points
        """
        cells = self.cells.to(coords.device)
        start = torch.as_tensor(point).to(coords.device, torch.float32)[:, :, None, None]
        at = ((coords + start) / HELD_PX).floor().long()
        return cells[at[:, 0].clamp(0, len(cells) - 1), at[:, 1].clamp(0, cells.shape[1] - 1)]
