"""Batches for training, read ahead in a bounded queue while the network works on the one before."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from gigascope.errors import ShapeError, UserError
from gigascope.kernels import ortho
from gigascope.topography.capture.bayer import green_offset
from gigascope.topography.geometry.packing import pack
from gigascope.topography.geometry.poses import foot
from gigascope.topography.network.batch import Batch
from gigascope.topography.streaming.crops import Crops, crops_of_step
from gigascope.topography.streaming.reader import Box, ChunkReader
from gigascope.topography.streaming.ring import ALIGNMENT, Ring
from gigascope.topography.streaming.sampler import Sampler
from gigascope.topography.streaming.scene import Scene
from gigascope.topography.streaming.stats import Loaded, LoaderStats
from gigascope.topography.streaming.unpack import join_chunks, unpack_square

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Loading:
    """How batches are made and read.

    Attributes
    ----------
    patch : side of a crop, pixels; a multiple of the chunk's makes `snap` of a chunk read nothing in vain
    snap : crops begin at multiples of this; none: the side of a chunk (aligned), 2: free
    max_views : of a position
    ahead : batches that are being read or are ready
    budget_bytes : memory that they may take together
    threads : requests at a time
    check : compare every chunk with its checksum
    """

    patch: int = 576
    snap: int | None = None
    max_views: int = 6
    ahead: int = 6
    budget_bytes: int = 2 << 30
    threads: int = 16
    check: bool = True


@dataclass(eq=False)
class _Pending:
    """A batch that is being read, its crops one after the other in `host`, and where each has its chunks."""

    step: int
    crops: Crops
    boxes: list[Box]
    host: Tensor
    reads: list[Future[int]]
    device: Tensor | None = None
    copied: Any = None


class Loader:
    """Batches by the number of their step, for :class:`gigascope.topography.network.training.Training`.

    Asked for steps one after the other it reads ahead; asked for another step it begins anew there. What it gives is a
    function of the step alone.

    Parameters
    ----------
    root : folder of the raw store
    array : its green, see :meth:`gigascope.store.open.StoreReader.member`
    sampler : of the points, and of the scene
    loading : see there
    pattern : Bayer pattern of a packed array, none: it holds every pixel
    rank, ranks : of the processes that share the positions of a step
    device : where batches go
    last : steps in all: nothing is read for later ones

    Raises
    ------
    ShapeError : array, scene and patch do not go together
    UserError : the budget is too small for a batch
    """

    def __init__(
        self,
        root: Path,
        array: zarr.Array,
        sampler: Sampler,
        loading: Loading,
        *,
        pattern: str | None,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device | str = "cpu",
        last: int | None = None,
    ) -> None:
        self.sampler, self.loading, self.device, self.last = sampler, loading, torch.device(device), last
        self._packed = 1 if pattern is None else 2
        self._offset = 0 if pattern is None else green_offset(pattern)
        _check(sampler.scene, array, loading, self._packed)
        self._slots = sampler.of_rank(rank, ranks)
        self._reader = ChunkReader(root, array, threads=loading.threads, check=loading.check)
        self._shape = (loading.patch, loading.patch // self._packed)
        # a small view is one chunk
        self._snap = loading.snap or min(self._reader.chunk[0], loading.patch)
        self._dtype = torch.uint8 if array.dtype.itemsize == 1 else torch.uint16
        scene = sampler.scene
        self._table, self._distortion = pack(scene.poses, distance_mm=scene.distance_mm)
        self._foot = foot(scene.poses)
        cuda = self.device.type == "cuda"
        # no more than the queue can hold: a small sample does not go through all of the budget
        bound = loading.ahead * self._largest_batch()
        self._ring = Ring(min(loading.budget_bytes, bound), pinned=cuda)
        self._stream = torch.cuda.Stream(self.device) if cuda else None
        self._unpackers = None if cuda else ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="unpack")
        self._queue: deque[_Pending] = deque()
        self._next = 0
        self._before: float | None = None
        self.stats = LoaderStats(budget_bytes=loading.budget_bytes)
        self.crops = lru_cache(maxsize=loading.ahead + 2)(self._crops)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device.

        Raises
        ------
        UserError : a shard is missing, cut short or altered, or the budget is too small for this batch
        """
        begun = time.perf_counter()
        if not self._queue or self._queue[0].step != step:
            self._drain()
            self._next, self._before = step, None
        self._fill(least=1)
        pending = self._queue[0]
        waited = time.perf_counter()
        wait(pending.reads)
        waited = time.perf_counter() - waited
        try:
            bytes_read = sum(read.result() for read in pending.reads)
        except UserError:
            self._drain()
            raise
        batch = self._finish(pending)
        self._release(self._queue.popleft())
        self._fill()
        self._stage()
        now = time.perf_counter()
        total = now - (self._before if self._before is not None else begun)
        self._before = now
        used = batch.n_views * batch.n_z * math.prod(self._shape) * self._dtype.itemsize
        self.stats.batches.append(Loaded(step, batch.n_views, bytes_read, used, waited, total))
        self.stats.peak_bytes = self._ring.peak
        return batch

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """All batches from a step on, to the last."""
        while self.last is None or step < self.last:
            yield self(step)
            step += 1

    def close(self) -> None:
        """Stop reading."""
        self._drain()
        self._reader.close()
        if self._unpackers is not None:
            self._unpackers.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _crops(self, step: int) -> Crops:
        """Crops of a step of this process, see :func:`crops_of_step`."""
        size, loading = self.sampler.scene.poses.size, self.loading
        return crops_of_step(self.sampler, step, self._slots, size, loading.patch, self._snap, loading.max_views)

    def _largest_batch(self) -> int:
        """Bytes that no batch exceeds."""
        chunks = math.prod(-(-(n - 1) // c) + 1 for n, c in zip(self._shape, self._reader.chunk))
        n_bytes = len(self._slots) * self.loading.max_views * chunks * self._reader.chunk_bytes
        return -(-n_bytes // ALIGNMENT) * ALIGNMENT

    def _fill(self, least: int = 0) -> None:
        """Begin to read as many batches as the queue and its memory hold, `least` at least."""
        while len(self._queue) < self.loading.ahead:
            if self.last is not None and self._next >= self.last and len(self._queue) >= least:
                return
            crops = self.crops(self._next)
            packed = crops.corner // np.array([1, self._packed])
            boxes = [self._reader.box(corner, self._shape) for corner in packed]
            counts = [math.prod(box.shape) * self._reader.chunk_bytes for box in boxes]
            host = self._ring.take(sum(counts))
            if host is None:
                if not self._queue:
                    raise self._too_small(sum(counts))
                return
            reads: list[Future[int]] = []
            columns = self.sampler.scene.grid[1]
            for view, box, part in zip(crops.view.tolist(), boxes, host.split(counts)):
                out = part.numpy().reshape(*box.shape, self._reader.chunk_bytes)
                reads += self._reader.submit(divmod(view, columns), box, out)
            self._queue.append(_Pending(self._next, crops, boxes, host, reads))
            self._next += 1

    def _too_small(self, needed: int) -> UserError:
        what = f"a batch takes {needed / 1e6:.1f} MB, the queue may take {self._ring.size / 1e6:.1f} MB."
        return UserError(what, do="Allow it more memory, or take smaller patches, fewer positions or fewer views.")

    def _drain(self) -> None:
        """Give up what is being read; its memory is free when the last request has ended."""
        for pending in self._queue:
            for read in pending.reads:
                read.cancel()
        while self._queue:
            wait(self._queue[0].reads)
            self._release(self._queue.popleft())

    def _release(self, pending: _Pending) -> None:
        if pending.copied is not None:
            pending.copied.synchronize()
        self._ring.give_back()

    def _stage(self) -> None:
        """Copy the next batch to the device beside the work on this one, if it has been read."""
        if self._stream is not None and self._queue and all(read.done() for read in self._queue[0].reads):
            self._copy(self._queue[0])

    def _copy(self, pending: _Pending) -> None:
        if self._stream is None or pending.device is not None:
            return
        with torch.cuda.stream(self._stream):
            pending.device = pending.host.to(self.device, non_blocking=True)
            pending.copied = self._stream.record_event()

    def _finish(self, pending: _Pending) -> Batch:
        """Stacks, coordinates and numbers of the views."""
        self._copy(pending)
        data = pending.host
        if pending.device is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(pending.copied)
            pending.device.record_stream(current)
            data = pending.device
        crops, scene, device = pending.crops, self.sampler.scene, self.device
        origin = crops.point[crops.group]
        z_mm = scene.z_mm[crops.view]
        middle = z_mm.mean(axis=1)

        def numbers(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values)).to(device, dtype)

        n = len(crops.view)
        return Batch(
            stacks=self._stacks(data, pending),
            coords=self._coords(crops, origin),
            group=numbers(crops.group, torch.int64),
            foot=numbers(self._foot[crops.view] - origin),
            distance_mm=numbers(scene.distance_mm[crops.view]),
            datum_mm=self._datum(crops, middle),
            z_mm=numbers(z_mm - middle[:, None]),
            nominal=numbers(scene.nominal[crops.view]),
            weight=torch.ones(n, device=device),
            dz_mm=scene.dz_mm,
            stage_up=scene.stage_up,
            n_groups=len(crops.point),
        )

    def _stacks(self, data: Tensor, pending: _Pending) -> Tensor:
        side, n_z = self.loading.patch, self.sampler.scene.z_mm.shape[1]
        out = self._empty((len(pending.boxes), n_z, side, side))
        chunk = self._reader.chunk
        counts = [math.prod(box.shape) * self._reader.chunk_bytes for box in pending.boxes]

        def fill(stack: Tensor, part: Tensor, box: Box, corner: np.ndarray) -> None:
            chunks = part.view(self._dtype).view(*box.shape, n_z, *chunk)
            row, col = (int(c) - f * n for c, f, n in zip(corner // np.array([1, self._packed]), box.first, chunk))
            if self._packed == 1:
                stack.copy_(join_chunks(chunks, (row, col), self._shape))
            else:
                unpack_square(chunks, (row, col), (self._offset + int(corner[0])) % 2, stack)

        work = out, data.split(counts), pending.boxes, pending.crops.corner
        if self._unpackers is None:
            list(map(fill, *work))
        else:
            list(self._unpackers.map(fill, *work))
        return out

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        if self.device.type != "cpu":
            return torch.empty(shape, dtype=self._dtype, device=self.device)
        # numpy asks for huge pages, torch does not: touching 4 KiB pages takes longer than unpacking into them
        return torch.from_numpy(np.empty(shape, np.uint8 if self._dtype == torch.uint8 else np.uint16))

    def _coords(self, crops: Crops, origin: np.ndarray) -> Tensor:
        """(n, 2, patch, patch) float32: relative to the point, 1e5 mosaic pixels have no thousandths in float32."""
        move = torch.eye(2, 3, dtype=torch.float64).repeat(len(crops.view), 1, 1)
        move[:, :, 2] = -torch.as_tensor(origin)
        table = ortho.moved(self._table[crops.view], move).to(self.device)
        corner = torch.as_tensor(crops.corner, dtype=torch.float64, device=self.device)
        side = self.loading.patch
        distortion = self._distortion.to(self.device)
        return ortho.coordinates(table, distortion, self.sampler.scene.poses.size, corner, (side, side))

    def _datum(self, crops: Crops, middle: np.ndarray) -> Tensor:
        """(n, patch, patch) float32, as :func:`..calibration.field.whole_field`, relative to the stack's middle."""
        rows, columns = self.sampler.scene.poses.size
        larger = max(rows, columns)
        q = torch.as_tensor(self.sampler.scene.datum_mm[crops.view], device=self.device)
        q = q - torch.as_tensor(middle, device=self.device)[:, None] * (torch.arange(6, device=self.device) == 0)
        corner = torch.as_tensor(crops.corner, device=self.device)
        along = torch.arange(self.loading.patch, device=self.device)
        y = ((corner[:, :1] + along - rows / 2) / larger)[:, :, None]
        x = ((corner[:, 1:] + along - columns / 2) / larger)[:, None, :]
        q0, q1, q2, q3, q4, q5 = (q[:, k, None, None] for k in range(6))
        # only the mixed term is needed for every pixel
        return (q0 + (q2 + q5 * y) * y).float() + ((q1 + q3 * x) * x).float() + (q4 * y).float() * x.float()


def _check(scene: Scene, array: zarr.Array, loading: Loading, packed: int) -> None:
    size = scene.poses.size
    expected = (*scene.grid, scene.z_mm.shape[1], size[0], size[1] // packed)
    if array.shape != expected:
        raise ShapeError(f"loader: expected an array of {expected} as the calibration has it, got {array.shape}")
    if loading.patch < 4 or loading.patch % 2 or (packed == 2 and (loading.snap or 2) % 2):
        raise ShapeError(f"loader: expected an even patch and snap, got {loading.patch} and {loading.snap}")
    if loading.patch > min(size):
        what = f"a patch of {loading.patch} pixels does not fit into views of {size[0]} x {size[1]}."
        raise UserError(what, do="Take a smaller patch.")
    if loading.ahead < 1 or loading.max_views < 1:
        raise ShapeError(f"loader: expected ahead and max_views above 0, got {loading.ahead}, {loading.max_views}")
