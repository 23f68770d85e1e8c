"""Speed of the patch loader beside a plain reader of the same chunks, and bytes read over bytes used.

    python benchmarks/topography_streaming.py [--quick] [--mb 400] [--rounds 3] [--folder DIR] [--json FILE]

A raw store of noise is written in the layout of ingest (192-pixel chunks of all slices, packed green), in a temporary
folder. `plain` reads the chunks of all crops in the order of the loader, each as one request of its own, with as many
threads into memory that is used again, and does nothing with them. `loader, reading` is the loader's queue: the same
chunks checked and laid out ready for the device. `loader, batches` adds what a GPU would do: unpacking, coordinates and
datum, here on the processor. Before each run the shards are dropped from the system's cache, unless a method is named
`cached`. Methods take turns; each number is the best of the rounds. Ratios are to `plain` on the same crops; CPU
seconds are of all threads, and tell more than rates on a busy machine; the share of the time that is waited is over all
rounds, cold and cached.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import StoreReader, open_store
from gigascope.store.plain_shard import shard_places, write_shard
from gigascope.store.plan import ShardPlan
from gigascope.topography.geometry.candidates import find_candidates, fit_mosaic
from gigascope.topography.geometry.poses import Poses
from gigascope.topography.streaming.loader import Loader, Loading
from gigascope.topography.streaming.sampler import Sampler
from gigascope.topography.streaming.scene import Scene, cameras_of

SIDE, CHUNK, PATCH = 1152, 192, 576
CAMERAS, SCAN = (1, 2), (2, 2)
THREADS = 8
MODES = {"aligned": None, "free": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=400, help="size of the store, default 400")
    parser.add_argument("--quick", action="store_true", help="200 MB, two rounds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="batches of one run")
    parser.add_argument("--folder", type=Path, help="disk to read from; default: the system's temporary folder")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    rounds, mb = (2, 200) if args.quick else (args.rounds, args.mb)
    steps = min(args.steps, 4) if args.quick else args.steps
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="gigascope-benchmark-") as name:
        store, scene = build(Path(name), mb)
        print(f"{CAMERAS} cameras x {SCAN} positions, views {SIDE}^2 x {scene.z_mm.shape[1]}, {steps} batches a run")
        print(f"{'crops':<9}{'method':<26}{'MB/s':>8}{'ratio':>7}{'CPU s':>8}{'read/used':>11}{'waited':>8}")
        for mode, snap in MODES.items():
            found = measure(store, scene, snap, steps, rounds)
            for method, (rate, cpu, amplification, waited) in found.items():
                ratio = rate / found["plain, cached" if "cached" in method else "plain"][0]
                facts = "" if math.isnan(waited) else f"{amplification:>11.3f}{waited:>8.0%}"
                print(f"{mode:<9}{method:<26}{rate:>8.0f}{ratio:>7.2f}{cpu:>8.3f}{facts}", flush=True)
                numbers = {"rate": (rate, "MB/s"), "rate over plain": (ratio, "1"), "CPU time": (cpu, "s")}
                if method == "loader, batches":
                    numbers |= {"bytes read over used": (amplification, "1"), "share waited": (waited, "1")}
                for metric, (value, unit) in numbers.items():
                    rows.append({"case": mode, "method": method, "metric": metric, "value": value, "unit": unit})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(
    store: StoreReader, scene: Scene, snap: int | None, steps: int, rounds: int
) -> dict[str, tuple[float, float, float, float]]:
    """MB/s of reading, CPU seconds of a run, bytes read over used, share of the time waited, by method."""
    loading = Loading(patch=PATCH, snap=snap, ahead=4, threads=THREADS, budget_bytes=1 << 30)
    loaders = []
    for kind in (Reading, Loader):
        sampler = Sampler(scene, 3, 2, patch=PATCH)
        loaders.append(kind(store.path, store.member("green"), sampler, loading, pattern="GBRG", last=steps))
    requests = plain_requests(loaders[0], steps)
    buffers = [bytearray(1) for _ in range(THREADS)]
    work: dict[str, Callable[[], object]] = {
        "plain": lambda: read_plain(requests, buffers),
        "loader, reading": lambda: sum(1 for _ in loaders[0].batches()),
        "loader, batches": lambda: sum(1 for _ in loaders[1].batches()),
    }
    # once: what is compiled, and memory that is touched for the first time
    for method in work.values():
        method()
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for state in ("", ", cached"):
            for name, method in work.items():
                if not state:
                    drop(store.path)
                begun, cpu = time.perf_counter(), time.process_time()
                method()
                times[name + state].append((time.perf_counter() - begun, time.process_time() - cpu))
    n_bytes = sum(length for _, _, length in requests)
    found = {}
    for name, taken in times.items():
        stats = loaders["batches" in name].stats if "loader" in name else None
        facts = (stats.amplification, stats.wait_share) if stats else (math.nan, math.nan)
        found[name] = (n_bytes / 1e6 / min(wall for wall, _ in taken), min(cpu for _, cpu in taken), *facts)
    for loader in loaders:
        loader.close()
    return found


class Reading(Loader):
    """What is read is not made into batches."""

    def _finish(self, pending: Any) -> Any:
        return Unmade(len(pending.boxes), self.sampler.scene.z_mm.shape[1])


@dataclass
class Unmade:
    """What the statistics ask of a batch."""

    n_views: int
    n_z: int


def plain_requests(loader: Loader, steps: int) -> list[tuple[Path, int, int]]:
    """(file, offset, bytes) of every chunk that the loader reads, in its order."""
    reader, found = loader._reader, []
    for step in range(steps):
        crops = loader.crops(step)
        for view, corner in zip(crops.view.tolist(), crops.corner):
            at = divmod(view, loader.sampler.scene.grid[1])
            box = reader.box(corner // np.array([1, 2]), (PATCH, PATCH // 2))
            places = shard_places(reader.path(at), reader.array)[0, 0, 0].astype(np.int64)
            for place in places[box.first[0] : box.last[0], box.first[1] : box.last[1]].reshape(-1, 2):
                found.append((reader.path(at), *place.tolist()))
    return found


def read_plain(requests: list[tuple[Path, int, int]], buffers: list[bytearray]) -> int:
    """Bytes read, by as many threads as there are buffers, which grow to the largest request."""
    files = {path: os.open(path, os.O_RDONLY) for path in {path for path, _, _ in requests}}
    longest = max(length for _, _, length in requests)
    free: SimpleQueue[bytearray] = SimpleQueue()
    for buffer in buffers:
        buffer.extend(bytes(max(0, longest - len(buffer))))
        free.put(buffer)

    def one(request: tuple[Path, int, int]) -> int:
        path, offset, length = request
        buffer = free.get()
        read = os.preadv(files[path], [memoryview(buffer)[:length]], offset)
        free.put(buffer)
        return read

    with ThreadPoolExecutor(len(buffers)) as pool:
        total = sum(pool.map(one, requests))
    for file in files.values():
        os.close(file)
    return total


def drop(root: Path) -> None:
    """Out of the system's cache with all shards."""
    for path in root.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def build(folder: Path, mb: int) -> tuple[StoreReader, Scene]:
    """A raw store of noise, green alone, and where its views are."""
    rng = np.random.default_rng(0)
    grid = CAMERAS[0] * SCAN[0], CAMERAS[1] * SCAN[1]
    n = math.prod(grid)
    n_z = max(5, round(mb * 1e6 / (n * SIDE * SIDE / 2)))
    at = np.stack(np.indices(grid), axis=-1).reshape(-1, 2)
    poses, shape = fit_mosaic(
        Poses(
            size=(SIDE, SIDE),
            focal=1.0,
            height=np.ones(n),
            normal=np.tile([0.0, 0.0, -1.0], (n, 1)),
            angle=rng.normal(0, 2e-3, n),
            translation=at * SIDE * 0.42,
            distortion=np.array([3e-3]),
            offset=np.zeros(2),
        )
    )
    scene = Scene(
        grid=grid,
        poses=poses,
        candidates=find_candidates(poses, shape),
        camera=cameras_of(grid, SCAN),
        present=np.ones(n, bool),
        distance_mm=np.full(n, 54.7),
        datum_mm=np.tile([12.0, 0, 0, 0.01, 0, 0.01], (n, 1)),
        nominal=np.full(n, n_z / 2),
        z_mm=np.tile(12 + 0.04 * np.arange(n_z), (n, 1)),
        dz_mm=0.04,
        stage_up=True,
    )
    store = create_store(folder / "raw.zarr")
    view = (1, 1, n_z, SIDE, SIDE // 2)
    plan = ShardPlan((*grid, *view[2:]), 1, (1, 1, n_z, CHUNK, CHUNK // 2), view)
    array = store.create_member("green", plan, np.uint8, compress=False)
    for row, col in np.ndindex(*grid):
        block = rng.integers(0, 256, view, dtype=np.uint8)
        write_shard(store.path, array, (row, col, 0, 0, 0), block)
    finish(store, {})
    # dirty pages would not leave the cache
    os.sync()
    return open_store(store.path), scene


if __name__ == "__main__":
    main()
