"""What goes wrong while the workflow runs: killed processes, changed code, full and read-only disks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..damage import alter
from ..stage_runs import chance
from .checkout import Checkout, chain

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

STORES = ("tilt_series", "prealigned", "tomogram", "aligned", "halves")


def digests(checkout: Checkout) -> dict[str, str]:
    """Content digests of the stores of dataset one."""
    return {store: checkout.attributes(f"one/{store}")["digest"] for store in STORES}


def command(stage: str, inputs: list[str], outputs: list[str]) -> list[str]:
    """`gigascope run` of a stage of dataset one, as the workflow calls it."""
    words = ["gigascope", "run", stage, "--config", f"results/one/config/{stage}.json", "--scratch", "results/scratch"]
    words += [word for name in inputs for word in ("--input", f"{name}=results/one/{name}.zarr/zarr.json")]
    return words + [word for name in outputs for word in ("--output", name)]


def test_killed_at_random_points_and_started_again_gives_the_same_result(
    finished: Checkout, finished_once: Checkout
) -> None:
    for made in ("results", ".snakemake"):
        shutil.rmtree(finished.root / made)
    finished.dataset("two").unlink()
    at = chance()
    for _ in range(2):
        process = finished.start("snakemake", "--profile", "local")
        deadline = time.monotonic() + at.uniform(4, 25)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        # A lock of a process that is gone; `gigascope doctor` says so too.
        finished.snakemake("--unlock")
    finished.snakemake()
    assert finished.planned() == set()
    assert digests(finished) == digests(finished_once)
    assert not list(finished.result("scratch").rglob("*.zarr"))
    assert not list(finished.result("one").glob(".trash-*"))


def test_code_changed_after_planning_is_refused(finished: Checkout) -> None:
    before = finished.result("one/halves.zarr/zarr.json").read_bytes()
    finished.append("src/gigascope/kernels/tv/op.py", "\n_edited = 1\n")
    inputs = ["tilt_series", "tomogram"]
    code, output = finished.run(*command("tomography.halves", inputs, ["halves=results/one/halves.zarr/zarr.json"]))
    assert code == 2, output
    assert "tomography.halves: the code changed since this run was planned. Start snakemake again." in output
    assert finished.result("one/halves.zarr/zarr.json").read_bytes() == before


def test_package_changed_after_planning_is_refused(finished: Checkout) -> None:
    finished.edit("results/one/config/tomography.halves.json", '"zarr":"', '"zarr":"0.')
    inputs = ["tilt_series", "tomogram"]
    code, output = finished.run(*command("tomography.halves", inputs, ["halves=results/one/halves.zarr/zarr.json"]))
    assert code == 2, output
    assert "installed packages changed since this run was planned: zarr 0." in output


def test_damaged_store_is_named_refused_by_its_readers_and_made_again(finished: Checkout) -> None:
    before, store, at = digests(finished), finished.result("one/tilt_series.zarr"), chance()
    shard = at.choice(sorted(path for path in (store / "0" / "c").rglob("*") if path.is_file()))
    alter(shard, at)
    code, output = finished.run("gigascope", "verify", *(f"results/one/{name}.zarr" for name in STORES))
    assert code == 2, output
    assert f"tilt_series.zarr: {shard.relative_to(store)}: altered" in output
    assert output.count("every shard is as it was written") == len(STORES) - 1
    assert "1 of 5 stores are damaged. Remove them and run snakemake again." in output
    inputs = ["tilt_series", "tomogram"]
    code, output = finished.run(*command("tomography.halves", inputs, ["halves=results/one/halves.zarr/zarr.json"]))
    assert code == 2, output
    assert str(shard.relative_to(store)) in output
    assert "Traceback" not in output

    shutil.rmtree(store)
    assert finished.planned("--config", "datasets=config/datasets/one.yaml") == chain("one", "ingest")
    finished.snakemake("--", "results/one/tilt_series.zarr/zarr.json")
    assert digests(finished) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if mounted:
        words = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("a small file system cannot be mounted here: run this test as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def results_on(checkout: Checkout, disk: Path) -> None:
    """Put a copy of the finished tilt series and the configs, and the results from now on, onto another disk."""
    one = disk / "one"
    shutil.copytree(checkout.result("one/config"), one / "config")
    shutil.rmtree(checkout.result(""))
    (checkout.root / "results").symlink_to(disk)


INGEST = command("tomography.ingest", [], ["tilt_series=results/one/tilt_series.zarr/zarr.json"])


def test_full_disk_is_one_message_and_leaves_nothing_half_written(finished: Checkout, small_disk: Path) -> None:
    results_on(finished, small_disk)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 48 * 1024)
    code, output = finished.run(*INGEST)
    assert code == 2, output
    assert "tilt_series.zarr: no space is left on the disk" in output
    assert "Free some space" in output
    assert "Traceback" not in output
    assert not (small_disk / "one" / "tilt_series.zarr").exists()

    filler.unlink()
    code, output = finished.run(*INGEST)
    assert code == 0, output
    assert finished.attributes("one/tilt_series")["complete"]


def test_read_only_results_folder_is_one_message(finished: Checkout, small_disk: Path) -> None:
    results_on(finished, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, output = finished.run(*INGEST)
    assert code == 2, output
    assert "the disk is read-only. Choose another results folder" in output
    assert "Traceback" not in output


def test_snakemake_on_a_read_only_results_folder_says_so_before_it_starts(finished: Checkout, small_disk: Path) -> None:
    results_on(finished, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for _ in range(2):  # the second time: no lock was left
        code, output = finished.run("snakemake", "--profile", "local", "--config", "datasets=config/datasets/one.yaml")
        assert code == 2, output
        assert f"error: {small_disk}: the results folder cannot be written: Read-only file system. Choose" in output
        assert "Traceback" not in output
