"""What the generator makes of the same few crops, at moments of its training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gigascope.synthesis.adaptation.generator import Generator
from gigascope.synthesis.adaptation.loader import Batch

# Crops of a picture.
MOST = 4


@dataclass(frozen=True, eq=False)
class Picture:
    """n crops, the middle slice of each across and along the optical axis, float32 in [-1, 1].

    Attributes
    ----------
    step : that were done
    naive, adapted, real : (n, y, x): simulated, what is made of it, and real ones, that show something else
    naive_xz, adapted_xz, real_xz : (n, z, x)
    """

    step: int
    naive: Tensor
    adapted: Tensor
    real: Tensor
    naive_xz: Tensor
    adapted_xz: Tensor
    real_xz: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@torch.no_grad()
def take_picture(to_a: Generator, batch: Batch, step: int) -> Picture:
    """Look at the first crops of a batch."""
    few = batch.part(0, MOST)
    mode = to_a.training
    to_a.eval()
    # one at a time: a picture needs no more memory than a step
    depths = few.b.depth if to_a.architecture.depth else None
    made = torch.cat([to_a(few.b.image[n : n + 1], None if depths is None else depths[n : n + 1])
                      for n in range(len(few))])  # fmt: skip
    to_a.train(mode)
    images = [volume[:, 0].float().cpu() for volume in (few.b.image, made, few.a.image)]
    _, z, y, _ = images[0].shape
    return Picture(step, *(v[:, z // 2].clone() for v in images), *(v[:, :, y // 2].clone() for v in images))
