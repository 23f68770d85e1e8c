"""What all op families share at their border: which implementation serves a tensor, and checks of shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from gigascope.errors import ShapeError

Backend = Literal["cpu", "cuda", "reference"]


def backend(tensor: Tensor) -> Backend:
    """Name of the implementation for the device of `tensor`; devices without one of their own get the definition."""
    if tensor.device.type == "cpu":
        return "cpu"
    if tensor.device.type == "cuda":
        return "cuda"
    return "reference"


def check(op: str, expected: Mapping[str, tuple[int | str, ...]], **tensors: Tensor | None) -> dict[str, int]:
    """Hold `tensors` to shapes written with names for free sizes, one floating dtype and one device.

    Parameters
    ----------
    op : name of the op, for the message
    expected : argument -> shape; an entry is a number or the name of a size that must be the same everywhere; a name
        that ends in * may be 0
    tensors : the arguments; None is left out

    Returns
    -------
    The sizes found, by name

    Raises
    ------
    ShapeError : with the argument, the shape expected and the one found
    """
    sizes: dict[str, int] = {}
    first: tuple[str, Tensor] | None = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        _check_shape(op, name, tensor, expected[name], sizes)
        if first is None:
            first = (name, tensor)
            _check_floating(op, name, tensor)
        elif tensor.dtype != first[1].dtype or tensor.device != first[1].device:
            raise ShapeError(
                f"{op}: {name}: expected {first[1].dtype} on {first[1].device} as {first[0]}, "
                f"got {tensor.dtype} on {tensor.device}"
            )
    return sizes


def check_angles(op: str, angles: Tensor, n_tilts: int | None = None) -> None:
    """Angles are a vector of float64 radians, one per view; in float32 the coefficients lose 1e-5 at 4096 px.

    Raises
    ------
    ShapeError : another rank, dtype or count
    """
    if angles.ndim != 1 or angles.dtype != torch.float64:
        raise ShapeError(f"{op}: angles: expected (tilt,) torch.float64, got {tuple(angles.shape)} {angles.dtype}")
    if n_tilts is not None and angles.shape[0] != n_tilts:
        raise ShapeError(f"{op}: angles: expected {n_tilts} angles, one per view, got {angles.shape[0]}")


def check_table(op: str, name: str, table: Tensor, shape: tuple[int, ...]) -> None:
    """Small float64 tables (shifts, matrices, offsets) that go with the views.

    Raises
    ------
    ShapeError : another shape or dtype
    """
    if tuple(table.shape) != shape or table.dtype != torch.float64:
        raise ShapeError(f"{op}: {name}: expected {shape} torch.float64, got {tuple(table.shape)} {table.dtype}")


def check_positive(op: str, **numbers: float) -> None:
    """Sizes and spacings above zero.

    Raises
    ------
    ShapeError : a number that is zero, negative or not a number
    """
    for name, number in numbers.items():
        if not number > 0:
            raise ShapeError(f"{op}: {name}: expected a number above 0, got {number}")


def check_in_place(op: str, **tensors: Tensor) -> None:
    """Arrays that an op writes into must be contiguous, since a copy would take the result away.

    Raises
    ------
    ShapeError : a strided view
    """
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ShapeError(f"{op}: {name}: expected a contiguous array to write into, got strides {tensor.stride()}")


def _check_shape(op: str, name: str, tensor: Tensor, expected: tuple[int | str, ...], sizes: dict[str, int]) -> None:
    """Bind the named sizes one after the other; the first argument that has a name decides its size."""
    found = tuple(tensor.shape)
    wanted = tuple(sizes.get(entry, entry) if isinstance(entry, str) else entry for entry in expected)
    fits = len(found) == len(wanted) and all(
        isinstance(want, str) or want == size for want, size in zip(wanted, found, strict=True)
    )
    empty = any(
        size == 0 and not (isinstance(entry, str) and entry.endswith("*")) for entry, size in zip(expected, found)
    )
    if not fits or empty:
        shown = ", ".join(str(want) for want in wanted)
        raise ShapeError(f"{op}: {name}: expected ({shown}), got {found}")
    for want, size in zip(wanted, found, strict=True):
        if isinstance(want, str):
            sizes[want] = size


def _check_floating(op: str, name: str, tensor: Tensor) -> None:
    """The CPU computes in float32 or float64, Triton in float32."""
    accepted = (torch.float32,) if tensor.device.type == "cuda" else (torch.float32, torch.float64)
    if tensor.dtype not in accepted:
        names = " or ".join(str(dtype) for dtype in accepted)
        raise ShapeError(f"{op}: {name}: expected {names} on {tensor.device}, got {tensor.dtype}")
