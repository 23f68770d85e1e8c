"""Scattered stages: shares, records, shared arrays, and jobs that are stopped, repeated, or find something altered."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigascope.errors import Checkpointed, ShapeError, UserError
from gigascope.runtime import checkpoint, lock
from gigascope.runtime.fingerprint import fingerprint
from gigascope.runtime.opened import Opened, append_arrays, load_arrays, output_name, store_as_opened
from gigascope.runtime.parts import WorkPlan, assign, space_filling
from gigascope.runtime.records import ItemRecord, Journal, PartRecord, Unusable
from gigascope.runtime.run import Job, job_of, run_stage
from gigascope.runtime.shared_work import History, ItemWork
from gigascope.stage import Scatter, stage
from gigascope.store.checksum import verify
from gigascope.store.create import create_image
from gigascope.store.open import open_store
from gigascope.store.plan import ShardPlan

from .. import toy

# shares


@given(st.lists(st.integers(0, 500), unique=True), st.integers(1, 20), st.booleans(), st.randoms())
def test_every_item_falls_to_one_part(items: list[int], parts: int, weighted: bool, chance: random.Random) -> None:
    weights = [chance.choice([0.0, 1.0, 17.5]) for _ in range(501)] if weighted else None
    shares = assign(items, parts, weights)
    assert len(shares) == parts
    assert sorted(itertools.chain(*shares)) == sorted(items)


def test_weighted_shares_cost_nearly_the_same(rng: np.random.Generator) -> None:
    weights = rng.gamma(0.5, size=400)
    loads = [weights[share].sum() for share in assign(range(400), 7, weights.tolist())]
    # Graham's bound for the longest first, against the mean, of which no share can be below the longest item
    assert max(loads) <= 4 / 3 * max(np.mean(loads), weights.max()) * 1.01


def test_items_without_weight_do_not_all_fall_to_one_part() -> None:
    counts = [len(share) for share in assign(range(300), 3, [0.0] * 299 + [1.0])]
    assert max(counts) <= 150  # the one with a weight has a part for itself


@pytest.mark.parametrize("bad", [[-1.0], [float("nan")], [float("inf")]])
def test_weights_are_costs(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        assign([0], 2, bad)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 4), (3, 5, 2), (7,), (2, 9)])
def test_space_filling_order_visits_each_cell_once(shape: tuple[int, ...]) -> None:
    assert sorted(space_filling(shape)) == list(range(int(np.prod(shape))))


def test_space_filling_order_stays_inside_each_cube() -> None:
    cells = np.array(np.unravel_index(space_filling((8, 8, 8)), (8, 8, 8))).T
    for cube in cells.reshape(-1, 8, 3):
        assert (np.ptp(cube, axis=0) == 1).all()


def test_plan_survives_json() -> None:
    plan = WorkPlan([range(5), [3, 1], []], weights=[1.0] * 5, facts={"a": [1, None]})
    again = WorkPlan.of(json.loads(json.dumps(plan.values())))
    assert [list(r) for r in again.rounds] == [[0, 1, 2, 3, 4], [3, 1], []]
    assert again.facts == plan.facts
    with pytest.raises(ValueError, match="twice"):
        WorkPlan([[1, 1]])
    with pytest.raises(ValueError, match="weights"):
        WorkPlan([[0, 5]], weights=[1.0] * 5)


def test_scattered_stage_needs_a_number_of_parts() -> None:
    from gigascope.config.tomography import Prealign

    with pytest.raises(TypeError, match="needs a key `parts`"):
        stage("tomography.x", Prealign, inputs={}, outputs={}, scatter=Scatter(lambda ctx, cfg: None, print))  # type: ignore[arg-type, return-value]


# the toy chain


@pytest.fixture(scope="module", autouse=True)
def chain() -> Iterator[None]:
    """The stages toy.ingest, toy.smooth and toy.pick."""
    with toy.installed():
        yield


@dataclass
class Setting:
    """A dataset of the toy chain, and its jobs."""

    root: Path
    parts: int
    sweeps: int = 1

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def records(self) -> Path:
        return self.root / "records"

    def path(self, name: str) -> Path:
        return self.results / {"picks": "picks.tsv", "counts": "counts.json"}.get(name, f"{name}.zarr")

    def run(self, name: str, kind: Any = None, *numbers: int, **keywords: Any) -> None:
        """A stage, or a job of it."""
        from gigascope.registry import get_stage

        declared = get_stage(f"toy.{name}")
        config = self.root / "toy.yaml"
        config.write_text(toy.YAML.format(name="toy", parts=self.parts, sweeps=self.sweeps))
        inputs = {n: self.path(n) for n in declared.inputs}
        outputs = {n: self.path(n) for n in declared.outputs} if kind in (None, "gather") else {}
        job = None if kind is None else Job(kind, self.records / name, *numbers)
        keywords = {"workers": 1, "scratch": self.root / "scratch", **keywords}
        run_stage(declared.name, config, inputs, outputs, job=job, **keywords)

    def scatter(self, name: str, rounds: int, chance: random.Random | None = None) -> None:
        """All jobs but the gather; the parts of each round in any order."""
        self.run(name, "open")
        for round_ in range(rounds):
            order = list(range(self.parts))
            (chance or random.Random(0)).shuffle(order)
            for part in order:
                self.run(name, "part", round_, part)

    def work(self, name: str) -> Path:
        """Work folder of a stage."""
        (folder,) = (self.root / "scratch" / "toy").glob(f"toy.{name}-*")
        return folder

    def record(self, name: str, round_: int, part: int) -> Path:
        """Record of a part."""
        return self.records / name / f"round-{round_}.part-{part}.json"


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory, chain: None) -> Path:
    setting = Setting(tmp_path_factory.mktemp("volume"), 1)
    setting.run("ingest")
    return setting.path("volume")


@pytest.fixture
def make(tmp_path: Path, volume: Path) -> Callable[..., Setting]:
    """A setting with its volume, in a folder of its own."""
    numbers = itertools.count()

    def of(parts: int, **more: Any) -> Setting:
        setting = Setting(tmp_path / str(next(numbers)), parts, **more)
        setting.results.mkdir(parents=True)
        setting.path("volume").symlink_to(volume)
        return setting

    return of


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, volume: Path) -> Setting:
    """Both stages, each in one job of one process."""
    setting = Setting(tmp_path_factory.mktemp("undisturbed"), 1)
    setting.results.mkdir()
    setting.path("volume").symlink_to(volume)
    setting.run("smooth")
    setting.run("pick")
    return setting


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(stage, round, item) of each call of an item function from now on."""
    from gigascope.registry import get_stage
    from gigascope.stage import DECLARED

    made: list[tuple[str, int, int]] = []
    for name in ("toy.smooth", "toy.pick"):
        declared = get_stage(name)
        assert declared.scatter is not None

        def counted(ctx: Any, cfg: Any, item: int, do: Any = declared.scatter.item, of: str = declared.key) -> None:
            made.append((of, ctx.work.round, item))
            do(ctx, cfg, item)

        # `replace` of the frozen declaration would change its fingerprint; only the call is to change
        monkeypatch.setitem(DECLARED, name, _Calling(declared, counted))
    return made


