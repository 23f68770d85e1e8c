"""A copy of the repository in which a test runs the real Snakemake, and reads what it plans."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba.core.caching import _CacheLocator

from ..preloaded import preloaded

REPOSITORY = Path(__file__).resolve().parents[2]
# `src` goes with its __pycache__: what numba compiled is taken over, not compiled again.
PARTS = ("Snakefile", "workflow", "profiles", "local", "slurm", "envs", "src", "README.md", "config/config.yaml")
BIN = Path(sys.executable).parent
WILDCARDS = ("dataset", "stage", "round", "part")

TINY = """\
pipeline: tomography
name: {name}
inputs:
  phantom: {{kind: object, n_tilts: 9, size_px: 48, snr: 4.0, shift_sigma_px: 1.0, drift: false}}
reconstruct:
  thickness_nm: 24
  iterations: 10
  align: {{outer: 2, inner: 1, groups: 2}}
halves:
  enabled: {halves}
"""
# Four bricks, and little to do in each.
TINY_VOLUME = """\
pipeline: compression
name: {name}
inputs:
  phantom: {{shape: [24, 64, 64]}}
gate: {{mode: intensity}}
fit:
  brick: [16, 32, 64]
  halo: 8
  iterations: 20
  sweeps: 0
  parts: {parts}
