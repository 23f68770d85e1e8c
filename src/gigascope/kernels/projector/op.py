"""Parallel-beam projection of a tilt series and its exact adjoint: signatures, checks, meta functions and autograd."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check, check_angles, check_in_place, check_positive
from gigascope.kernels.library import define


def project(volume: Tensor, angles: Tensor, n_s: int, hz: float = 1.0, *, out: Tensor | None = None) -> Tensor:
    """Line integrals of a volume along the rays of a tilt series.

    Parameters
    ----------
    volume : (z, x, y) float32 (float64 on a CPU), y along the tilt axis and contiguous
    angles : (tilt,) float64, radians; s = x cos t + z sin t. Keep them on the device of `volume` inside loops
    n_s : detector samples across the tilt axis
    hz : voxel size in z over voxel size in x
    out : (tilt, s, y) to write into instead of a new array; then nothing is recorded for autograd

    Returns
    -------
    (tilt, s, y) like `volume`, in voxels of x times the unit of `volume`

    Raises
    ------
    ShapeError : `volume` or `angles` of another rank or dtype, or `out` of another shape

    Notes
    -----
    Joseph, IEEE Trans. Med. Imaging 1, 192 (1982). Array index (n - 1) / 2 is coordinate 0 on every axis; voxels
    outside count 0. Differentiable with respect to `volume`.
    """
    if out is None:
        return torch.ops.gigascope.project(volume, angles, n_s, hz)
    torch.ops.gigascope.project_(out, volume, angles, hz)
    return out


def backproject(
    sinogram: Tensor, angles: Tensor, shape_zx: tuple[int, int], hz: float = 1.0, *, out: Tensor | None = None
) -> Tensor:
    """Adjoint of :func:`project`: smear each projection back over the volume.

    Parameters
    ----------
    sinogram : (tilt, s, y) float32 (float64 on a CPU), y along the tilt axis and contiguous
    angles : (tilt,) float64, radians. Keep them on the device of `sinogram` inside loops
    shape_zx : (z, x) of the volume, voxels
    hz : voxel size in z over voxel size in x
    out : (z, x, y) to write into instead of a new array; then nothing is recorded for autograd

    Returns
    -------
    (z, x, y) like `sinogram`

    Raises
    ------
    ShapeError : `sinogram` and `angles` disagree on the number of views, or a rank or dtype is another

    Notes
    -----
    The weights are those of :func:`project`, so <A v, q> = <v, A^T q> to rounding; views are summed in the order of
    their index. Differentiable with respect to `sinogram`.
    """
    if out is None:
        return torch.ops.gigascope.backproject(sinogram, angles, list(shape_zx), hz)
    torch.ops.gigascope.backproject_(out, sinogram, angles, hz)
    return out


def row_sums(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float = 1.0) -> Tensor:
    """Sums R of the projector's coefficients over the volume, A 1, for one slice y.

    Parameters
    ----------
    angles : (tilt,) float64, radians
    n_s, shape_zx, hz : as in :func:`project` and :func:`backproject`

    Returns
    -------
    (tilt, s) float32 on the device of `angles`

    Raises
    ------
    ShapeError : `angles` of another rank or dtype
    """
    ones = torch.ones(*shape_zx, 1, dtype=torch.float32, device=angles.device)
    return project(ones, angles, n_s, hz)[:, :, 0].contiguous()


def column_sums(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float = 1.0) -> Tensor:
    """Sums C of the projector's coefficients over the rays, A^T 1, for one slice y.

    Parameters
    ----------
    angles : (tilt,) float64, radians
    n_s, shape_zx, hz : as in :func:`project` and :func:`backproject`

    Returns
    -------
    (z, x) float32 on the device of `angles`

    Raises
    ------
    ShapeError : `angles` of another rank or dtype
    """
    check_angles("column_sums", angles)
    ones = torch.ones(angles.shape[0], n_s, 1, dtype=torch.float32, device=angles.device)
    return backproject(ones, angles, shape_zx, hz)[:, :, 0].contiguous()


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.projector import cpu

        return cpu
    if chosen == "cuda":
        from gigascope.kernels.projector import cuda

        return cuda
    from gigascope.kernels.projector import reference

    return reference


@define("project", "(Tensor volume, Tensor angles, SymInt n_s, float hz) -> Tensor")
def _project(volume: Tensor, angles: Tensor, n_s: int, hz: float) -> Tensor:
    check("project", {"volume": ("z", "x", "y")}, volume=volume)
    check_angles("project", angles)
    check_positive("project", n_s=n_s, hz=hz)
    return _implementation(volume).project(volume.contiguous(), angles, n_s, hz)


@_project.register_fake
def _project_meta(volume: Tensor, angles: Tensor, n_s: int, hz: float) -> Tensor:
    return volume.new_empty(angles.shape[0], n_s, volume.shape[2])


def _project_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    volume, angles, _, ctx.hz = inputs
    ctx.shape_zx = list(volume.shape[:2])
    ctx.save_for_backward(angles)


def _project_backward(ctx, gradient):  # type: ignore[no-untyped-def]
    (angles,) = ctx.saved_tensors
    return torch.ops.gigascope.backproject(gradient, angles, ctx.shape_zx, ctx.hz), None, None, None


_project.register_autograd(_project_backward, setup_context=_project_context)


@define("backproject", "(Tensor sinogram, Tensor angles, SymInt[] shape_zx, float hz) -> Tensor")
def _backproject(sinogram: Tensor, angles: Tensor, shape_zx: list[int], hz: float) -> Tensor:
    check("backproject", {"sinogram": ("tilt", "s", "y")}, sinogram=sinogram)
    check_angles("backproject", angles, sinogram.shape[0])
    if len(shape_zx) != 2:
        raise ShapeError(f"backproject: shape_zx: expected (z, x), got {tuple(shape_zx)}")
    check_positive("backproject", z=shape_zx[0], x=shape_zx[1], hz=hz)
    shape = (shape_zx[0], shape_zx[1])
    return _implementation(sinogram).backproject(sinogram.contiguous(), angles, shape, hz)


@_backproject.register_fake
def _backproject_meta(sinogram: Tensor, angles: Tensor, shape_zx: list[int], hz: float) -> Tensor:
    return sinogram.new_empty(*shape_zx, sinogram.shape[2])


def _backproject_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    sinogram, angles, _, ctx.hz = inputs
    ctx.n_s = sinogram.shape[1]
    ctx.save_for_backward(angles)


def _backproject_backward(ctx, gradient):  # type: ignore[no-untyped-def]
    (angles,) = ctx.saved_tensors
    return torch.ops.gigascope.project(gradient, angles, ctx.n_s, ctx.hz), None, None, None


_backproject.register_autograd(_backproject_backward, setup_context=_backproject_context)


@define("project_", "(Tensor(a!) out, Tensor volume, Tensor angles, float hz) -> ()")
def _project_into(out: Tensor, volume: Tensor, angles: Tensor, hz: float) -> None:
    shapes: dict[str, tuple[int | str, ...]] = {"volume": ("z", "x", "y"), "out": (angles.shape[0], "s", "y")}
    sizes = check("project", shapes, volume=volume, out=out)
    check_angles("project", angles)
    check_positive("project", hz=hz)
    check_in_place("project", out=out)
    _implementation(volume).project(volume.contiguous(), angles, sizes["s"], hz, out)


@define("backproject_", "(Tensor(a!) out, Tensor sinogram, Tensor angles, float hz) -> ()")
def _backproject_into(out: Tensor, sinogram: Tensor, angles: Tensor, hz: float) -> None:
    sizes = check("backproject", {"sinogram": ("tilt", "s", "y"), "out": ("z", "x", "y")}, sinogram=sinogram, out=out)
    check_angles("backproject", angles, sinogram.shape[0])
    check_positive("backproject", hz=hz)
    check_in_place("backproject", out=out)
    _implementation(sinogram).backproject(sinogram.contiguous(), angles, (sizes["z"], sizes["x"]), hz, out)


@_project_into.register_fake
@_backproject_into.register_fake
def _into_meta(out: Tensor, data: Tensor, angles: Tensor, hz: float) -> None:
    return None
