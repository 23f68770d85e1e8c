"""Cultures in other formats, read back with other programs: challenge folders, pairs, slices."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from gigascope.cli import main
from gigascope.errors import UserError
from gigascope.metrics.detection import detection
from gigascope.metrics.overlap import count_overlaps
from gigascope.synthesis.evaluation.volumes import Volume
from gigascope.synthesis.exporting import folders


def _scenes() -> Any:
    name = "gigascope_tests_scenes"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "evaluation" / "scenes.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


SCENES = _scenes()


def command(words: list[str]) -> int:
    """Exit code of `gigascope ...`."""
    try:
        main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "balls"
    folder.mkdir()
    SCENES.write_stores(folder, real=False)
    return folder


def sparse(rng: np.random.Generator) -> Volume:
    """Labels with gaps in their ids."""
    labels = SCENES.balls(2, (20, 40, 40))[0]
    names = np.concatenate([[0], np.sort(rng.choice(np.arange(1, 5000), int(labels.max()), replace=False))])
    image = rng.integers(0, 4000, labels.shape).astype(np.uint16)
    return Volume("s0000", image, names[labels].astype(np.uint32), SCENES.VOXEL)


def test_challenge_folders_have_the_layout_and_give_back_image_and_labels(tmp_path: Path, rng: Any) -> None:
    volume = sparse(rng)
    rows = folders.write_ctc(tmp_path, [volume, volume], lambda v, r: (v.read_labels(r) > 0).astype(np.int32))
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    one = ["01/t000.tif", "01_GT/SEG/man_seg000.tif", "01_GT/TRA/man_track.txt", "01_GT/TRA/man_track000.tif"]
    one += ["01_RES/mask000.tif", "01_RES/res_track.txt"]
    assert found == sorted([*one, *(name.replace("01", "02", 1) for name in one)])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "01/t000.tif"), volume.image)
    labels = tifffile.imread(tmp_path / "01_GT/SEG/man_seg000.tif")
    assert labels.dtype == np.uint16
    ids = np.unique(volume.labels)
    np.testing.assert_array_equal(ids[labels], volume.labels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "01_GT/TRA/man_track000.tif"), labels)
    lines = (tmp_path / "01_GT/TRA/man_track.txt").read_text().splitlines()
    assert lines == [f"{k} 0 0 0" for k in range(1, len(ids))]
    assert rows[0] == {"sequence": "01", "image": "s0000", "nuclei": len(ids) - 1}
    assert (tmp_path / "02_RES/res_track.txt").read_text() == "1 0 0 0\n"


def test_challenge_programs_read_the_folders(tmp_path: Path, rng: Any) -> None:
    """S3: the same DET and SEG from the exported files, by py-ctcmetrics."""
    pytest.importorskip("ctc_metrics", reason="pip install py-ctcmetrics to run this test")
    from ctc_metrics.metrics.technical import seg
    from ctc_metrics.utils.representations import match

    volume = sparse(rng)
    folders.write_ctc(tmp_path, [volume], lambda v, r: np.roll(v.read_labels(r), 2, axis=2).astype(np.int32))
    files = [str(tmp_path / name) for name in ("01_GT/SEG/man_seg000.tif", "01_RES/mask000.tif")]
    ours, _, _, _, iou = match(*files)
    expected = detection(count_overlaps(volume.labels, np.roll(volume.labels, 2, axis=2)))
    assert seg.seg([ours], [iou]) == pytest.approx(expected.seg, abs=1e-12)
    assert len(ours) == expected.n_reference


def test_more_nuclei_than_sixteen_bits_hold_are_refused(tmp_path: Path) -> None:
    labels = np.arange(1, 2 * 200 * 200 + 1, dtype=np.uint32).reshape(2, 200, 200)
    volume = Volume("s0007", np.zeros(labels.shape, np.uint16), labels, (1, 1, 1))
    with pytest.raises(UserError, match=r"s0007 has 80000 nuclei.*65535"):
        folders.write_ctc(tmp_path, [volume])
    assert folders.write_pairs(tmp_path, [volume])[0]["label_bits"] == 32
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels/s0007.tif"), labels)


def test_pairs_have_ids_and_voxel_sizes(tmp_path: Path, rng: Any) -> None:
    volume = sparse(rng)
    folders.write_pairs(tmp_path, [volume])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels/s0000.tif"), volume.labels)
    with tifffile.TiffFile(tmp_path / "images/s0000.tif") as file:
        np.testing.assert_array_equal(file.asarray(), volume.image)
        assert file.ome_metadata is not None
        for size in ('PhysicalSizeZ="1.5"', 'PhysicalSizeX="0.5"', 'PhysicalSizeZUnit="µm"'):
            assert size in file.ome_metadata


def test_slices_of_three_directions_have_one_scale(tmp_path: Path, rng: Any) -> None:
    volume = sparse(rng)
    rows = folders.write_slices(tmp_path, [volume], 3.0)
    for plane, shape in (("xy", (40, 40)), ("xz", (60, 40)), ("yz", (60, 40))):
        files = sorted((tmp_path / plane / "images").iterdir())
        assert files
        assert [f.name for f in files] == [f.name for f in sorted((tmp_path / plane / "labels").iterdir())]
        for file in files:
            image, labels = (tifffile.imread(tmp_path / plane / k / file.name) for k in ("images", "labels"))
            assert image.shape == labels.shape == shape
            assert labels.any()
            number = int(file.stem.split("_")[1])
            axis = {"xy": 0, "xz": 1, "yz": 2}[plane]
            original = np.take(volume.labels, number, axis)
            # three rows of the same labels stand for each slice
            np.testing.assert_array_equal(labels if plane == "xy" else labels[1::3], original)
            pixels = np.take(volume.image, number, axis)
            np.testing.assert_array_equal(image if plane == "xy" else image[1::3], pixels)
    assert rows[0]["slices"] == sum(1 for p in tmp_path.rglob("labels/*.tif"))


def test_command_writes_adapted_images_with_the_labels_of_the_simulated_ones(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    assert command(["export", str(results), str(out)]) == 0
    record = json.loads((out / "export.json").read_text())
    assert record["from"].endswith("adapted.zarr")
    from gigascope.store.open import open_store

    cultures, adapted = (open_store(results / f"{n}.zarr") for n in ("cultures", "adapted"))
    np.testing.assert_array_equal(tifffile.imread(out / "images/s0001.tif"), adapted.image("s0001").array()[:])
    np.testing.assert_array_equal(tifffile.imread(out / "labels/s0001.tif"), cultures.image("s0001").label("nuclei")[:])
    assert command(["export", str(results), str(out)]) == 2
    assert command(["export", str(results / "cultures.zarr"), str(out), "--images", "cultures", "--force"]) == 0
    np.testing.assert_array_equal(tifffile.imread(out / "images/s0001.tif"), cultures.image("s0001").array()[:])
    assert not list(tmp_path.glob("*.partial"))


def test_images_that_do_not_fit_their_labels_are_left_out(tmp_path: Path, capsys: Any) -> None:
    SCENES.write_stores(tmp_path, real=False, adapted=False, n=1)
    images = SCENES.make_set("adapted", [5], phantoms=[0])
    SCENES.write_set(tmp_path / "adapted.zarr", images, labels=False, attrs={"rejected": True})
    assert command(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    assert "no image of adapted has labels that fit it" in capsys.readouterr().err
    assert command(["export", str(tmp_path), str(tmp_path / "out"), "--images", "cultures", "--layout", "ctc"]) == 0
    assert (tmp_path / "out/01_GT/TRA/man_track.txt").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layout", "tar"], "none of ctc, pairs, slices"),
        (["--images", "real"], "none of auto, cultures, adapted"),
        (["--segment"], "is for the layout ctc"),
        (["--every-um", "-1"], "positive"),
        (["--bake"], "not for cultures"),
        (["--vertices", "5"], "not for cultures"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    results: Path, tmp_path: Path, capsys: Any, options: list[str], words: str
) -> None:
    assert command(["export", str(results), str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_cultures_are_refused_elsewhere(tmp_path: Path, capsys: Any) -> None:
    assert command(["export", str(tmp_path / "x.gmix"), str(tmp_path / "x.ply"), "--layout", "ctc"]) == 2
    assert "is for cultures" in capsys.readouterr().err
