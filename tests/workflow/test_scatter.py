"""Scattered stages under the real Snakemake: the graph, what runs again after a change, kills, and altered parts."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from gigascope.workflow import Workflow

from .. import toy
from .checkout import Checkout, Job

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ONE = "config/datasets/one.yaml"
STAGES = "src/gigascope/toy/stages.py"
ROUNDS = {"smooth": 2, "pick": 1}


def jobs(name: str, parts: int = 2, dataset: str = "one", first_round: int = 0) -> set[Job]:
    """The jobs of a scattered stage, but the one that writes its config."""
    gather = {Job(f"toy_{name}", dataset)}
    if parts == 1:
        return gather
    rounds = [str(r) for r in range(first_round, ROUNDS[name])]
    found = {Job(f"toy_{name}_part", dataset, round=r, part=str(p)) for r in rounds for p in range(parts)}
    found |= {Job("scatter_round", dataset, f"toy.{name}", round=r) for r in rounds[:-1]}
    return found | gather | ({Job(f"toy_{name}_open", dataset)} if first_round == 0 else set())


def config(*names: str, dataset: str = "one") -> set[Job]:
    """The jobs that write stage configs."""
    return {Job("stage_config", dataset, f"toy.{name}") for name in names}


def digest(checkout: Checkout, dataset: str = "one") -> str:
    return str(checkout.attributes(f"{dataset}/smooth")["digest"])


def command(job: str = "", dataset: str = "one") -> list[str]:
    """`gigascope run toy.smooth`, as the workflow calls it."""
    words = ["gigascope", "run", "toy.smooth", "--config", f"results/{dataset}/config/toy.smooth.json"]
    words += ["--input", f"volume=results/{dataset}/volume.zarr/zarr.json", "--scratch", "results/scratch"]
    words += job.split()
    if "--open" not in words and "--part" not in words:
        words += ["--output", f"smooth=results/{dataset}/smooth.zarr/zarr.json"]
    return words


RECORDS = "--records results/scratch/one/toy.smooth.records"


@pytest.fixture(scope="session")
def scattered_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Dataset one in two parts, dataset two in one, run to the end; not to be changed."""
    datasets = {name: toy.YAML.format(name=name, parts=parts, sweeps=0) for name, parts in (("one", 2), ("two", 1))}
    checkout = Checkout.make(tmp_path_factory.mktemp("scattered") / "repository", datasets)
    toy.install(checkout.root)
    checkout.snakemake()
    return checkout


