"""The commands that do not compute: they answer fast, and what they print is true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from gigascope.cli import main
from gigascope.config.dataset import load_dataset


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    captured = capsys.readouterr()
    assert exit_.value.code == 0, captured.err
    return captured.out


@pytest.fixture
def series(tmp_path: Path) -> Path:
    path = tmp_path / "cell.st"
    y, x = np.mgrid[-1:1:48j, -1:1:64j]
    body = 500 * (x**2 + y**2 < 0.3)
    views = np.random.default_rng(1).normal(20, 3, (11, 48, 64)) + body
    with mrcfile.new(path) as file:
        file.set_data(views.astype(np.int16))
        file.voxel_size = 13.5
    np.savetxt(tmp_path / "cell.tlt", np.linspace(-50, 50, 11))
    return path


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom gigascope.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules, 'zarr' in sys.modules, 'numpy' in sys.modules, file=sys.stderr)"
    )
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert reply.stderr.split() == ["False", "False", "False"]


CHAINS = {
    "tomography": ["ingest", "prealign", "reconstruct", "halves", "evaluate", "report"],
    "compression": ["ingest", "gate", "fit", "decode", "evaluate", "report"],
    "topography": [
        *("synth", "ingest", "register", "calibrate", "train", "infer", "mosaic", "tiff", "mesh", "evaluate", "report")
    ],
    "synthesis": ["ingest", "prototypes", "phantoms", "simulate", "train", "infer", "evaluate", "report"],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_stages_lists_the_chain_in_order(capsys: pytest.CaptureFixture[str], chain: str) -> None:
    text = run(capsys, "stages", chain)
    names = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert names == [f"{chain}.{stage}" for stage in CHAINS[chain]]
    everything = [line.split()[0] for line in run(capsys, "stages").splitlines() if not line.startswith(" ")]
    assert everything == [f"{name}.{stage}" for name in CHAINS for stage in CHAINS[name]]


def test_init_looks_at_the_series_and_writes_a_yaml_that_loads(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "datasets"
    run(
        capsys, "init", "tomography", "--name", "cell", "--input", str(series), "--folder", str(folder),
        "--set", "reconstruct.lambda=0.2",
    )  # fmt: skip
    text = (folder / "cell.yaml").read_text()
    dataset = load_dataset(folder / "cell.yaml")
    assert dataset.ingest.pixel_size_nm == 1.35
    assert dataset.ingest.signal == "linear", "the body is bright on dark ground"
    assert dataset.reconstruct.regularization == 0.2
    assert dataset.reconstruct.thickness_nm == pytest.approx(64 * 1.35, rel=1e-3)
    assert "check this" in text
    assert text.startswith("# yaml-language-server: $schema=../schema/dataset.json")


def test_check_prints_shapes_and_needs_of_every_stage(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "datasets"
    run(capsys, "init", "tomography", "--name", "cell", "--input", str(series), "--folder", str(folder))
    text = run(capsys, "check", str(folder / "cell.yaml"))
    assert "11 views of 48 x 64 px" in text
    assert "tilt -50 to 50 degrees" in text
    for stage in ("ingest", "prealign", "reconstruct", "halves", "evaluate"):
        assert stage in text
    assert "MiB" in text


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "schema"))["title"] == "gigascope dataset"


def test_doctor_says_what_is_there_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "doctor", "--results", str(tmp_path / "results"))
    for subject in ("Python", "torch", "CUDA", "triton", "SLURM", "results folder", "MB/s"):
        assert subject in text or "cuda:0" in text
    assert not (tmp_path / "results").exists()


def test_wrong_option_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["check", "--nonsense"])
    assert exit_.value.code == 2


def test_check_lists_the_jobs_of_stages_that_are_cut_into_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "neurons.yaml").write_text(
        "pipeline: compression\nname: neurons\ninputs: {phantom: {shape: [64, 256, 256]}}\nfit: {parts: 4, sweeps: 1}\n"
    )
    text = run(capsys, "check", str(tmp_path / "neurons.yaml"))
    assert re.search(r"^gate +1 ", text, re.MULTILINE)
    # one round of every brick alone, eight that mend the seams
    assert re.search(r"^fit part +36 ", text, re.MULTILINE)
    assert re.search(r"^fit open +1 ", text, re.MULTILINE)
    assert re.search(r"^fit gather +1 ", text, re.MULTILINE)
    assert "those of one job" in text