class _Calling:
    """A declaration with another item function, and the fingerprint of the true one."""

    def __init__(self, declared: Any, item: Callable[..., None]) -> None:
        self._declared = declared
        values = {**declared.scatter.__dict__, "item": item}
        self.scatter = Scatter(**values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._declared, name)


def digest(setting: Setting) -> str:
    return open_store(setting.path("smooth")).digest


def flip(path: Path, place: int = -5) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("parts", [3, 8, 40])
def test_result_does_not_depend_on_the_number_of_parts_nor_their_order(
    make: Callable[..., Setting], undisturbed: Setting, parts: int, rng: np.random.Generator
) -> None:
    setting = make(parts)
    chance = random.Random(int(rng.integers(2**32)))
    # more parts than items only once: each part of a round is a job
    chain = {"smooth": 2, "pick": 9} if parts < 10 else {"smooth": 2}
    for name, rounds in chain.items():
        setting.scatter(name, rounds, chance)
        setting.run(name, "gather")
    assert digest(setting) == digest(undisturbed)
    assert verify(setting.path("smooth")) == []
    for name in ("picks", "counts") if "pick" in chain else ():
        assert setting.path(name).read_bytes() == undisturbed.path(name).read_bytes()
    assert len(undisturbed.path("picks").read_text().splitlines()) > 10
    assert not (setting.root / "scratch").exists()
    told = open_store(setting.path("smooth")).provenance
    assert told["scatter"]["parts"] == parts
    assert told["scatter"]["items"] == [24, 24]
    assert told["warnings"] == ["opened"]


