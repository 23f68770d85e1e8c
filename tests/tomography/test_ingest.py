"""One tilt series in three formats becomes one store; what the config says by hand counts."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from gigascope.runtime.run import run_stage
from gigascope.store.open import StoreReader, open_store
from gigascope.tomography.series import Series

TILT = np.linspace(-48.0, 48.0, 9)


@pytest.fixture
def stack(rng: np.random.Generator) -> np.ndarray:
    """(tilt, y, x) uint16, y up, with structure and a dark border that tells the axes apart."""
    views = rng.poisson(200, (9, 40, 56)).astype(np.uint16)
    views[:, 10:18, 20:44] += 150
    return views


def ingest(folder: Path, source: Path, extra: str = "") -> StoreReader:
    angles = ", ".join(f"{t:g}" for t in TILT)
    (folder / "data.yaml").write_text(
        f"pipeline: tomography\nname: data\ninputs:\n  tilt_series: {source}\n"
        f"ingest:\n  pixel_size_nm: 1.5\n  tilt_deg: [{angles}]\n  signal: linear\n{extra}"
    )
    output = folder / "out" / "tilt_series.zarr"
    run_stage("tomography.ingest", folder / "data.yaml", {}, {"tilt_series": output})
    return open_store(output)


def write_mrc(path: Path, stack: np.ndarray) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(stack)
    return path


def test_mrc_tiff_and_ome_zarr_of_one_series_give_the_same_store(stack: np.ndarray, tmp_path: Path) -> None:
    for name in ("mrc", "tiff", "files", "again"):
        (tmp_path / name).mkdir()
    first = ingest(tmp_path / "mrc", write_mrc(tmp_path / "series.st", stack))
    np.testing.assert_array_equal(first.array()[:], stack)
    tifffile.imwrite(tmp_path / "series.tif", stack[:, ::-1])
    folder = tmp_path / "views"
    folder.mkdir()
    for i, view in enumerate(stack):
        tifffile.imwrite(folder / f"view_{i}.tif", view[::-1])
    others = [
        ingest(tmp_path / "tiff", tmp_path / "series.tif"),
        ingest(tmp_path / "files", folder),
        ingest(tmp_path / "again", tmp_path / "mrc" / "out" / "tilt_series.zarr"),
    ]
    for other in others:
        np.testing.assert_array_equal(other.array()[:], stack)
        np.testing.assert_array_equal(other.table("views")["tilt_deg"], TILT)
        assert other.attrs["pixel_size_nm"] == 1.5
        assert other.attrs["signal"] == first.attrs["signal"]


def test_what_is_set_by_hand_counts(stack: np.ndarray, tmp_path: Path) -> None:
    source = write_mrc(tmp_path / "series.mrc", stack)
    reader = ingest(
        tmp_path, source, "  tilt_axis_deg: 85.3\n  tilt_sign: -1\n  y_up: false\n  exclude: [2]\n  extent: section\n"
    )
    series = Series(reader)
    np.testing.assert_array_equal(reader.array()[:], stack[:, ::-1])
    np.testing.assert_array_equal(reader.table("views")["tilt_deg"], -TILT)
    assert reader.attrs["tilt_axis_deg"] == 85.3
    assert reader.attrs["tilt_sign"] == -1
    assert series.extent == "section"
    assert list(reader.table("views")["excluded"]) == [i == 2 for i in range(9)]
    np.testing.assert_array_equal(np.diff(series.tilt) > 0, True)
    assert not series.use[list(series.order).index(2)]


def test_values_that_are_not_finite_are_masked_in_excluded_views(stack: np.ndarray, tmp_path: Path) -> None:
    broken = stack.astype(np.float32)
    broken[5, 3, 4] = np.nan
    reader = ingest(tmp_path, write_mrc(tmp_path / "series.mrc", broken), "  exclude: [5]\n")
    mask = np.asarray(reader.side("mask")[:])
    assert mask[5, 3, 4] == 0
    assert mask.sum() == mask.size - 1
