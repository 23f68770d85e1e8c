"""The spheroid as a region: a signed distance function, evaluated where it is asked for.

Positions are (z, y, x) in µm from the corner of the field; the region's bounding box begins `margin_um` from it. The
distance is negative inside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.kernels.cells import harmonic_scales, real_harmonics, sphere_rule
from gigascope.synthesis.phantom.recipe import RegionRecipe
from gigascope.synthesis.phantom.region_kernel import interpolate, lobe_distances
from gigascope.synthesis.seeds import generator

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

ROUGH_DEGREE, ROUGH_POWER = 8, 1.8
# Samples of a region along its longest axis, where it is sampled: for its volume, and for what presses nuclei inside.
# A sphere's distance is then off by spacing² / 8 R, 0.004 µm at R = 100 µm and 0.02 µm at 500 µm.
GRID = 128
FINEST_UM = 0.5


@dataclass(frozen=True)
class DistanceGrid:
    """Signed distance at low + i spacing.

    Attributes
    ----------
    values : (nz, ny, nx) float32 µm
    low, spacing : (3,) float64 µm
    """

    values: F32
    low: F64
    spacing: F64

    def distance(self, points: F64) -> F64:
        """(n,) float64 at points (n, 3), trilinear; beyond the grid its edge's value plus the way to it."""
        out = np.empty(len(points))
        interpolate(np.ascontiguousarray(points), self.values, self.low, self.spacing, out, work=60.0 * len(points))
        return out


@dataclass(frozen=True)
class Region:
    """A region.

    Attributes
    ----------
    kind : ellipsoid, clusters or mask
    low, high : (3,) float64 µm, its bounding box
    field_um : (3,) size of the field, the margin on all sides included
    core_fraction : where the necrotic core ends, as a share of the way from the centre to the surface
    floor : plane z below which there is nothing: the flat side, on the glass
    centres, axes : (m, 3) float64 µm of the lobes
    rough : (m, 81) float64, coefficients of the log radius
    blend_um : width of the smooth union of lobes
    mask : distances, of a region that is a mask
    """

    kind: str
    low: F64
    high: F64
    margin_um: float
    core_fraction: float = 0.0
    floor: float = -math.inf
    centres: F64 = field(default_factory=lambda: np.zeros((0, 3)))
    axes: F64 = field(default_factory=lambda: np.zeros((0, 3)))
    rough: F64 = field(default_factory=lambda: np.zeros((0, 81)))
    blend_um: float = 0.0
    mask: DistanceGrid | None = None

    @property
    def field_um(self) -> F64:
        """(3,) µm: size of the field, which starts at 0."""
        return np.asarray(self.high + self.margin_um)

    def distance(self, points: F64) -> F64:
        """(n,) float64 µm, negative inside, of points (n, 3) µm."""
        return self._measure(points)[0]

    def radial(self, points: F64) -> F64:
        """(n,) float64: 0 at a centre, 1 at the surface."""
        return self._measure(points)[1]

    def in_core(self, points: F64) -> NDArray[np.bool_]:
        """(n,) bool: in the necrotic core."""
        return np.asarray(self.radial(points) < self.core_fraction)

    def _measure(self, points: F64) -> tuple[F64, F64]:
        points = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
        if self.mask is not None:
            distance = np.maximum(self.mask.distance(points), self.floor - points[:, 0])
            deepest = max(1e-9, -float(self.mask.values.min()))
            return distance, np.clip(1.0 + distance / deepest, 0.0, None)
        distance, radial = np.empty(len(points)), np.empty(len(points))
        shape = (self.centres, self.axes, self._powers, self.blend_um, self.floor)
        lobe_distances(points, distance, radial, *shape, work=150.0 * len(self.axes) * len(points))
        return distance, radial

    @functools.cached_property
    def _powers(self) -> F64:
        return polynomial(self.rough)

    @functools.cached_property
    def grid(self) -> DistanceGrid:
        """Distances on a grid around the region: what many lookups near the surface are made in."""
        if self.mask is not None and math.isinf(self.floor):
            return self.mask
        spacing = max(FINEST_UM, float((self.high - self.low).max()) / GRID)
        if self.mask is not None:
            spacing = float(self.mask.spacing.min())
        low = self.low - 2.5 * spacing
        shape = np.ceil((self.high - self.low) / spacing).astype(int) + 6
        values = np.empty(tuple(shape), np.float32)
        plane = np.stack(np.meshgrid(*(np.arange(n) * spacing for n in (1, *shape[1:])), indexing="ij"), -1)
        plane = plane.reshape(-1, 3) + low
        for z in range(shape[0]):
            values[z] = self.distance(plane + (z * spacing, 0.0, 0.0)).reshape(shape[1:])
        return DistanceGrid(values, low, np.full(3, spacing))

    @functools.cached_property
    def volume_um3(self) -> float:
        """Volume, each cell of the grid counted by the share that the surface leaves of it."""
        grid = self.grid
        share = np.clip(0.5 - grid.values / float(grid.spacing.min()), 0.0, 1.0)
        return float(share.sum(dtype=np.float64)) * float(np.prod(grid.spacing))

    def descriptor(self) -> dict[str, Any]:
        """JSON values; with :attr:`mask` all that :func:`region_from` needs."""
        numbers = {name: getattr(self, name).tolist() for name in ("low", "high", "centres", "axes", "rough")}
        floor = None if math.isinf(self.floor) else self.floor
        plain = {name: getattr(self, name) for name in ("kind", "margin_um", "core_fraction", "blend_um")}
        mask = None
        if self.mask is not None:
            mask = {"low": self.mask.low.tolist(), "spacing": self.mask.spacing.tolist()}
        return {**plain, **numbers, "floor": floor, "mask": mask, "volume_um3": self.volume_um3}


