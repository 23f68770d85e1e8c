"""Maps between views and mosaic, splat with re-prediction: signatures, checks, meta functions and autograd."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check, check_positive, check_table
from gigascope.kernels.library import define
from gigascope.kernels.ortho.splatting import BORDERS
from gigascope.kernels.ortho.table import DISTANCE, FOOT, N_COLUMNS

_PIXELS, _COORDS = ("n", "h", "w"), ("n", 2, "h", "w")


def coordinates(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    corners: Tensor,
    shape: Sequence[int],
    heights: Tensor | None = None,
    spacing: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Mosaic coordinates of the pixels of one crop of every view.

    Parameters
    ----------
    table : (n, 21) float64, rows of :func:`view_table`; its device computes
    distortion : (order,) float64 coefficients of the even radial polynomial; may be empty
    size : (R, C) pixels of a view
    corners : (n, 2) float64 (row, column) of the first pixel of each crop
    shape : (r, c) of the crops
    heights : (n, r, c) float32 or float64, height of each pixel above the plane, in the units of the table's distances
    spacing : pixels of the view from sample to sample; a view decimated by means of k x k has its first sample at
        (k - 1) / 2 and the spacing k
    dtype : of the result, float32 or float64; all is computed in float64. At 1e5 mosaic pixels float32 has steps of
        0.008: subtract an origin first, see :func:`moved`

    Returns
    -------
    (n, 2, r, c) (row, col) of the mosaic

    Raises
    ------
    ShapeError : shapes or dtypes disagree

    Notes
    -----
    Exact intersection of the ray with the plane. With heights, q -> V + (q - V)(1 - z / H). Differentiable with respect
    to `heights`; for gradients with respect to poses use :mod:`gigascope.kernels.ortho.reference`, which is
    differentiable throughout.
    """
    return torch.ops.gigascope.ortho_coordinates(
        table, distortion, list(size), corners, list(shape), spacing, heights, dtype
    )


