"""A toy chain with scattered stages, for tests of the mechanism without any science.

`tests/toy/chain` becomes the package `gigascope.toy`: in this process by :func:`installed`, in a copy of the repository
by :func:`install`, which also adds the rules.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gigascope
from gigascope import registry
from gigascope.config import dataset
from gigascope.runtime import fingerprint
from gigascope.stage import DECLARED

HERE = Path(__file__).parent
MODULE = "gigascope.toy.stages"

YAML = """\
pipeline: toy
name: {name}
seed: 5
smooth: {{parts: {parts}}}
pick: {{parts: {parts}, sweeps: {sweeps}}}
"""

_REGISTRY = '\nMODULES["toy"] = ("gigascope.toy.stages",)\n'
# `config/dataset.py` is what every dataset is read with, so that the toy's model has to be known by then.
_DATASET = """

from gigascope.toy import config as _toy  # noqa: E402, F401
"""
_CHECK = '\nPLANS["toy"] = "gigascope.toy.plan"\n'
_SUMMARY = '\nHEADLINES["toy"] = ()\n'


@contextmanager
def installed() -> Iterator[None]:
    """The toy chain as `gigascope.toy` of this process."""
    package = HERE / "chain"
    spec = importlib.util.spec_from_file_location(
        "gigascope.toy", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["gigascope.toy"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gigascope.toy = module  # type: ignore[attr-defined]
    registry.MODULES["toy"] = (MODULE,)
    importlib.import_module(MODULE)
    before, fingerprint._source = fingerprint._source, _source(fingerprint._source)  # type: ignore[assignment]
    try:
        yield
    finally:
        fingerprint._source = before
        fingerprint.fingerprint.cache_clear()
        fingerprint._module.cache_clear()
        del registry.MODULES["toy"], dataset.PIPELINES["toy"], gigascope.toy  # type: ignore[attr-defined]
        for name in [n for n in sys.modules if n.split(".")[:2] == ["gigascope", "toy"]]:
            del sys.modules[name]
        for name in [n for n in DECLARED if n.startswith("toy.")]:
            del DECLARED[name]


def _source(before: object) -> object:
    def source(name: str) -> Path | None:
        if name.split(".")[:2] == ["gigascope", "toy"]:
            path = HERE / "chain" / f"{(name.split('.') + ['__init__'])[2]}.py"
            return path if path.is_file() else None
        return before(name)  # type: ignore[operator]

    return source


def install(root: Path) -> None:
    """Add the toy chain, its rules too, to a copy of the repository."""
    package = root / "src" / "gigascope"
    shutil.copytree(HERE / "chain", package / "toy", dirs_exist_ok=True)
    for file, text in (
        ("registry.py", _REGISTRY),
        ("config/dataset.py", _DATASET),
        ("check.py", _CHECK),
        ("workflow_summary.py", _SUMMARY),
    ):
        with (package / file).open("a") as opened:
            opened.write(text)
    shutil.copy(HERE / "toy.smk", root / "workflow" / "rules" / "toy.smk")
    snakefile = root / "Snakefile"
    anchor = 'include: "workflow/rules/common.smk"\n'
    text = snakefile.read_text()
    assert anchor in text
    snakefile.write_text(text.replace(anchor, anchor + 'include: "workflow/rules/toy.smk"\n'))
