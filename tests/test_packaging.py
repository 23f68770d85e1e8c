"""pyproject.toml, requirements.lock and envs/ agree, and everything that is optional can be installed."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IN_LOCK = ("cpu", "slurm", "dev")


def pins(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by canonical name; each has to be an exact version."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        assert re.fullmatch(r"==[0-9][^*,]*", str(requirement.specifier)), f"{line} is not an exact version"
        name = canonicalize_name(requirement.name)
        assert name not in found, f"{name} is pinned twice"
        found[name] = requirement
    return found


def lock() -> dict[str, Requirement]:
    """Pins of requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if line and not line.startswith("#")])


def environment(name: str) -> dict[str, Requirement]:
    """Pins of a conda environment's pip section."""
    values = YAML(typ="safe").load((ROOT / "envs" / f"{name}.yaml").read_text())
    return pins(next(entry["pip"] for entry in values["dependencies"] if isinstance(entry, dict)))


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def version(pin: Requirement) -> str:
    """The exact version of a pin."""
    return next(iter(pin.specifier)).version


def test_lock_satisfies_pyproject() -> None:
    locked = lock()
    for requirement in wanted(*IN_LOCK):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is missing: run `make lock`"
        assert requirement.specifier.contains(version(locked[name])), f"{requirement}: {locked[name]}"


def test_lock_holds_for_every_build_of_torch() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked = lock()
    assert version(locked["torch"]) == "2.13.0"
    # What the CUDA build of torch 2.13.0 asks for exactly.
    assert version(locked["triton"]) == "3.7.1"
    assert "dask-cuda" not in locked
    assert "faiss-gpu" not in locked
    for word in ("--hash", "--index-url", "--find-links", "://"):
        assert word not in text


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_conda_environment_has_the_pins_of_the_lock(name: str) -> None:
    locked, written = lock(), environment(name)
    shared = written.keys() & locked.keys()
    different = [f"{written[n]}, lock {locked[n]}" for n in shared if written[n].specifier != locked[n].specifier]
    assert not different, "\n".join(different)
    for requirement in wanted(name, "slurm"):
        assert canonicalize_name(requirement.name) in written, f"{requirement} is missing: run `make envs`"
    other = {"cpu": "faiss-gpu", "gpu": "faiss-cpu"}[name]
    assert other not in written, "two wheels of faiss overwrite each other"


def test_installed_versions_are_those_of_the_lock() -> None:
    if not (ROOT / ".venv" / "installed").is_file() or not Path(sys.prefix).samefile(ROOT / ".venv"):
        pytest.skip("these tests do not run in the environment that `make setup` makes")
    for name, pin in lock().items():
        if pin.marker is None or pin.marker.evaluate():
            assert pin.specifier.contains(importlib.metadata.version(name), prereleases=True), pin


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_gpu_extra_resolves_beside_the_lock(tmp_path: Path) -> None:
    # Nothing is installed. faiss-cpu is left out of the constraints: it and faiss-gpu are never installed together.
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for name, pin in lock().items() if name != "faiss-cpu"))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"]
    command += ["--no-build-isolation", "--constraint", str(constraints), "--report", str(tmp_path / "report.json")]
    run = subprocess.run([*command, *map(str, wanted("gpu"))], capture_output=True, text=True, check=False)
    if run.returncode and re.search(r"Temporary failure|Connection|No route|Max retries|timed out", run.stderr):
        pytest.skip("no package index can be reached: connect to a network to run this test")
    assert run.returncode == 0, run.stderr[-3000:]
    chosen = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in json.loads((tmp_path / "report.json").read_text())["install"]
    }
    assert {"faiss-gpu", "dask-cuda"} <= chosen.keys()
    written = environment("gpu")
    assert all(version(written[name]) == found for name, found in chosen.items() if name in written)


def test_container_recipe_installs_what_the_lock_pins() -> None:
    """Read, not built: the files that it copies are there, the Python is that of envs/, the versions are the lock's."""
    recipe = (ROOT / "envs" / "apptainer.def").read_text()
    copied = re.search(r"^%files\n((?: +\S+ \S+\n)+)", recipe, re.MULTILINE)
    assert copied is not None
    for line in copied[1].splitlines():
        source, target = line.split()
        assert (ROOT / source).exists()
        assert target == f"/opt/gigascope/{source}"
    python = re.search(r"^From: python:(\d+\.\d+)", recipe, re.MULTILINE)
    assert python is not None
    assert f"- python={python[1]}\n" in (ROOT / "envs" / "cpu.yaml").read_text()
    assert "--requirement /opt/gigascope/requirements.lock" in recipe