def test_stage_in_parts_can_be_run_by_hand_in_one_go(make: Callable[..., Setting], undisturbed: Setting) -> None:
    setting = make(3)
    setting.run("smooth")
    assert digest(setting) == digest(undisturbed)
    assert not (setting.root / "scratch").exists()


def test_gather_of_one_part_is_the_whole_stage(make: Callable[..., Setting], undisturbed: Setting) -> None:
    setting = make(1)
    setting.run("smooth", "gather")
    assert digest(setting) == digest(undisturbed)


def test_items_may_be_worked_on_in_several_threads(make: Callable[..., Setting], undisturbed: Setting) -> None:
    from gigascope.registry import get_stage

    for name in ("toy.smooth", "toy.pick"):
        object.__setattr__(get_stage(name).scatter, "at_once", lambda cfg, device: 3)
    try:
        setting = make(1)
        setting.run("smooth")
        setting.run("pick")
    finally:
        for name in ("toy.smooth", "toy.pick"):
            object.__setattr__(get_stage(name).scatter, "at_once", lambda cfg, device: 1)
    assert digest(setting) == digest(undisturbed)
    assert setting.path("picks").read_bytes() == undisturbed.path("picks").read_bytes()


# records and what they stand for


@pytest.mark.parametrize("harm", ["flipped", "missing", "cut", "swapped"])
def test_altered_shard_is_refused_by_name_and_its_part_alone_done_again(
    make: Callable[..., Setting], undisturbed: Setting, calls: list[tuple[str, int, int]], harm: str
) -> None:
    setting = make(3)
    setting.scatter("smooth", 2)
    shards = sorted((setting.work("smooth") / "outputs/smooth.zarr/0").rglob("c/*/*/*"))
    assert len(shards) == 24
    if harm == "flipped":
        flip(shards[7], 3)
    elif harm == "missing":
        shards[7].unlink()
    elif harm == "cut":
        shards[7].write_bytes(shards[7].read_bytes()[:-1])
    else:  # valid in itself, and of the right size: only its checksum tells
        other = next(s for s in shards if s != shards[7] and s.stat().st_size == shards[7].stat().st_size)
        shards[7].write_bytes(other.read_bytes())
    name = shards[7].relative_to(setting.work("smooth")).as_posix()
    with pytest.raises(Unusable, match=rf"{name} (was altered|is missing).*\(part \d of round 1\)\. Start snakemake"):
        setting.run("smooth", "gather")
    assert not setting.path("smooth").exists()
    lost = [p for p in range(3) if not setting.record("smooth", 1, p).exists()]
    assert len(lost) == 1
    calls.clear()
    setting.run("smooth", "part", 1, lost[0])
    assert [call[:2] for call in calls] == [("smooth", 1)]
    setting.run("smooth", "gather")
    assert digest(setting) == digest(undisturbed)


