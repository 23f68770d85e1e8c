"""Light on a coarse grid of cells: optical depth through a cone of rays, and its read-out on a finer grid.

Signatures, checks, dispatch. Lengths are cells of the coarse grid; cell centres lie at whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check_in_place, check_positive
from gigascope.kernels.library import define


def cone_depth(mu: Tensor, slopes: Tensor) -> Tensor:
    """Effective optical depth from every cell up to z = 0 and beyond: -ln of the mean of exp(-tau) over rays.

    Parameters
    ----------
    mu : (z, y, x) float32, attenuation of a path of one cell; nothing lies outside the grid
    slopes : (ray, 2) float64, cells along y and x that a ray moves per cell upwards (to smaller z)

    Returns
    -------
    (z, y, x) float32, at cell centres

    Raises
    ------
    ShapeError : another rank or dtype

    Notes
    -----
    tau of a ray is sqrt(1 + slope^2) times the sum over the layers above of mu, linearly interpolated in each layer,
    and half of the own layer. The sums are prefix sums in a frame that is sheared by the ray, so a volume is
    interpolated twice, however deep it is.
    """
    return torch.ops.gigascope.cells_cone_depth(mu, slopes)


def attenuate_(
    density: Tensor,
    tau: Tensor,
    origin: Sequence[int],
    step: Sequence[float],
    first: Sequence[float],
    corner: Sequence[int] = (0, 0, 0),
) -> None:
    """In place, multiply a block of voxels by exp(-tau), with tau interpolated linearly between cells.

    Parameters
    ----------
    density : (z, y, x) float32, contiguous, written
    tau : (Z, Y, X) float32 at the centres of a box of cells; beyond the outermost ones it goes on with its last value
    origin : (z, y, x) of the block's first voxel in the whole image
    step : voxel spacing, cells
    first : position of the whole image's voxel 0, cells
    corner : (z, y, x) of the box's first cell

    Raises
    ------
    ShapeError : another rank or dtype, a step that is not positive, or `density` is not contiguous

    Notes
    -----
    Positions follow from the voxel's index in the whole image: a block's result does not depend on how it is cut, nor
    on the box, if that holds the cells around all voxels.
    """
    torch.ops.gigascope.cells_attenuate_(density, tau, list(origin), list(step), list(first), list(corner))


def read_out(
    grid: Tensor,
    shape: Sequence[int],
    origin: Sequence[int],
    step: Sequence[float],
    first: Sequence[float],
    corner: Sequence[int] = (0, 0, 0),
) -> Tensor:
    """A block of voxels of values that are interpolated linearly between cells; parameters as :func:`attenuate_`.

    Returns
    -------
    `shape` float32, on the device of `grid`
    """
    lists = list(shape), list(origin), list(step), list(first), list(corner)
    return torch.ops.gigascope.cells_read_out(grid, *lists)


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.cells import cpu_light

        return cpu_light
    if chosen == "cuda":
        from gigascope.kernels.cells import cuda_light

        return cuda_light
    from gigascope.kernels.cells import reference_light

    return reference_light


def _check_volume(op: str, name: str, volume: Tensor) -> None:
    if volume.ndim != 3 or volume.dtype != torch.float32 or volume.numel() == 0:
        found = f"{tuple(volume.shape)} {volume.dtype}"
        raise ShapeError(f"{op}: {name}: expected (z, y, x) torch.float32, got {found}")


def _check_places(
    op: str, origin: Sequence[int], step: Sequence[float], first: Sequence[float], corner: Sequence[int]
) -> None:
    if not len(origin) == len(step) == len(first) == len(corner) == 3:
        found = f"{origin}, {step}, {first} and {corner}"
        raise ShapeError(f"{op}: origin, step, first and corner have three numbers, got {found}")
    check_positive(op, **{f"step along {axis}": s for axis, s in zip("zyx", step)})


@define("cells_cone_depth", "(Tensor mu, Tensor slopes) -> Tensor")
def _cone_depth(mu: Tensor, slopes: Tensor) -> Tensor:
    _check_volume("cone_depth", "mu", mu)
    if slopes.ndim != 2 or slopes.shape[1] != 2 or slopes.dtype != torch.float64 or not len(slopes):
        found = f"{tuple(slopes.shape)} {slopes.dtype}"
        raise ShapeError(f"cone_depth: slopes: expected (ray, 2) torch.float64, got {found}")
    return _implementation(mu).cone_depth(mu.contiguous(), slopes.tolist())


@_cone_depth.register_fake
def _cone_depth_meta(mu: Tensor, slopes: Tensor) -> Tensor:
    return torch.empty_like(mu)


@define(
    "cells_attenuate_",
    "(Tensor(a!) density, Tensor tau, int[] origin, float[] step, float[] first, int[] corner) -> ()",
)
def _attenuate(
    density: Tensor,
    tau: Tensor,
    origin: Sequence[int],
    step: Sequence[float],
    first: Sequence[float],
    corner: Sequence[int],
) -> None:
    _check_volume("attenuate_", "tau", tau)
    _check_volume("attenuate_", "density", density)
    check_in_place("attenuate_", density=density)
    _check_places("attenuate_", origin, step, first, corner)
    places = positions(density.shape, origin, step, first, tau.shape, corner)
    _implementation(density).attenuate_(density, tau.contiguous(), places)


@_attenuate.register_fake
def _attenuate_meta(
    density: Tensor,
    tau: Tensor,
    origin: Sequence[int],
    step: Sequence[float],
    first: Sequence[float],
    corner: Sequence[int],
) -> None:
    return None


@define(
    "cells_read_out",
    "(Tensor grid, int[] shape, int[] origin, float[] step, float[] first, int[] corner) -> Tensor",
)
def _read_out(
    grid: Tensor,
    shape: Sequence[int],
    origin: Sequence[int],
    step: Sequence[float],
    first: Sequence[float],
    corner: Sequence[int],
) -> Tensor:
    _check_volume("read_out", "grid", grid)
    _check_places("read_out", origin, step, first, corner)
    places = positions(shape, origin, step, first, grid.shape, corner)
    return _implementation(grid).read_out(grid.contiguous(), places)


@_read_out.register_fake
def _read_out_meta(
    grid: Tensor,
    shape: Sequence[int],
    origin: Sequence[int],
    step: Sequence[float],
    first: Sequence[float],
    corner: Sequence[int],
) -> Tensor:
    return grid.new_empty(tuple(shape))


def positions(
    shape: Sequence[int],
    origin: Sequence[int],
    step: Sequence[float],
    first: Sequence[float],
    cells: Sequence[int],
    corner: Sequence[int] = (0, 0, 0),
) -> list[tuple[Tensor, Tensor]]:
    """For each axis the cell of the box below every voxel, int64, and the weight of the next, float32; on the CPU."""
    found = []
    for n, o, s, f, n_cells, c in zip(shape, origin, step, first, cells, corner, strict=True):
        at = (f + (o + torch.arange(n, dtype=torch.float64)) * s).clamp(c, c + n_cells - 1)
        below = at.floor().clamp(max=c + max(n_cells - 2, 0))
        found.append((below.long() - c, (at - below).float()))
    return found
