"""What it costs to reconstruct a tomogram in slabs: time, memory, and how far the result is from the whole one.

    python benchmarks/slabs.py [--size-px 384] [--slabs 1 3 8] [--iterations 20] [--json FILE] [--quick]

A simulated section, its alignment taken from prealign. Every run is a `gigascope run` of its own, one after the other,
of tomography.reconstruct in one job: what differs is `reconstruct.slab`. CPU seconds are of the whole process with all
threads; peak memory is what the store's own record says.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gigascope.store.open import open_store

YAML = """\
pipeline: tomography
name: slabs
device: cpu
inputs: {{phantom: {{kind: section, n_tilts: 31, size_px: {size}, snr: 4, drift: false}}}}
ingest: {{extent: crop}}
prealign: {{width: 128}}
reconstruct:
  thickness_nm: 64
  iterations: {iterations}
  tol: 0
  slab: {slab}
  align: {{enabled: false}}
"""
OUTPUTS = {
    "ingest": {"tilt_series": "tilt_series.zarr"},
    "prealign": {"prealigned": "prealigned.zarr", "shifts": "prealign.tsv", "xf": "prealign.xf"},
    "reconstruct": {
        "tomogram": "tomogram.zarr",
        "aligned": "aligned.zarr",
        "shifts": "shifts.tsv",
        "history": "history.tsv",
        "xf": "shifts.xf",
        "tlt": "shifts.tlt",
        "aln": "shifts.aln",
    },
}


def run(stage: str, config: Path, inputs: dict[str, Path], folder: Path) -> float:
    """CPU seconds of a stage."""
    folder.mkdir(exist_ok=True)
    words = [f"--input={name}={path}" for name, path in inputs.items()]
    words += [f"--output={name}={folder / file}" for name, file in OUTPUTS[stage].items()]
    program = "import sys; from gigascope.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "run", f"tomography.{stage}", "--config", str(config), *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, f"--scratch={folder / 'scratch'}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path, size: int, iterations: int, counts: list[int]) -> list[dict[str, Any]]:
    """A row for each number of slabs; the first one is what the others are compared with."""

    def config(slab: int) -> Path:
        path = folder / f"slab{slab}.yaml"
        path.write_text(YAML.format(size=size, iterations=iterations, slab=slab))
        return path

    series = {"tilt_series": folder / "tilt_series.zarr"}
    run("ingest", config(size), {}, folder)
    run("prealign", config(size), series, folder)
    rows: list[dict[str, Any]] = []
    first = None
    for count in counts:
        place = folder / str(count)
        seconds = run(
            "reconstruct", config(-(-size // count)), {**series, "prealigned": folder / "prealigned.zarr"}, place
        )
        tomogram = open_store(place / "tomogram.zarr")
        volume = np.asarray(tomogram.array()[:])
        first = volume if first is None else first
        n_slabs = tomogram.provenance["scatter"]["items"][0]
        found = {
            "CPU": (seconds, "s"),
            "peak memory": (tomogram.provenance["peak_memory_bytes"] / 2**20, "MiB"),
            "largest difference": (float(np.abs(volume - first).max() / np.abs(first).max()), "of the maximum"),
        }
        case = f"{volume.shape[0]} x {size} x {volume.shape[2]}, {iterations} iterations"
        print(
            f"{n_slabs:3d} slabs: " + ", ".join(f"{name} {value:.4g} {unit}" for name, (value, unit) in found.items())
        )
        rows += [
            {"case": case, "method": f"{n_slabs} slabs", "metric": name, "value": value, "unit": unit}
            for name, (value, unit) in found.items()
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=384)
    parser.add_argument("--slabs", type=int, nargs="+", default=[1, 3, 8])
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="small, within a minute")
    args = parser.parse_args()
    size = 128 if args.quick else args.size_px
    with tempfile.TemporaryDirectory(prefix="gigascope-slabs-") as name:
        rows = measure(Path(name), size, args.iterations, args.slabs)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