def test_altered_array_of_an_earlier_round_is_found_by_who_reads_it(
    make: Callable[..., Setting], undisturbed: Setting
) -> None:
    setting = make(2)
    setting.run("smooth", "open")
    for part in range(2):
        setting.run("smooth", "part", 0, part)
    shard = sorted((setting.work("smooth") / "shared.zarr/arrays/sums").rglob("c/*/*/*"))[5]
    shard.unlink()
    with pytest.raises(Unusable, match=r"arrays/sums/c/\d/\d/\d is missing \(part \d of round 0\)"):
        [setting.run("smooth", "part", 1, part) for part in range(2)]
    (lost,) = [p for p in range(2) if not setting.record("smooth", 0, p).exists()]
    with pytest.raises(Unusable, match="the record of this part is missing"):
        setting.run("smooth", "part", 1, 0)
    setting.run("smooth", "part", 0, lost)
    for part in range(2):
        setting.run("smooth", "part", 1, part)
    setting.run("smooth", "gather")
    assert digest(setting) == digest(undisturbed)


def test_altered_saved_arrays_are_refused(make: Callable[..., Setting], undisturbed: Setting) -> None:
    setting = make(2, sweeps=0)
    setting.path("smooth").symlink_to(undisturbed.path("smooth"))
    setting.scatter("pick", 1)
    flip(setting.work("pick") / "round-0.part-1" / "saved-0.bin", 200)
    with pytest.raises(Unusable, match=r"saved-0\.bin was altered \(bytes 0 to \d+\) \(part 1 of round 0\)\. Start"):
        setting.run("pick", "gather")
    assert not setting.path("picks").exists()
    setting.run("pick", "part", 0, 1)
    setting.run("pick", "gather")
    assert setting.path("picks").exists()


def test_missing_record_is_named_and_its_part_costs_nothing_the_second_time(
    make: Callable[..., Setting], undisturbed: Setting, calls: list[tuple[str, int, int]]
) -> None:
    setting = make(3)
    setting.scatter("smooth", 2)
    setting.record("smooth", 0, 1).unlink()
    with pytest.raises(Unusable, match=r"round-0\.part-1\.json: the record of this part is missing"):
        setting.run("smooth", "gather")
    calls.clear()
    setting.run("smooth", "part", 0, 1)
    setting.run("smooth", "gather")
    assert calls == []
    assert digest(setting) == digest(undisturbed)


def test_record_that_was_altered_or_of_another_run_is_refused(make: Callable[..., Setting]) -> None:
    setting = make(2, sweeps=0)
    setting.scatter("smooth", 2)
    record = setting.record("smooth", 1, 1)
    text = record.read_text()
    record.write_text(text.replace('"item":', '"item":1', 1))
    with pytest.raises(Unusable, match="altered"):
        setting.run("smooth", "gather")
    assert not record.exists()
    record.write_text(setting.record("smooth", 1, 0).read_text())
    with pytest.raises(Unusable, match="another run"):
        setting.run("smooth", "gather")
    record.write_text(text)
    (setting.records / "smooth" / "open.json").unlink()
    with pytest.raises(Unusable, match="the record of this open job is missing"):
        setting.run("smooth", "gather")


def test_later_rounds_are_done_again_when_an_earlier_one_comes_out_different(
    make: Callable[..., Setting], undisturbed: Setting, calls: list[tuple[str, int, int]]
) -> None:
    setting = make(2)
    setting.path("smooth").symlink_to(undisturbed.path("smooth"))
    setting.scatter("pick", 3)
    journal = Journal(setting.work("pick") / "round-0.part-0" / "items.jsonl")
    records = journal.read()
    # As if a GPU had added up in another order when item 0 was done again.
    saved = append_arrays(
        setting.work("pick"),
        "round-0.part-0/saved-0.bin",
        {"places": np.zeros((0, 3), np.int64), "values": np.zeros(0, np.float32), "steps": np.zeros(1)},
    )
    first = records[0]
    journal.replace([ItemRecord(first.item, first.follows, saved=saved, metrics=first.metrics), *records[1:]])
    setting.run("pick", "part", 0, 0)
    with pytest.raises(Unusable, match="done again meanwhile"):
        setting.run("pick", "part", 2, 0)
    assert not setting.record("pick", 1, 0).exists()
    calls.clear()
    setting.run("pick", "part", 1, 0)
    assert calls
    assert {call[:2] for call in calls} == {("pick", 1)}


