"""`gigascope doctor`: what a person needs to know to trust the machine, each with what to do when it is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gigascope.runtime.memory import human_bytes

PROBE_BYTES = 256 * 2**20
BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Finding:
    """One line of the report: fine, worth knowing, or wrong."""

    level: str
    subject: str
    found: str
    do: str = ""


def print_doctor(results: Path) -> None:
    """Print every finding; nothing is changed but a probe file in the results folder, removed at once."""
    show(findings(results))


def show(found: Iterable[Finding]) -> None:
    """Print findings as they come."""
    console = Console(soft_wrap=True)
    marks = {"ok": "[green]ok  [/green]", "note": "[yellow]note[/yellow]", "bad": "[red]bad [/red]"}
    for finding in found:
        advice = f" - {finding.do}" if finding.do else ""
        line = f"{marks[finding.level]} {finding.subject}: {escape(finding.found)}{escape(advice)}"
        console.print(line, highlight=False)


def findings(results: Path) -> Iterator[Finding]:
    """All findings, one after the other."""
    import psutil

    memory = psutil.virtual_memory()
    yield Finding("ok", "Python", f"{platform.python_version()}, {platform.platform()}")
    yield Finding(
        "ok" if memory.available > 4 * 2**30 else "note",
        "machine",
        f"{os.cpu_count()} CPUs, {human_bytes(memory.available)} of {human_bytes(memory.total)} memory free",
        "" if memory.available > 4 * 2**30 else "close other programs, or work on a smaller dataset",
    )
    yield from _torch()
    yield _package("triton", "comes with CUDA builds of torch; without a GPU it is needed for the kernels' tests only")
    yield _package("numba", "needed by every CPU kernel: install gigascope again")
    yield _package(
        "astra-toolbox", "optional, for reconstruct.projector: astra and the tests: pip install astra-toolbox"
    )
    yield _package("snakemake", "needed to run the workflow: install gigascope again")
    yield _package("snakemake-executor-plugin-slurm", "needed for a cluster only: pip install 'gigascope[slurm]'")
    yield from _slurm()
    yield from _disk(results)
    yield from _stale_lock()


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding(
            "bad", "torch", f"cannot be imported ({error})", "install gigascope again, into a fresh environment"
        )
        return
    yield Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        yield Finding(
            "note",
            "CUDA",
            "no device; everything runs on the CPU, slower",
            f"torch was built for CUDA {built}: look at nvidia-smi and the driver"
            if built
            else "this build of torch is for the CPU; with an NVIDIA GPU install the CUDA build of the same version",
        )
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found = f"{torch.cuda.get_device_name(index)}, {human_bytes(free)} of {human_bytes(total)} free"
        yield Finding("ok", f"cuda:{index}", found)


def _package(name: str, missing: str) -> Finding:
    try:
        return Finding("ok", name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding("note", name, "not installed", missing)


def _slurm() -> Iterator[Finding]:
    missing = [c for c in ("sbatch", "squeue", "scancel", "sinfo") if shutil.which(c) is None]
    if missing:
        yield Finding(
            "note",
            "SLURM",
            f"no {', '.join(missing)} on PATH",
            "needed for --profile slurm only: log in to the cluster",
        )
        return
    try:
        reply = subprocess.run(
            ["sinfo", "-h", "-o", "%P %a %D"], capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding(
            "bad", "SLURM", "sinfo does not answer", "the controller may be down: ask the site's administrators"
        )
        return
    if reply.returncode:
        said = (reply.stderr.strip() or "sinfo failed").splitlines()[-1]
        yield Finding("bad", "SLURM", said, "check the site's SLURM configuration")
    else:
        partitions = ", ".join(line.strip() for line in reply.stdout.splitlines())
        yield Finding("ok", "SLURM", f"partitions (state, nodes): {partitions}")


def _disk(results: Path) -> Iterator[Finding]:
    folder = next(p for p in (results.absolute(), *results.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    try:
        write, read = _disk_speed(folder, min(PROBE_BYTES, free // 4))
    except OSError as error:
        yield Finding(
            "bad", "results folder", f"{folder}: {error.strerror}", "choose a folder you may write to, with space"
        )
        return
    yield Finding(
        "ok" if free > 20 * 2**30 else "note",
        "results folder",
        f"{folder}: {human_bytes(free)} free, writes {write / 1e6:.0f} MB/s, reads {read / 1e6:.0f} MB/s (256 MiB)",
        "" if free > 20 * 2**30 else "little space: `gigascope check` prints what a dataset needs",
    )


def _disk_speed(folder: Path, count: int) -> tuple[float, float]:
    """Bytes per second written and flushed, then read back past the page cache where the system allows it."""
    block = os.urandom(BLOCK_BYTES)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".gigascope-doctor-") as file:
        begun = time.perf_counter()
        for _ in range(max(1, count // BLOCK_BYTES)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        write = file.tell() / (time.perf_counter() - begun)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        begun = time.perf_counter()
        size = 0
        while chunk := file.read(BLOCK_BYTES):
            size += len(chunk)
        return write, size / (time.perf_counter() - begun)


def _stale_lock() -> Iterator[Finding]:
    """Snakemake's lock of a run that was killed."""
    if not any(Path(".snakemake/locks").glob("*")):
        return
    import psutil

    mine = os.getcwd()
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = process.info["cmdline"] or []
        if any("snakemake" in Path(part).name for part in line[:2]) and process.info["cwd"] == mine:
            yield Finding("ok", "Snakemake's lock", f"held by process {process.pid}")
            return
    yield Finding(
        "bad", "Snakemake's lock", "left by a run that was killed", "snakemake --unlock --profile local, then run again"
    )
