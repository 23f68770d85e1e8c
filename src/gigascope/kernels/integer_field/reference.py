"""The definition of the integer field in plain torch int64, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from gigascope.kernels.integer_field import layout


def add_(field: Tensor, gaussians: Tensor, origin: tuple[int, int, int]) -> None:
    """See :func:`gigascope.kernels.integer_field.add_`."""
    table = torch.from_numpy(layout.exp2_table()).to(field.device, torch.int64)
    for row in gaussians:
        low = [max(int(a) - o, 0) for a, o in zip(row[layout.LOW], origin)]
        high = [min(int(b) - o + 1, n) for b, o, n in zip(row[layout.HIGH], origin, field.shape)]
        if all(a < b for a, b in zip(low, high)):
            box = tuple(slice(a, b) for a, b in zip(low, high))
            places = [torch.arange(a, b, device=field.device) + o for a, b, o in zip(low, high, origin)]
            z, y, x = torch.meshgrid(*places, indexing="ij")
            field[box] += term(row, z, y, x, table)


def term(row: Tensor, z: Tensor, y: Tensor, x: Tensor, table: Tensor) -> Tensor:
    """Contribution of one row at integer places, with `layout.FIELD_BITS` digits behind the binary point."""
    anchor, linear, square, mixed = (row[c] for c in (layout.ANCHOR, layout.LINEAR, layout.SQUARE, layout.MIXED))
    z, y, x = z - anchor[0], y - anchor[1], x - anchor[2]
    exponent = row[layout.CONSTANT] + linear[0] * z + linear[1] * y + linear[2] * x
    exponent = exponent + square[0] * z * z + square[1] * y * y + square[2] * x * x
    exponent = exponent + mixed[0] * z * y + mixed[1] * z * x + mixed[2] * y * x
    inside = exponent < row[layout.LIMIT]
    exponent = torch.where(inside, exponent, 0).clamp_min(0)
    halvings = exponent >> layout.EXPONENT_BITS
    entry = (exponent >> (layout.EXPONENT_BITS - layout.TABLE_BITS)) & ((1 << layout.TABLE_BITS) - 1)
    low_bits = layout.EXPONENT_BITS - layout.TABLE_BITS - layout.FRACTION_BITS
    fraction = (exponent >> low_bits) & ((1 << layout.FRACTION_BITS) - 1)
    weight = table[entry, 0] - (table[entry, 1] * fraction >> layout.FRACTION_BITS)
    return torch.where(inside, row[layout.AMPLITUDE] * weight >> (layout.TERM_SHIFT + halvings), 0)
