"""Total-variation ops of a primal-dual solver: signatures, checks, meta functions and autograd."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check, check_in_place, check_positive
from gigascope.kernels.library import define

_VOLUME = ("z", "x", "y")
_DUAL = (3, "z", "x", "y")
_VIEWS = ("tilt", "s", "y")


def gradient(u: Tensor, hz: float = 1.0) -> Tensor:
    """Forward differences of a volume, 0 at the last voxel of each axis.

    Parameters
    ----------
    u : (z, x, y) float32 (float64 on a CPU)
    hz : voxel size in z over voxel size in x; divides the z component

    Returns
    -------
    (3, z, x, y) like `u`, components in the order z, x, y

    Raises
    ------
    ShapeError : `u` of another rank or dtype
    """
    return torch.ops.gigascope.tv_gradient(u, hz)


def gradient_adjoint(p: Tensor, hz: float = 1.0) -> Tensor:
    """Adjoint of :func:`gradient` (minus the divergence); entries that belong to last differences are left out.

    Parameters
    ----------
    p : (3, z, x, y) float32 (float64 on a CPU)
    hz : voxel size in z over voxel size in x

    Returns
    -------
    (z, x, y) like `p`

    Raises
    ------
    ShapeError : `p` of another rank or dtype
    """
    return torch.ops.gigascope.tv_gradient_adjoint(p, hz)


def dual_step_(p: Tensor, ubar: Tensor, lam: float, sigma: float, hz: float = 1.0) -> None:
    """In place, p <- P(p + sigma grad ubar) with P(p) = p / max(1, |p| / lam) per voxel.

    Parameters
    ----------
    p : (3, z, x, y), contiguous
    ubar : (z, x, y)
    lam : radius of the ball, the weight of the total variation, >= 0
    sigma : step; one number for the three components, else P is not the proximal map
    hz : voxel size in z over voxel size in x

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or `p` is not contiguous

    Notes
    -----
    Chambolle and Pock, J. Math. Imaging Vis. 40, 120 (2011), algorithm 1.
    """
    torch.ops.gigascope.tv_dual_step_(p, ubar, lam, sigma, hz)


def primal_step_(
    u: Tensor, ubar: Tensor, p: Tensor, atq: Tensor, tau: Tensor, hz: float = 1.0, positivity: bool = False
) -> None:
    """In place, u+ = u - tau (grad^T p + atq), ubar <- 2 u+ - u, u <- u+.

    Parameters
    ----------
    u, ubar : (z, x, y), contiguous, written
    p : (3, z, x, y)
    atq : (z, x, y), the backprojected dual of the data
    tau : (z, x) steps
    hz : voxel size in z over voxel size in x
    positivity : u+ <- max(u+, 0) before the extrapolation

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or `u` or `ubar` is not contiguous

    Notes
    -----
    Steps that vary over the volume: Pock and Chambolle, ICCV 2011, with alpha = 1.
    """
    torch.ops.gigascope.tv_primal_step_(u, ubar, p, atq, tau, hz, positivity)


def data_step_(
    q: Tensor, projection: Tensor, views: Tensor, weights: Tensor, sigma_q: Tensor, offset: Tensor
) -> Tensor:
    """In place, q <- w (q + sigma_q (projection + offset - views)) / (w + sigma_q), 0 where w = 0.

    Parameters
    ----------
    q : (tilt, s, y), contiguous, written
    projection, views, weights : (tilt, s, y)
    sigma_q : (tilt, s) steps
    offset : (tilt,) floating, one constant per view

    Returns
    -------
    (tilt,) float64 sums of the new q over each view

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or `q` is not contiguous
    """
    return torch.ops.gigascope.tv_data_step_(q, projection, views, weights, sigma_q, offset)


def tv_norm(u: Tensor, hz: float = 1.0) -> Tensor:
    """Total variation, the sum over voxels of |grad u|.

    Parameters
    ----------
    u : (z, x, y) float32 (float64 on a CPU)
    hz : voxel size in z over voxel size in x

    Returns
    -------
    () float64

    Raises
    ------
    ShapeError : `u` of another rank or dtype
    """
    return torch.ops.gigascope.tv_norm(u, hz)


def data_misfit(projection: Tensor, views: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    """Weighted squares of the residual, w (projection + offset - views)^2 summed over each view.

    Parameters
    ----------
    projection, views, weights : (tilt, s, y)
    offset : (tilt,) floating, one constant per view

    Returns
    -------
    (tilt,) float64

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree
    """
    return torch.ops.gigascope.tv_data_misfit(projection, views, weights, offset)


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.tv import cpu

        return cpu
    if chosen == "cuda":
        from gigascope.kernels.tv import cuda

        return cuda
    from gigascope.kernels.tv import reference

    return reference


def _check_offset(op: str, offset: Tensor, n_tilts: int) -> None:
    if tuple(offset.shape) != (n_tilts,) or not offset.is_floating_point():
        raise ShapeError(f"{op}: offset: expected ({n_tilts},) floating, got {tuple(offset.shape)} {offset.dtype}")


@define("tv_gradient", "(Tensor u, float hz) -> Tensor")
def _gradient(u: Tensor, hz: float) -> Tensor:
    check("gradient", {"u": _VOLUME}, u=u)
    check_positive("gradient", hz=hz)
    return _implementation(u).gradient(u.contiguous(), hz)


@_gradient.register_fake
def _gradient_meta(u: Tensor, hz: float) -> Tensor:
    return u.new_empty(3, *u.shape)


@define("tv_gradient_adjoint", "(Tensor p, float hz) -> Tensor")
def _gradient_adjoint(p: Tensor, hz: float) -> Tensor:
    check("gradient_adjoint", {"p": _DUAL}, p=p)
    check_positive("gradient_adjoint", hz=hz)
    return _implementation(p).gradient_adjoint(p.contiguous(), hz)


@_gradient_adjoint.register_fake
def _gradient_adjoint_meta(p: Tensor, hz: float) -> Tensor:
    return p.new_empty(p.shape[1:])


def _keep_hz(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.hz = inputs[1]


def _gradient_backward(ctx, cotangent):  # type: ignore[no-untyped-def]
    return torch.ops.gigascope.tv_gradient_adjoint(cotangent, ctx.hz), None


def _gradient_adjoint_backward(ctx, cotangent):  # type: ignore[no-untyped-def]
    return torch.ops.gigascope.tv_gradient(cotangent, ctx.hz), None


_gradient.register_autograd(_gradient_backward, setup_context=_keep_hz)
_gradient_adjoint.register_autograd(_gradient_adjoint_backward, setup_context=_keep_hz)


@define("tv_dual_step_", "(Tensor(a!) p, Tensor ubar, float lam, float sigma, float hz) -> ()")
def _dual_step(p: Tensor, ubar: Tensor, lam: float, sigma: float, hz: float) -> None:
    check("dual_step_", {"p": _DUAL, "ubar": _VOLUME}, p=p, ubar=ubar)
    check_positive("dual_step_", sigma=sigma, hz=hz)
    check_in_place("dual_step_", p=p)
    _implementation(p).dual_step_(p, ubar.contiguous(), lam, sigma, hz)


@_dual_step.register_fake
def _dual_step_meta(p: Tensor, ubar: Tensor, lam: float, sigma: float, hz: float) -> None:
    return None


@define(
    "tv_primal_step_",
    "(Tensor(a!) u, Tensor(b!) ubar, Tensor p, Tensor atq, Tensor tau, float hz, bool positivity) -> ()",
)
def _primal_step(u: Tensor, ubar: Tensor, p: Tensor, atq: Tensor, tau: Tensor, hz: float, positivity: bool) -> None:
    shapes = {"u": _VOLUME, "ubar": _VOLUME, "p": _DUAL, "atq": _VOLUME, "tau": ("z", "x")}
    check("primal_step_", shapes, u=u, ubar=ubar, p=p, atq=atq, tau=tau)
    check_positive("primal_step_", hz=hz)
    check_in_place("primal_step_", u=u, ubar=ubar)
    _implementation(u).primal_step_(u, ubar, p.contiguous(), atq.contiguous(), tau.contiguous(), hz, positivity)


@_primal_step.register_fake
def _primal_step_meta(
    u: Tensor, ubar: Tensor, p: Tensor, atq: Tensor, tau: Tensor, hz: float, positivity: bool
) -> None:
    return None


@define(
    "tv_data_step_",
    "(Tensor(a!) q, Tensor projection, Tensor views, Tensor weights, Tensor sigma_q, Tensor offset) -> Tensor",
)
def _data_step(
    q: Tensor, projection: Tensor, views: Tensor, weights: Tensor, sigma_q: Tensor, offset: Tensor
) -> Tensor:
    shapes = {"q": _VIEWS, "projection": _VIEWS, "views": _VIEWS, "weights": _VIEWS, "sigma_q": ("tilt", "s")}
    check("data_step_", shapes, q=q, projection=projection, views=views, weights=weights, sigma_q=sigma_q)
    _check_offset("data_step_", offset, q.shape[0])
    check_in_place("data_step_", q=q)
    arrays = (projection.contiguous(), views.contiguous(), weights.contiguous(), sigma_q.contiguous())
    return _implementation(q).data_step_(q, *arrays, offset)


@_data_step.register_fake
def _data_step_meta(
    q: Tensor, projection: Tensor, views: Tensor, weights: Tensor, sigma_q: Tensor, offset: Tensor
) -> Tensor:
    return q.new_empty(q.shape[0], dtype=torch.float64)


@define("tv_norm", "(Tensor u, float hz) -> Tensor")
def _tv_norm(u: Tensor, hz: float) -> Tensor:
    check("tv_norm", {"u": _VOLUME}, u=u)
    check_positive("tv_norm", hz=hz)
    return _implementation(u).tv_norm(u.contiguous(), hz)


@_tv_norm.register_fake
def _tv_norm_meta(u: Tensor, hz: float) -> Tensor:
    return u.new_empty((), dtype=torch.float64)


@define("tv_data_misfit", "(Tensor projection, Tensor views, Tensor weights, Tensor offset) -> Tensor")
def _data_misfit(projection: Tensor, views: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    shapes = {"projection": _VIEWS, "views": _VIEWS, "weights": _VIEWS}
    check("data_misfit", shapes, projection=projection, views=views, weights=weights)
    _check_offset("data_misfit", offset, projection.shape[0])
    arrays = (projection.contiguous(), views.contiguous(), weights.contiguous())
    return _implementation(projection).data_misfit(*arrays, offset)


@_data_misfit.register_fake
def _data_misfit_meta(projection: Tensor, views: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    return projection.new_empty(projection.shape[0], dtype=torch.float64)
