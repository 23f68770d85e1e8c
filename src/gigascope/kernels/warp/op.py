"""Warp ops of tilt-series alignment: signatures, checks, meta functions and autograd."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check, check_positive, check_table
from gigascope.kernels.library import define

_VIEWS = ("tilt", "s", "y")


def spline_coefficients(views: Tensor) -> Tensor:
    """Cubic B-spline coefficients of every view, the input of order 3 in :func:`resample` and :func:`translate`.

    Parameters
    ----------
    views : (tilt, a, b) float32 (float64 on a CPU)

    Returns
    -------
    like `views`; mirrored about the first and last sample of both axes

    Raises
    ------
    ShapeError : `views` of another rank or dtype

    Notes
    -----
    Unser, IEEE Signal Process. Mag. 16(6), 22 (1999). Equals scipy.ndimage.spline_filter(order=3, mode="mirror").
    """
    return torch.ops.gigascope.warp_spline_coefficients(views)


def resample(
    views: Tensor,
    matrices: Tensor,
    shape_out: tuple[int, int],
    order: int = 3,
    bin: int = 1,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Views on a new grid by one affine map each, averaged over bin x bin samples of a finer grid.

    Parameters
    ----------
    views : (tilt, h, w) float32 (float64 on a CPU); for order 3 the coefficients of :func:`spline_coefficients`
    matrices : (tilt, 2, 3) float64: input array index = M[:, :2] @ (j0, j1) + M[:, 2], where (j0, j1) are array indices
        of the grid before binning, (n0 bin, n1 bin)
    shape_out : (n0, n1) after binning; pixel i is the mean of the samples j = i bin .. i bin + bin - 1
    order : 1 (linear) or 3 (cubic spline)
    bin : samples per output pixel and axis
    mask : (tilt, h, w) uint8, 0 where a pixel of `views` is not to be trusted

    Returns
    -------
    out : (tilt, n0, n1) like `views`; coordinates outside take the value at the nearest border
    valid : (tilt, n0, n1) like `views`, 1 where the bilinear footprint of every sample lies inside the array and on
        mask > 0, else 0. From the geometry only, never from values; the same for both orders. A footprint within
        1e-6 of a sample is that sample alone

    Raises
    ------
    ShapeError : shapes or dtypes disagree, or another order
    """
    return torch.ops.gigascope.warp_resample(views, matrices, list(shape_out), order, bin, mask)


