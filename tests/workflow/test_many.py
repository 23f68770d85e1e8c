"""Many datasets in many parts: what is computed for a stage is computed once, however many jobs it has."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gigascope import workflow
from gigascope.registry import stages
from gigascope.workflow import Workflow

from .checkout import TINY, TINY_CULTURES, TINY_STACKS, TINY_VOLUME, Checkout

pytestmark = pytest.mark.workflow

N_PARTS = 25
TEXTS = {
    "volume": TINY_VOLUME.format(name="volume", parts=N_PARTS, decode="true"),
    "stacks": TINY_STACKS.format(name="stacks", parts=N_PARTS),
    "cultures": TINY_CULTURES.format(name="cultures", parts=N_PARTS, inputs="inputs: {planted: {}}"),
}
# Appended to the module of a copy: every call that is not answered from what is kept leaves a line.
NOTED = """

def _noted(function):
    @functools.wraps(function)
    def call(*arguments):
        words = [getattr(a, "name", a) for a in arguments]
        with open("calls.txt", "a") as file:
            print(function.__name__, *words, file=file)
        return function(*arguments)

    return call


estimate_of, load_dataset = _noted(estimate_of.__wrapped__), _noted(load_dataset)
plan_of = functools.cache(_noted(plan_of.__wrapped__))
_raw_files = functools.cache(_noted(_raw_files.__wrapped__))
"""


def test_needs_of_a_stage_are_estimated_once_for_all_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    asked: Counter[Any] = Counter()
    estimate = workflow.estimate_of.__wrapped__

    def noted(dataset: Any, name: str, job: Any = None) -> Any:
        asked[dataset.name, name, job] += 1
        return estimate(dataset, name, job)

    monkeypatch.setattr(workflow, "estimate_of", noted)
    flow = Workflow.load({"datasets": str(tmp_path / "*.yaml"), "results": str(tmp_path / "results")})
    expected = set()
    for dataset in flow.datasets.values():
        for stage in stages(dataset.pipeline):
            cut = stage.parts(getattr(dataset, stage.key)) > 1
            for job in ("open", "part", None) if cut else (None,):
                needs = flow.resources(stage.name, job)
                for part in range(N_PARTS if job == "part" else 1):
                    wildcards = SimpleNamespace(dataset=dataset.name, stage=stage.name, round="0", part=str(part))
                    assert needs["mem_mb"](wildcards, attempt=1, threads=2) > 0
                    assert needs["runtime"](wildcards, attempt=1) > 0
                    assert needs["gpu"](wildcards) == 0
                expected.add((dataset.name, stage.name, "gather" if cut and job is None else job))
    assert set(asked) == expected
    assert set(asked.values()) == {1}


@pytest.mark.slow
def test_plan_of_many_jobs_reads_every_dataset_once(tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path / "repository", TEXTS)
    checkout.append("src/gigascope/workflow.py", NOTED)
    planned = checkout.planned()
    assert sum(job.rule.endswith("_part") for job in planned) == 4 * N_PARTS
    calls = Counter(tuple(line.split()) for line in (checkout.root / "calls.txt").read_text().splitlines())
    counted = Counter(call[0] for call in calls)
    assert counted["load_dataset"] == len(TEXTS)
    # one for each kind of job, and none for a part
    assert 3 * len(TEXTS) < counted["estimate_of"] <= len({(job.dataset, job.rule) for job in planned})
    assert counted["plan_of"] == sum(job.rule == "stage_config" for job in planned)
    again = {call: n for call, n in calls.items() if n > 1}
    assert not again


def test_planning_loads_no_torch(tmp_path: Path) -> None:
    """Snakemake is started twice in every job of a cluster, and plans each time."""
    texts = {**TEXTS, "series": TINY.format(name="series", halves="true")}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    code = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from gigascope.registry import stages\n"
        "from gigascope.workflow import Workflow\n"
        f"flow = Workflow.load({{'datasets': {str(tmp_path / '*.yaml')!r}, 'results': {str(tmp_path)!r}}})\n"
        "for dataset in flow.datasets.values():\n"
        "    for stage in stages(dataset.pipeline):\n"
        "        about = SimpleNamespace(dataset=dataset.name, stage=stage.name)\n"
        "        flow.resources(stage.name)['mem_mb'](about, attempt=1)\n"
        "        flow.plan(about)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
