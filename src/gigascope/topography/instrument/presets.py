"""Sizes of the synthetic instrument, from unit tests to a full acquisition, and the specimens it looks at."""

from __future__ import annotations

from dataclasses import dataclass

from gigascope.errors import UserError
from gigascope.topography.instrument import heights
from gigascope.topography.instrument.noise import key
from gigascope.topography.instrument.world import Albedo, TextureFree, World

# Pixels across the field of the instrument after which the small ones are modelled.
FULL_SIZE = 3072
SCENES = ("relief", "blocks", "caps", "pins", "staircase", "tilt", "flat")


@dataclass(frozen=True)
class Preset:
    """Size of an instrument.

    Attributes
    ----------
    cameras : (rows, columns) of the camera array
    scan : (n_scan_y, n_scan_x) lateral stage positions
    n_z : slices per stack
    size : pixels along each side of a view
    levels, patch : of the network and the crops that suit this size
    """

    name: str
    cameras: tuple[int, int]
    scan: tuple[int, int]
    n_z: int
    size: int
    levels: int
    patch: int

    @property
    def views(self) -> tuple[int, int]:
        """(view_rows, view_cols): the scan runs fastest inside a camera."""
        return self.cameras[0] * self.scan[0], self.cameras[1] * self.scan[1]

    @property
    def n_views(self) -> int:
        """Number of z-stacks."""
        return self.views[0] * self.views[1]

    @property
    def raw_bytes(self) -> int:
        """Bytes of all stacks, one per pixel."""
        return self.n_views * self.n_z * self.size**2


PRESETS = {
    p.name: p
    for p in (
        Preset("XS", (1, 2), (2, 2), 9, 192, 3, 96),
        Preset("S", (2, 2), (4, 4), 17, 384, 5, 192),
        Preset("M", (3, 2), (8, 8), 33, 768, 5, 384),
        Preset("L", (9, 6), (8, 8), 33, 1024, 6, 576),
        Preset("XL", (9, 6), (8, 8), 65, 3072, 6, 576),
    )
}


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises
    ------
    UserError : there is none of that name
    """
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def largest_relief_um(size: Preset, dz_um: float) -> float:
    """Range of heights that a stack covers with two slices to spare at each end, um."""
    return (size.n_z - 5) * dz_um


def scene(name: str, size: Preset, shape: tuple[int, int], *, seed: int, dz_um: float, pixel_um: float) -> World:
    """A specimen by name, as high as the preset's stack covers.

    Parameters
    ----------
    name : "relief" (with blocks on it and a tilt), "blocks", "caps", "pins", "staircase", "tilt" or "flat"
    size : its n_z bounds the heights
    shape : (rows, cols) of the mosaic
    seed : of heights, albedo and texture-free discs

    Raises
    ------
    UserError : there is no scene of that name
    """
    limit = largest_relief_um(size, dz_um)
    # XS 128 um; from S on 206 um of relief and 80 um blocks, on which the accuracy of focus estimators is known
    relief = min(206.0, 0.8 * limit)
    parts: dict[str, tuple[heights.Component, ...]] = {
        "relief": (
            heights.Relief(key(seed, "relief"), 0.5 * relief, shortest_px=80.0, longest_px=min(2.0 * size.size, 800.0)),
            heights.Blocks(key(seed, "blocks"), 0.39 * relief, pitch_px=min(220.0, size.size), probability=0.4),
            heights.Tilt(0.11 * relief, shape),
        ),
        "blocks": (heights.Blocks(key(seed, "blocks"), relief),),
        "caps": (heights.Caps(key(seed, "caps"), min(120.0, limit), 150.0, radius_px=60.0, pixel_um=pixel_um),),
        "pins": (heights.Pins(key(seed, "pins"), min(200.0, limit), pitch_px=80.0, radius_px=16.0),),
        "staircase": (heights.Staircase(_steps_within(limit), width_px=0.42 * size.size),),
        "tilt": (heights.Tilt(relief, shape),),
        "flat": (),
    }
    if name not in parts:
        raise UserError(f"no scene {name!r}, expected one of {', '.join(SCENES)}")
    bare = TextureFree(
        key(seed, "texture"), pitch_px=min(420.0, 1.5 * size.size), radius_px=min(44.0, 0.15 * size.size)
    )
    return World(parts[name], Albedo(key(seed, "albedo"), texture_free=bare))


def _steps_within(limit: float) -> tuple[float, ...]:
    """Gauge steps 10, 20, 50, 100, 200 um, without the last ones where a stack is too short."""
    steps: list[float] = []
    for step in (10.0, 20.0, 50.0, 100.0, 200.0):
        if sum(steps) + step <= limit:
            steps.append(step)
    return tuple(steps)
