"""A complete made-up result, built once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def _load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gigascope_tests_build", Path(__file__).parents[1] / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build_result() -> Callable[..., object]:
    """`tests/build.py`'s builder of result folders."""
    return _load_builder().build_result


@pytest.fixture(scope="session")
def made(build_result, tmp_path_factory):
    """A simulated object with halves; one warning that needs escaping."""
    folder = tmp_path_factory.mktemp("results") / "cell <42> & co"
    return build_result(folder, size=72, n_tilts=15, warnings=('look at <b>view 3</b> & "others"',))


@pytest.fixture(scope="session")
def measured(build_result, tmp_path_factory):
    """A section without truth and without halves, views not sorted by tilt."""
    return build_result(
        tmp_path_factory.mktemp("results") / "section",
        size=72,
        n_tilts=15,
        kind="section",
        simulated=False,
        halves=False,
    )