def pixels(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    start: Sequence[int],
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Pixels of every view that see the pixels of a tile of the mosaic, the inverse of :func:`coordinates`.

    Parameters
    ----------
    table, distortion, size, dtype : as there
    start : (row, col) of the tile's first pixel
    shape : (rows, cols) of the tile

    Returns
    -------
    (n, 2, rows, cols) (row, column) of the view, also beyond its borders

    Raises
    ------
    ShapeError : shapes or dtypes disagree
    """
    return torch.ops.gigascope.ortho_pixels(table, distortion, list(size), list(start), list(shape), dtype)


def splat(
    values: Tensor, coords: Tensor, group: Tensor, shape: Sequence[int], n_groups: int = 1, border: str = "drop"
) -> tuple[Tensor, Tensor]:
    """Spread pixels over the 2 x 2 mosaic pixels around their coordinates.

    Parameters
    ----------
    values, coords, group, shape, n_groups, border : as in :func:`splat_predict`

    Returns
    -------
    sums : (n_groups, rows, cols) like `values`, sum of weight times value; sums of several calls may be added
    weights : like it, sum of weights

    Raises
    ------
    ShapeError : as :func:`splat_predict`
    """
    return torch.ops.gigascope.ortho_splat(values, coords, group, n_groups, list(shape), border)


def splat_predict(
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    shape: Sequence[int],
    n_groups: int = 1,
    border: str = "drop",
    through_mosaic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Splat pixels into one mosaic per group and read the mosaics where the pixels are.

    Parameters
    ----------
    values : (n, h, w) float32 (float64 on a CPU), one image per view
    coords : (n, 2, h, w) like `values`, (row, col) on the canvas
    group : (n,) int32 or int64, canvas of each view, 0 to n_groups - 1
    shape : (rows, cols) of a canvas
    border : drop (what is beyond the canvas does not count), wrap (the canvas goes on with its other side) or clamp
        (coordinates move to the border)
    through_mosaic : gradients of `predicted` also through the mosaic, to all pixels that went into it; else the mosaic
        is held constant and `values` receives none

    Returns
    -------
    predicted : like `values`; NaN where none of the four neighbours is on the canvas
    mosaic : (n_groups, rows, cols) weighted mean of the pixels, 0 where there are none; no gradient
    weights : like it, sum of weights; no gradient

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, a group out of range, another border

    Notes
    -----
    Weights g(dr) g(dc), g(d) = exp(-d^2 / (2 s^2)), s = 0.42465, cut to the four neighbours. Differentiable with
    respect to `values` (with `through_mosaic`) and `coords`. The same bits in every run: on a CPU every canvas pixel
    adds its pixels in their order (view, row, column), whatever the number of threads; on a GPU integers of 40 binary
    digits below the largest value are added, in whichever order they come.
    """
    return torch.ops.gigascope.ortho_splat_predict(values, coords, group, n_groups, list(shape), border, through_mosaic)


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.ortho import cpu

        return cpu
    if chosen == "cuda":
        from gigascope.kernels.ortho import cuda

        return cuda
    from gigascope.kernels.ortho import reference

    return reference


def check_views(op: str, table: Tensor, distortion: Tensor, size: Sequence[int]) -> None:
    """Rows of views, their distortion and size.

    Raises
    ------
    ShapeError : another shape or dtype
    """
    check_table(op, "table", table, (table.shape[0] if table.ndim else 0, N_COLUMNS))
    if distortion.ndim != 1 or distortion.dtype != torch.float64:
        found = f"{tuple(distortion.shape)} {distortion.dtype}"
        raise ShapeError(f"{op}: distortion: expected (order,) torch.float64, got {found}")
    check_pair(op, "size", size)


def check_pair(op: str, name: str, pair: Sequence[int]) -> None:
    """(rows, columns) above 0.

    Raises
    ------
    ShapeError : another number of numbers, or one that is not positive
    """
    if len(pair) != 2 or min(pair) < 1:
        raise ShapeError(f"{op}: {name}: expected (rows, columns) above 0, got {tuple(pair)}")


def _check_splat(
    op: str, values: Tensor, coords: Tensor, group: Tensor, n_groups: int, shape: Sequence[int], border: str
) -> None:
    sizes = check(op, {"values": _PIXELS, "coords": _COORDS}, values=values, coords=coords)
    if group.shape != (sizes["n"],) or group.dtype not in (torch.int32, torch.int64) or group.device != values.device:
        found = f"{tuple(group.shape)} {group.dtype} on {group.device}"
        raise ShapeError(f"{op}: group: expected ({sizes['n']},) integers on {values.device}, got {found}")
    check_positive(op, n_groups=n_groups)
    check_pair(op, "shape", shape)
    if border not in BORDERS:
        raise ShapeError(f"{op}: border: expected {', '.join(BORDERS)}, got {border}")
    low, high = (int(n) for n in group.aminmax())
    if low < 0 or high >= n_groups:
        raise ShapeError(f"{op}: group: expected numbers of 0 to {n_groups - 1}, got {low} to {high}")


@define(
    "ortho_coordinates",
    "(Tensor table, Tensor distortion, SymInt[] size, Tensor corners, SymInt[] shape, float spacing, Tensor? heights, "
    "ScalarType dtype) -> Tensor",
)
def _coordinates(
    table: Tensor,
    distortion: Tensor,
    size: list[int],
    corners: Tensor,
    shape: list[int],
    spacing: float,
    heights: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    check_views("coordinates", table, distortion, size)
    check_table("coordinates", "corners", corners, (table.shape[0], 2))
    check_pair("coordinates", "shape", shape)
    check_positive("coordinates", spacing=spacing)
    if heights is not None:
        expected = {"heights": (table.shape[0], shape[0], shape[1])}
        check("coordinates", expected, heights=heights)
        heights = heights.contiguous()
    inputs = (table.contiguous(), distortion.contiguous(), size, corners.contiguous())
    return _implementation(table).coordinates(*inputs, shape, spacing, heights, dtype)


@_coordinates.register_fake
def _coordinates_meta(
    table: Tensor,
    distortion: Tensor,
    size: list[int],
    corners: Tensor,
    shape: list[int],
    spacing: float,
    heights: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    return table.new_empty(table.shape[0], 2, shape[0], shape[1], dtype=dtype)


def _coordinates_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    table, heights = inputs[0], inputs[6]
    if heights is not None:
        ctx.save_for_backward(table, heights, output)


def _coordinates_backward(ctx, cotangent):  # type: ignore[no-untyped-def]
    if not ctx.saved_tensors:
        return (None,) * 8
    table, heights, out = ctx.saved_tensors
    foot, distance = table[:, FOOT, None, None], table[:, DISTANCE, None, None]
    # q - V = (q0 - V)(1 - z / H), of which the derivative is -(q0 - V) / H
    across = ((out - foot) * cotangent).sum(1)
    return (*(None,) * 6, (across / (heights - distance)).to(heights.dtype), None)


_coordinates.register_autograd(_coordinates_backward, setup_context=_coordinates_context)


@define(
    "ortho_pixels",
    "(Tensor table, Tensor distortion, SymInt[] size, SymInt[] start, SymInt[] shape, ScalarType dtype) -> Tensor",
)
def _pixels(
    table: Tensor, distortion: Tensor, size: list[int], start: list[int], shape: list[int], dtype: torch.dtype
) -> Tensor:
    check_views("pixels", table, distortion, size)
    check_pair("pixels", "shape", shape)
    if len(start) != 2:
        raise ShapeError(f"pixels: start: expected (row, col), got {tuple(start)}")
    inputs = (table.contiguous(), distortion.contiguous(), size)
    return _implementation(table).pixels(*inputs, start, shape, dtype)


@_pixels.register_fake
def _pixels_meta(
    table: Tensor, distortion: Tensor, size: list[int], start: list[int], shape: list[int], dtype: torch.dtype
) -> Tensor:
    return table.new_empty(table.shape[0], 2, shape[0], shape[1], dtype=dtype)


@define(
    "ortho_splat",
    "(Tensor values, Tensor coords, Tensor group, int n_groups, SymInt[] shape, str border) -> (Tensor, Tensor)",
)
def _splat(
    values: Tensor, coords: Tensor, group: Tensor, n_groups: int, shape: list[int], border: str
) -> tuple[Tensor, Tensor]:
    _check_splat("splat", values, coords, group, n_groups, shape, border)
    inputs = (values.contiguous(), coords.contiguous(), group.contiguous())
    sums, weights = _implementation(values).splat(*inputs, n_groups, shape, border)
    return sums.to(values.dtype), weights.to(values.dtype)


@_splat.register_fake
def _splat_meta(
    values: Tensor, coords: Tensor, group: Tensor, n_groups: int, shape: list[int], border: str
) -> tuple[Tensor, Tensor]:
    return values.new_empty(n_groups, *shape), values.new_empty(n_groups, *shape)


@define(
    "ortho_splat_predict",
    "(Tensor values, Tensor coords, Tensor group, int n_groups, SymInt[] shape, str border, bool through_mosaic) "
    "-> (Tensor, Tensor, Tensor)",
)
def _splat_predict(
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    n_groups: int,
    shape: list[int],
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_splat("splat_predict", values, coords, group, n_groups, shape, border)
    inputs = (values.detach().contiguous(), coords.detach().contiguous(), group.contiguous())
    return _implementation(values).splat_predict(*inputs, n_groups, shape, border, through_mosaic)


@_splat_predict.register_fake
def _splat_predict_meta(
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    n_groups: int,
    shape: list[int],
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    canvas = (n_groups, *shape)
    return values.new_empty(values.shape), values.new_empty(canvas), values.new_empty(canvas)


def _splat_predict_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    values, coords, group, _, _, ctx.border, ctx.through_mosaic = inputs
    _, mosaic, weights = output
    ctx.mark_non_differentiable(mosaic, weights)
    ctx.save_for_backward(values, coords, group, mosaic, weights)


def _splat_predict_backward(ctx, cotangent, _mosaic, _weights):  # type: ignore[no-untyped-def]
    gradients = torch.ops.gigascope.ortho_splat_predict_backward(
        cotangent, *ctx.saved_tensors, ctx.border, ctx.through_mosaic
    )
    return (*gradients, None, None, None, None, None)


_splat_predict.register_autograd(_splat_predict_backward, setup_context=_splat_predict_context)


@define(
    "ortho_splat_predict_backward",
    "(Tensor cotangent, Tensor values, Tensor coords, Tensor group, Tensor mosaic, Tensor weights, str border, "
    "bool through_mosaic) -> (Tensor, Tensor)",
)
def _splat_predict_adjoint(
    cotangent: Tensor,
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    mosaic: Tensor,
    weights: Tensor,
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor]:
    inputs = [tensor.detach().contiguous() for tensor in (cotangent, values, coords, group, mosaic, weights)]
    return _implementation(values).splat_predict_backward(*inputs, border, through_mosaic)


@_splat_predict_adjoint.register_fake
def _splat_predict_adjoint_meta(
    cotangent: Tensor,
    values: Tensor,
    coords: Tensor,
    group: Tensor,
    mosaic: Tensor,
    weights: Tensor,
    border: str,
    through_mosaic: bool,
) -> tuple[Tensor, Tensor]:
    return values.new_empty(values.shape), values.new_empty(coords.shape)
