"""What is seen of running stages from outside, by the files that they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gigascope.runtime import lock
from gigascope.runtime.opened import Opened
from gigascope.runtime.parts import WorkPlan
from gigascope.runtime.progress import Progress
from gigascope.runtime.watching import unfinished


def progress(folder: Path, *counts: tuple[int, int, float], what: str = "joint alignment") -> None:
    """Entries (done, total, seconds) as :class:`Progress` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "progress.jsonl").open("a") as file:
        for done, of, seconds in counts:
            entry = {"time": time.time() - 5, "what": what, "unit": "update", "done": done, "total": of}
            file.write(json.dumps({**entry, "seconds": seconds, "note": "error 0.2"}) + "\n")


def test_whole_stage_with_its_rate_and_its_holder(tmp_path: Path) -> None:
    folder = tmp_path / "cell" / "tomography.reconstruct-0123abcd"
    # an earlier loop, an earlier attempt of this one, and this attempt: 10 updates in 20 s
    progress(folder, (9, 9, 3.0), what="reading")
    progress(folder, (3, 40, 50.0), (10, 40, 90.0))
    progress(folder, (11, 40, 2.0), (21, 40, 22.0))
    with (folder / "progress.jsonl").open("a") as file:
        file.write('{"time": 17')
    with lock.held(folder):
        (work,) = unfinished(tmp_path)
    assert (work.dataset, work.stage) == ("cell", "tomography.reconstruct")
    (sign,) = work.living
    assert (sign.what, sign.done, sign.total, sign.note) == ("joint alignment", 21, 40, "error 0.2")
    assert f"process {os.getpid()} on" in sign.holder
    assert work.share == pytest.approx(21 / 40)
    assert work.remaining_s == pytest.approx(19 * 2.0)
    assert 4 < sign.silent_s < 30


def test_progress_itself_is_what_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "cell" / "toy.ingest-1"
    folder.mkdir(parents=True)
    loop = iter(Progress(folder / "progress.jsonl", bar=False)(range(4), what="reading", unit="file"))
    next(loop)
    next(loop)
    (work,) = unfinished(tmp_path)
    assert [(s.what, s.done, s.total) for s in work.signs] == [("reading", 1, 4)]


def test_stage_whose_process_is_gone_is_not_at_work(tmp_path: Path) -> None:
    folder = tmp_path / "cell" / "tomography.reconstruct-0123abcd"
    progress(folder, (1, 40, 1.0), (2, 40, 2.0))
    script = "import sys, pathlib, os\nfrom gigascope.runtime import lock\n"
    script += "with lock.held(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert (folder / "lock").exists()
    (work,) = unfinished(tmp_path)
    assert work.living == ()
    assert work.remaining_s is None
    assert work.share == pytest.approx(2 / 40)


def test_parts_count_together(tmp_path: Path) -> None:
    folder = tmp_path / "brain" / "compression.fit-77"
    folder.mkdir(parents=True)
    Opened(WorkPlan([range(10), range(10)])).write(folder)
    for part, n_done, seconds in ((0, 4, 8.0), (1, 2, 8.0)):
        home = folder / f"round-0.part-{part}"
        progress(home, (0, 5, 0.0), (n_done, 5, seconds), what=f"round 1/2, part {part + 1}/2")
        (home / "items.jsonl").write_text("{}\n" * n_done)
    with lock.held(folder / "round-0.part-0"), lock.held(folder / "round-0.part-1"):
        (work,) = unfinished(tmp_path)
    assert (work.done, work.total, len(work.living)) == (6, 20, 2)
    # 14 items are left, at 2 and 4 s each, by two processes
    assert work.remaining_s == pytest.approx(14 * 3.0 / 2)


def test_nothing_there_and_other_folders(tmp_path: Path) -> None:
    assert unfinished(tmp_path / "scratch") == []
    (tmp_path / "cell" / "compression.fit.records").mkdir(parents=True)
    (tmp_path / "cell" / "notes-from-me").mkdir()
    assert unfinished(tmp_path) == []
