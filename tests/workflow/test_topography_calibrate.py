"""Calibrating and registering under the real Snakemake: what files that a dataset names make run again, and parts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .checkout import Checkout, Job
from .test_topography import changed, runs, write_pictures

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# One camera whose place on the mosaic is known, and another acquisition that takes its calibration over.
POSED = """\
pipeline: topography
name: posed
inputs: {images: stack/s*.png}
calibrate: {poses: poses.csv}
"""
SECOND = """\
pipeline: topography
name: second
inputs: {images: stack/s*.png}
register: {enabled: false}
calibrate: {calibration: results/posed/calibration.zarr, parts: 1}
"""
POSES = "view,translation_row,translation_col,focus_mm\n0,10,20,1.5\n"
# Results that are asked for: what the chain does with them is not looked at here.
RESULTS = ("results/second/calibration.zarr/zarr.json", "results/posed/registered.zarr/zarr.json")


@pytest.fixture(scope="session")
def posed_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Both datasets, calibrated; not to be changed."""
    root = tmp_path_factory.mktemp("calibrate") / "repository"
    checkout = Checkout.make(root, {"posed": POSED, "second": SECOND})
    write_pictures(checkout.root)
    (checkout.root / "poses.csv").write_text(POSES)
    planned = checkout.planned(*RESULTS)
    assert changed("posed", "ingest", "register", "calibrate") | changed("second", "ingest", "calibrate") <= planned
    assert Job("topography_register", "second") not in planned
    checkout.snakemake(*RESULTS)
    assert checkout.planned(*RESULTS) == set()
    return checkout


@pytest.fixture
def posed(posed_once: Checkout, tmp_path: Path) -> Checkout:
    """A copy, to be changed."""
    return posed_once.clone(tmp_path / "repository")


def test_what_a_dataset_names_decides_what_runs_again(posed: Checkout) -> None:
    poses = posed.root / "poses.csv"
    before = poses.stat()
    poses.touch()
    assert posed.planned(*RESULTS) == set()
    poses.write_text(POSES.replace("1.5", "1.6"))
    # also where the file's time is older than that of the old one
    os.utime(poses, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))
    assert posed.planned(*RESULTS) == changed("posed", "calibrate") | runs("second", "calibrate")
    poses.unlink()
    code, output = posed.dry_run(*RESULTS)
    assert code != 0
    assert "poses.csv: there is no such file. Check calibrate.poses." in output
    assert "Traceback" not in output
    poses.write_text(POSES)
    # where views lie does not depend on how slices are registered
    posed.edit("config/datasets/posed.yaml", "calibrate:", "register: {model: shift}\ncalibrate:")
    assert changed("posed", "register") == posed.planned(*RESULTS)


def test_parts_have_jobs_and_leave_the_result(posed: Checkout) -> None:
    digest = posed.attributes("second/calibration")["digest"]
    posed.edit("config/datasets/second.yaml", "parts: 1", "parts: 2")
    jobs = {Job("topography_calibrate_open", "second")}
    jobs |= {Job("topography_calibrate_part", "second", round="0", part=str(n)) for n in range(2)}
    assert changed("second", "calibrate") | jobs == posed.planned(*RESULTS)
    posed.snakemake(*RESULTS)
    assert posed.attributes("second/calibration")["digest"] == digest
