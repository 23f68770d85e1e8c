"""Filters of z-stacks: signatures, checks, meta functions."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check_positive
from gigascope.kernels.library import define

BORDERS = ("replicate", "zero")
DTYPES = (torch.uint8, torch.uint16, torch.float32)


def gaussian(stack: Tensor, sigma: float, truncate: float = 4.0, border: str = "replicate") -> Tensor:
    """Gaussian along rows and columns of every slice, with weights of sum 1.

    Parameters
    ----------
    stack : (z, row, col) uint8, uint16 or float32
    sigma : pixels, > 0
    truncate : the filter ends at this many sigma, rounded to whole pixels; > 0
    border : replicate (edges go on with their last value) or zero

    Returns
    -------
    (z, row, col) float32, on the device of `stack`

    Raises
    ------
    ShapeError : another rank or dtype, a sigma or truncation that is not positive, another border

    Notes
    -----
    No gradient.
    """
    return torch.ops.gigascope.filters_gaussian(stack, sigma, truncate, border)


def sharpness(
    stack: Tensor, sigma: float = 8.0, truncate: float = 2.0, border: str = "replicate", floor: float = 1.0
) -> Tensor:
    """Local contrast of every slice, independent of illumination: how much in focus a pixel's neighbourhood is.

    Parameters
    ----------
    stack : (z, row, col) uint8, uint16 or float32, intensities >= 0
    sigma, truncate : of the Gaussian G, pixels and sigmas
    border : replicate or zero; with zero the values within two reaches of the border are too small or too large
    floor : least mean intensity that is divided by, in the units of `stack`; 1 count keeps dark windows finite

    Returns
    -------
    (z, row, col) float32: S = G * sqrt(Dc^2 + Dr^2) of forward differences (0 in the last column and row) of
    E = I / max(G * I, floor)

    Raises
    ------
    ShapeError : as :func:`gaussian`, or a negative floor

    Notes
    -----
    White relative noise of standard deviation eps gives S = 1.742 eps: sqrt(Dc^2 + Dr^2) with the covariance eps^2 of
    the two differences, which share a sample. No gradient.
    """
    return torch.ops.gigascope.filters_sharpness(stack, sigma, truncate, border, floor)


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.filters import cpu

        return cpu
    if chosen == "cuda":
        from gigascope.kernels.filters import cuda

        return cuda
    from gigascope.kernels.filters import reference

    return reference


def _check(op: str, stack: Tensor, sigma: float, truncate: float, border: str) -> None:
    if stack.ndim != 3 or stack.dtype not in DTYPES or stack.numel() == 0:
        names = " or ".join(str(dtype) for dtype in DTYPES)
        raise ShapeError(f"{op}: stack: expected (z, row, col) of {names}, got {tuple(stack.shape)} {stack.dtype}")
    check_positive(op, sigma=sigma, truncate=truncate)
    if border not in BORDERS:
        raise ShapeError(f"{op}: border: expected {' or '.join(BORDERS)}, got {border}")


@define("filters_gaussian", "(Tensor stack, float sigma, float truncate, str border) -> Tensor")
def _gaussian(stack: Tensor, sigma: float, truncate: float, border: str) -> Tensor:
    _check("gaussian", stack, sigma, truncate, border)
    return _implementation(stack).gaussian(stack.contiguous(), sigma, truncate, border)


@_gaussian.register_fake
def _gaussian_meta(stack: Tensor, sigma: float, truncate: float, border: str) -> Tensor:
    return stack.new_empty(stack.shape, dtype=torch.float32)


@define("filters_sharpness", "(Tensor stack, float sigma, float truncate, str border, float floor) -> Tensor")
def _sharpness(stack: Tensor, sigma: float, truncate: float, border: str, floor: float) -> Tensor:
    _check("sharpness", stack, sigma, truncate, border)
    if not floor >= 0:
        raise ShapeError(f"sharpness: floor: expected 0 or more, got {floor}")
    return _implementation(stack).sharpness(stack.contiguous(), sigma, truncate, border, floor)


@_sharpness.register_fake
def _sharpness_meta(stack: Tensor, sigma: float, truncate: float, border: str, floor: float) -> Tensor:
    return stack.new_empty(stack.shape, dtype=torch.float32)