# attempts


def test_part_that_was_stopped_goes_on_where_it_was(
    make: Callable[..., Setting],
    undisturbed: Setting,
    calls: list[tuple[str, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = make(1)
    setting.path("smooth").symlink_to(undisturbed.path("smooth"))
    stops = itertools.count(1)

    def stop(self: checkpoint.Checkpoints) -> bool:
        return next(stops) % 23 == 0

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "out_of_time", property(stop))
        with pytest.raises(Checkpointed):
            setting.run("pick")
    done = len(calls)
    assert 0 < done < 24
    attempts = 1
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.Checkpoints, "out_of_time", property(stop))
            try:
                setting.run("pick")
                break
            except Checkpointed:
                attempts += 1
    assert attempts > 2
    # One item may be begun again per stop, none that was finished.
    assert len(calls) <= 24 + 24 + attempts
    assert setting.path("picks").read_bytes() == undisturbed.path("picks").read_bytes()


def test_stop_inside_an_item_leaves_a_checkpoint_of_its_own(make: Callable[..., Setting], undisturbed: Setting) -> None:
    setting = make(1, sweeps=0)
    setting.path("smooth").symlink_to(undisturbed.path("smooth"))
    with pytest.raises(Checkpointed):
        setting.run("pick", time_limit_s=checkpoint.RESERVE_S + 0.0)
    # out of time before the first item
    assert not list(setting.work("pick").rglob("*.checkpoint"))
    text = toy.YAML.format(name="toy", parts=1, sweeps=0)
    config = setting.root / "slow.yaml"
    config.write_text(text.replace("sweeps: 0", "sweeps: 0, steps: 50, pause_s: 0.2"))
    inputs, outputs = {"smooth": setting.path("smooth")}, {n: setting.path(n) for n in ("picks", "counts")}
    with pytest.raises(Checkpointed, match="steps: stopped with its state saved"):
        run_stage(
            "toy.pick",
            config,
            inputs,
            outputs,
            scratch=setting.root / "scratch2",
            time_limit_s=checkpoint.RESERVE_S + 3,
            workers=1,
        )
    (found,) = (setting.root / "scratch2").rglob("*.checkpoint")
    assert found.parent.name == "item-0"


def test_line_of_the_journal_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "items.jsonl")
    records = [ItemRecord(item, "f", metrics={"x": item}) for item in range(3)]
    for record in records:
        journal.append(record)
    path = tmp_path / "items.jsonl"
    path.write_text(path.read_text()[:-20])
    assert journal.read() == records[:2]
    journal.replace(journal.read())
    journal.append(records[2])
    assert journal.read() == records


def test_second_attempt_waits_for_the_first_and_goes_on_from_it(
    make: Callable[..., Setting], undisturbed: Setting
) -> None:
    setting = make(2)
    setting.run("smooth", "open")
    home = setting.work("smooth") / "round-0.part-0"
    home.mkdir()
    script = (
        "import sys, time, pathlib\nfrom gigascope.runtime import lock\n"
        "with lock.held(pathlib.Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    held = lock.held
    with subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == "in"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lock, "held", lambda folder: held(folder, wait_s=0.2))
            with pytest.raises(UserError, match=f"process {first.pid} on .* is at work"):
                setting.run("smooth", "part", 0, 0)
            setting.run("smooth", "part", 0, 1)
        assert not setting.record("smooth", 0, 0).exists()
        first.kill()
        first.wait()
    setting.run("smooth", "part", 0, 0)
    for part in range(2):
        setting.run("smooth", "part", 1, part)
    setting.run("smooth", "gather")
    assert digest(setting) == digest(undisturbed)


