"""What a step of training works on: crops of the views of some mosaic positions, as one flat list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.topography.network.evidence import Evidence


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops of n views; those of one mosaic position share a number in `group`.

    Parameters
    ----------
    stacks : (n, z, h, w) uint8, uint16 or float32, intensities of one colour
    coords : (n, 2, h, w) float32, (row, col) of the mosaic of each pixel at height 0, from an origin of its group
    group : (n,) int64, 0 to n_groups - 1
    foot : (n, 2) float32, vanishing point of each view, relative to the same origin
    distance_mm : (n,) float32, from the pinhole to the plane of height 0
    datum_mm : (n, h, w) float32, stage position at which height 0 is in focus, relative to any origin of the view
    z_mm : (n, z) float32, stage position of each slice, relative to the same origin; rising or falling throughout
    nominal : (n,) float32, slice at which the flat target is in focus, one number per view as the reference has it
    weight : (n,) float32, 1, and 0 for crops that only fill up a batch
    dz_mm : step between slices, > 0
    stage_up : a larger stage position brings the sample nearer to the cameras
    n_groups : mosaic positions
    held : (n, h, w) bool, pixels that have no teacher, to judge the network by; none: all have one
    evidence : of these stacks, where it was found before; none: a step that needs it finds it

    Raises
    ------
    ShapeError : shapes that do not go together
    """

    stacks: Tensor
    coords: Tensor
    group: Tensor
    foot: Tensor
    distance_mm: Tensor
    datum_mm: Tensor
    z_mm: Tensor
    nominal: Tensor
    weight: Tensor
    dz_mm: float
    stage_up: bool
    n_groups: int
    evidence: Evidence | None = None
    held: Tensor | None = None

    def __post_init__(self) -> None:
        if self.stacks.ndim != 4:
            raise ShapeError(f"batch: stacks: expected (n, z, h, w), got {tuple(self.stacks.shape)}")
        n, z, h, w = self.stacks.shape
        shapes = {
            "coords": (n, 2, h, w),
            "group": (n,),
            "foot": (n, 2),
            "distance_mm": (n,),
            "datum_mm": (n, h, w),
            "z_mm": (n, z),
            "nominal": (n,),
            "weight": (n,),
        }
        for name, shape in shapes.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ShapeError(f"batch: {name}: expected {shape} beside stacks {(n, z, h, w)}, got {found}")

    @property
    def n_views(self) -> int:
        """Crops, of all positions."""
        return int(self.stacks.shape[0])

    @property
    def n_z(self) -> int:
        """Slices of a stack."""
        return int(self.stacks.shape[1])

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def part(self, first: int, last: int) -> Batch:
        """The groups `first` to `last` - 1 alone, numbered from 0: what one of several processes works on."""
        mine = ((self.group >= first) & (self.group < last)).nonzero()[:, 0]
        return replace(self._each(lambda value: value[mine]), group=self.group[mine] - first, n_groups=last - first)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in changed.items():
            if isinstance(value, Tensor):
                changed[name] = change(value)
        if self.evidence is not None:
            changed["evidence"] = Evidence(*map(change, self.evidence))
        return Batch(**changed)


def height_slices(batch: Batch, index: Tensor) -> Tensor:
    """Height of every pixel in steps of the stage: s (Z_flat - Z(index)) / dz, differentiable in the index.

    Parameters
    ----------
    index : (n, h, w) fractional slices; positions between slices are linear, as beyond the ends

    Returns
    -------
    (n, h, w), toward the cameras
    """
    low = index.detach().floor().clamp(0, batch.n_z - 2).long()
    n, h, w = index.shape
    flat = low.reshape(n, -1)
    below = batch.z_mm.gather(1, flat).reshape(n, h, w)
    step = batch.z_mm.gather(1, flat + 1).reshape(n, h, w) - below
    stage = below + (index - low) * step
    return (batch.datum_mm - stage) * (_sign(batch) / batch.dz_mm)


def index_of_height(batch: Batch, height: Tensor) -> Tensor:
    """Fractional slice at which heights are in focus: inverse of :func:`height_slices` for a stage of even steps.

    Parameters
    ----------
    height : (n, h, w) in steps of the stage
    """
    first, last = batch.z_mm[:, :1, None], batch.z_mm[:, -1:, None]
    stage = batch.datum_mm - height * (_sign(batch) * batch.dz_mm)
    return (stage - first) / (last - first) * (batch.n_z - 1)


def nominal_height(batch: Batch, index: Tensor) -> Tensor:
    """Index on the reference's datum: idx - nom + n_z / 2 where the stage goes up, idx + nom - n_z / 2 down."""
    shift = (batch.nominal - 0.5 * batch.n_z)[:, None, None]
    return index - shift if batch.stage_up else index + shift


def _sign(batch: Batch) -> float:
    return 1.0 if batch.stage_up else -1.0
