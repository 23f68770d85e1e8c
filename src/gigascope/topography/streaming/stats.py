"""What loading cost: bytes read and used, time that training waited for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MB = 1e6


@dataclass(frozen=True)
class Loaded:
    """One batch.

    Attributes
    ----------
    step : number
    views : crops
    bytes_read : of the files, checksums included
    bytes_used : of them that are in the crops
    wait_s : that the caller waited for reading
    total_s : from the batch before to this one; for the first one, of the call
    """

    step: int
    views: int
    bytes_read: int
    bytes_used: int
    wait_s: float
    total_s: float

    def summary(self) -> str:
        """In words, for progress."""
        share = self.wait_s / self.total_s if self.total_s > 0 else 0.0
        return f"{self.views} views, {self.bytes_read / MB:.1f} MB read, waited {share:.0%}"


@dataclass
class LoaderStats:
    """All batches so far.

    Attributes
    ----------
    batches : in the order in which they were asked for
    peak_bytes : most memory that the queue of batches took
    budget_bytes : most that it may take
    """

    batches: list[Loaded] = field(default_factory=list)
    peak_bytes: int = 0
    budget_bytes: int = 0

    @property
    def amplification(self) -> float:
        """Bytes read over bytes used."""
        return self._sum("bytes_read") / max(1.0, self._sum("bytes_used"))

    @property
    def wait_share(self) -> float:
        """Share of the time that was spent waiting for reading."""
        total = self._sum("total_s")
        return self._sum("wait_s") / total if total > 0 else 0.0

    @property
    def read_mb_s(self) -> float:
        """Megabytes read per second of all the time, MB = 10^6 bytes."""
        total = self._sum("total_s")
        return self._sum("bytes_read") / MB / total if total > 0 else 0.0

    def metrics(self) -> dict[str, float]:
        """Totals as JSON values."""
        return {
            "loader_batches": float(len(self.batches)),
            "loader_read_MB": self._sum("bytes_read") / MB,
            "loader_used_MB": self._sum("bytes_used") / MB,
            "loader_amplification": self.amplification,
            "loader_wait_share": self.wait_share,
            "loader_read_MB_s": self.read_mb_s,
            "loader_peak_MB": self.peak_bytes / MB,
            "loader_budget_MB": self.budget_bytes / MB,
        }

    def table(self) -> tuple[dict[str, NDArray], Mapping[str, str]]:
        """Columns and units, one row per batch."""
        columns = {
            name: np.array([getattr(batch, name) for batch in self.batches], dtype=dtype)
            for name, dtype in (
                ("step", np.int64),
                ("views", np.int64),
                ("bytes_read", np.int64),
                ("bytes_used", np.int64),
                ("wait_s", np.float64),
                ("total_s", np.float64),
            )
        }
        return columns, {"bytes_read": "byte", "bytes_used": "byte", "wait_s": "s", "total_s": "s"}

    def summary(self) -> str:
        """In words, for the log."""
        return (
            f"{len(self.batches)} batches, {self._sum('bytes_read') / MB:.0f} MB read at {self.read_mb_s:.0f} MB/s, "
            f"{self.amplification:.2f} times what was used, waited {self.wait_share:.0%} of the time, "
            f"{self.peak_bytes / MB:.0f} of {self.budget_bytes / MB:.0f} MB of memory"
        )

    def _sum(self, name: str) -> float:
        return float(sum(getattr(batch, name) for batch in self.batches))
