"""Which device a stage computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.errors import UserError

if TYPE_CHECKING:
    import torch


def choose_device(wanted: str) -> torch.device:
    """`auto`: CUDA where there is one, else the CPU; or the named one.

    Raises
    ------
    UserError : the named CUDA device is not there
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} CUDA devices" if count else "no CUDA device"
        raise UserError(
            f"device {wanted} was asked for, and torch sees {found}.",
            where="device",
            do="Set device: auto or cpu, or see `gigascope doctor`.",
        )
    return device


def n_devices(device: torch.device) -> int:
    """Devices that work may be spread over: all of them where none is named, one on a CPU."""
    import torch

    return max(1, torch.cuda.device_count()) if device.type == "cuda" and device.index is None else 1


def describe(device: torch.device) -> str:
    """Name of a device for logs and reports."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return f"CPU ({torch.get_num_threads()} threads)"