def region_from(descriptor: Mapping[str, Any], values: F32 | None = None) -> Region:
    """The region that :meth:`Region.descriptor` describes; `values` are the distances of one that is a mask."""
    mask = descriptor["mask"]
    grid = None
    if mask is not None:
        if values is None:
            raise ValueError("a region of kind mask needs its distances")
        grid = DistanceGrid(np.asarray(values, np.float32), np.array(mask["low"]), np.array(mask["spacing"]))
    numbers: dict[str, Any] = {name: np.array(descriptor[name], np.float64) for name in ("low", "high")}
    widths = {"centres": 3, "axes": 3, "rough": 81}
    numbers |= {name: np.array(descriptor[name], np.float64).reshape(-1, n) for name, n in widths.items()}
    plain = {name: descriptor[name] for name in ("kind", "margin_um", "core_fraction", "blend_um")}
    floor = -math.inf if descriptor["floor"] is None else descriptor["floor"]
    return Region(**plain, **numbers, floor=floor, mask=grid)


def build_region(recipe: RegionRecipe, seed: int, mask: DistanceGrid | None = None) -> Region:
    """The region of a spheroid.

    Parameters
    ----------
    recipe : its keys
    seed : of the spheroid
    mask : distances, for the kind `mask`; see :mod:`gigascope.synthesis.phantom.mask`

    Raises
    ------
    UserError : nothing is left of the region
    """
    common: dict[str, Any] = {"kind": recipe.kind, "margin_um": recipe.margin_um, "core_fraction": recipe.core_fraction}
    if recipe.kind == "mask":
        if mask is None:
            raise ValueError("a region of kind mask needs its distances")
        low, high = _mask_box(mask)
        placed = DistanceGrid(mask.values, mask.low - low + recipe.margin_um, mask.spacing)
        found = Region(**common, low=np.full(3, recipe.margin_um), high=high - low + recipe.margin_um, mask=placed)
        return _with_flat_side(found, recipe.flat_bottom)
    centres, axes = _lobes(recipe, seed)
    rough = np.stack([_roughness(recipe.surface_rms, seed, lobe) for lobe in range(len(axes))])
    low, high = _lobe_box(centres, axes, rough)
    # where lobes meet, a smooth union bulges by at most this
    bulge = recipe.cluster_blend_um * math.log(len(axes)) if recipe.kind == "clusters" else 0.0
    shift = recipe.margin_um - (low - bulge)
    found = Region(
        **common,
        low=low - bulge + shift,
        high=high + bulge + shift,
        centres=centres + shift,
        axes=axes,
        rough=rough,
        blend_um=recipe.cluster_blend_um if recipe.kind == "clusters" else 0.0,
    )
    return _with_flat_side(found, recipe.flat_bottom)


