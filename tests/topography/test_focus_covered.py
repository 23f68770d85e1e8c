"""Beyond the field of a slice there is no focus: what a drifting stack says there is right, or nothing was seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from gigascope.store.open import StoreReader, open_store
from gigascope.topography.focus.covered import read_coverage
from gigascope.topography.focus.registration import register_stack
from gigascope.topography.inference.stored import Inference

from ..stage_runs import write_dataset
from .chain import RUNS

N_Z, ROWS, COLS, STEP = 9, 120, 240, 9
WIDTH = COLS + STEP * (N_Z - 1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the raw and the registered stack of a tilted plane that drifts along its slope, 9 px a slice."""
    rng = np.random.default_rng(1)
    base = ndimage.gaussian_filter(rng.random((ROWS, WIDTH)), 0.8)
    base = (base - base.min()) / np.ptp(base) * 230
    blurred = np.stack([ndimage.gaussian_filter(base, 0.7 * k + 0.01) for k in range(N_Z + 1)])
    folder = tmp_path_factory.mktemp("drifting")
    (folder / "pictures").mkdir()
    rows, cols = np.indices(base.shape)
    for k in range(N_Z):
        away = np.broadcast_to(np.abs(np.linspace(1, 7, WIDTH) - k), base.shape)
        low = away.astype(int)
        image = (1 - away + low) * blurred[low, rows, cols] + (away - low) * blurred[low + 1, rows, cols]
        seen = image[:, STEP * (N_Z - 1 - k) :][:, :COLS] + rng.normal(0, 1.5, (ROWS, COLS))
        Image.fromarray(seen.clip(0, 255).astype(np.uint8)).save(folder / "pictures" / f"s{k}.png", compress_level=1)
    values: dict[str, Any] = {"pipeline": "topography", "name": "d", "device": "cpu", "ingest": {"chunk_px": 64}}
    config = write_dataset(folder, values, {"inputs": {"images": str(folder / "pictures")}})
    RUNS.run(config, folder, "ingest")
    RUNS.run(config, folder, "register")
    return folder


@pytest.fixture(scope="module")
def registered(drifting: Path) -> StoreReader:
    return open_store(drifting / "registered.zarr")


@pytest.fixture(scope="module")
def truth(registered: StoreReader) -> NDArray[np.float64]:
    """(rows, cols) slice in focus, as the reference sees it."""
    first = STEP * (N_Z - 1 - registered.attrs["registration"]["reference"])
    return np.broadcast_to(np.linspace(1, 7, WIDTH)[first : first + COLS], (ROWS, COLS))


def test_fields_come_back_from_the_store(registered: StoreReader, drifting: Path) -> None:
    coverage = read_coverage(registered)
    assert coverage is not None
    found = register_stack(np.asarray(open_store(drifting / "raw.zarr").member("green")[0, 0]))
    np.testing.assert_allclose(coverage.matrices, found.matrices, atol=1e-9)
    np.testing.assert_array_equal(coverage.everywhere, registered.member("valid")[:] > 0)
    assert read_coverage(open_store(drifting / "raw.zarr")) is None


@pytest.mark.parametrize("fill", [True, False])
def test_no_false_height_where_slices_do_not_reach(
    registered: StoreReader, truth: NDArray[np.float64], fill: bool
) -> None:
    arrays, _ = inference(registered, fill).arrays((0, 0))
    index, confidence = arrays["index"], arrays["confidence"]
    valid = registered.member("valid")[:] > 0
    assert 0.5 < valid.mean() < 0.9
    assert np.isfinite(index[valid]).all()
    assert (confidence[np.isnan(index)] == 0).all()
    seen = np.isfinite(index)
    # some of what the slices of its focus show, though others do not, is kept, and what is kept is right
    assert 0.1 < seen[~valid].mean() < 0.6
    assert np.abs(index - truth)[seen].max() < 0.5
    # which it is not without a look at the fields
    blind = Inference(registered, np.ones((1, 1), bool), None, 1024, fill, "nearest", CPU).arrays((0, 0))[0]
    wrong = np.abs(blind["index"] - truth)[~valid & (blind["confidence"] > 0.5)]
    assert wrong.max() > 0.7


def inference(registered: StoreReader, fill: bool) -> Inference:
    return Inference(registered, np.ones((1, 1), bool), None, 1024, fill, "nearest", CPU, read_coverage(registered))


def test_much_that_not_all_slices_show_is_said(registered: StoreReader) -> None:
    (warning,) = registered.provenance["warnings"]
    assert "the slices drift by up to 36 px: all of them show" in warning
    assert "of the field of s4.png" in warning
