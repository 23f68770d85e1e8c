"""The collector is out of the way while libraries load, and as it was when data is worked on."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc
from gigascope.runtime import collector

usual = gc.get_threshold()
collector.collect_as_usual()
print(gc.get_threshold() == usual, gc.get_freeze_count())
collector.collect_rarely()
collector.collect_rarely()
print(gc.get_threshold()[0] > 100 * usual[0])
collector.collect_as_usual()
print(gc.get_threshold() == usual, gc.get_freeze_count() > 1000)
"""


def test_thresholds_come_back_and_what_is_loaded_is_left_alone() -> None:
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "0", "True", "True", "True"]
