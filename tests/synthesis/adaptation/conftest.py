"""One thread for these tests: their images are so small that two threads take eight times as long on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


# Of each module, not of the package: tests of other packages run between those of this one.
@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