def translate(views: Tensor, shifts: Tensor, order: int = 1, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Shifted views, out(s, y) = views(s + f_s, y + f_y).

    Parameters
    ----------
    views : (tilt, s, y) float32 (float64 on a CPU); for order 3 the coefficients of :func:`spline_coefficients`
    shifts : (tilt, 2) float64, (f_s, f_y) in pixels
    order : 1 (linear) or 3 (cubic spline)
    mask : (tilt, s, y) uint8, 0 where a pixel of `views` is not to be trusted

    Returns
    -------
    out, valid : as in :func:`resample`

    Raises
    ------
    ShapeError : shapes or dtypes disagree, or another order

    Notes
    -----
    Differentiable with respect to `views`, not to `shifts`.
    """
    return torch.ops.gigascope.warp_translate(views, shifts, order, mask)


def gaussian_blur(views: Tensor, sigma: float) -> Tensor:
    """Gaussian along both axes of every view, cut at 4 sigma, edges continued by their last value.

    Parameters
    ----------
    views : (tilt, s, y) float32 (float64 on a CPU)
    sigma : pixels, >= 0; 0 returns a copy

    Returns
    -------
    like `views`

    Raises
    ------
    ShapeError : `views` of another rank or dtype, or a negative sigma
    """
    return torch.ops.gigascope.warp_gaussian_blur(views, sigma)


def shift_sums(model: Tensor, data: Tensor, weights: Tensor) -> Tensor:
    """Raw sums per view of the normal equations of a shift, over the pixels with w > 0.

    Parameters
    ----------
    model, data, weights : (tilt, s, y) float32 (float64 on a CPU)

    Returns
    -------
    (tilt, 10) float64: sums of w times 1, g_s, g_y, r, g_s g_s, g_s g_y, g_y g_y, g_s r, g_y r, r r, where g are
    central differences of `model` (one-sided at the borders) and r = model - data. Not centred

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree
    """
    return torch.ops.gigascope.warp_shift_sums(model, data, weights)


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.warp import cpu

        return cpu
    if chosen == "cuda":
        from gigascope.kernels.warp import cuda

        return cuda
    from gigascope.kernels.warp import reference

    return reference


def _check_warp(op: str, views: Tensor, order: int, mask: Tensor | None) -> None:
    check(op, {"views": _VIEWS}, views=views)
    if order not in (1, 3):
        raise ShapeError(f"{op}: order: expected 1 (linear) or 3 (cubic spline), got {order}")
    if mask is not None and (mask.shape != views.shape or mask.dtype != torch.uint8):
        raise ShapeError(f"{op}: mask: expected {tuple(views.shape)} torch.uint8, got {tuple(mask.shape)} {mask.dtype}")


def _contiguous(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.contiguous()


@define("warp_spline_coefficients", "(Tensor views) -> Tensor")
def _spline_coefficients(views: Tensor) -> Tensor:
    check("spline_coefficients", {"views": _VIEWS}, views=views)
    return _implementation(views).spline_coefficients(views.contiguous())


@define("warp_gaussian_blur", "(Tensor views, float sigma) -> Tensor")
def _gaussian_blur(views: Tensor, sigma: float) -> Tensor:
    check("gaussian_blur", {"views": _VIEWS}, views=views)
    if not sigma >= 0:
        raise ShapeError(f"gaussian_blur: sigma: expected 0 or more pixels, got {sigma}")
    return _implementation(views).gaussian_blur(views.contiguous(), sigma)


@_spline_coefficients.register_fake
def _spline_coefficients_meta(views: Tensor) -> Tensor:
    return views.new_empty(views.shape)


@_gaussian_blur.register_fake
def _gaussian_blur_meta(views: Tensor, sigma: float) -> Tensor:
    return views.new_empty(views.shape)


@define(
    "warp_resample",
    "(Tensor views, Tensor matrices, SymInt[] shape_out, int order, int bin, Tensor? mask) -> (Tensor, Tensor)",
)
def _resample(
    views: Tensor, matrices: Tensor, shape_out: list[int], order: int, bin: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    _check_warp("resample", views, order, mask)
    check_table("resample", "matrices", matrices, (views.shape[0], 2, 3))
    if len(shape_out) != 2:
        raise ShapeError(f"resample: shape_out: expected (n0, n1), got {tuple(shape_out)}")
    check_positive("resample", n0=shape_out[0], n1=shape_out[1], bin=bin)
    shape = (shape_out[0], shape_out[1])
    return _implementation(views).resample(
        views.contiguous(), matrices.contiguous(), shape, order, bin, _contiguous(mask)
    )


@_resample.register_fake
def _resample_meta(
    views: Tensor, matrices: Tensor, shape_out: list[int], order: int, bin: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    return views.new_empty(views.shape[0], *shape_out), views.new_empty(views.shape[0], *shape_out)


@define("warp_translate", "(Tensor views, Tensor shifts, int order, Tensor? mask) -> (Tensor, Tensor)")
def _translate(views: Tensor, shifts: Tensor, order: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    _check_warp("translate", views, order, mask)
    check_table("translate", "shifts", shifts, (views.shape[0], 2))
    return _implementation(views).translate(views.contiguous(), shifts.contiguous(), order, _contiguous(mask))


@_translate.register_fake
def _translate_meta(views: Tensor, shifts: Tensor, order: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    return views.new_empty(views.shape), views.new_empty(views.shape)


def _translate_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, shifts, ctx.order, _ = inputs
    ctx.save_for_backward(shifts)
    ctx.mark_non_differentiable(output[1])


def _translate_backward(ctx, cotangent, _):  # type: ignore[no-untyped-def]
    (shifts,) = ctx.saved_tensors
    return torch.ops.gigascope.warp_translate_adjoint(cotangent, shifts, ctx.order), None, None, None


_translate.register_autograd(_translate_backward, setup_context=_translate_context)


@define("warp_translate_adjoint", "(Tensor cotangent, Tensor shifts, int order) -> Tensor")
def _translate_adjoint(cotangent: Tensor, shifts: Tensor, order: int) -> Tensor:
    return _implementation(cotangent).translate_adjoint(cotangent.contiguous(), shifts.contiguous(), order)


@_translate_adjoint.register_fake
def _translate_adjoint_meta(cotangent: Tensor, shifts: Tensor, order: int) -> Tensor:
    return cotangent.new_empty(cotangent.shape)


@define("warp_shift_sums", "(Tensor model, Tensor data, Tensor weights) -> Tensor")
def _shift_sums(model: Tensor, data: Tensor, weights: Tensor) -> Tensor:
    shapes = {"model": _VIEWS, "data": _VIEWS, "weights": _VIEWS}
    check("shift_sums", shapes, model=model, data=data, weights=weights)
    return _implementation(model).shift_sums(model.contiguous(), data.contiguous(), weights.contiguous())


@_shift_sums.register_fake
def _shift_sums_meta(model: Tensor, data: Tensor, weights: Tensor) -> Tensor:
    return model.new_empty(model.shape[0], 10, dtype=torch.float64)
