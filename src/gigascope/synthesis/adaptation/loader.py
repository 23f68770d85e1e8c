"""Batches of crops by the number of their step, read ahead in threads, in bounded memory.

Only chunks that a crop touches are read. What a step gets is a function of its number alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.errors import UserError
from gigascope.synthesis.adaptation.domain import Domain
from gigascope.synthesis.adaptation.generator import depth_of
from gigascope.synthesis.adaptation.mapping import Mapping
from gigascope.synthesis.adaptation.sampler import Sampler, Spot
from gigascope.synthesis.adaptation.segmenter import Targets, targets_of

# float32 for each voxel of a crop: an image; and what a segmenter is to say of it.
IMAGE_BYTES, TARGET_BYTES = 4, 12


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops of one domain.

    Attributes
    ----------
    image : (n, 1, z, y, x) float32, in [-1, 1]
    depth : (n, 1, z, 1, 1) float32, see :func:`..generator.depth_of`
    targets : what their labels say; none: nobody asked
    """

    image: Tensor
    depth: Tensor
    targets: Targets | None = None

    def part(self, start: int, stop: int) -> Crops:
        """Some of them."""
        t = self.targets
        parts = None if t is None else Targets(*(p[start:stop] for p in (t.foreground, t.distance, t.known)))
        return Crops(self.image[start:stop], self.depth[start:stop], parts)


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step learns from: real crops `a`, simulated crops `b`, as many of each."""

    a: Crops
    b: Crops

    def part(self, start: int, stop: int) -> Batch:
        """Some of each."""
        return Batch(self.a.part(start, stop), self.b.part(start, stop))

    def __len__(self) -> int:
        return len(self.a.image)


@dataclass(frozen=True)
class Loaded:
    """What a batch cost.

    Attributes
    ----------
    step : its number
    bytes_read : of the chunks that its crops touch, as they are decoded
    bytes_used : of the crops
    wait_s : that the caller waited for it
    total_s : from the batch before to this one; of the first one the time of the call
    """

    step: int
    bytes_read: int
    bytes_used: int
    wait_s: float
    total_s: float


@dataclass
class LoaderStats:
    """All batches so far.

    Attributes
    ----------
    batches : in the order in which they were asked for
    peak_bytes : most memory that batches took that were being read or ready
    """

    batches: list[Loaded] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def wait_share(self) -> float:
        """Share of the time that was spent waiting, without the first batch, for which there was no ahead."""
        later = self.batches[1:]
        total = sum(batch.total_s for batch in later)
        return sum(batch.wait_s for batch in later) / total if total > 0 else 0.0

    @property
    def steps_per_s(self) -> float:
        """Batches per second, without the first one."""
        total = sum(batch.total_s for batch in self.batches[1:])
        return (len(self.batches) - 1) / total if total > 0 else 0.0

    def metrics(self) -> dict[str, float]:
        """Totals as JSON values."""
        read, used = (sum(getattr(b, name) for b in self.batches) for name in ("bytes_read", "bytes_used"))
        return {
            "loader_wait_share": self.wait_share,
            "loader_steps_per_s": self.steps_per_s,
            "loader_read_MB": read / 1e6,
            "loader_used_MB": used / 1e6,
            "loader_peak_MB": self.peak_bytes / 1e6,
        }

    def table(self) -> dict[str, NDArray]:
        """Columns, one row per batch."""
        names = {"step": np.int64, "bytes_read": np.int64, "bytes_used": np.int64, "wait_s": float, "total_s": float}
        return {name: np.array([getattr(b, name) for b in self.batches], dtype) for name, dtype in names.items()}


@dataclass(frozen=True)
class Loading:
    """How batches are read.

    Attributes
    ----------
    ahead : batches that are being read or ready, at most
    budget_bytes : memory that they may take together
    threads : that read and prepare crops
    """

    ahead: int = 6
    budget_bytes: int = 1 << 30
    threads: int = 4


class Loader:
    """Batches for a training; asked for steps one after the other it reads ahead.

    Parameters
    ----------
    real, cultures : domains a and b
    samplers : their crops
    mappings : their grey values
    loading : see there
    targets : labels of domain b are wanted
    rank, ranks : of the processes that share the crops of a step
    device : where batches go
    last : steps in all: nothing is read for later ones

    Raises
    ------
    UserError : the budget is too small for a batch
    """

    def __init__(
        self,
        real: Domain,
        cultures: Domain,
        samplers: tuple[Sampler, Sampler],
        mappings: tuple[Mapping, Mapping],
        loading: Loading,
        *,
        targets: bool,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device | str = "cpu",
        last: int | None = None,
    ) -> None:
        self._domains, self._samplers, self._mappings = (real, cultures), samplers, mappings
        self._targets, self._device, self._last = targets, torch.device(device), last
        share = samplers[0].batch // ranks
        self._slots = slice(rank * share, (rank + 1) * share)
        crop = samplers[0].crop
        self.batch_bytes = share * math.prod(crop) * (2 * IMAGE_BYTES + (TARGET_BYTES if targets else 0))
        self.ahead = min(loading.ahead, loading.budget_bytes // self.batch_bytes)
        if self.ahead < 1:
            what = (
                f"a batch takes {self.batch_bytes / 1e6:.1f} MB, {loading.budget_bytes / 1e6:.1f} MB may be read ahead."
            )
            raise UserError(what, do="Set a larger train.prefetch_mb, a smaller train.crop or a smaller train.batch.")
        self._pool = ThreadPoolExecutor(loading.threads, thread_name_prefix="crops")
        self._queue: deque[tuple[int, list[list[Future[_Crop]]]]] = deque()
        self._next, self._before = 0, 0.0
        self.stats = LoaderStats()

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device."""
        begun = time.perf_counter()
        if not self._queue or self._queue[0][0] != step:
            self._drain()
            self._next, self._before = step, begun
        self._fill(least=1)
        _, parts = self._queue[0]
        crops = [[future.result() for future in part] for part in parts]
        self._queue.popleft()
        waited = time.perf_counter() - begun
        batch = Batch(*(self._stacked(part) for part in crops))
        self._fill()
        now = time.perf_counter()
        read, used = (sum(getattr(c, name) for part in crops for c in part) for name in ("bytes_read", "bytes_used"))
        self.stats.batches.append(Loaded(step, read, used, waited, now - self._before))
        self._before = now
        return batch

    def close(self) -> None:
        """Stop reading."""
        self._drain()
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self, least: int = 0) -> None:
        while len(self._queue) < self.ahead:
            if self._last is not None and self._next >= self._last and len(self._queue) >= least:
                break
            parts = [
                [self._pool.submit(self._crop, n, spot) for spot in sampler.at(self._next)[self._slots]]
                for n, sampler in enumerate(self._samplers)
            ]
            self._queue.append((self._next, parts))
            self._next += 1
        self.stats.peak_bytes = max(self.stats.peak_bytes, len(self._queue) * self.batch_bytes)

    def _crop(self, domain: int, spot: Spot) -> _Crop:
        source, sampler = self._domains[domain], self._samplers[domain]
        volume, region = source.volumes[spot.volume], spot.region(sampler.crop)
        values = volume.read(region)
        image = self._mappings[domain].apply(spot.turned(values))
        depth = depth_of(region[0].start, region[0].stop, volume.shape[0])
        read = _bytes_touched(region, values.itemsize, volume.image)
        targets = None
        if domain == 1 and self._targets:
            labels = spot.turned(volume.read_labels(region))
            targets = torch.from_numpy(targets_of(labels, source.voxel_um))
            read += _bytes_touched(region, labels.itemsize, volume.labels)
        return _Crop(torch.from_numpy(image), depth, targets, read, values.nbytes)

    def _stacked(self, crops: list[_Crop]) -> Crops:
        image, depth = self._moved([c.image for c in crops])[:, None], self._moved([c.depth for c in crops])
        known = [c.targets for c in crops if c.targets is not None]
        targets = None
        if known:
            parts = self._moved(known)
            targets = Targets(*(parts[:, n : n + 1] for n in range(3)))
        return Crops(image, depth[:, None, :, None, None], targets)

    def _moved(self, parts: list[Tensor]) -> Tensor:
        whole = torch.stack(parts)
        if self._device.type == "cpu":
            return whole
        # page-locked, so that the copy runs beside the step before
        return whole.pin_memory().to(self._device, non_blocking=True)

    def _drain(self) -> None:
        """Give up what is being read."""
        for _, parts in self._queue:
            futures = [future for part in parts for future in part]
            for future in futures:
                future.cancel()
            wait(futures)
        self._queue.clear()


@dataclass(frozen=True, eq=False)
class _Crop:
    """One crop: (z, y, x) image, (z,) depth, (3, z, y, x) targets or none."""

    image: Tensor
    depth: Tensor
    targets: Tensor | None
    bytes_read: int
    bytes_used: int


def _bytes_touched(region: tuple[slice, ...], itemsize: int, array: Any) -> int:
    """Of the chunks of an array that a region touches."""
    chunks = array.chunks[-3:]
    n = math.prod((r.stop - 1) // c - r.start // c + 1 for r, c in zip(region, chunks))
    return n * math.prod(chunks) * itemsize
