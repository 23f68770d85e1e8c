"""A complete made-up result, built once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# pytest imports the tests as single files; this lets them share `html_check`.
sys.path.insert(0, str(Path(__file__).parent))


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


@pytest.fixture(scope="session")
def result_of():
    """Reads a result folder as the report stage does."""
    from gigascope.report.tomography_result import TomographyResult, load
    from gigascope.store.open import open_store

    def read(made) -> TomographyResult:
        names = ("tilt_series", "prealigned", "tomogram", "aligned", "halves")
        files = {"history": "history.tsv", "metrics": "metrics.json", "fsc": "fsc.tsv", "frc_views": "frc_views.tsv"}
        return load(
            made.folder.name,
            {name: open_store(path) for name in names if (path := made.folder / f"{name}.zarr").exists()},
            **{name: made.folder / file for name, file in files.items()},
        )

    return read
