"""Kernels of numba and PyTorch beside each other: neither takes the other's number of threads over."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import numpy as np
import torch
from gigascope.kernels.filters import gaussian
import numba

before = torch.get_num_threads()
gaussian(torch.ones((8, 64, 64)), 1.5)
print(before, torch.get_num_threads(), numba.get_num_threads())
"""


@pytest.mark.parametrize(("omp", "numba"), [("1", None), ("1", 2), ("2", 1), ("2", None), ("2,1", None)])
def test_each_keeps_its_number(omp: str, numba: int | None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"OMP_NUM_THREADS": omp} | ({} if numba is None else {"NUMBA_NUM_THREADS": str(numba)})
    run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    n = omp.split(",")[0]
    assert run.stdout.split() == [n, n, str(numba or n)]
