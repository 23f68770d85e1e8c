"""What a dataset costs on a cluster, and what breaks first: the stages' own estimates, worked off by a model of one.

    python benchmarks/scaling.py                              # every chain at 1 TB and 100 TB: shapes only, no data
    python benchmarks/scaling.py --dataset config/datasets/mine.yaml
    python benchmarks/scaling.py --check                      # estimates beside real runs of three sizes, some minutes
    python benchmarks/scaling.py --timeline compression:1 --svg timeline.svg

Jobs, seconds, memory, bytes and files are those that `gigascope check` prints; seconds are of two CPUs, without a GPU.
The model is benchmarks/cluster_model.py; `--nodes`, `--cpus`, `--disk-gb-s`, `--queue`, `--failures` describe the
cluster. A stage that is cut into parts is given CPUs up to `--threads`, which share its items; one that is not has two.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster_model import GB, Cluster, Group, Outcome, simulate
from planned import CHAINS, planned, sized

from gigascope.check import Need, needs, read_header
from gigascope.config.dataset import load_dataset
from gigascope.registry import get_stage
from gigascope.runtime.memory import human_bytes
from gigascope.runtime.progress import duration

# CPUs that the estimates are made for.
MEASURED_CPUS = 2
# Of a job on its node before the stage begins: Snakemake, twice, and Python with the libraries (benchmarks/startup.py).
BEGIN_S = 8.0
# At which the estimates take it that inputs are read.
READ_BYTES_PER_S = 2e8


@dataclass(frozen=True)
class Case:
    """What is worked off.

    Attributes
    ----------
    name : for a person
    dataset, header : as `gigascope check` has them
    copies : datasets like this one
    raw : bytes of one
    """

    name: str
    dataset: Any
    header: Any
    copies: int
    raw: float


def groups_of(case: Case, threads: int, gpus: int = 0) -> list[Group]:
    """The jobs of all copies; a copy is a chain of its own, and waits for no other."""
    rows = needs(case.dataset, case.header)
    one = list(_chain(case, rows, threads, gpus))
    found = []
    for copy in range(case.copies):
        first = copy * len(one)
        found += [replace(group, after=tuple(first + place for place in group.after)) for group in one]
    return found


def _chain(case: Case, rows: list[Need], threads: int, gpus: int) -> Iterator[Group]:
    """Groups of one dataset, in order of running."""
    by_stage: dict[str, list[Need]] = {}
    for row in rows:
        by_stage.setdefault(row.stage, []).append(row)
    disk = {name: sum(row.jobs * row.each.disk for row in found) for name, found in by_stage.items()}
    made_by: dict[str, str] = {}
    last: dict[str, int] = {}
    place = 0
    for name, found in by_stage.items():
        declared = get_stage(name)
        before = {made_by[i] for i in (*declared.inputs, *declared.optional_inputs) if i in made_by}
        reads = sum(disk[stage] for stage in before) + (case.raw if declared.reads_inputs and not before else 0.0)
        after = tuple(sorted(last[stage] for stage in before))
        rounds = declared.rounds(getattr(case.dataset, declared.key)) if len(found) > 1 else 1
        for row in found:
            jobs = row.jobs // rounds if row.job == "part" else row.jobs
            # a part reads its share, a gather what the parts wrote, a report what is small
            read = {"part": reads / jobs, "open": 0.0, "gather": disk[name], "": reads}[row.job]
            if row.job == "":
                # what is done sooner than its inputs could be read looks at some of them only
                read = 0.0 if declared.key == "report" else min(read, row.each.seconds * READ_BYTES_PER_S)
            shared = row.job == "part" or (row.job == "" and declared.scatter is not None)
            cpus = threads if shared else MEASURED_CPUS
            on_gpu = gpus if declared.gpu and row.job in ("", "part") else 0
            for number in range(rounds if row.job == "part" else 1):
                of_rounds = f" {number + 1}/{rounds}" if rounds > 1 and row.job == "part" else ""
                yield Group(
                    f"{declared.key} {row.job}".strip() + of_rounds,
                    jobs,
                    BEGIN_S + row.each.seconds * MEASURED_CPUS / cpus,
                    read + row.each.disk,
                    cpus,
                    on_gpu,
                    row.each.memory * (max(1, cpus // declared.scatter.threads) if declared.scatter and shared else 1),
                    after,
                    declared.key == "report",
                )
                after, place = (place,), place + 1
        last[name] = place - 1
        made_by.update(dict.fromkeys(declared.outputs, name))


def describe(case: Case, cluster: Cluster, threads: int) -> dict[str, Any]:
    """One line of the table, and what is behind it."""
    begun = time.perf_counter()
    rows = needs(case.dataset, case.header)
    planning = time.perf_counter() - begun
    groups = groups_of(case, threads, min(1, cluster.gpus))
    n_jobs = sum(group.jobs for group in groups)
    try:
        outcome, gave_up = simulate(groups, cluster), ""
    except ValueError as error:
        # with so long a job it never ends: what it would take without failures
        outcome, gave_up = simulate(groups, replace(cluster, failures=0.0)), str(error)
    whole = {limit: seconds / outcome.seconds for limit, seconds in outcome.limits.items()}
    largest = max(rows, key=lambda row: row.each.memory)
    longest = max((row for row in rows), key=lambda row: row.each.seconds)
    return {
        "case": case.name,
        "datasets": case.copies,
        "jobs": n_jobs,
        "node_h": outcome.cpu_s / cluster.cpus / 3600,
        "days": outcome.seconds / 86400,
        "limits": dict(sorted(whole.items(), key=lambda item: -item[1])),
        "alone": dict(sorted(outcome.alone.items(), key=lambda item: -item[1])),
        "bytes": sum(group.jobs * group.n_bytes for group in groups),
        "disk": case.copies * sum(row.jobs * row.each.disk for row in rows),
        "files": case.copies * sum(row.jobs * row.each.files for row in rows),
        "memory": (largest.stage, largest.job, largest.each.memory),
        "longest": (longest.stage, longest.job, longest.each.seconds),
        "planning": planning,
        "failed": outcome.failed,
        "gave_up": gave_up,
        "outcome": outcome,
        "groups": groups,
    }


def show(found: dict[str, Any], cluster: Cluster) -> None:
    """For a person."""
    stage, job, memory = found["memory"]
    print(f"\n{found['case']}: {found['datasets']} dataset(s), {found['jobs']:,} jobs")
    took = duration(86400 * found["days"])
    print(f"  {took} on {cluster.nodes} nodes, {found['node_h']:,.0f} node hours taken of them")
    moved, kept = human_bytes(found["bytes"]), human_bytes(found["disk"])
    print(f"  {moved} read and written, {kept} kept, {found['files']:,} files")
    print("  waits for: " + ", ".join(f"{name} {part:.0%}" for name, part in found["limits"].items() if part > 0.01))
    for name, seconds in list(found["alone"].items())[:3]:
        if seconds > 0.02 * 86400 * found["days"]:
            print(f"  alone on the cluster: {name} for {duration(seconds)}")
    print(f"  longest job: {' '.join(found['longest'][:2])}, {duration(found['longest'][2])} on two CPUs")
    print(f"  most memory: {stage} {job}, {human_bytes(memory)}; planned in {found['planning']:.2f} s")
    if found["gave_up"]:
        print(f"  never ends with {cluster.failures:g} failures of a job in an hour ({found['gave_up']}): without any")
    if found["failed"]:
        print(f"  {found['failed']} attempts failed and were done again")


def svg(found: dict[str, Any], path: Path) -> None:
    """When each stage of the first dataset ran, as a picture."""
    n_groups = len(found["groups"]) // found["datasets"]
    outcome: Outcome = found["outcome"]
    rows: dict[str, list[float]] = {}
    for place in range(n_groups):
        begun, ended = outcome.spans[place]
        name = found["groups"][place].name.split("/")[0].rstrip("0123456789 ")
        span = rows.setdefault(name, [begun, ended])
        span[0], span[1] = min(span[0], begun), max(span[1], ended)
    end = max(ended for _, ended in rows.values())
    unit, name = (86400, "days") if end > 2 * 86400 else (3600, "hours")
    height = 22 * len(rows) + 48
    frame = f'viewBox="0 0 760 {height}" font-family="sans-serif" font-size="12"'
    text = [f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>']
    title = f"{found['case']}: many parts blue, one job orange"
    text.append(f'<rect width="760" height="{height}" fill="white"/><text x="10" y="16">{title}</text>')
    for row, (stage, (begun, ended)) in enumerate(rows.items()):
        x, width, y = 130 + 600 * begun / end, max(1.5, 600 * (ended - begun) / end), 26 + 22 * row
        colour = "#3572b0" if stage.endswith("part") else "#d9822b"
        text.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{colour}"/>')
        text.append(f'<text x="124" y="{y + 12}" text-anchor="end">{stage}</text>')
    for tick in range(5):
        x = 130 + 150 * tick
        text.append(f'<text x="{x}" y="{height - 6}" text-anchor="middle">{end / unit * tick / 4:.3g}</text>')
    text.append(f'<text x="750" y="{height - 6}" text-anchor="end">{name}</text></svg>')
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


# estimates beside real runs

SIZES: dict[str, list[tuple[str, str]]] = {
    "compression": [
        (
            f"{z} x {y} x {x}",
            f"inputs: {{phantom: {{crop: [[8, {8 + z}], [40, {40 + y}], [40, {40 + x}]]}}}}\n"
            "decode: {parts: 2}\nevaluate: {codecs: [jpeg2000], rates: 1}",
        )
        for z, y, x in ((20, 64, 64), (32, 96, 128), (64, 128, 192))
    ],
    "tomography": [
        (
            f"61 x {n} x {n}",
            f"inputs: {{phantom: {{n_tilts: 61, size_px: {n}, snr: 1.0}}}}\nreconstruct: {{thickness_nm: {n // 2}}}",
        )
        for n in (96, 128, 192)
    ],
    "synthesis": [
        (f"2 of {n} um", f"phantoms: {{n_spheroids: 2, region: {{semi_axes_um: [{n}]}}}}\nsimulate: {{parts: 2}}")
        for n in (25, 40, 60)
    ],
    "topography": [
        (
            f"{preset} {scan}",
            f"inputs: {{instrument: {{preset: {preset}, scan: {scan}}}}}\n"
            f"ingest: {{chunk_px: {chunk}}}\ninfer: {{parts: 2}}",
        )
        for preset, scan, chunk in (("XS", [2, 2], 32), ("S", [1, 1], 64), ("S", [2, 2], 64))
    ],
}


def check(chain: str, cpus: int) -> list[dict[str, Any]]:
    """Run three sizes of a chain for real, and print what was said beside what was measured."""
    beside = Path(sys.executable).parent
    rows = []
    print(f"\n{chain}, {cpus} CPU(s)")
    columns = f"{'said s':>8}{'took s':>8}{'CPU s':>8}{'ratio':>7}{'said MiB':>10}{'peak MiB':>10}{'ratio':>7}"
    print(f"{'size':<16}{'stage':<22}{columns}")
    for number, (size, text) in enumerate(SIZES[chain]):
        with tempfile.TemporaryDirectory(prefix="gigascope-scaling-") as folder:
            path = Path(folder, "data.yaml")
            path.write_text(f"pipeline: {chain}\nname: size{number}\ndevice: cpu\n{text}\n", encoding="utf-8")
            dataset = load_dataset(path)
            said = needs(dataset, read_header(dataset))
            words = ["snakemake", "--profile", "local", "--cores", str(cpus), "--nolock", "--quiet", "all"]
            words += ["--config", f"datasets={path}", f"results={folder}/results"]
            command = [str(shutil.which(words[0], path=str(beside))), *words[1:]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            for need in said:
                row = {"size": size, "stage": f"{need.stage} {need.job}".strip(), "said_s": need.each.seconds}
                row |= measured(Path(folder, "results", dataset.name, "benchmarks"), need)
                row |= {"said_mib": need.each.memory / 2**20}
                rows.append(row)
                print(
                    f"{size:<16}{row['stage'].partition('.')[2]:<22}{row['said_s']:>8.1f}{row['wall_s']:>8.1f}"
                    f"{row['cpu_s']:>8.1f}{row['said_s'] / row['cpu_s']:>7.2f}{row['said_mib']:>10.0f}"
                    f"{row['peak_mib']:>10.0f}{row['said_mib'] / row['peak_mib']:>7.2f}",
                    flush=True,
                )
    return rows


def measured(folder: Path, need: Need) -> dict[str, float]:
    """Mean seconds of a job by the clock and of all CPUs, and the most memory of one, MiB, by Snakemake."""
    pattern = {"open": "/open.tsv", "part": "/round-*.tsv"}.get(need.job, ".tsv")
    lines = [path.read_text().splitlines() for path in folder.glob(need.stage + pattern)]
    jobs = [dict(zip(names.split("\t"), values.split("\t"))) for names, values in lines]
    found: dict[str, list[float]] = {"s": [], "cpu_time": [], "max_rss": []}
    for job in jobs:
        for name, values in found.items():
            # Snakemake looks now and then; of a short job it has seen nothing
            values += [float(job[name])] if job[name] not in ("NA", "-") else []
    mean = {name: sum(values) / len(values) if values else math.nan for name, values in found.items()}
    return {"wall_s": mean["s"], "cpu_s": mean["cpu_time"], "peak_mib": max(found["max_rss"], default=math.nan)}


def cases(words: list[str], threads: int) -> Iterator[Case]:
    """The cases that `chain:terabytes` names."""
    for word in words:
        chain, _, terabytes = word.partition(":")
        dataset, header, copies, raw = planned(chain, float(terabytes))
        yield Case(f"{chain}, {float(terabytes):g} TB", sized(dataset, header, threads), header, copies, raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="chain:terabytes, default every chain at 1 and 100")
    parser.add_argument("--dataset", type=Path, help="this dataset instead, its files have to be there")
    parser.add_argument("--check", nargs="*", choices=list(SIZES), help="run three sizes of these chains for real")
    parser.add_argument("--svg", type=Path, help="write when the stages of the first case run")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--cpus", type=int, default=32, help="of a node; with --check: that may be used")
    parser.add_argument("--memory-gb", type=float, default=128)
    parser.add_argument("--gpus", type=int, default=0, help="of a node: no speed-up is assumed, a job takes one")
    parser.add_argument("--disk-gb-s", type=float, default=2.0, help="of the shared file system")
    parser.add_argument("--threads", type=int, default=8, help="CPUs of a part (max-threads of the profile)")
    parser.add_argument("--queue", type=int, default=100, help="jobs of the profile")
    parser.add_argument("--failures", type=float, default=0.001, help="of a job in an hour")
    args = parser.parse_args()
    if args.check is not None:
        rows = [row for chain in args.check or ("compression", "synthesis") for row in check(chain, min(args.cpus, 2))]
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        return
    cluster = Cluster(args.nodes, args.cpus, args.gpus, args.memory_gb * GB, args.disk_gb_s * GB)
    cluster = replace(cluster, queue=args.queue, failures=args.failures)
    if args.dataset:
        given = load_dataset(args.dataset)
        header = read_header(given)
        chosen: Iterator[Case] = iter([Case(str(args.dataset), sized(given, header, args.threads), header, 1, 0.0)])
    else:
        words = args.cases or [f"{chain}:{size}" for chain in CHAINS for size in (1, 100)]
        chosen = cases(words, args.threads)
    print(f"{cluster}, {args.threads} CPUs for a part")
    for number, case in enumerate(chosen):
        found = describe(case, cluster, args.threads)
        show(found, cluster)
        if args.svg and number == 0:
            svg(found, args.svg)


if __name__ == "__main__":
    main()
