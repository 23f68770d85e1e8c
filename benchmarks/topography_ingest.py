"""Speed of ingest beside plain copies of the same bytes on the same disk, in one run.

    python benchmarks/topography_ingest.py [--gb 2] [--quick] [--folder DIR] [--json FILE]

A capture in the released layout (netCDF-4, one file for each stage position, all cameras in it) is written first. The
methods take turns, each number is the least time of the rounds: what else runs on a machine only adds. `copy` copies
the files; `copy stored` writes a plain file of as many bytes as ingest stores, which are 1.5 times as many, since green
stands apart; `copy, digest` also takes their SHA-256 twice, as every store of this workflow does when it is written and
when it is completed. Rates are bytes of the capture over the time; CPU seconds are those of all threads, and say what
would be reached if the disk did not limit. Pages of the capture are dropped from memory before each turn, as far as the
system lets a user do that; what is written is flushed to the disk at the end of each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from gigascope.runtime.run import run_stage
from gigascope.store.checksum import verify
from gigascope.store.open import open_store

N_Z, SIZE, CAMERAS = 33, 768, (2, 2)
BLOCK = 8 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="size of the capture, default 2")
    parser.add_argument("--quick", action="store_true", help="0.3 GB, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="disk to work on; default: the system's temporary folder")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    per_position = N_Z * SIZE**2 * CAMERAS[0] * CAMERAS[1]
    n_positions = max(1, round((0.3e9 if args.quick else args.gb * 1e9) / per_position))
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="gigascope-benchmark-") as name:
        folder = Path(name)
        capture = write_capture(folder / "capture", n_positions)
        total = sum(path.stat().st_size for path in capture)
        methods = {
            "copy": lambda: copy(capture, folder / "copy"),
            "copy stored": lambda: copy(capture, folder / "copy", share=1.5),
            "copy, digest": lambda: copy(capture, folder / "copy", share=1.5, digests=2),
            "ingest": lambda: ingest(folder, args.readers),
        }
        taken = {method: (float("inf"), float("inf")) for method in methods}
        for _ in range(1 if args.quick else args.rounds):
            for method, work in methods.items():
                seconds = timed(work, capture, folder)
                taken[method] = min(taken[method][0], seconds[0]), min(taken[method][1], seconds[1])
        begun = time.perf_counter(), time.process_time()
        problems = verify(folder / "ingest" / "raw.zarr")
        taken["verify"] = time.perf_counter() - begun[0], time.process_time() - begun[1]
        green = open_store(folder / "ingest" / "raw.zarr").member("green")
    print(f"{total / 1e9:.2f} GB in {n_positions * CAMERAS[0] * CAMERAS[1]} views of {N_Z} x {SIZE} x {SIZE}, uint8")
    print(f"green {green.shape}, chunks {green.chunks}; {len(problems)} problems found by verify")
    print(f"{'method':<16}{'s':>8}{'MB/s':>8}{'of copy':>9}{'of copy, digest':>17}{'CPU s':>8}")
    rows = []
    for method, (seconds, cpu) in taken.items():
        ratios = taken["copy"][0] / seconds, taken["copy, digest"][0] / seconds
        rate = total / seconds / 1e6
        print(f"{method:<16}{seconds:>8.2f}{rate:>8.0f}{ratios[0]:>9.2f}{ratios[1]:>17.2f}{cpu:>8.2f}")
        numbers = {
            "CPU time": (cpu, "s"),
            "rate": (total / seconds / 1e6, "MB/s"),
            "share of a copy": (ratios[0], "1"),
            "share of a copy with digests": (ratios[1], "1"),
        }
        for metric, (value, unit) in numbers.items():
            rows.append({"case": "ingest", "method": method, "metric": metric, "value": float(value), "unit": unit})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def write_capture(root: Path, n_positions: int) -> list[Path]:
    """Files of a capture of noise."""
    rng = np.random.default_rng(0)
    files = []
    for x in range(n_positions):
        folder = root / f"y_0.000_x_{2.2 * x:.3f}"
        folder.mkdir(parents=True)
        path = folder / "z_stack.nc"
        with h5py.File(path, "w") as file:
            shape = (N_Z, *CAMERAS, SIZE, SIZE)
            images = file.create_dataset("images", shape, np.uint8)
            for z in range(N_Z):
                images[z] = rng.integers(20, 230, shape[1:], np.uint8)
            file["z_stage"] = 4e-5 * np.arange(N_Z)
        files.append(path)
    return files


def copy(files: list[Path], target: Path, share: float = 1.0, digests: int = 0) -> None:
    """Copy files block by block; every block `share` times, with that many digests of what is written."""
    target.mkdir()
    sums = [hashlib.sha256() for _ in range(digests)]
    for n, path in enumerate(files):
        with path.open("rb") as source, (target / str(n)).open("wb", buffering=0) as out:
            while block := source.read(BLOCK):
                for piece in (block, block[: int((share - 1) * len(block))]):
                    out.write(piece)
                    for digest in sums:
                        digest.update(piece)


def ingest(folder: Path, readers: int) -> None:
    """The stage, from the files to the committed store."""
    target = folder / "ingest"
    target.mkdir()
    text = f"pipeline: topography\nname: data\ninputs: {{captures: {folder}/capture}}\ningest: {{readers: {readers}}}\n"
    (target / "data.yaml").write_text(text)
    run_stage("topography.ingest", target / "data.yaml", {}, {"raw": target / "raw.zarr"})


def timed(work: Callable[[], None], files: list[Path], folder: Path) -> tuple[float, float]:
    """Seconds of one turn by the clock, the disk's share of it included, and of all CPUs."""
    for name in ("copy", "ingest"):
        shutil.rmtree(folder / name, ignore_errors=True)
    os.sync()
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.perf_counter(), time.process_time()
    work()
    os.sync()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


if __name__ == "__main__":
    main()
