"""How long Snakemake takes to plan many jobs, and where that time goes: 100 datasets, 10,000 jobs of parts.

    python benchmarks/graph.py [--datasets 100] [--parts 10000] [--no-profile] [--json FILE]

Datasets of the four chains in turn, all simulated, so that nothing has to lie on the disk. A dry run is timed as it is
started by hand, its output going to a file; then once more under Python's profiler, for the shares: time in functions
of gigascope that Snakemake calls (with all they call), and the rest. The profiler makes everything slower, calls of
small functions most. Run it from the root of the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from gigascope.config.dataset import Dataset, load_dataset
from gigascope.registry import stages

LIMIT_S = 60.0
SECTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "compression": {"inputs": {"phantom": {}}},
    "topography": {"inputs": {"instrument": {"preset": "XS"}}, "ingest": {"chunk_px": 32}},
    "synthesis": {
        "inputs": {"planted": {}},
        "phantoms": {"n_spheroids": 2, "region": {"semi_axes_um": [40]}},
    },
    "tomography": {"inputs": {"phantom": {"n_tilts": 9, "size_px": 48}}},
}


def write_datasets(folder: Path, n_datasets: int, n_parts: int) -> list[Dataset]:
    """Dataset files of all chains in turn; the chains with parts share `n_parts` jobs, as nearly as it goes."""
    kinds = [list(SECTIONS)[number % len(SECTIONS)] for number in range(n_datasets)]
    rounds = {kind: rounds_of(folder, kind) for kind in SECTIONS}
    cut = [kind for kind in kinds if rounds[kind]]
    found = []
    for number, kind in enumerate(kinds):
        of_round = max(1, round(n_parts / max(1, len(cut)) / max(1, sum(rounds[kind].values()))))
        path = folder / f"data{number:03}.yaml"
        path.write_text(text_of(kind, f"data{number:03}", dict.fromkeys(rounds[kind], of_round)))
        found.append(load_dataset(path))
    return found


def text_of(kind: str, name: str, parts: dict[str, int]) -> str:
    """A dataset file."""
    values = {key: {**section} for key, section in SECTIONS[kind].items()}
    for key, n in parts.items():
        values[key] = {**values.get(key, {}), "parts": n}
    # JSON is YAML
    lines = [f"{key}: {json.dumps(value)}" for key, value in {"pipeline": kind, "name": name, **values}.items()]
    return "\n".join(lines) + "\n"


def rounds_of(folder: Path, kind: str) -> dict[str, int]:
    """Rounds of each scattered stage that runs."""
    path = folder / f"{kind}.probe"
    path.write_text(text_of(kind, "probe", {}))
    dataset = load_dataset(path)
    path.unlink()
    scattered = [stage for stage in stages(kind) if stage.scatter is not None and dataset.runs(stage.key)]
    return {stage.key: stage.rounds(getattr(dataset, stage.key)) for stage in scattered}


def part_jobs(datasets: list[Dataset]) -> int:
    """Jobs of parts that a run of them has."""
    total = 0
    for dataset in datasets:
        for stage in stages(dataset.pipeline):
            section = getattr(dataset, stage.key)
            if stage.scatter is not None and dataset.runs(stage.key) and stage.parts(section) > 1:
                total += stage.parts(section) * stage.rounds(section)
    return total


def dry_run(folder: Path, output: Path, *before: str) -> tuple[float, float, int]:
    """Wall and CPU seconds of `snakemake --profile local -n`, and its peak memory, bytes."""
    snakemake = [str(shutil.which("snakemake", path=str(Path(sys.executable).parent)))]
    words = [*(before or snakemake), "--profile", "local", "-n", "--nolock"]
    words += ["--config", f"datasets={folder}/*.yaml", f"results={folder}/results"]
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with output.open("w") as file:
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(output.read_text()[-3000:])
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - begun, cpu, now.ru_maxrss * 1024


def jobs_and_reasons(text: str) -> tuple[int, int]:
    """Jobs that a dry run names, and how many of them come with a reason."""
    blocks = re.split(r"\n\[[^\n]*\]\n", text)[1:]
    jobs = [block for block in blocks if re.match(r"(?:local)?rule \w+:", block)]
    return len(jobs), sum("\n    reason: " in block for block in jobs)


def shares(path: Path) -> tuple[float, list[tuple[str, int, float]], list[tuple[str, float]]]:
    """Seconds in all, functions of ours that others call (calls, seconds with what they call), the rest by package."""
    stats: Any = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    entered: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for (file, _, name), (_, _, own_s, _, callers) in stats.items():
        own[package(file)] += own_s
        if package(file) != "gigascope":
            continue
        for (caller, *_), (n_calls, _, _, with_callees) in callers.items():
            if package(caller) != "gigascope":
                key = f"{Path(file).stem}.{name}"
                entered[key] += with_callees
                calls[key] += n_calls
    total = sum(own.values())
    return total, [(key, calls[key], s) for key, s in entered.most_common()], own.most_common()


def package(file: str) -> str:
    """The package that a source file belongs to."""
    parts = Path(file).parts
    if "gigascope" in parts and "site-packages" not in parts:
        return "gigascope"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "Snakefile and rules" if file.endswith((".smk", "Snakefile")) else "Python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=100)
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--no-profile", action="store_true", help="the time only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gigascope-graph-") as name:
        folder = Path(name, "datasets")
        folder.mkdir()
        datasets = write_datasets(folder, args.datasets, args.parts)
        output = Path(name, "output")
        wall, cpu, peak = dry_run(folder, output)
        jobs, reasons = jobs_and_reasons(output.read_text())
        n_parts = part_jobs(datasets)
        print(f"{len(datasets)} datasets, {n_parts:,} jobs of parts, {jobs:,} jobs in all, {reasons:,} with a reason")
        print(f"snakemake --profile local -n: {wall:.1f} s (limit {LIMIT_S:g} s), {cpu:.1f} s of CPU")
        print(f"  {1000 * cpu / max(1, jobs):.2f} ms of CPU for each job, {peak / 2**20:.0f} MiB at most", flush=True)
        figures = {"wall": wall, "cpu": cpu, "jobs": jobs, "peak": peak}
        if not args.no_profile:
            where = Path(name, "profile")
            dry_run(folder, output, sys.executable, "-m", "cProfile", "-o", str(where), "-m", "snakemake")
            total, entered, packages = shares(where)
            ours = sum(seconds for *_, seconds in entered)
            print(f"profiled: {total:.1f} s, of which {ours:.1f} s ({ours / total:.0%}) in functions of gigascope")
            for key, n_calls, seconds in entered[:14]:
                print(f"  {key:<40}{n_calls:>9,} calls{seconds:>8.2f} s")
            print("  by package, without what is called: ", ", ".join(f"{p} {s:.1f} s" for p, s in packages[:8]))
            figures |= {"profiled": total, "ours": ours}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
