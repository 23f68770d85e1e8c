"""Grey values of a domain as the networks take them, and back; one line for a whole data set, never for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.errors import UserError

MOST = 65535
# Mitotic and pyknotic nuclei are up to 2.5 times as bright as others, and a percentile of 99.9 lies among them.
ROOM = 4.0


@dataclass(frozen=True)
class Mapping:
    """Grey values `low` and `high` are -1 and 1.

    Attributes
    ----------
    low, high : grey values
    most : what lies beyond -`most` or `most` is cut off: 1 for generators that reach no farther; :data:`ROOM` for those
        that add to the image, which keeps the brightest nuclei, but not a broken pixel
    """

    low: float
    high: float
    most: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            what = f"grey values from {self.low:g} to {self.high:g} cannot be told apart: nearly all voxels are alike."
            raise UserError(what, do="Look at the images, or set other train.norm_percentiles.")

    def apply(self, values: NDArray) -> NDArray[np.float32]:
        """Grey values to float32, `low` to `high` to [-1, 1]."""
        scaled = (values.astype(np.float32) - np.float32(self.low)) * np.float32(2 / (self.high - self.low))
        return np.clip(scaled - np.float32(1), -self.most, self.most)

    def invert(self, values: Tensor, scale: Literal["real", "full"] = "real") -> Tensor:
        """[-1, 1] to grey values, float32, not rounded.

        Parameters
        ----------
        scale : real, of this domain; full, 0 to 65535, as published
        """
        low, high = (self.low, self.high) if scale == "real" else (0.0, float(MOST))
        return (values.float() + 1) * ((high - low) / 2) + low


def grey(values: Tensor) -> NDArray[np.uint16]:
    """Rounded, in 16 bits."""
    return values.round().clamp(0, MOST).to(torch.int32).cpu().numpy().astype(np.uint16)