def test_gather_waits_for_a_part_that_outlived_its_job(make: Callable[..., Setting]) -> None:
    setting = make(2)
    setting.scatter("smooth", 2)
    home = setting.work("smooth") / "round-1.part-0"
    (home / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": "7", "start": 0}))
    held = lock.held
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "held", lambda folder: held(folder, wait_s=0.2))
        with pytest.raises(UserError, match="job 7 is at work"):
            setting.run("smooth", "gather")
    assert not setting.path("smooth").exists()


def test_opening_again_keeps_what_is_finished(make: Callable[..., Setting], calls: list[tuple[str, int, int]]) -> None:
    setting = make(2)
    setting.scatter("smooth", 2)
    calls.clear()
    setting.scatter("smooth", 2)
    setting.run("smooth", "gather")
    assert calls == []


def test_damaged_plan_or_lost_array_means_to_begin_anew(
    make: Callable[..., Setting], undisturbed: Setting, calls: list[tuple[str, int, int]]
) -> None:
    for harm in ("plan", "array", "table"):
        setting = make(2)
        setting.scatter("smooth", 2)
        work = setting.work("smooth")
        if harm == "plan":
            (work / "plan.json").write_text("{")
        elif harm == "array":
            (work / "outputs/smooth.zarr/0/zarr.json").unlink()
        else:
            (work / "outputs/smooth.zarr/tables/blocks/number/c/0").unlink()
        calls.clear()
        setting.scatter("smooth", 2)
        assert len(calls) == 48, harm
        setting.run("smooth", "gather")
        assert digest(setting) == digest(undisturbed)


