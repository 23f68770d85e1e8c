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


def _load_builder(file: str) -> ModuleType:
    name = f"gigascope_tests_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build_result() -> Callable[..., object]:
    """`tests/build.py`'s builder of result folders."""
    return _load_builder("build.py").build_result


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


@pytest.fixture(scope="session")
def build_compression() -> Callable[..., object]:
    """`tests/build_compression.py`'s builder of result folders."""
    return _load_builder("build_compression.py").build_compression


@pytest.fixture(scope="session")
def compressed(build_compression, tmp_path_factory):
    """A simulated volume with a decoded one; a warning that needs escaping."""
    folder = tmp_path_factory.mktemp("results") / "cell <42> & co"
    return build_compression(folder, warnings=('look at <b>voxel 3</b> & "others"',))


@pytest.fixture(scope="session")
def channels(build_compression, tmp_path_factory):
    """Two channels of a volume without a known truth, not decoded."""
    folder = tmp_path_factory.mktemp("results") / "channels"
    return build_compression(folder, n_channels=2, simulated=False, decoded=False, codecs=("sperr",), seed=3)


@pytest.fixture(scope="session")
def compression_result_of():
    """Reads a result folder as the report stage does."""
    from gigascope.report.compression_result import TABLES, CompressionResult, load
    from gigascope.store.open import open_store

    def read(made) -> CompressionResult:
        paths = made.paths()
        stores = {name: open_store(path) for name, path in paths.items() if path.suffix == ".zarr"}
        tables = {name: paths[name] for name in TABLES}
        return load(made.folder.name, stores, paths["gmix"], paths["metrics"], tables)

    return read


@pytest.fixture(scope="session")
def evaluated_topography(mosaicked, evaluate_topography):
    """A simulated acquisition with a made-up training and a real evaluation; a warning that needs escaping."""
    return evaluate_topography(mosaicked)


@pytest.fixture(scope="session")
def evaluated_stack(focus_stack, evaluate_topography):
    """Pictures of one camera, evaluated."""
    return evaluate_topography(focus_stack)


@pytest.fixture(scope="session")
def topography_result_of():
    """Reads a result folder as the report stage does."""
    from gigascope.report.topography_result import STORES, TABLES, TopographyResult, load
    from gigascope.store.open import open_store

    def read(made) -> TopographyResult:
        paths = made.paths()
        stores = {name: open_store(path) for name, path in paths.items() if name in STORES}
        return load(made.folder.name, stores, paths["metrics"], {name: paths[name] for name in TABLES})

    return read


@pytest.fixture(scope="session")
def evaluate_cultures() -> Callable[..., Path]:
    """Small cultures of balls, with what there is besides, evaluated: a results folder."""
    from gigascope.runtime.run import run_stage

    scenes = _load_builder("synthesis/evaluation/scenes.py")

    def build(folder: Path, training: bool = False, **kinds: object) -> Path:
        folder.mkdir(parents=True)
        stores = scenes.write_stores(folder, **kinds)
        config = scenes.write_config(folder, parity="real" in stores)
        run_stage("synthesis.evaluate", config, stores, scenes.outputs(folder))
        if training:
            scenes.write_training(folder / "training.zarr")
        return folder

    return build


@pytest.fixture(scope="session")
def evaluated_cultures(evaluate_cultures, tmp_path_factory):
    """Simulated, adapted and real images; a warning that needs escaping."""
    folder = tmp_path_factory.mktemp("results") / "balls <7> & co"
    return evaluate_cultures(folder, training=True, warnings=('look at <b>nucleus 3</b> & "others"',))


@pytest.fixture(scope="session")
def simulated_cultures(evaluate_cultures, tmp_path_factory):
    """Simulated images alone."""
    return evaluate_cultures(tmp_path_factory.mktemp("results") / "alone", real=False, adapted=False, n=1)


@pytest.fixture(scope="session")
def synthesis_result_of():
    """Reads a result folder as the report stage does."""
    from gigascope.report.synthesis_result import STORES, TABLES, SynthesisResult, load
    from gigascope.store.open import open_store

    def read(folder: Path) -> SynthesisResult:
        stores = {n: open_store(p) for n in STORES if (p := folder / f"{n}.zarr").exists()}
        tables = {n: folder / f"{n}.tsv" for n in TABLES}
        return load(folder.name, stores, folder / "metrics.json", tables)

    return read
