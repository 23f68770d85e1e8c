"""The fingerprint changes with what a stage computes, and with nothing else."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gigascope.registry import stages
from gigascope.runtime import fingerprint as module
from gigascope.runtime.source_cache import SourceCache

STAGES = '''
"""Stages."""
from gigascope.toy_config import Section

FACTOR = 2


def helper(x):
    return FACTOR * x


def one(ctx, cfg: Section):
    """Doc."""
    from gigascope import toy_science

    return toy_science.f(helper(1))  # a comment


def two(ctx, cfg):
    import numpy

    return numpy.pi
'''
SCIENCE = '''
"""Science."""
from gigascope.toy_kernel import g


def f(x):
    """Twice."""
    return g(x)
'''
KERNEL = "def g(x):\n    return x * 0.5\n"
CONTEXT = "def run():\n    pass\n"
FILES = {
    "toy_stages": STAGES,
    "toy_science": SCIENCE,
    "toy_kernel": KERNEL,
    "toy_config": "class Section:\n    pass\n",
    "toy_context": CONTEXT,
}
Digest = Callable[..., "module.Fingerprint"]


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Digest]:
    """Writes the toy package with edits `file=(old, new)` and returns the fingerprint of a stage."""
    monkeypatch.setattr(module, "RUNTIME", "gigascope.toy_context")

    def source(name: str) -> Path | None:
        path = tmp_path / f"{name.removeprefix('gigascope.')}.py"
        return path if path.is_file() else None

    monkeypatch.setattr(module, "_source", source)

    def of(stage: str = "one", maker: str = "", **edits: tuple[str, str]) -> module.Fingerprint:
        # as in a process of its own
        kept = SourceCache(tmp_path / "kept" / "digests.json", maker)
        monkeypatch.setattr(module, "_kept", lambda: kept)
        for name, text in FILES.items():
            old, new = edits.get(name, ("", ""))
            assert old in text
            (tmp_path / f"{name}.py").write_text(text.replace(old, new, 1) if old else text)
        module.fingerprint.cache_clear()
        module._module.cache_clear()
        module._tree.cache_clear()
        spec = importlib.util.spec_from_file_location("gigascope.toy_stages", tmp_path / "toy_stages.py")
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        # only the names are needed: the import of the toy config must not run
        text = (tmp_path / "toy_stages.py").read_text()
        exec(
            compile(
                text.replace("from gigascope.toy_config import Section", "Section = None"),
                str(tmp_path / "toy_stages.py"),
                "exec",
            ),
            loaded.__dict__,
        )
        sys.modules.pop("gigascope.toy_stages", None)
        return module.fingerprint(getattr(loaded, stage))

    yield of
    module.fingerprint.cache_clear()
    module._module.cache_clear()


@pytest.mark.parametrize(
    "edit",
    [
        {"toy_kernel": ("0.5", "0.25")},
        {"toy_science": ("g(x)\n", "g(x) + 1\n")},
        {"toy_stages": ("FACTOR = 2", "FACTOR = 3")},
        {"toy_stages": ("helper(1)", "helper(2)")},
        {"toy_context": ("pass", "return 1")},
    ],
)
def test_change_of_what_the_stage_runs_changes_its_fingerprint(
    digest: Digest, edit: dict[str, tuple[str, str]]
) -> None:
    assert digest().code != digest(**edit).code


@pytest.mark.parametrize(
    "edit",
    [
        {"toy_stages": ("# a comment", "# another")},
        {"toy_stages": ('"""Doc."""', '"""Other words."""')},
        {"toy_science": ('"""Twice."""', '"""Two times."""')},
        {"toy_stages": ("numpy.pi", "numpy.e")},
        {"toy_kernel": ("x * 0.5", "(x  *  0.5)")},
        {"toy_config": ("pass", "x = 1")},
    ],
)
def test_words_and_neighbours_do_not_change_it(digest: Digest, edit: dict[str, tuple[str, str]]) -> None:
    assert digest().code == digest(**edit).code


def test_module_that_appears_under_an_imported_name_is_counted(digest: Digest, tmp_path: Path) -> None:
    """Nothing that imports it has another text than before."""
    taken = {"toy_kernel": ("def g", "from gigascope import toy_late\n\n\ndef g")}
    before = digest(**taken)
    (tmp_path / "toy_late.py").write_text("x = 1\n")
    after = digest(**taken)
    assert set(after.modules) - set(before.modules) == {"gigascope.toy_late"}
    assert before.code != after.code


def test_source_is_read_once_and_what_is_kept_counts_for_its_text_alone(
    digest: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    kept, strip = tmp_path / "kept" / "digests.json", module._strip
    monkeypatch.setattr(module, "_strip", lambda tree: read.append("") or strip(tree))

    def n_read(maker: str, **edits: tuple[str, str]) -> tuple[module.Fingerprint, int]:
        read.clear()
        return digest(maker=maker, **edits), len(read)

    first, n = n_read("one")
    # the stage's own module, and three that it imports
    assert n == 4
    assert n_read("one") == (first, 1)
    other, n = n_read("one", toy_kernel=("0.5", "0.25"))
    assert other != first
    assert n == 2
    assert n_read("another") == (first, 4)
    kept.write_text(kept.read_text()[:-9])
    assert n_read("another") == (first, 4)
    assert list(kept.parent.iterdir()) == [kept]


def test_packages_are_those_the_stage_imports(digest: Digest) -> None:
    assert set(digest("two").packages) == {"numpy"}
    assert digest("one").packages == {}


def test_every_declared_stage_has_a_fingerprint_over_its_science() -> None:
    for stage in stages():
        found = module.fingerprint(stage.function)
        assert "gigascope.runtime.context" in found.modules
        assert len(found.code) == 16


def test_no_module_is_reached_by_a_name_in_a_string(repository: Path) -> None:
    """The closure is read from import statements; `importlib.import_module` would hide code from it."""
    above = {"cli.py", "check.py", "init.py", "registry.py", "workflow.py"}
    hidden = [
        str(path)
        for path in (repository / "src" / "gigascope").rglob("*.py")
        if path.name not in above and ("import_module(" in path.read_text() or "__import__(" in path.read_text())
    ]
    assert hidden == []
