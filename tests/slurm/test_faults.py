"""What goes wrong on a cluster, most of it in one graph on a real SLURM, so that the waiting is paid for once.

Dataset one is smoothed in five parts, and each of them meets an accident in its first job: its process is killed while
it writes, it takes more memory than it asked for, it is cancelled, its node is set down, its node loses power. The
single job that picks from dataset two runs into its time limit. Then Snakemake itself is killed, and started again;
while that goes on, the controller is away for a while.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .. import toy
from ..workflow.checkout import Checkout
from .cluster import Cluster, running_cluster
from .test_profile import on, quick
from .watching import Watch

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(2400)]

PARTS = 5
KILLED, HUNGRY, CANCELLED, DOWN, DARK = range(PARTS)
# The third item of the first part and of the second.
ONE = "smooth: {parts: 5, pause_s: 2, killed_item: 13, hungry_item: 12, hungry_mb: 750}"
# Two minutes in steps of 0.32 s: SLURM ends a job 60 to 90 s after its start where its limit is a minute.
TWO = "pick: {parts: 1, sweeps: 0, steps: 15, pause_s: 0.32}"
PLAIN = "pick: {parts: 1, sweeps: 0, steps: 15}"
TARGETS = ("results/one/smooth.zarr/zarr.json", "results/two/picks.tsv")
WORDS = ("--profile", "slurm", "--", *TARGETS)


@dataclass
class Run:
    """The disturbed run.

    Attributes
    ----------
    cluster, checkout : where it happens
    plain : the same on this machine, in one part, without pauses and undisturbed
    watch : sees it
    said : output of each start of Snakemake, by what it was to show
    """

    cluster: Cluster
    checkout: Checkout
    plain: Checkout
    watch: Watch
    said: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return on(self.cluster, self.checkout)

    @property
    def command(self) -> tuple[str, ...]:
        """That of docs/cluster.md."""
        return (*quick(self.cluster), *WORDS)

    def start(self) -> subprocess.Popen[str]:
        """The command; what it says goes to a file, which never makes it wait."""
        command = f"exec {shlex.join(self.command)} > said.log 2>&1"
        return self.checkout.start("bash", "-c", command, **self.environment)

    @property
    def said_so_far(self) -> str:
        """What that command has said so far."""
        return (self.checkout.root / "said.log").read_text()

    def call(self, *command: str) -> tuple[int, str]:
        """A command to its end."""
        return self.checkout.run(*command, **self.environment)

    def home(self, dataset: str, stage: str, part: int) -> Path:
        """Folder of a part of the first round; one that is not there before the stage is open."""
        scratch = self.checkout.result(f"scratch/{dataset}")
        work = next(scratch.glob(f"{stage}-*"), scratch / "none")
        return work / f"round-0.part-{part}"

    def at_work(self, dataset: str, stage: str, part: int, n_items: int = 1) -> str:
        """Number of the job that is at work on a part and has finished so many items; empty: none yet."""
        home = self.home(dataset, stage, part)
        try:
            n_done = len((home / "items.jsonl").read_text().splitlines())
            return str(json.loads((home / "lock").read_text())["job"]) if n_done >= n_items else ""
        except (FileNotFoundError, ValueError):
            return ""

    def node(self, job: str) -> str:
        """Where a job runs."""
        return self.cluster.ask("squeue", "-h", "-j", job, "-o", "%N").strip()

    def disturb(self, alive: subprocess.Popen[str]) -> str:
        """Each accident that no part has in itself, as soon as something is finished; number of the job of two."""
        ask, timed_out = self.cluster.ask, ""
        left = {("one", "toy.smooth", part) for part in (CANCELLED, DOWN, DARK)} | {("two", "toy.pick", 0)}
        while left:
            assert alive.poll() is None, self.said_so_far
            for dataset, stage, part in tuple(left):
                if not (job := self.at_work(dataset, stage, part)):
                    continue
                left.remove((dataset, stage, part))
                if dataset == "two":
                    # the shortest time limit that there is
                    ask("scontrol", "update", f"jobid={job}", "timelimit=1")
                    timed_out = job
                elif part == CANCELLED:
                    ask("scancel", job)
                elif part == DOWN:
                    ask("scontrol", "update", f"nodename={self.node(job)}", "state=down", "reason=test")
                else:
                    self.cluster.kill_node(self.node(job))
            time.sleep(0.1)
        return timed_out

    def wait_until_mended(self, alive: subprocess.Popen[str], timed_out: str) -> None:
        """All parts of one have got over their accident, and another job of two has gone on for a while."""
        first, records = self.checkout.result("one/smooth.zarr"), self.checkout.result("scratch/one/toy.smooth.records")
        journal = self.home("two", "toy.pick", 0) / "items.jsonl"
        self.wait(alive, lambda: first.exists() or (records / "round-0.sha256").exists())
        self.wait(alive, lambda: self.at_work("two", "toy.pick", 0) not in ("", timed_out))
        n_items = len(journal.read_text().splitlines())
        self.wait(alive, lambda: len(journal.read_text().splitlines()) > n_items)

    def without_controller(self, alive: subprocess.Popen[str], cancelled: str) -> None:
        """The controller goes away while the job of two is at work, until Snakemake has noticed, and comes back.

        `cancelled` : the job of two before, whose lock may still lie there while Snakemake starts.
        """
        self.wait(alive, lambda: self.at_work("two", "toy.pick", 0) not in ("", cancelled))
        self.cluster.stop_controller()
        self.wait(alive, lambda: "SLURM does not answer" in self.said_so_far)
        self.cluster.start_controller()

    def wait(self, alive: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
        """Until the condition is met, as long as Snakemake lives."""
        while not condition():
            assert alive.poll() is None, self.said_so_far
            time.sleep(0.2)


@pytest.fixture(scope="module")
def run(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """All accidents, and what came of them."""
    one = toy.YAML.format(name="one", parts=PARTS, sweeps=0).replace("smooth: {parts: 5}", ONE)
    two = re.sub("pick: .*", TWO, toy.YAML.format(name="two", parts=1, sweeps=0))
    plain = re.sub("pick: .*", PLAIN, toy.YAML.format(name="plain", parts=1, sweeps=0))
    folder = tmp_path_factory.mktemp("faults")
    checkout = Checkout.make(folder / "repository", {"one": one, "two": two})
    undisturbed = Checkout.make(folder / "undisturbed", {"plain": plain})
    for made in (checkout, undisturbed):
        toy.install(made.root)
    # Parts that ask for 800 MB, and the second time for 1200.
    checkout.edit("src/gigascope/toy/plan.py", "Estimate(factor * BASE_BYTES,", "Estimate(500 * 2**20,")
    with running_cluster(n_nodes=7, memory_mb=8000, policed=True, silent_s=10) as cluster:
        run = Run(cluster, checkout, undisturbed, Watch(cluster, checkout.result("scratch")))
        run.watch.start()
        process = run.start()
        timed_out = run.disturb(process)
        run.said["beside"] = run.call(*run.command)
        undisturbed.snakemake("--", "results/plain/picks.tsv")
        run.wait_until_mended(process, timed_out)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        # however slow this machine is, what is at work now still is when Snakemake is started again
        at_work = cluster.ask("squeue", "-h", "-t", "R", "-o", "%A").split()
        for job in at_work:
            cluster.ask("scontrol", "suspend", job)
        run.said["first"] = (-signal.SIGKILL, run.said_so_far)
        run.said["unlock"] = run.call("snakemake", "--unlock")
        run.said["too early"] = run.call(*run.command)
        words = re.search(r"scancel (--name=\S+[0-9a-f])", run.said["too early"][1])
        assert words is not None, run.said["too early"][1]
        for job in at_work:
            cluster.ask("scontrol", "resume", job)
        cluster.ask("scancel", words[1])
        while cluster.ask("squeue", "-h"):
            time.sleep(0.2)
        cancelled = run.at_work("two", "toy.pick", 0)
        process = run.start()
        run.without_controller(process, cancelled)
        run.said["again"] = (process.wait(900), run.said_so_far)
        run.watch.stop()
        print(*(f"{name}: {output}" for name, (_, output) in run.said.items()), run.watch.jobs, sep="\n")
        yield run


def test_run_comes_to_its_end_and_leaves_nothing(run: Run) -> None:
    code, output = run.said["again"]
    assert code == 0, output
    assert not [path for path in run.checkout.result("scratch").rglob("*") if path.is_file()]
    assert run.checkout.planned("--", *TARGETS) == set()
    assert run.cluster.ask("squeue", "-h", "-t", "PD,R") == ""


def test_results_are_those_of_an_undisturbed_run(run: Run) -> None:
    plain = {name: run.plain.attributes(f"plain/{name}")["digest"] for name in ("volume", "smooth")}
    for dataset in ("one", "two"):
        assert {name: run.checkout.attributes(f"{dataset}/{name}")["digest"] for name in plain} == plain
    for name in ("picks.tsv", "counts.json"):
        assert run.checkout.result(f"two/{name}").read_bytes() == run.plain.result(f"plain/{name}").read_bytes()
    told = run.checkout.attributes("one/smooth")["provenance"]["scatter"]
    assert told["parts"] == PARTS
    assert told["items"] == [24, 24]


def test_nothing_finished_is_computed_again(run: Run) -> None:
    assert not {item: times for item, times in run.watch.items.items() if len(times) > 1}
    # The last item of a stage is gone with its journal when the stage is complete, mostly before anybody looks.
    seen = Counter(item[:2] for item in run.watch.items)
    assert seen["one", "toy.smooth"] >= 2 * 24 - PARTS
    assert seen["two", "toy.pick"] >= 24 - 1


@pytest.mark.parametrize("part", range(PARTS))
def test_each_part_goes_on_from_what_its_first_job_finished(run: Run, part: int) -> None:
    log = run.checkout.result(f"one/logs/toy.smooth/round-0.part-{part}.log").read_text()
    went_on = re.search(r"going on: (\d+) of (\d+) blocks were finished before", log)
    assert went_on is not None, log
    n_done, n_items = map(int, went_on.groups())
    assert 1 <= n_done < n_items
    if part in (KILLED, HUNGRY):
        assert n_done == 2


@pytest.mark.parametrize(
    ("part", "ends"),
    [
        (KILLED, "FAILED"),
        (HUNGRY, "FAILED|OUT_OF_MEMORY|CANCELLED"),
        (CANCELLED, "CANCELLED"),
        (DOWN, "NODE_FAIL"),
        (DARK, "NODE_FAIL"),
    ],
)
def test_each_accident_costs_one_job(run: Run, part: int, ends: str) -> None:
    first, second = run.watch.of(f"rule_toy_smooth_part_wildcards_one_0_{part}")
    assert re.fullmatch(ends, first.states[-1])
    assert second.states[-1] == "COMPLETED"
    assert second.memory_mb == pytest.approx(1.5 * first.memory_mb, abs=1)


def test_job_at_its_time_limit_saves_its_state_and_another_goes_on(run: Run) -> None:
    first, second, third = run.watch.of("rule_toy_pick_wildcards_two")
    assert [job.states[-1] for job in (first, second, third)] == ["TIMEOUT", "CANCELLED", "COMPLETED"]
    assert "going on from a checkpoint" in run.checkout.result("two/logs/toy.pick.log").read_text()


def test_second_snakemake_is_refused_while_the_first_lives(run: Run) -> None:
    code, output = run.said["beside"]
    assert code != 0
    assert "Directory cannot be locked" in output
    assert "Traceback" not in output


def test_snakemake_that_was_killed_is_started_again_when_its_jobs_have_ended(run: Run) -> None:
    code, output = run.said["unlock"]
    assert code == 0, output
    code, output = run.said["too early"]
    assert code == 2, output
    assert re.search("of (an )?earlier starts? (is|are) still in the queue", output)
    assert "Traceback" not in output
    assert "has been submitted" not in output
    # What was done before is not done again.
    assert len(run.watch.of("rule_toy_ingest_wildcards_one")) == 1
    assert len(run.watch.of("rule_toy_ingest_wildcards_two")) == 1
    assert len(run.watch.of("rule_toy_smooth_wildcards_two")) == 1
