"""How long a person or a scheduler waits before anything happens: help, start of a stage, building the job graph.

    python benchmarks/startup.py [--quick] [--json FILE]

Each figure is the least of several runs of a fresh process, wall time; the limits are those the project sets itself.
Run it from the root of the repository, with the kernels' compile cache filled (`make setup` does).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What `gigascope run` does before and with a stage that has next to nothing to do, to the end of the process.
FIRST_KERNEL = (
    "from gigascope.runtime import collector\n"
    "collector.collect_rarely()\n"
    "import gigascope.runtime.run\n"
    "from gigascope.registry import get_stage\n"
    "from gigascope.runtime.fingerprint import fingerprint\n"
    "fingerprint(get_stage('tomography.reconstruct').function)\n"
    "import torch\n"
    "collector.collect_as_usual()\n"
    "import gigascope.tomography.tomogram\n"
    "from gigascope.kernels import projector\n"
    "angles = torch.zeros(3, dtype=torch.float64)\n"
    "projector.project(torch.ones(4, 8, 16), angles, 8)\n"
)
GRAPH = [
    "snakemake",
    "--profile",
    "local",
    "-n",
    "--quiet",
    "--config",
    "datasets=config/datasets/demo_tomography.yaml",
]


def least(command: list[str], rounds: int) -> float:
    """Least wall time of a command, seconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two runs instead of five")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else 5
    beside = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as empty:
        graph = [str(shutil.which("snakemake", path=str(beside))), *GRAPH[1:], f"results={empty}"]
        cases = {
            "gigascope --help": ([str(beside / "gigascope"), "--help"], 0.7),
            "stage start to first kernel": ([sys.executable, "-c", FIRST_KERNEL], 3.0),
            "import torch alone": ([sys.executable, "-c", "import torch"], None),
            "job graph of one dataset": (graph, 3.0),
        }
        rows = []
        for case, (command, limit) in cases.items():
            seconds = least(command, rounds)
            bound = "" if limit is None else f"  (limit {limit:g} s)"
            print(f"{case:28} {seconds:6.2f} s{bound}", flush=True)
            rows.append({"case": case, "method": "gigascope", "metric": "wall time", "value": seconds, "unit": "s"})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