decode: {{enabled: {decode}}}
evaluate: {{codecs: [jpeg2000], rates: 1}}
"""
# Eight views of 192 pixels, and what takes time left out.
TINY_STACKS = """\
pipeline: topography
name: {name}
inputs: {{instrument: {{preset: XS}}}}
ingest: {{chunk_px: 32}}
train: {{method: focus}}
infer: {{parts: {parts}}}
evaluate: {{estimators: []}}
"""
# A handful of nuclei, and a training of two steps.
TINY_CULTURES = """
pipeline: synthesis
name: {name}
{inputs}
phantoms: {{n_spheroids: 2, region: {{semi_axes_um: [14]}}}}
simulate: {{preset: fast, parts: {parts}, grid: {{output_voxel_um: [1.5, 1.0, 1.0]}}}}
evaluate: {{bootstrap: 5, max_tiles: 4, patches: 200, tile: [8, 16, 16]}}
train: {{width: 4, blocks: 0, crop: [8, 16, 16], discriminator: pixel, batch: 1, steps: 2}}
"""
COMPRESSION = ("ingest", "gate", "fit", "decode", "evaluate", "report")


@dataclass(frozen=True, order=True)
class Job:
    """A planned job: its rule and wildcards."""

    rule: str
    dataset: str = ""
    stage: str = ""
    round: str = ""
    part: str = ""


class Checkout:
    """A working copy with datasets of its own; the package is imported from its `src`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def make(cls, root: Path, datasets: dict[str, str]) -> Checkout:
        """Copy the repository's workflow and package, and write dataset files (text by name)."""
        for part in PARTS:
            source, target = REPOSITORY / part, root / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy2(source, target, follow_symlinks=False)
        _take_over_machine_code(REPOSITORY, root)
        checkout = cls(root)
        (root / "config" / "datasets").mkdir()
        for name, text in datasets.items():
            checkout.dataset(name).write_text(text)
        return checkout

    def clone(self, root: Path) -> Checkout:
        """Everything as it is here, results and Snakemake's records too, with the file times."""
        shutil.copytree(self.root, root, symlinks=True)
        _take_over_machine_code(self.root, root)
        return Checkout(root)

    def dataset(self, name: str) -> Path:
        """The dataset's YAML."""
        return self.root / "config" / "datasets" / f"{name}.yaml"

    def result(self, path: str) -> Path:
        """A file below the results folder."""
        return self.root / "results" / path

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process that uses this copy's package."""
        path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
        before = os.environ.get("PYTHONPATH")
        modules = os.pathsep.join([str(self.root / "src"), *([before] if before else [])])
        return {**os.environ, "PATH": path, "PYTHONPATH": modules}

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own, output and errors in one pipe."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Exit code and output of a command that was run to its end."""
        process = self.start(*command, **environment)
        output, _ = process.communicate(timeout=2000)
        return process.returncode, output

    def run_preloaded(self, *command: str, **environment: str) -> tuple[int, str]:
        """The same of `snakemake` or `gigascope`; it, and the stages that it starts, have their libraries loaded."""
        path = os.pathsep.join([str(preloaded().programs), self.environment["PATH"]])
        with tempfile.TemporaryFile("w+") as output:
            variables = {**self.environment, "PATH": path, **environment}
            code = preloaded().start(command, self.root, variables, output, output).wait()
            output.seek(0)
            return code, output.read()

    def snakemake(self, *arguments: str, **environment: str) -> str:
        """Output of `snakemake --profile local ...`, which has to succeed."""
        code, output = self.run_preloaded("snakemake", "--profile", "local", *arguments, **environment)
        assert code == 0, output
        return output

    def dry_run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit code and output of a dry run."""
        return self.run_preloaded("snakemake", "--profile", "local", "--dry-run", *arguments, **environment)

    def planned(self, *arguments: str, **environment: str) -> set[Job]:
        """The jobs that a run would start, without `all`."""
        code, output = self.dry_run(*arguments, **environment)
        assert code == 0, output
        jobs = set()
        for block in re.split(r"\n\[[^\n]*\]\n", output)[1:]:
            rule = re.match(r"(?:local)?(?:rule|checkpoint) (\w+):", block)
            if rule is not None and rule[1] != "all":
                wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
                values = dict(item.split("=", 1) for item in wildcards[1].split(", ")) if wildcards else {}
                jobs.add(Job(rule[1], **{key: values.get(key, "") for key in WILDCARDS}))
        counted = re.search(r"^total +(\d+)$", output, re.MULTILINE)
        n_all = len(re.findall(r"^(?:local)?rule all:$", output, re.MULTILINE))
        assert (int(counted[1]) if counted else 0) == len(jobs) + n_all, output
        return jobs

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text that has to be there, once."""
        file = self.root / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
        file.write_text(text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        """Add text at the end of a file."""
        with (self.root / path).open("a") as file:
            file.write(text)

    def attributes(self, store: str) -> dict[str, Any]:
        """What a finished store says of itself (completion, digest, provenance)."""
        root = json.loads(self.result(f"{store}.zarr/zarr.json").read_text())
        found: dict[str, Any] = root["attributes"]["gigascope"]
        return found


def _take_over_machine_code(origin: Path, copy: Path) -> None:
    """Give the folders of numba's cache the names that numba looks for in the copy: they hold a hash of the place."""
    cached = {folder.name: folder for folder in copy.glob("src/gigascope/**/__pycache__/numba-*/*")}
    for path in (origin / "src").rglob("*"):
        folder = cached.get(_cache_name(path)) if path.is_dir() else None
        if folder is not None:
            folder.rename(folder.with_name(_cache_name(copy / path.relative_to(origin))))


def _cache_name(folder: Path) -> str:
    name: str = _CacheLocator.get_suitable_cache_subpath(str(folder / "module.py"))
    return name


def chain(dataset: str, first: str, *, halves: bool = True) -> set[Job]:
    """The jobs of the tomography chain from one stage to its end, without those that write stage configs."""
    stages = ["ingest", "prealign", "reconstruct", *(["halves"] if halves else []), "evaluate", "report"]
    return {Job(f"tomography_{stage}", dataset) for stage in stages[stages.index(first) :]}


def compression_chain(dataset: str, first: str, *, decode: bool = True) -> set[Job]:
    """The jobs of the compression chain from one stage to its end, all in one part, without stage configs."""
    stages = [stage for stage in COMPRESSION if decode or stage != "decode"]
    return {Job(f"compression_{stage}", dataset) for stage in stages[stages.index(first) :]}


def configs(dataset: str, *stages: str, pipeline: str = "tomography") -> set[Job]:
    """The jobs that write the configs of these stages."""
    return {Job("stage_config", dataset, f"{pipeline}.{stage}") for stage in stages}
