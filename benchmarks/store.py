"""Speed of the store beside plain Zarr and a plain file: a sharded float32 volume written, completed, read, verified.

    python benchmarks/store.py [--gib 2] [--quick] [--folder DIR] [--json FILE]

Every shard is written from the same block in memory, so that only the store is measured. Methods take turns, and each
number is the least of the rounds: what else runs on a machine only adds. CPU seconds are those of all threads. The
ratios are to plain Zarr with the same chunks, shards and codecs (to its writing, for steps that Zarr does not have).
`finish` reads all back, checks it, digests it and adds the pyramid.

The system keeps in memory what was just written. `on the disk` therefore means: written until the disk has it, and
read after the system was told to forget it. The last lines compare these with the raw file, which holds every byte,
while the others hold what compression leaves.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import uniform_filter
from zarr.codecs import BloscCodec, Crc32cCodec

from gigascope.store.checksum import verify
from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.store.open import open_store
from gigascope.store.plan import Region, ShardPlan, shard_plan

PLANE = (1024, 1024)
DTYPE = np.dtype(np.float32)
CASES = ("write", "finish", "read", "verify")
ON_DISK = ", on the disk"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the volume, default 2")
    parser.add_argument("--quick", action="store_true", help="256 MiB, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="disk to write on; default: the system's temporary folder")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    n_bytes = (256 << 20) if args.quick else int(args.gib * (1 << 30))
    shape = (max(1, n_bytes // (PLANE[0] * PLANE[1] * DTYPE.itemsize)), *PLANE)
    plan = shard_plan(shape, DTYPE)
    times = measure(plan, 1 if args.quick else args.rounds, args.folder)
    gib = np.prod(shape) * DTYPE.itemsize / (1 << 30)
    print(f"{gib:.2f} GiB float32 {shape}, chunks {plan.chunks}, {plan.n_shards} shards of {plan.shards}")
    print(f"{'step':<8}{'method':<26}{'s':>8}{'MiB/s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}")
    rows = []
    for (case, method), taken in times.items():
        wall, cpu = taken.min(axis=0)
        wall_ratio, cpu_ratio = taken.min(axis=0) / times.get((case, "zarr"), times["write", "zarr"]).min(axis=0)
        print(
            f"{case:<8}{method:<26}{wall:>8.2f}{gib * 1024 / wall:>8.0f}{wall_ratio:>7.2f}{cpu:>8.2f}{cpu_ratio:>7.2f}"
        )
        numbers = {
            "time": (wall, "s"),
            "time over plain zarr": (wall_ratio, "1"),
            "CPU time": (cpu, "s"),
            "CPU time over plain zarr": (cpu_ratio, "1"),
        }
        for metric, (value, unit) in numbers.items():
            rows.append({"case": case, "method": method, "metric": metric, "value": float(value), "unit": unit})
    for case in ("write", "read"):
        raw, zarr_, store = (times[case, method + ON_DISK].min(axis=0)[0] for method in ("plain file", "zarr", "store"))
        print(
            f"{case} on the disk: store {gib * 1024 / store:.0f} MiB/s, {raw / store:.0%} of a plain file's "
            f"{gib * 1024 / raw:.0f} MiB/s; plain zarr {raw / zarr_:.0%}"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(plan: ShardPlan, rounds: int, parent: Path | None) -> dict[tuple[str, str], np.ndarray]:
    """(rounds, 2) float64 for each step and method: seconds by the clock and of all CPUs."""
    block = specimen(tuple(min(n, shard) for n, shard in zip(plan.shape, plan.shards)))
    taken: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=parent, prefix="gigascope-benchmark-") as name:
            for (case, method), work in steps(Path(name), plan, block).items():
                wall, cpu = time.perf_counter(), time.process_time()
                work()
                taken[case, method].append((time.perf_counter() - wall, time.process_time() - cpu))
    times = {key: np.array(values) for key, values in taken.items()}
    times["write", "store, finish included"] = times["write", "store"] + times["finish", "store"]
    return dict(sorted(times.items(), key=lambda item: CASES.index(item[0][0])))


def steps(folder: Path, plan: ShardPlan, block: np.ndarray) -> dict[tuple[str, str], Callable[[], object]]:
    """What is timed, in the order in which it must be done."""
    names = ("file", "same.zarr", "again.zarr", "own.zarr", "store.zarr", "beside.zarr")
    file, same, again, own, path, beside = (folder / name for name in names)
    return {
        ("write", "plain file"): lambda: write_file(file, plan, block),
        ("read", "plain file"): lambda: read_file(file, plan, block),
        ("write", "plain file" + ON_DISK): lambda: synced(lambda: write_file(file, plan, block), file),
        ("read", "plain file" + ON_DISK): lambda: (forget(file), read_file(file, plan, block)),
        ("write", "zarr"): lambda: write_zarr(same, plan, block, same=True),
        ("read", "zarr"): lambda: read_shards(zarr.open_array(same, mode="r"), plan),
        ("write", "zarr" + ON_DISK): lambda: synced(lambda: write_zarr(again, plan, block, same=True), again),
        ("read", "zarr" + ON_DISK): lambda: (forget(again), read_shards(zarr.open_array(again, mode="r"), plan)),
        ("write", "zarr, its default codec"): lambda: write_zarr(own, plan, block, same=False),
        ("read", "zarr, its default codec"): lambda: read_shards(zarr.open_array(own, mode="r"), plan),
        ("write", "store"): lambda: write_store(path, plan, block),
        ("finish", "store"): lambda: finish(path, {}),
        ("read", "store"): lambda: read_shards(open_store(path).array(), plan),
        ("verify", "store"): lambda: verify(path),
        ("read", "store" + ON_DISK): lambda: (forget(path), read_shards(open_store(path).array(), plan)),
        ("write", "store" + ON_DISK): lambda: synced(lambda: write_store(beside, plan, block), beside),
    }


def files_of(path: Path) -> list[Path]:
    """The file, or all below the folder."""
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def synced(write: Callable[[], object], path: Path) -> None:
    """Write, and wait until the disk has it."""
    write()
    for file in files_of(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def forget(path: Path) -> None:
    """Have the system drop what it keeps of these files in memory."""
    for file in files_of(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def specimen(shape: tuple[int, ...]) -> np.ndarray:
    """Something to compress: structure of a few voxels under noise."""
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return uniform_filter(noise, 3) + np.float32(0.2) * noise


def blocks(plan: ShardPlan, block: np.ndarray) -> Iterator[tuple[Region, np.ndarray]]:
    """Each shard region with as much of the block as fits it."""
    for region in plan.regions():
        yield region, block[tuple(slice(0, r.stop - r.start) for r in region)]


def write_file(path: Path, plan: ShardPlan, block: np.ndarray) -> None:
    with path.open("wb") as file:
        for _, part in blocks(plan, block):
            file.write(np.ascontiguousarray(part))


def read_file(path: Path, plan: ShardPlan, block: np.ndarray) -> None:
    with path.open("rb") as file:
        for _, part in blocks(plan, block):
            file.readinto(np.empty(part.shape, part.dtype))


def write_zarr(path: Path, plan: ShardPlan, block: np.ndarray, *, same: bool) -> None:
    codecs = [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=DTYPE.itemsize), Crc32cCodec()]
    array = zarr.create_array(
        path,
        shape=plan.shape,
        dtype=DTYPE,
        chunks=plan.chunks,
        shards=plan.shards,
        compressors=codecs if same else "auto",
    )
    for region, part in blocks(plan, block):
        array[region] = part


def write_store(path: Path, plan: ShardPlan, block: np.ndarray) -> None:
    writer = create_image(path, shape=plan.shape, dtype=DTYPE, axes=("z", "y", "x"), plan=plan)
    for region, part in blocks(plan, block):
        writer[region] = part


def read_shards(array: zarr.Array, plan: ShardPlan) -> None:
    for region in plan.regions():
        array[region]


if __name__ == "__main__":
    main()
