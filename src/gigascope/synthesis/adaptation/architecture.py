"""What a checkpoint has to say of its networks, and the two presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from gigascope.errors import ShapeError

Kind = Literal["cyclegan3d", "cyclegan2d", "identity"]
Strides = tuple[tuple[int, int, int], tuple[int, int, int]]
# From this ratio of voxel edges along z and x on, the first down-sampling leaves z as it is.
ANISOTROPIC = 2.0
# Slices below and above that go in with a slice, in two dimensions.
NEIGHBOURS = 2


@dataclass(frozen=True)
class Architecture:
    """Generators and discriminators of one adaptation.

    Attributes
    ----------
    kind : cyclegan3d; cyclegan2d, slice by slice; identity, images as they are
    width : channels of the first layer, of generators and discriminators
    blocks : residual blocks of a generator
    norm : of the generators: channel (layer normalisation of each voxel, Ba et al. 2016, arXiv 1607.06450), which knows
        nothing of the rest of the image; or instance (Ulyanov et al. 2016, arXiv 1607.08022), as published
    depth : normalised depth is a further channel of what goes in
    neighbours : slices below and above that are channels too, in two dimensions
    strides : (z, y, x) of the two down-samplings of a generator
    discriminator : patch (Isola et al. 2017, arXiv 1611.07004) or pixel, which sees one voxel at a time
    skip : a generator computes what differs, which is added to the image; it begins with nothing. Its last layer sees
        the image too, and its fine detail, so that what needs no deep layers is learned first: a blur, a gain, noise
    ends : voxels (z, y, x) of the kernels of a generator's first and last layer
    even : kernels of up-sampling are twice the stride, so that each voxel is made of as many others; those of 3, as
        published, leave a chequered pattern (Odena et al. 2016, doi 10.23915/distill.00003)
    """

    kind: Kind = "cyclegan3d"
    width: int = 32
    blocks: int = 6
    norm: Literal["channel", "instance"] = "channel"
    depth: bool = True
    neighbours: int = 0
    strides: Strides = ((1, 2, 2), (2, 2, 2))
    discriminator: Literal["patch", "pixel"] = "patch"
    skip: bool = True
    ends: tuple[int, int, int] = (7, 7, 7)
    even: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 0 or self.neighbours < 0:
            found = f"{self.width}, {self.blocks}, {self.neighbours}"
            raise ShapeError(f"architecture: width, blocks, neighbours: expected 1, 0, 0 or more, got {found}")
        if self.neighbours and self.kind != "cyclegan2d":
            raise ShapeError(f"architecture: neighbours are channels of cyclegan2d, not of {self.kind}")

    @property
    def dimensions(self) -> int:
        """Of the convolutions."""
        return 2 if self.kind == "cyclegan2d" else 3

    @property
    def channels(self) -> int:
        """Of what goes into a generator."""
        return 2 * self.neighbours + 1 + int(self.depth)

    @property
    def reduction(self) -> tuple[int, int, int]:
        """Factor (z, y, x) between an image and the grid of the residual blocks."""
        z, y, x = (first * second for first, second in zip(*self.strides))
        return (1 if self.dimensions == 2 else z, y, x)

    @property
    def reach(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) on either side that a voxel of a generator's output may depend on."""
        found = []
        for axis in range(3):
            first, second = self.strides[0][axis], self.strides[1][axis]
            # first and last layer half a kernel; then each layer one voxel of the grid that it reads
            inner = first * second * (2 * self.blocks + 1)
            found.append(2 * (self.ends[axis] // 2) + 1 + first + inner + first)
        if self.dimensions == 2:
            found[0] = self.neighbours
        return (found[0], found[1], found[2])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Architecture:
        """From :meth:`to_dict`."""
        first, second = (tuple(s) for s in values["strides"])
        return Architecture(**{**values, "strides": (first, second), "ends": tuple(values["ends"])})

    def differences(self, other: Architecture) -> str:
        """What differs, in words; empty: nothing."""
        mine, theirs = self.to_dict(), other.to_dict()
        return ", ".join(f"{name} {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name])


def paper(kind: Kind = "cyclegan3d") -> Architecture:
    """The published networks (Bruch et al. 2023, PLOS ONE 18(3), e0283828): resolution halved twice along all axes."""
    return Architecture(kind, 64, 9, "instance", False, 0, ((2, 2, 2), (2, 2, 2)), skip=False, even=False)


def small(kind: Kind = "cyclegan3d", voxel_um: tuple[float, float, float] = (1.5, 0.5, 0.5)) -> Architecture:
    """The default ones.

    Parameters
    ----------
    voxel_um : edges (z, y, x): where a voxel is twice as long as wide, the first down-sampling leaves z as it is, and
        the first and last layer look no farther along z than in the plane
    """
    flat = voxel_um[0] >= ANISOTROPIC * voxel_um[2]
    first, ends = ((1, 2, 2), (3, 7, 7)) if flat else ((2, 2, 2), (7, 7, 7))
    neighbours = NEIGHBOURS if kind == "cyclegan2d" else 0
    return Architecture(kind, neighbours=neighbours, strides=(first, (2, 2, 2)), ends=ends)
