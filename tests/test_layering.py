"""Which way imports may point: kernels and metrics know no files, science knows no config, no chain knows another."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "gigascope"
CHAINS = ("topography", "compression", "synthesis", "tomography")
# The modules of a chain that stand above its science: they declare stages, plan them, and connect config and stores.
SURFACE = {"stages", "plan", "raw", "source", "look"}
NUMERIC = {"torch", "triton", "numba", "llvmlite", "numpy", "scipy"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import, inside functions too; imports for type checkers do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["gigascope", *path.relative_to(PACKAGE).parent.parts]
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module in {"gigascope", ".".join(package)}:
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def room(module: str) -> str:
    """First part below gigascope: `gigascope.kernels.tv.op` is in `kernels`."""
    return (module.split(".") + [""])[1]


def allowed(path: Path) -> set[str]:
    """Rooms of gigascope that a file may import from."""
    parts = path.relative_to(PACKAGE).parts
    own, name = parts[0].removesuffix(".py"), path.stem
    rooms = {
        "errors": set(),
        "kernels": {"kernels", "errors"},
        "metrics": {"metrics", "kernels", "errors"},
        "config": {"config", "errors"},
        "store": {"store", "errors"},
        "parallel": {"errors"},
        "learning": {"learning", "store", "errors"},
        "stage": {"config", "errors", "stage", "runtime"},
        "registry": {"stage", "errors"},
        # the jobs of a scattered stage hand their items to workers
        "runtime": {"runtime", "store", "config", "stage", "registry", "parallel", "errors"},
    }
    if own in rooms:
        return rooms[own]
    science = {own, "kernels", "metrics", "learning", "store", "errors"}
    if own in CHAINS:
        return science | {"runtime", "config", "stage"} if name in SURFACE else science
    if own == "report":
        # The page of a chain may use that chain's own mathematics.
        return {"report", "store", "metrics", "errors", "config", "stage", "runtime", name.split("_")[0]}
    return {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir()}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_imports_point_one_way(path: Path) -> None:
    may = allowed(path)
    numeric_only = path.relative_to(PACKAGE).parts[0] in {"kernels", "metrics"}
    wrong = []
    for line, module in imports(path):
        top = module.split(".")[0]
        if top == "gigascope":
            fine = room(module) in may | {""}
        else:
            fine = not numeric_only or top in NUMERIC | sys.stdlib_module_names
        if not fine:
            wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", ["gigascope.cli", "gigascope.workflow", "gigascope.registry"])
def test_what_only_plans_does_not_import_torch(module: str) -> None:
    code = (
        f"import sys, {module}; from gigascope.registry import stages; stages(); "
        "print(*sorted({'torch', 'numba', 'zarr', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_modules_and_functions_stay_short() -> None:
    long = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            long.append(f"{path.relative_to(PACKAGE)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.body[0].lineno + 1
                if length > 60:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {length} lines")
    assert not long, "\n".join(long)
