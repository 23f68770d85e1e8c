"""Fingerprint of a stage's code: its functions, and every gigascope module that they import, directly or not.

Comments, docstrings and formatting do not count (the syntax tree is hashed); line ends, file times and neighbouring
stages in the same module do not count either. Imports are read from the source, inside functions too, so nothing has to
be imported to know them: code must reach code by `import` statements, never by module names in strings.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gigascope
from gigascope.runtime.source_cache import SourceCache, beside

# Runs every stage, and is handed to it rather than imported by it.
RUNTIME = "gigascope.runtime.context"
# Likewise for a scattered stage, which has several functions.
SCATTERED = "gigascope.runtime.shared_work"
# Draw progress bars and look at processes: another version of them changes no result.
NOT_COUNTED = {"rich", "psutil"}


@dataclass(frozen=True)
class Fingerprint:
    """Digest of a stage's code, the modules it was taken over, and the versions of the packages they import."""

    code: str
    modules: dict[str, str]
    packages: dict[str, str]


@functools.cache
def fingerprint(*functions: Callable[..., Any]) -> Fingerprint:
    """Fingerprint of the functions of one stage; see the module's description."""
    own = []
    todo = [RUNTIME, *([SCATTERED] if len(functions) > 1 else [])]
    for function in functions:
        tree = _tree(Path(inspect.getfile(function)).read_text(encoding="utf-8"))
        text, imports = _function_closure(tree, function.__name__, function.__module__)
        own.append(text)
        todo += imports
    modules: dict[str, str] = {}
    external: set[str] = set()
    while todo:
        name = todo.pop()
        # The package's own root holds the version and nothing that computes.
        if name in modules or name in external or name == "gigascope":
            continue
        if name.split(".")[0] != "gigascope":
            external.add(name.split(".")[0])
            continue
        digest, further = _module(name)
        modules[name] = digest
        todo.extend(further)
    versions = _versions(external)
    _kept().save()
    total = hashlib.sha256("\n".join(own).encode())
    for name in sorted(modules):
        total.update(f"{name}={modules[name]}\n".encode())
    return Fingerprint(total.hexdigest()[:16], dict(sorted(modules.items())), versions)


@functools.cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Digest of one module's syntax tree, and what it imports."""
    path = _source(name)
    if path is None:
        raise ModuleNotFoundError(f"no source for {name}")
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    text = path.read_text(encoding="utf-8")
    found = _kept().get(name, package + "\n" + text)
    if found is None:
        tree = _strip(ast.parse(text))
        found = [hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16], [*_named(tree, package)]]
        _kept().put(name, package + "\n" + text, found)
    digest, named = found
    return digest, tuple(sorted({*_modules(named), *_parents(name)}))


@functools.cache
def _kept() -> SourceCache:
    """Digests and imports of modules whose text was read before."""
    return SourceCache(beside(Path(__file__)), Path(__file__).read_text(encoding="utf-8"))


@functools.cache
def _tree(text: str) -> ast.Module:
    """Syntax of a module that declares stages, of which several are asked for."""
    return _strip(ast.parse(text))


@functools.cache
def _source(name: str) -> Path | None:
    base = Path(gigascope.__file__).parent.joinpath(*name.split(".")[1:])
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(2, len(parts))]


def _strip(tree: ast.Module) -> ast.Module:
    """Remove docstrings and blocks that only type checkers read."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        documented = isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if documented and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            del body[0]
        body[:] = [n for n in body if not (isinstance(n, ast.If) and _is_type_checking(n.test))]
    return tree


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _named(tree: ast.AST, package: str) -> Iterator[tuple[str, list[str]]]:
    """What a tree imports, in absolute names: modules, and the names that are taken from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            if base.split(".")[0] != "__future__":
                yield base, [alias.name for alias in node.names]


def _modules(named: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The modules among them; `from p import m` names `p.m` where that is a module now."""
    for base, names in named:
        yield base
        for name in names:
            if base.startswith("gigascope") and _source(f"{base}.{name}") is not None:
                yield f"{base}.{name}"


def _function_closure(tree: ast.Module, name: str, module: str) -> tuple[str, list[str]]:
    """Syntax of a function and of what it uses of its own module, and the modules that these import.

    Decorators and annotations are left out: they declare the stage, they do not compute.
    """
    package = module.rpartition(".")[0]
    definitions: dict[str, ast.stmt] = {}
    imported: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            definitions.update({t.id: node for t in targets if isinstance(t, ast.Name)})
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported.update({(a.asname or a.name).split(".")[0]: node for a in node.names})
    used: dict[str, ast.stmt] = {}
    todo = [name]
    while todo:
        current = todo.pop()
        if current in used or not (current in definitions or current in imported):
            continue
        node = used[current] = definitions.get(current) or imported[current]
        computing = node.body if isinstance(node, ast.FunctionDef) else [node]
        todo.extend(n.id for part in computing for n in ast.walk(part) if isinstance(n, ast.Name))
    dumped: list[str] = []
    modules: list[str] = []
    for key in sorted(used):
        node = used[key]
        if isinstance(node, ast.FunctionDef):
            dumped.append(ast.dump(node.args) + "".join(map(ast.dump, node.body)))
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            dumped.append(ast.dump(node))
        modules.extend(_modules(_named(node, package)))
    return "\n".join(dumped), modules


def _versions(names: set[str]) -> dict[str, str]:
    """Installed versions of the distributions behind top-level module names; the standard library is left out."""
    found = {}
    for name in sorted(names - NOT_COUNTED - set(sys.stdlib_module_names)):
        for distribution in _distributions().get(name, []):
            # `2.13.0+cpu` and `2.13.0+cu130` are builds of one version: a plan made on a login node runs on a GPU node.
            found[distribution] = _version(distribution).partition("+")[0]
    return found


_version = functools.cache(importlib.metadata.version)


@functools.cache
def _distributions() -> dict[str, list[str]]:
    """Distributions by top-level module. To read the lists of their files takes longer than all else of a plan."""
    folders = (Path(entry) for entry in sys.path)
    installed = "\n".join(sorted(path.name for folder in folders for path in folder.glob("*.*-info")))
    found: dict[str, list[str]] | None = _kept().get("installed packages", installed)
    if found is None:
        read = importlib.metadata.packages_distributions()
        found = {name: sorted(set(distributions)) for name, distributions in read.items()}
        _kept().put("installed packages", installed, found)
    return found