@pytest.mark.parametrize("where", ["gigascope.store.commit.publish", "gigascope.store.commit.finish"])
def test_gather_that_was_killed_can_be_repeated(
    make: Callable[..., Setting], undisturbed: Setting, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    setting = make(2)
    setting.scatter("smooth", 2)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(KeyboardInterrupt):
            setting.run("smooth", "gather")
    assert not setting.path("smooth").exists()
    setting.run("smooth", "gather")
    assert digest(setting) == digest(undisturbed)


def test_shard_that_no_item_wrote_does_not_get_into_the_result(make: Callable[..., Setting]) -> None:
    """As an array that the gather itself was to fill would have it from a gather that was killed."""
    setting = make(2)
    setting.scatter("smooth", 2)
    record = setting.record("smooth", 1, 0)
    values = json.loads(record.read_text())["record"]
    lost = values["items"][0]["shards"].pop(0)["file"]
    PartRecord(**{**values, "items": tuple(map(ItemRecord.of, values["items"]))}).write(record)
    with pytest.raises(UserError, match="1 shards were not written, the first is"):
        setting.run("smooth", "gather")
    assert not (setting.work("smooth") / lost).exists()
    assert not setting.path("smooth").exists()


def test_work_folder_that_is_gone_is_opened_again(make: Callable[..., Setting]) -> None:
    setting = make(2)
    setting.scatter("smooth", 2)
    shutil.rmtree(setting.root / "scratch")
    with pytest.raises(Unusable, match="not open"):
        setting.run("smooth", "gather")
    assert not (setting.records / "smooth" / "open.json").exists()
    assert not (setting.root / "scratch").exists()


def test_abandoned_work_is_swept_and_work_in_progress_is_not(make: Callable[..., Setting]) -> None:
    setting = make(2)
    setting.run("smooth", "open")
    first = setting.work("smooth")
    setting.run("smooth", "part", 0, 0)
    old = time.time() - 3 * 86400
    for path in (first, *first.rglob("*")):
        os.utime(path, (old, old))
    lively = first / "round-0.part-0" / "lock"
    lively.touch()
    os.utime(lively.parent, (old, old))
    setting.parts = 3
    setting.run("smooth", "open")
    assert first.is_dir()
    lively.unlink()
    os.utime(lively.parent, (old, old))
    setting.run("smooth", "open")
    assert not first.exists()


@pytest.mark.parametrize(
    ("options", "job"),
    [
        ((None, False, None, None), None),
        ((Path("r"), False, None, None), Job("gather", Path("r"))),
        ((Path("r"), True, None, None), Job("open", Path("r"))),
        ((Path("r"), False, 2, 0), Job("part", Path("r"), 2, 0)),
        ((Path("r"), False, 2, None), UserError),
        ((Path("r"), True, 2, 1), UserError),
        ((None, True, None, None), UserError),
        ((None, False, 0, 0), UserError),
    ],
)
def test_options_of_the_command_line_name_a_job(options: tuple[Any, ...], job: Any) -> None:
    if job is UserError:
        with pytest.raises(UserError, match="name no job"):
            job_of(*options)
    else:
        assert job_of(*options) == job


def test_jobs_that_there_are_not_are_refused(make: Callable[..., Setting]) -> None:
    setting = make(2)
    setting.run("smooth", "open")
    with pytest.raises(UserError, match="no part 2 of round 0: 2 rounds of 2 parts"):
        setting.run("smooth", "part", 0, 2)
    with pytest.raises(UserError, match="not scattered"):
        setting.run("ingest", "open")
    with pytest.raises(UserError, match="share a scratch folder"):
        setting.run("smooth", "open", scratch=None)


def test_fingerprint_covers_every_function_of_a_stage() -> None:
    from gigascope.registry import get_stage

    smooth = get_stage("toy.smooth")
    assert smooth.scatter is not None
    assert smooth.functions == (smooth.function, smooth.scatter.open, smooth.scatter.item)
    found = fingerprint(*smooth.functions)
    assert "gigascope.toy.blocks" in found.modules
    assert "gigascope.runtime.shared_work" in found.modules
    assert "gigascope.runtime.shared_work" not in fingerprint(get_stage("toy.ingest").function).modules
    assert len({fingerprint(*fs).code for fs in itertools.permutations(smooth.functions, 2)}) == 6


# shared arrays


@pytest.fixture
def item(tmp_path: Path) -> Callable[[int], ItemWork]:
    """The work on an item, on an image of 6 x 8 in shards of 3 x 4."""
    written = create_image(
        tmp_path / output_name("image"),
        shape=(6, 8),
        dtype=np.int16,
        axes=("y", "x"),
        plan=ShardPlan((6, 8), 2, (3, 2), (3, 4)),
    )
    del written
    opened = Opened(WorkPlan([range(4)]), stores={(n := output_name("image")): store_as_opened(tmp_path, n, {})})
    history = History(tmp_path, opened, opened.write(tmp_path))
    return lambda number: ItemWork(history, 0, number, f"saved-{number}.bin")


def test_shard_is_written_whole_or_not_at_all(item: Callable[[int], ItemWork]) -> None:
    array = item(0).array("image")
    assert [array.region(i) for i in range(array.n_shards)] == array.shard_regions()
    for region in (
        (slice(0, 2), slice(0, 4)),
        (slice(0, 3), slice(2, 6)),
        (slice(1, 3), slice(0, 4)),
        (0, slice(0, 4)),
    ):
        with pytest.raises(ShapeError, match="whole shards"):
            array[region] = np.zeros((1, 1), np.int16)
    with pytest.raises(ShapeError, match="does not fill"):
        array[0:3, 0:4] = np.zeros((3, 3), np.int16)
    with pytest.raises(ShapeError, match="convert explicitly"):
        array[0:3, 0:4] = np.zeros((3, 4), np.float32)
    array[0:3] = np.arange(24, dtype=np.int16).reshape(3, 8)
    array[-3:, :4] = np.ones((3, 4), np.int16)


def test_block_of_zeros_is_written_too(item: Callable[[int], ItemWork], tmp_path: Path) -> None:
    work = item(0)
    work.array("image")[0:3, 0:4] = np.zeros((3, 4), np.int16)
    (shard,) = work.record([], 0.0).shards
    assert (tmp_path / shard.file).stat().st_size == shard.bytes > 0


def test_what_was_not_written_before_cannot_be_read(item: Callable[[int], ItemWork]) -> None:
    work = item(0)
    array = work.array("image")
    with pytest.raises(Unusable, match=r"image\.zarr/0/c/0/0 was not written before"):
        array[0:1, 0:1]
    array[0:3, 0:4] = np.full((3, 4), 7, np.int16)
    assert (array[0:3, 1:3] == 7).all()
    assert array[2, 3] == 7
    with pytest.raises(Unusable, match="not written"):
        array[0:3]


def test_two_items_that_write_one_shard_are_found(item: Callable[[int], ItemWork]) -> None:
    works = [item(number) for number in range(4)]
    for work in works[:2]:
        work.array("image")[0:3, 0:4] = np.ones((3, 4), np.int16)
    with pytest.raises(RuntimeError, match=r"image\.zarr/0/c/0/0 was written twice, the second time by item 1"):
        works[0]._history.add([work.record([], 0.0) for work in works])


def test_item_too_few_is_found(item: Callable[[int], ItemWork]) -> None:
    work = item(0)
    with pytest.raises(RuntimeError, match="round 0 is to do 4 items, not 1"):
        work._history.add([work.record([], 0.0)])


def test_array_whose_metadata_changed_is_refused(item: Callable[[int], ItemWork], tmp_path: Path) -> None:
    metadata = tmp_path / output_name("image") / "0" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"int16"', '"uint16"'))
    with pytest.raises(Unusable, match="removed or altered"):
        item(0).array("image")
    with pytest.raises(KeyError, match="no array 'other'"):
        item(0).array("other")


def test_saved_arrays_of_any_kind_come_back(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {
        "file": rng.random((3, 0, 2), dtype=np.float32),
        "allow_pickle": np.array(5),
        "text": np.array(["a", "bc"]),
        "big_endian": np.arange(4, dtype=">i4"),
        "bytes": np.frombuffer(b"abc", np.uint8),
    }
    first = append_arrays(tmp_path, "a/saved.bin", {"x": np.arange(3)})
    second = append_arrays(tmp_path, "a/saved.bin", arrays)
    assert second.offset == first.bytes
    again = load_arrays(tmp_path, second)
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)
    with pytest.raises(ShapeError, match="Python objects"):
        append_arrays(tmp_path, "b.bin", {"x": np.array([{}])})


def test_saving_is_deterministic(tmp_path: Path) -> None:
    saved = [append_arrays(tmp_path, f"{name}.bin", {"x": np.arange(5)}) for name in "ab"]
    assert saved[0].sha256 == saved[1].sha256


def test_item_saves_once(item: Callable[[int], ItemWork]) -> None:
    work = item(0)
    work.save(x=np.zeros(1))
    with pytest.raises(RuntimeError, match="saved twice"):
        work.save(x=np.zeros(1))


def test_log_tells_what_is_done_again(make: Callable[..., Setting], caplog: pytest.LogCaptureFixture) -> None:
    setting = make(1)
    setting.scatter("smooth", 1)
    shard = sorted((setting.work("smooth") / "shared.zarr/arrays/sums").rglob("c/*/*/*"))[0]
    flip(shard, 0)
    setting.record("smooth", 0, 0).unlink()
    with caplog.at_level(logging.INFO):
        setting.run("smooth", "part", 0, 0)
    assert "block 0 is done again: shared.zarr/arrays/sums/c/0/0/0 was altered: its checksum differs" in caplog.text
    assert "going on: 23 of 24 blocks were finished before" in caplog.text
