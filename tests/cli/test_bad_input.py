"""Bad input: one clear message with file, key or index and what to do, exit code 2, nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from gigascope.cli import main

SHAPE = (9, 24, 32)


class Lab:
    """A folder with a tilt series and a dataset YAML, and the command line in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.series = folder / "series.mrc"
        self.yaml = folder / "data.yaml"
        self.rng = np.random.default_rng(5)

    def write_series(self, data: np.ndarray | None = None, voxel: float = 13.5, n_tilts: int | None = None) -> None:
        data = self.rng.normal(100, 5, SHAPE).astype(np.float32) if data is None else data
        with mrcfile.new(self.series, overwrite=True) as file:
            file.set_data(data)
            file.voxel_size = voxel
        count = len(data) if n_tilts is None else n_tilts
        np.savetxt(self.folder / "series.rawtlt", np.linspace(-40, 40, count), fmt="%.2f")

    def write_yaml(self, **sections: Any) -> None:
        values = {"pipeline": "tomography", "name": "data", "inputs": {"tilt_series": str(self.series)}, **sections}
        lines = []
        for key, value in values.items():
            lines.append(f"{key}: {value!r}" if not isinstance(value, dict) else f"{key}:")
            if isinstance(value, dict):
                lines += [f"  {k}: {v!r}" for k, v in value.items()]
        self.yaml.write_text("\n".join(lines) + "\n")

    def fail(self, *arguments: str) -> str:
        """Run a command that must fail as the user's mistake; its message."""
        with pytest.raises(SystemExit) as exit_:
            main(list(arguments))
        message = self._capsys.readouterr().err
        assert exit_.value.code == 2, message
        assert "Traceback" not in message
        assert not list(self.folder.rglob("*.zarr")), "something half-written was left in place"
        return message

    def ingest(self) -> str:
        output = self.folder / "results" / "tilt_series.zarr"
        return self.fail("run", "tomography.ingest", "--config", str(self.yaml), "--output", f"tilt_series={output}")


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lab:
    found = Lab(tmp_path, capsys)
    found.write_series()
    found.write_yaml()
    return found


def test_truncated_mrc_names_file_and_bytes(lab: Lab) -> None:
    whole = lab.series.read_bytes()
    lab.series.write_bytes(whole[:-1000])
    for message in (lab.ingest(), lab.fail("check", str(lab.yaml))):
        assert "series.mrc" in message
        assert str(len(whole)) in message.replace(",", "").replace(" ", "") or "bytes" in message


def test_angle_count_different_from_images_prints_both(lab: Lab) -> None:
    lab.write_series(n_tilts=8)
    message = lab.ingest()
    assert "9" in message
    assert "8" in message
    assert "series.rawtlt" in message


def _mode(lab: Lab, mode: int) -> None:
    raw = bytearray(lab.series.read_bytes())
    raw[12:16] = mode.to_bytes(4, "little")
    lab.series.write_bytes(raw)


def _angles(lab: Lab, values: Any) -> None:
    np.savetxt(lab.folder / "series.rawtlt", values, fmt="%.2f")


def _few(lab: Lab) -> None:
    lab.write_series(lab.rng.normal(100, 5, (6, 24, 32)).astype(np.float32))


def _montage(lab: Lab) -> None:
    (lab.folder / "series.mrc.mdoc").write_text("Montage = 1\n[ZValue = 0]\nPieceCoordinates = 0 0 0\n")


def _compressed(lab: Lab) -> None:
    lab.write_yaml(inputs={"tilt_series": str(lab.series.rename(lab.folder / "series.mrc.gz"))})


def _conflict(lab: Lab) -> None:
    np.savetxt(lab.folder / "series.tlt", -np.linspace(-40, 40, 9), fmt="%.2f")


def _alignment(lab: Lab, lines: int = 9, suffix: str = ".xf") -> None:
    path = lab.folder / f"other{suffix}"
    path.write_text("1 0 0 1 0 0\n" * lines)
    lab.write_yaml(inputs={"tilt_series": str(lab.series), "alignment": str(path)})


