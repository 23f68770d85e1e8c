"""An estimated setting: its value, how sure it is, and why there is none where there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Estimate:
    """One number.

    Attributes
    ----------
    value : or None, where the image does not show it
    error : standard error, from parts of the image that were looked at apart; NaN where there is one part only
    reason : what it rests on, or why there is none
    """

    value: float | None
    error: float
    reason: str

    @classmethod
    def of_parts(cls, values: list[float], reason: str) -> Estimate:
        """Mean over parts of an image, with its standard error."""
        good: NDArray[np.float64] = np.array([v for v in values if math.isfinite(v)])
        if not good.size:
            return cls(None, math.nan, f"not identifiable: {reason}")
        error = float(good.std(ddof=1) / math.sqrt(good.size)) if good.size > 1 else math.nan
        return cls(float(good.mean()), error, reason)
