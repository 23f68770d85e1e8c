"""The integer field: signature, checks, dispatch."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check_in_place
from gigascope.kernels.integer_field.layout import N_COLUMNS
from gigascope.kernels.library import define


def add_(field: Tensor, gaussians: Tensor, origin: Sequence[int]) -> None:
    """In place, add integer Gaussians to a box of voxels.

    Parameters
    ----------
    field : (z, y, x) int64, contiguous, written; 16 binary digits behind the point
    gaussians : (N, 21) int64, rows of `layout`
    origin : (z, y, x) of the box's first voxel

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or `field` is not contiguous

    Notes
    -----
    Every implementation gives the same bits, for any order of the rows and however a volume is cut into boxes.
    """
    torch.ops.gigascope.integer_field_add_(field, gaussians, list(origin))


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.integer_field import cpu

        return cpu
    if chosen == "cuda":
        from gigascope.kernels.integer_field import cuda

        return cuda
    from gigascope.kernels.integer_field import reference

    return reference


@define("integer_field_add_", "(Tensor(a!) field, Tensor gaussians, int[] origin) -> ()")
def _add(field: Tensor, gaussians: Tensor, origin: Sequence[int]) -> None:
    if field.ndim != 3 or field.dtype != torch.int64:
        raise ShapeError(f"add_: field: expected (z, y, x) torch.int64, got {tuple(field.shape)} {field.dtype}")
    if gaussians.ndim != 2 or gaussians.shape[1] != N_COLUMNS or gaussians.dtype != torch.int64:
        found = f"{tuple(gaussians.shape)} {gaussians.dtype}"
        raise ShapeError(f"add_: gaussians: expected (N, {N_COLUMNS}) torch.int64, got {found}")
    if gaussians.device != field.device or len(origin) != 3:
        raise ShapeError(f"add_: field on {field.device}, gaussians on {gaussians.device}, origin {list(origin)}")
    check_in_place("add_", field=field)
    if field.numel() and len(gaussians):
        z, y, x = origin
        _implementation(field).add_(field, gaussians.contiguous(), (z, y, x))


@_add.register_fake
def _add_meta(field: Tensor, gaussians: Tensor, origin: Sequence[int]) -> None:
    return None