BAD = {
    "packed 4-bit integers": (lambda lab: _mode(lab, 101), ["mode 101", "newstack -mode 6"]),
    "complex integers": (lambda lab: _mode(lab, 3), ["mode 3", "complex"]),
    "complex floats": (lambda lab: _mode(lab, 4), ["mode 4", "complex"]),
    "three equal angles": (
        lambda lab: _angles(lab, [-9, -6, -3, 0, 0, 0, 3, 6, 9]),
        ["more than two views", "0.00 deg"],
    ),
    "angles beyond 90": (lambda lab: _angles(lab, np.linspace(-100, 40, 9)), ["outside +-90", "-100.00"]),
    "six views": (_few, ["6 views", "at least 7"]),
    "montage": (_montage, ["montage", "series.mrc.mdoc"]),
    "compressed": (_compressed, ["compressed", "Unpack it"]),
    "angles of the other sign": (_conflict, ["series.tlt", "series.rawtlt", "opposite sign"]),
    "alignment of another stack": (lambda lab: _alignment(lab, 8), ["aligns 8 views", "has 9"]),
    "no alignment": (lambda lab: _alignment(lab, suffix=".txt"), ["no alignment that is read", ".aln"]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_series_is_one_message_before_anything_is_written(lab: Lab, name: str) -> None:
    prepare, words = BAD[name]
    prepare(lab)
    for message in (lab.ingest(), lab.fail("check", str(lab.yaml))):
        assert message.count("error:") == 1
        for word in words:
            assert word in message


def test_a_phantom_has_no_alignment(lab: Lab) -> None:
    lab.write_yaml(inputs={"alignment": "a.xf", "phantom": {"kind": "object"}})
    assert "a phantom has none" in lab.fail("check", str(lab.yaml))


def test_nan_image_is_named_by_index(lab: Lab) -> None:
    data = lab.rng.normal(100, 5, SHAPE).astype(np.float32)
    data[4, 7, 3] = np.nan
    lab.write_series(data)
    message = lab.ingest()
    assert "view 4" in message
    assert "y 7, x 3" in message
    assert "ingest.exclude: [4]" in message


def test_constant_image_is_named_by_index(lab: Lab) -> None:
    data = lab.rng.normal(100, 5, SHAPE).astype(np.float32)
    data[2] = 7
    lab.write_series(data)
    message = lab.ingest()
    assert "view 2" in message
    assert "constant" in message


def test_missing_pixel_size_says_which_key_to_set(lab: Lab) -> None:
    lab.write_series(voxel=0.0)
    assert "ingest.pixel_size_nm" in lab.ingest()


def test_negative_pixel_size_is_refused(lab: Lab) -> None:
    lab.write_yaml(ingest={"pixel_size_nm": -1.35})
    message = lab.ingest()
    assert "ingest.pixel_size_nm" in message
    assert "greater than 0" in message


def test_mistyped_key_suggests_the_right_one(lab: Lab) -> None:
    lab.write_yaml(prealign={"max_shift_mn": 10})
    assert "Did you mean max_shift_nm?" in lab.fail("check", str(lab.yaml))


def test_missing_file_is_named(lab: Lab) -> None:
    lab.series.unlink()
    assert "series.mrc" in lab.ingest()


def test_excluded_view_out_of_range_is_named(lab: Lab) -> None:
    lab.write_yaml(ingest={"exclude": [40]})
    assert "40" in lab.ingest()


def test_unfinished_input_store_is_refused_by_name(lab: Lab) -> None:
    broken = lab.folder / "broken"
    broken.mkdir()
    (broken / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    output = [f"{name}={lab.folder / 'out' / name}" for name in ("prealigned", "shifts", "xf")]
    arguments = ["run", "tomography.prealign", "--config", str(lab.yaml), "--input", f"tilt_series={broken}"]
    for item in output:
        arguments += ["--output", item]
    assert "broken" in lab.fail(*arguments)


def test_unknown_stage_input_and_pipeline_are_answered_with_what_there_is(lab: Lab) -> None:
    assert "tomography.prealign" in lab.fail("run", "tomography.prealing", "--config", str(lab.yaml))
    message = lab.fail("run", "tomography.ingest", "--config", str(lab.yaml))
    assert "--output tilt_series=PATH" in message
    message = lab.fail(
        "run",
        "tomography.ingest",
        "--config",
        str(lab.yaml),
        "--output",
        "series=x.zarr",
        "--output",
        "tilt_series=y.zarr",
    )
    assert "Known: tilt_series" in message
    assert "Did you mean tomography?" in lab.fail("init", "tomografy", "--name", "x")


def test_init_does_not_replace_a_yaml_unless_told(lab: Lab) -> None:
    arguments = ["init", "tomography", "--name", "data", "--input", str(lab.series), "--folder", str(lab.folder)]
    assert "--force" in lab.fail(*arguments)


@pytest.mark.parametrize("setting", ["ingest.tilt_axis=85", "prealign.passes=-1", "nonsense"])
def test_init_refuses_wrong_settings(lab: Lab, setting: str) -> None:
    folder = lab.folder / "datasets"
    message = lab.fail(
        "init", "tomography", "--name", "new", "--input", str(lab.series), "--set", setting, "--folder", str(folder)
    )
    assert "set" in message or "passes" in message or "tilt_axis" in message
    assert not (folder / "new.yaml").exists()


def test_four_view_cryo_stack_is_refused_with_every_reason(shared_data: Path, tmp_path: Path, capsys: Any) -> None:
    series = shared_data / "tomo" / "cryocat_stack" / "tilt_stack.mrc"
    with pytest.raises(SystemExit) as exit_:
        main(["init", "tomography", "--name", "cryo", "--input", str(series), "--folder", str(tmp_path)])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert "4 views" in message
    assert "pixel size" in message
    assert "angles" in message
    assert not list(tmp_path.iterdir())