def polynomial(rough: F64) -> F64:
    """Coefficients (m, 81) of a sum of harmonics as homogeneous polynomials of degree 7 and 8 on the sphere.

    Harmonics of odd degrees to 7 are those of degree 7, of even degrees to 8 those of degree 8: 81 products instead of
    a recurrence. The powers of z fall first, then those of y.
    """
    return rough @ _change_of_basis()


@functools.cache
def _change_of_basis() -> F64:
    directions, _ = sphere_rule()
    u, waves = directions.numpy(), real_harmonics(directions).numpy()
    z, y, x = u.T
    powers = [(d, a, b) for d in (7, 8) for a in range(d, -1, -1) for b in range(d - a, -1, -1)]
    monomials = np.stack([z**a * y**b * x ** (d - a - b) for d, a, b in powers], axis=1)
    return np.asarray(np.linalg.lstsq(monomials, waves, rcond=None)[0].T)


def _roughness(rms: float, seed: int, lobe: int) -> F64:
    """(81,) random coefficients of which the RMS over the sphere is `rms` exactly."""
    scales = harmonic_scales(1.0, ROUGH_POWER, ROUGH_DEGREE).numpy()
    drawn = generator(seed, "region", "surface", lobe).standard_normal(len(scales)) * scales
    size = math.sqrt(float(np.sum(drawn**2)) / (4 * math.pi))
    return np.asarray(drawn * (rms / size))


def _lobes(recipe: RegionRecipe, seed: int) -> tuple[F64, F64]:
    """Centres and semi-axes: one ellipsoid, or spheres in even directions around the centre, inside its bounds."""
    outer = np.array(recipe.semi_axes_um, np.float64)
    if recipe.kind == "ellipsoid":
        return np.zeros((1, 3)), outer[None]
    n = recipe.cluster_number
    rng = generator(seed, "region", "clusters")
    turned = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, k * math.pi * (3 - math.sqrt(5))
    flat = np.sqrt(1 - height**2)
    directions = np.stack([height, flat * np.sin(turn), flat * np.cos(turn)], axis=1) @ turned.T
    radius = recipe.cluster_radius * outer.min() * (1 + 0.15 * rng.uniform(-1, 1, n))
    # each touches the ellipsoid from inside, or nearly
    return directions * np.maximum(0.0, outer - radius[:, None]), np.repeat(radius[:, None], 3, axis=1)


def _lobe_box(centres: F64, axes: F64, rough: F64) -> tuple[F64, F64]:
    directions, _ = sphere_rule(32)
    # the six directions along the axes: those of a smooth body are exact
    u = np.concatenate([directions.numpy(), np.eye(3), -np.eye(3)])
    waves = real_harmonics(torch.from_numpy(u)).numpy()
    radius = np.exp(rough @ waves.T) / np.sqrt(np.sum((u / axes[:, None]) ** 2, axis=-1))
    reach = radius[..., None] * u
    # directions are 4 degrees apart: a rough surface may reach a little further between them
    more = 1.003 if np.any(rough) else 1.0
    return (centres + more * reach.min(axis=1)).min(axis=0), (centres + more * reach.max(axis=1)).max(axis=0)


def _mask_box(mask: DistanceGrid) -> tuple[F64, F64]:
    inside = np.argwhere(mask.values < 0)
    if len(inside) == 0:
        raise UserError("the mask of the region is empty.", do="Check phantoms.region.mask.")
    return mask.low + (inside.min(axis=0) - 1) * mask.spacing, mask.low + (inside.max(axis=0) + 1) * mask.spacing


def _with_flat_side(region: Region, fraction: float) -> Region:
    if fraction == 0:
        return region
    floor = float(region.low[0] + fraction * (region.high[0] - region.low[0]))
    return replace(region, floor=floor)
