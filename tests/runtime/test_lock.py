"""One scratch folder, one process at work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gigascope.errors import UserError
from gigascope.runtime import lock


def test_second_process_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\nfrom gigascope.runtime import lock\n"
        "with lock.held(pathlib.Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == "in"
        with pytest.raises(UserError, match=f"process {first.pid} on"), lock.held(tmp_path, wait_s=0.2):
            pass
        first.kill()
        first.wait()
    with lock.held(tmp_path, wait_s=0.2):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_lock_is_gone_afterwards(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_silent_holder_on_another_host_is_taken_over_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": socket.gethostname() + "-other", "pid": 1, "job": "7", "start": 0}))
    with pytest.raises(UserError, match="job 7"), lock.held(tmp_path, wait_s=0.1):
        pass
    silent = time.time() - lock.SILENT_S - 1
    os.utime(path, (silent, silent))
    with lock.held(tmp_path, wait_s=0.1):
        pass
