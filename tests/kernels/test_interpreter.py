"""Runs the tests of the Triton kernels in Triton's interpreter, where there is no GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_triton_kernels_agree_with_the_reference_in_the_interpreter(repository):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton, of the extra dev")
    triton, numpy = (Version(version(name)) for name in ("triton", "numpy"))
    if triton < Version("3.7") and numpy >= Version("2.4"):
        pytest.skip(f"the interpreter of triton {triton} cannot count loops with numpy {numpy}: needs triton 3.7")
    tests = sorted(str(path) for path in Path(__file__).parent.glob("test*_cuda.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    finished = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    print(finished.stdout, finished.stderr)
    assert finished.returncode == 0
    # a run that skipped everything would prove nothing
    passed = re.search(r"(\d+) passed", finished.stdout)
    assert passed is not None
    assert "skipped" not in finished.stdout
