"""What it costs to cut a stage into parts: synthesis.simulate in one job, and as open, parts, gather.

    python benchmarks/scatter.py [--radius-um 110] [--parts 8] [--rounds 1] [--json FILE]

Every job is a `gigascope run`. As many spheroids as parts, alike but for their seeds, so that parts have as much to
do. Both ways write the same store, which is checked. CPU seconds are of the whole process, Python's start included,
with all threads and children; every job runs alone, one after the other. What a job costs that finds nothing to do is
measured with one part more than there are spheroids.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gigascope.store.open import open_store

LIMIT = 1.2
YAML = """\
pipeline: synthesis
name: scattered
device: cpu
phantoms: {{n_spheroids: {parts}, region: {{semi_axes_um: [{radius}]}}}}
simulate: {{parts: {cut}}}
"""


class Bench:
    """A folder with phantoms, in which the stage is run."""

    def __init__(self, folder: Path, parts: int, radius: float) -> None:
        self.folder, self.parts, self.radius = folder, parts, radius
        self.phantoms = folder / "phantoms.zarr"

    def config(self, cut: int) -> Path:
        """The dataset with the stage in so many parts."""
        path = self.folder / f"cut{cut}.yaml"
        path.write_text(YAML.format(parts=self.parts, radius=self.radius, cut=cut))
        return path

    def place(self) -> None:
        """The phantoms that all read."""
        words = [f"--output=placed_nuclei={self.folder}/nuclei.tsv", f"--output=placed={self.folder}/nuclei.parquet"]
        self.start("synthesis.phantoms", self.config(1), f"--output=phantoms={self.phantoms}", *words)

    def job(self, cut: int, *words: str) -> tuple[float, float]:
        """CPU and wall seconds of a job of the stage; without words of all of it, with its output."""
        root = self.folder / f"scratch{cut}"
        given = [f"--input=phantoms={self.phantoms}", f"--scratch={root}"]
        if cut > 1:
            given.append(f"--records={root}/records")
        if not words:
            given.append(f"--output=cultures={self.folder}/cultures{cut}.zarr")
        return self.start("synthesis.simulate", self.config(cut), *given, *words)

    def start(self, stage: str, config: Path, *words: str) -> tuple[float, float]:
        """CPU and wall seconds of `gigascope run`."""
        program = str(shutil.which("gigascope", path=str(Path(sys.executable).parent)))
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [program, "run", stage, "--config", str(config), *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        wall, now = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime, wall


def measure(bench: Bench) -> dict[str, float]:
    """CPU seconds: all in one job; open, parts, gather; of a part with nothing to do."""
    n = bench.parts
    one, one_wall = bench.job(1)
    opened, _ = bench.job(n, "--open")
    parts = [bench.job(n, "--round=0", f"--part={part}") for part in range(n)]
    gathered, _ = bench.job(n)
    stores = [open_store(bench.folder / f"cultures{cut}.zarr") for cut in (1, n)]
    if len({store.digest for store in stores}) != 1:
        raise SystemExit("the two stores differ")
    # one part more than there are spheroids: the last has none
    bench.job(n + 1, "--open")
    idle, idle_wall = bench.job(n + 1, "--round=0", f"--part={n}")
    return {
        "one": one,
        "one wall": one_wall,
        "open": opened,
        "parts": sum(cpu for cpu, _ in parts),
        "a part": sum(cpu for cpu, _ in parts) / n,
        "a part, wall": sum(wall for _, wall in parts) / n,
        "gather": gathered,
        "idle": idle,
        "idle wall": idle_wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radius-um", type=float, default=110.0, help="of a spheroid: how long a part takes")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="the least of several")
    parser.add_argument("--folder", type=Path, help="disk to work on; default: the system's temporary folder")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    rounds = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(prefix="gigascope-scatter-", dir=args.folder) as name:
            bench = Bench(Path(name), args.parts, args.radius_um)
            bench.place()
            rounds.append(measure(bench))
    found = {key: min(taken[key] for taken in rounds) for key in rounds[0]}
    n, cut = args.parts, found["open"] + found["parts"] + found["gather"]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"synthesis.simulate, {n} spheroids of {args.radius_um:g} um, {threads} thread(s)")
    print(f"one job                     {found['one']:8.1f} s of CPU, {found['one wall']:.1f} s by the clock")
    apart = ", ".join(f"{found[job]:.1f}" for job in ("open", "parts", "gather"))
    print(f"open, {n} parts, gather       {cut:8.1f} s of CPU: {apart}")
    print(f"ratio                       {cut / found['one']:8.3f}   (limit {LIMIT:g})")
    print(f"a part                      {found['a part']:8.1f} s of CPU, {found['a part, wall']:.1f} s by the clock")
    print(f"a job with nothing to do    {found['idle']:8.1f} s of CPU, {found['idle wall']:.1f} s by the clock")
    least = found["idle"] * (n + 1) / ((LIMIT - 1) * n)
    print(f"for the limit a part has to last {least:.0f} s of CPU or more")
    if args.json:
        args.json.write_text(json.dumps({**found, "ratio": cut / found["one"]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