@pytest.fixture
def scattered(scattered_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished run, to be changed."""
    return scattered_once.clone(tmp_path / "repository")


def without_results(checkout: Checkout) -> Checkout:
    """Leave dataset one its volume and the frozen configs, and dataset two nothing."""
    checkout.dataset("two").unlink()
    for made in ("one/smooth.zarr", "one/picks.tsv", "one/counts.json"):
        path = checkout.result(made)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return checkout


@pytest.fixture
def begun(scattered: Checkout) -> Checkout:
    """Dataset one without its results, but the volume and the frozen configs."""
    return without_results(scattered)


# the graph


def test_graph_is_open_parts_rounds_and_gather_or_one_job(scattered: Checkout) -> None:
    shutil.rmtree(scattered.result(""))
    one = {Job("toy_ingest", "one")} | config("ingest", "smooth", "pick") | jobs("smooth") | jobs("pick")
    two = {Job("toy_ingest", "two")} | config("ingest", "smooth", "pick", dataset="two")
    two |= jobs("smooth", 1, "two") | jobs("pick", 1, "two")
    assert scattered.planned() == one | two


def test_number_of_jobs_grows_with_the_number_of_parts(begun: Checkout) -> None:
    begun.edit(ONE, "smooth: {parts: 2}", "smooth: {parts: 250}")
    before = os.times()
    output = begun.snakemake("--dry-run", "--quiet", "rules")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert "toy_smooth_part" in output
    assert len(begun.planned()) == 1 + 250 * 2 + 1 + 1 + len(config("smooth")) + len(jobs("pick"))
    print(f"{spent:.1f} s of CPU")
    # 2.6 ms per job were measured, and two seconds for Snakemake itself; a graph of part times part would take minutes
    assert spent < 20


def test_rules_of_a_scattered_stage_pass_the_linters(scattered: Checkout) -> None:
    for words in (("snakemake", "--lint"), ("snakefmt", "--check", "Snakefile", "workflow")):
        code, output = scattered.run(*words)
        assert code == 0, output


def test_needs_of_each_job_follow_from_its_own_estimate(tmp_path: Path) -> None:
    with toy.installed(), pytest.MonkeyPatch.context() as patch:
        from gigascope import workflow

        plan = importlib.import_module("gigascope.toy.plan")
        patch.setattr(workflow, "_chain", lambda dataset, module: plan)
        workflow.estimate_of.cache_clear()
        path = tmp_path / "one.yaml"
        path.write_text(toy.YAML.format(name="one", parts=2, sweeps=0))
        flow = Workflow.load({"datasets": str(path), "results": str(tmp_path / "results")})
        wildcards = SimpleNamespace(dataset="one", round="1", stage="toy.smooth")
        needs = {job: flow.resources("toy.smooth", job) for job in ("open", "part", None)}
        memory = {job: found["mem_mb"](wildcards, attempt=1, threads=8) for job, found in needs.items()}
        kept = workflow.KEPT_BYTES / 2**20
        assert memory["part"] - kept == pytest.approx(2 * (memory["open"] - kept), abs=2)
        assert memory[None] == memory["open"], "a gather needs what its estimate says"
        assert {job: found["runtime"](wildcards, attempt=1) for job, found in needs.items()} == {
            "open": 30,
            "part": 60,
            None: 30,
        }
        # 128 CPUs for items that make use of 64: two worker processes
        assert needs["part"]["mem_mb"](wildcards, attempt=1, threads=128) == pytest.approx(2 * memory["part"], abs=2)
        assert flow.threads("toy.smooth", "part") == 32
        assert flow.threads("toy.smooth")(wildcards) == 4
        records = flow.records
        assert records.before("toy.smooth")(wildcards).endswith("/scratch/one/toy.smooth.records/round-0.sha256")
        assert len(records.all("toy.smooth")(wildcards)) == 1 + 1 + 4
        assert len(records.of_round(wildcards)) == 2
        assert "--records" in flow.run("toy.smooth")
        assert "--output" not in flow.run("toy.smooth", "part")
    workflow.estimate_of.cache_clear()


# what runs again


def test_finished_run_plans_nothing_and_leaves_no_records(scattered: Checkout) -> None:
    assert scattered.planned() == set()
    assert not list(scattered.result("scratch").rglob("*.json"))
    assert digest(scattered, "one") == digest(scattered, "two")
    for name in ("picks.tsv", "counts.json"):
        assert scattered.result(f"one/{name}").read_bytes() == scattered.result(f"two/{name}").read_bytes()


def test_file_times_and_copies_do_not_matter(scattered: Checkout, tmp_path: Path) -> None:
    for path in scattered.root.rglob("*"):
        if ".snakemake" not in path.parts:
            os.utime(path, follow_symlinks=False)
    assert scattered.planned() == set()
    shutil.copytree(scattered.root, tmp_path / "copy", symlinks=True, copy_function=shutil.copy)
    assert Checkout(tmp_path / "copy").planned() == set()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (ONE, "smooth: {parts: 2}", "smooth: {parts: 2, factor: 0.25}"),
        (STAGES, "cfg.factor *", "cfg.factor * 1.0 *"),  # the item function
        (STAGES, 'ctx.warn("opened")', 'ctx.warn("open")'),  # the open function
        (STAGES, 'attrs["mean"]', 'attrs["means"]'),  # the gather
        ("src/gigascope/toy/blocks.py", "def region(", "def region2(): ...\n\n\ndef region("),
    ],
)
def test_change_reruns_the_whole_stage_and_its_readers(scattered: Checkout, file: str, old: str, new: str) -> None:
    scattered.edit(file, old, new)
    planned = scattered.planned("--config", "datasets=" + ONE)
    also = config("pick") if "blocks" in file else set()
    assert planned == config("smooth") | jobs("smooth") | jobs("pick") | also


def test_change_of_a_neighbours_item_function_reruns_nothing_of_this_stage(scattered: Checkout) -> None:
    scattered.edit(STAGES, 'ctx.work.metrics["picked"]', 'ctx.work.metrics["picks"]')
    assert scattered.planned("--config", "datasets=" + ONE) == config("pick") | jobs("pick")


def test_module_behind_the_work_of_parts_reruns_scattered_stages_only(scattered: Checkout) -> None:
    scattered.append("src/gigascope/runtime/shared_work.py", "\n_edited = 1\n")
    planned = scattered.planned("--config", "datasets=" + ONE)
    assert planned == config("smooth", "pick") | jobs("smooth") | jobs("pick")


def test_how_jobs_are_run_reruns_nothing(scattered: Checkout) -> None:
    for module in ("runtime/scatter.py", "runtime/gather.py", "runtime/items.py", "parallel.py", "workflow_records.py"):
        scattered.append(f"src/gigascope/{module}", "\n_edited = 1\n")
    assert scattered.planned() == set()


def test_another_number_of_parts_reruns_the_stage_in_these_parts(scattered: Checkout) -> None:
    scattered.edit(ONE, "smooth: {parts: 2}", "smooth: {parts: 3}")
    planned = scattered.planned("--config", "datasets=" + ONE)
    assert planned == config("smooth") | jobs("smooth", 3) | jobs("pick")
    scattered.edit(ONE, "smooth: {parts: 3}", "smooth: {parts: 1}")
    planned = scattered.planned("--config", "datasets=" + ONE)
    assert planned == config("smooth") | jobs("smooth", 1) | jobs("pick")


def test_lost_result_reruns_the_whole_stage_though_its_records_are_gone(scattered: Checkout) -> None:
    scattered.result("one/picks.tsv").unlink()
    assert scattered.planned("--config", "datasets=" + ONE) == jobs("pick")
    shutil.rmtree(scattered.result("one/smooth.zarr"))
    planned = scattered.planned("--config", "datasets=" + ONE)
    # that `picks` is to be made again follows only when the store has been
    assert planned == jobs("smooth") | jobs("pick")


# faults


def test_killed_at_random_points_and_started_again_gives_the_same_result(
    begun: Checkout, scattered_once: Checkout
) -> None:
    begun.edit(ONE, "smooth: {parts: 2}", "smooth: {parts: 2, pause_s: 0.1}")
    chance = random.Random(seed := random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")
    for _ in range(4):
        process = begun.start("snakemake", "--profile", "local")
        deadline = time.monotonic() + chance.uniform(5, 30)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        begun.snakemake("--unlock")
    begun.snakemake()
    assert begun.planned() == set()
    assert digest(begun) == digest(scattered_once)
    assert begun.result("one/picks.tsv").read_bytes() == scattered_once.result("one/picks.tsv").read_bytes()
    assert not [path for path in begun.result("scratch").rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def ungathered_once(scattered_once: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Dataset one after a kill between the last part of `smooth` and its gather; not to be changed."""
    checkout = without_results(scattered_once.clone(tmp_path_factory.mktemp("ungathered") / "repository"))
    log = checkout.result("one/logs/toy.smooth.log")
    log.unlink()
    process = checkout.start("snakemake", "--profile", "local")
    while not log.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not checkout.result("one/smooth.zarr/zarr.json").exists()
    checkout.snakemake("--unlock")
    return checkout


@pytest.fixture
def ungathered(ungathered_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy of that, to be changed."""
    return ungathered_once.clone(tmp_path / "repository")


def test_after_a_kill_only_what_is_missing_is_planned(ungathered: Checkout) -> None:
    rest = {Job("toy_smooth", "one")} | jobs("pick")
    assert ungathered.planned() == rest
    ungathered.result("scratch/one/toy.smooth.records/round-1.part-1.json").unlink()
    assert ungathered.planned() == rest | {Job("toy_smooth_part", "one", round="1", part="1")}
    ungathered.result("scratch/one/toy.smooth.records/round-0.part-0.json").unlink()
    again = {Job("toy_smooth_part", "one", round="0", part="0")} | jobs("smooth", first_round=1)
    assert ungathered.planned() == again | {Job("scatter_round", "one", "toy.smooth", "0")} | jobs("pick")


def test_work_folder_that_is_gone_means_to_begin_anew(ungathered: Checkout) -> None:
    (work,) = ungathered.result("scratch/one").glob("toy.smooth-*")
    shutil.rmtree(work)
    assert ungathered.planned() == jobs("smooth") | jobs("pick")


def test_altered_part_is_refused_by_name_and_alone_done_again(ungathered: Checkout, scattered_once: Checkout) -> None:
    (shard,) = ungathered.result("scratch/one").glob("toy.smooth-*/outputs/smooth.zarr/0/c/3/2/1")
    shard.write_bytes(shard.read_bytes()[:-4] + b"\0\0\0\0")
    code, output = ungathered.run("snakemake", "--profile", "local")
    assert code != 0, output
    assert "outputs/smooth.zarr/0/c/3/2/1 was altered: its checksum differs (part" in output
    assert "Start snakemake again: it does what is missing again." in output
    planned = ungathered.planned()
    parts = {job for job in planned if job.rule == "toy_smooth_part"}
    assert len(parts) == 1
    assert planned == parts | {Job("toy_smooth", "one")} | jobs("pick")
    ungathered.snakemake()
    assert digest(ungathered) == digest(scattered_once)


def test_stop_saves_what_is_done_and_the_next_attempt_goes_on(begun: Checkout, scattered_once: Checkout) -> None:
    begun.edit("results/one/config/toy.smooth.json", '"pause_s":0.0', '"pause_s":0.5')
    code, output = begun.run(*command(f"{RECORDS} --open"))
    assert code == 0, output
    process = begun.start(*command(f"{RECORDS} --round 0 --part 0"))
    (work,) = begun.result("scratch/one").glob("toy.smooth-*")
    journal = work / "round-0.part-0" / "items.jsonl"
    while not journal.is_file() or len(journal.read_text().splitlines()) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    assert "start again to go on" in output
    n_done = len(journal.read_text().splitlines())
    assert 2 <= n_done < 12
    code, output = begun.run(*command(f"{RECORDS} --round 0 --part 0"))
    assert code == 0, output
    assert f"going on: {n_done} of 12 blocks were finished before" in output


def test_successor_waits_for_an_attempt_that_outlived_its_job(begun: Checkout) -> None:
    begun.edit("results/one/config/toy.smooth.json", '"pause_s":0.0', '"pause_s":1.0')
    code, output = begun.run(*command(f"{RECORDS} --open"))
    assert code == 0, output
    first = begun.start(*command(f"{RECORDS} --round 0 --part 0"))
    (work,) = begun.result("scratch/one").glob("toy.smooth-*")
    journal = work / "round-0.part-0" / "items.jsonl"
    while not journal.is_file() or not journal.read_text():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    second = begun.start(*command(f"{RECORDS} --round 0 --part 0"))
    time.sleep(8)
    assert second.poll() is None
    n_done = len(journal.read_text().splitlines())
    first.kill()
    first.communicate()
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    assert f"waiting for process {first.pid} on" in output
    assert "taking over the lock" in output
    done = [json.loads(line)["item"] for line in journal.read_text().splitlines()]
    assert len(done) == len(set(done)) == 12
    assert n_done < 12


def test_worker_processes_give_the_same_result(begun: Checkout, scattered_once: Checkout) -> None:
    code, output = begun.run(*command("--workers 2"))
    assert code == 0, output
    assert "2 worker processes at work" in output
    assert digest(begun) == digest(scattered_once)
    assert not list(begun.result("scratch").rglob("*.json"))


def test_worker_processes_stop_and_end_with_their_job(begun: Checkout, scattered_once: Checkout) -> None:
    begun.edit("results/one/config/toy.smooth.json", '"pause_s":0.0', '"pause_s":0.4')
    for end in (signal.SIGTERM, signal.SIGKILL):
        process = begun.start(*command("--workers 2"))
        journals = begun.result("scratch/one")
        before = n_lines(journals)
        while n_lines(journals) < before + 4:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.send_signal(end)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == (75 if end == signal.SIGTERM else -end), output
        deadline = time.monotonic() + 20
        while any(alive(pid) for pid in workers):
            assert time.monotonic() < deadline, "workers outlive their job"
            time.sleep(0.1)
    code, output = begun.run(*command("--workers 2"))
    assert code == 0, output
    assert "blocks were finished before" in output
    assert digest(begun) == digest(scattered_once)


def n_lines(folder: Path) -> int:
    """Finished items in all journals."""
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("items.jsonl"))


def children(pid: int) -> list[int]:
    """Processes that a process started, and those of them."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
