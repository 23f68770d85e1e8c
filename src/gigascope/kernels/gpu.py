"""What the Triton kernels share: the device to launch on, and division of arrays into programs."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, not on that of its arguments; the interpreter takes CPU tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def n_blocks(size: int, block: int) -> int:
    """Blocks that cover an axis."""
    return -(-size // block)


def y_block(n_y: int, largest: int) -> int:
    """Width of a tile along y: a power of two, not wider than needed, at least one warp of 16-byte accesses wide."""
    block = min(largest, 128)
    while block < min(n_y, largest):
        block *= 2
    return block
