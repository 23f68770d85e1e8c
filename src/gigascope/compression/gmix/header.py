"""What a file of Gaussians says about itself, as Python values and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gigascope.compression.background import grid_shape
from gigascope.compression.fitting.bricks import BrickGrid
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.noise import NoiseModel

FORMAT = "gmix"
VERSION = 1

Shape3 = tuple[int, int, int]


@dataclass(frozen=True)
class Intensity:
    """Grey values of a frame: ``offset + scale * v``."""

    offset: float
    scale: float


@dataclass(frozen=True)
class BackgroundScale:
    """Background of a frame: ``offset + step * integer``, in units of the intensity's scale."""

    offset: float
    step: float


@dataclass(frozen=True)
class Header:
    """Attributes of a compressed volume.

    Attributes
    ----------
    axes : of the volume, of t, c, z, y, x in that order
    shape : samples along each axis
    dtype : of the original
    intensity : per frame (``t * n_c + c``)
    eps : per frame, where Gaussians end, units of the scale; see mixture.Mixture.cuts
    quantiser : how parameters became integers
    voxel_size_um : (z, y, x), micrometres; none if not known
    noise : per frame, grey values; empty if not known. A residual layer is coded with it
    c_max : where Gaussians end at most, standard deviations
    brick, halo : (z, y, x) of a brick, and the margin its fit saw, voxels
    cell : (z, y, x) of a cell of the background, voxels
    amplitude_scale : largest amplitude of the fixed laws, units of the scale
    background : per frame, law of the background's integers; set by the writer
    source_hash : of the original, if known
    encoder_version : of the program that wrote the file
    lam : price of a bit in squared error that the fit used, if any
    residual : attributes of the residual layer; none without one
    extra : anything else that decoding does not need
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    intensity: tuple[Intensity, ...]
    eps: tuple[float, ...]
    quantiser: Quantiser
    voxel_size_um: tuple[float, float, float] | None = None
    noise: tuple[NoiseModel, ...] = ()
    c_max: float = 3.5
    brick: Shape3 = (64, 128, 128)
    halo: int = 16
    cell: Shape3 = (32, 32, 32)
    amplitude_scale: float = 1.0
    background: tuple[BackgroundScale, ...] = ()
    source_hash: str | None = None
    encoder_version: str | None = None
    lam: float | None = None
    residual: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if tuple(a for a in "tczyx" if a in self.axes) != self.axes or self.axes[-3:] != ("z", "y", "x"):
            raise ValueError(f"axes {self.axes} are no subset of t, c, z, y, x in this order with z, y, x")
        if len(self.shape) != len(self.axes) or min(self.shape, default=0) < 1:
            raise ValueError(f"shape {self.shape} does not fit the axes {self.axes}")
        counts = {"intensity": len(self.intensity), "eps": len(self.eps)}
        counts |= {name: n for name, n in (("noise", len(self.noise)), ("background", len(self.background))) if n}
        for name, n in counts.items():
            if n != self.n_frames:
                raise ValueError(f"{name} has {n} entries, the volume has {self.n_frames} frames")
        if self.residual is not None and not self.noise:
            raise ValueError("a residual layer needs the noise of every frame")
        if any(n < 2 or n % 2 for n in self.brick):
            raise ValueError(f"bricks of {self.brick} voxels are not even in every direction")

    @property
    def n_frames(self) -> int:
        """Volumes (z, y, x) in the file."""
        return math.prod(self.shape[:-3])

    @property
    def frame_shape(self) -> Shape3:
        """(z, y, x) of a frame, voxels."""
        z, y, x = self.shape[-3:]
        return z, y, x

    @property
    def grid(self) -> BrickGrid:
        """How frames are cut into bricks."""
        return BrickGrid(self.frame_shape, self.brick)

    @property
    def background_shape(self) -> Shape3:
        """Cells of the background along z, y and x."""
        return grid_shape(self.frame_shape, self.cell)

    def to_json(self) -> dict[str, Any]:
        """As the attribute `gmix` of the file."""
        laws = self.quantiser
        steps: dict[str, Any] = {
            "position_bits": laws.position_bits,
            "scale_bits": laws.scale_bits,
            "rotation_bits": laws.rotation_bits,
            "amplitude_bits": laws.amplitude_bits,
        }
        if laws.adaptive:
            steps = {"theta": laws.theta, "delta": [laws.delta_min, laws.delta_max]}
        given = {
            "version": VERSION,
            "axes": "".join(self.axes),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "voxel_size_um": self.voxel_size_um and list(self.voxel_size_um),
            "intensity": [[i.offset, i.scale] for i in self.intensity],
            "noise": [[n.gain, n.offset, n.read] for n in self.noise],
            "brick": list(self.brick),
            "halo": self.halo,
            "c_max": self.c_max,
            "eps": list(self.eps),
            "sigma_table": [laws.sigma_min, laws.sigma_max, 1 << laws.scale_bits],
            "amp_law": "energy" if laws.adaptive else ["sqrt", self.amplitude_scale],
            "quantiser": steps,
            "bg": [[b.offset, b.step] for b in self.background],
            "cell": list(self.cell),
            "source_hash": self.source_hash,
            "encoder_version": self.encoder_version,
            "lambda": self.lam,
            "residual": None if self.residual is None else dict(self.residual),
            "extra": dict(self.extra),
        }
        return {key: value for key, value in given.items() if value not in (None, [], {})}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Header:
        """Back from :meth:`to_json`.

        Raises
        ------
        ValueError, KeyError, TypeError : not such attributes, or of another version
        """
        if given["version"] != VERSION:
            raise ValueError(f"format version {given['version']}, this release reads version {VERSION}")
        sigma_min, sigma_max, n_scales = given["sigma_table"]
        steps = dict(given["quantiser"])
        adaptive = "theta" in steps
        if adaptive:
            steps["delta_min"], steps["delta_max"] = steps.pop("delta")
        steps["scale_bits"] = int(n_scales).bit_length() - 1
        quantiser = Quantiser(adaptive=adaptive, sigma_min=sigma_min, sigma_max=sigma_max, **steps)
        size = given.get("voxel_size_um")
        return Header(
            axes=tuple(given["axes"]),
            shape=tuple(given["shape"]),
            dtype=given["dtype"],
            intensity=tuple(Intensity(*pair) for pair in given["intensity"]),
            eps=tuple(given["eps"]),
            quantiser=quantiser,
            voxel_size_um=size and _three(size),
            noise=tuple(NoiseModel(*three) for three in given.get("noise", [])),
            c_max=given["c_max"],
            brick=_three(given["brick"]),
            halo=given["halo"],
            cell=_three(given["cell"]),
            amplitude_scale=1.0 if adaptive else given["amp_law"][1],
            background=tuple(BackgroundScale(*pair) for pair in given.get("bg", [])),
            source_hash=given.get("source_hash"),
            encoder_version=given.get("encoder_version"),
            lam=given.get("lambda"),
            residual=given.get("residual"),
            extra=given.get("extra", {}),
        )


def _three(values: Sequence[Any]) -> tuple[Any, Any, Any]:
    a, b, c = values
    return a, b, c
