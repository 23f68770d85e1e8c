"""The stage that finds focus and picture of every view: tiles, parts, kills, what it uses, how good it is."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.config.dataset import load_dataset
from gigascope.errors import UserError
from gigascope.store.open import StoreReader, open_store
from gigascope.topography.capture.bayer import demosaic, pack_green, unpack_green
from gigascope.topography.focus.fuse import fuse
from gigascope.topography.inference.picture import in_focus
from gigascope.topography.inference.view_focus import find_focus
from gigascope.topography.network.model import Architecture, new_network
from gigascope.topography.network.training import recommended
from gigascope.topography.streaming.view_stack import ViewStack, read_colours, read_green
from gigascope.topography.training.stored import choose

from ..stage_runs import chance, lines_in, write_dataset
from .chain import RUNS, TINY
from .stores import raw_store

CPU = torch.device("cpu")


def infer(folder: Path, posed: Path, **section: Any) -> StoreReader:
    RUNS.run(write_dataset(folder, TINY, {"infer": section}), folder, "infer", posed)
    return open_store(folder / "views.zarr")


@pytest.fixture(scope="session")
def inferred(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inferred")
    infer(folder, trained, method="network")
    return folder


def untaught(n_z: int, kind: str) -> torch.nn.Module | None:
    """A network whose corrections are not zero."""
    if kind == "focus":
        return None
    network = new_network(recommended(n_z, 2) if kind == "recommended" else Architecture(n_z, (8, 8), input="local"), 3)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return network.eval().requires_grad_(False)


def test_views_hold_index_confidence_and_picture(inferred: Path, posed: Path) -> None:
    views, truth = open_store(inferred / "views.zarr"), open_store(posed / "truth.zarr")
    index, confidence, aif = (views.member(name) for name in ("index", "confidence", "aif"))
    assert index.shape == confidence.shape == (2, 4, 192, 192)
    assert (aif.shape, aif.dtype) == ((2, 4, 192, 192, 3), np.uint8)
    assert index.shards[:2] == aif.shards[:2] == (1, 1)
    assert (confidence[:] >= 0).all()
    assert (confidence[:] <= 1).all()
    error = index[:] - truth.member("index")[:]
    rms = float(np.sqrt(np.mean(error[..., 8:-8, 8:-8] ** 2)))
    print("RMS of the index in slices", rms)
    assert rms < 0.1
    # what an error is expected to be covers what it is: c = 1 / (1 + (e / 0.25)^2)
    expected = 0.25 * np.sqrt(1 / np.maximum(confidence[:], 1e-3) - 1)
    assert 0.3 * rms < np.sqrt(np.mean(expected[..., 8:-8, 8:-8] ** 2)) < 3 * rms
    assert views.attrs["method"] == "network"
    assert views.attrs["trusted"] > 0.9


def test_focus_alone_and_network_are_chosen_as_asked(trained: Path, inferred: Path, tmp_path: Path) -> None:
    found = {use: infer(tmp_path / use, trained, method=use).member("index")[:] for use in ("auto", "focus")}
    network = open_store(inferred / "views.zarr").member("index")[:]
    assert not np.array_equal(found["focus"], network)
    use = open_store(trained / "training.zarr").attrs["use"]
    np.testing.assert_array_equal(found["auto"], network if use == "network" else found["focus"])


@pytest.mark.parametrize("kind", ["focus", "recommended", "published"])
def test_tiles_give_what_the_whole_gives(kind: str, posed: Path) -> None:
    """N2."""
    stack = read_green(open_store(posed / "raw.zarr"), (1, 2))
    network: Any = untaught(stack.n_z, kind)
    whole, tiled = (find_focus(stack, network, tile=tile, fill=True, device=CPU) for tile in (1024, 64))
    assert float((whole.index - tiled.index).abs().max()) <= 1e-3
    assert float((whole.confidence - tiled.confidence).abs().max()) <= 1e-3


@pytest.mark.parametrize("parts", [3, 8])
def test_parts_give_the_same_bits(parts: int, trained: Path, inferred: Path, tmp_path: Path) -> None:
    config = write_dataset(tmp_path, TINY, {"infer": {"method": "network", "parts": parts}})
    RUNS.run_in_parts(config, tmp_path, "infer", trained, parts)
    RUNS.assert_same(tmp_path, inferred, "infer")


@pytest.mark.slow
def test_killed_and_started_again_is_the_same(trained: Path, inferred: Path, tmp_path: Path) -> None:
    """D2, E2."""
    config, random = write_dataset(tmp_path, TINY, {"infer": {"method": "network"}}), chance()
    words = (config, tmp_path, "infer", trained)
    process = RUNS.start(*words)
    process.wait_until(lambda: lines_in(tmp_path, "*.jsonl") > 0)
    time.sleep(random.uniform(0, 2))
    print("ended with", process.kill())
    RUNS.finish(*words)
    RUNS.assert_same(tmp_path, inferred, "infer")


def test_absent_views_hold_nothing(rng: np.random.Generator, trained: Path, tmp_path: Path) -> None:
    raw = raw_store(rng, tmp_path, missing=(2,), n_z=9)
    (tmp_path / "calibration.zarr").symlink_to(trained / "calibration.zarr")
    (tmp_path / "network.pt").symlink_to(trained / "network.pt")
    views = infer(tmp_path, tmp_path)
    absent = ~raw.scene.present.reshape(raw.scene.grid)
    assert np.isnan(views.member("index")[:][absent]).all()
    assert (views.member("confidence")[:][absent] == 0).all()
    assert np.isfinite(views.member("index")[:][~absent]).all()


def test_a_network_that_is_not_there_is_refused(posed: Path, tmp_path: Path) -> None:
    RUNS.run(write_dataset(tmp_path, TINY, {"train": {"method": "focus"}}), tmp_path, "train", posed)
    for name in ("raw.zarr", "calibration.zarr"):
        (tmp_path / name).symlink_to(posed / name)
    with pytest.raises(UserError, match="holds no network"):
        infer(tmp_path, tmp_path, method="network")
    with pytest.raises(UserError, match=r"infer\.method network needs a network"):
        load_dataset(write_dataset(tmp_path, TINY, {"train": {"method": "focus"}, "infer": {"method": "network"}}))
    assert infer(tmp_path, tmp_path).attrs["method"] == "focus"


def test_published_network_of_other_stacks_is_refused(posed: Path, tmp_path: Path) -> None:
    short = {"train": {"mode": "parity", "steps": 1, "patch_px": 32, "levels": 1}}
    RUNS.run(write_dataset(tmp_path, TINY, short), tmp_path, "train", posed)
    with pytest.raises(UserError, match="trained on stacks of 9 slices, these have 17"):
        choose(tmp_path / "network.pt", "auto", 17)
    forced = choose(tmp_path / "network.pt", "network", 9)
    assert forced.use == "network"
    assert "Training found otherwise" in forced.why


def test_texture_free_places_are_not_trusted_and_follow_their_surroundings(rng: np.random.Generator) -> None:
    """H5 in small."""
    n_z, side = 9, 160
    texture = np.exp(0.4 * rng.standard_normal((side, side)))
    rows, cols = np.mgrid[:side, :side]
    blank = (rows - 80) ** 2 + (cols - 80) ** 2 < 40**2
    texture[blank] = 1.0
    planes = [ndimage.gaussian_filter(texture, 0.8 + 1.5 * abs(k - 3.4)) for k in range(n_z)]
    stack = ViewStack(rng.poisson(2000 * np.array(planes)).astype(np.uint16), "grey")
    plain, filled = (find_focus(stack, None, tile=1024, fill=fill, device=CPU) for fill in (False, True))
    deep = (rows - 80) ** 2 + (cols - 80) ** 2 < 15**2
    assert float(plain.confidence[torch.from_numpy(deep)].max()) < 0.1
    assert float(plain.confidence[torch.from_numpy(~blank)].median()) > 0.8
    found = [np.abs(focus.index.numpy()[deep] - 3.4).max() for focus in (plain, filled)]
    print("largest error without texture, as found and filled:", found)
    assert found[1] < 0.3 < found[0]


# pictures


def mosaic_stack(rng: np.random.Generator, pattern: str, dtype: type = np.uint8) -> ViewStack:
    top = np.iinfo(dtype).max
    return ViewStack(rng.integers(0, top, (5, 38, 46), dtype=dtype, endpoint=True), "bayer", pattern)


@pytest.mark.parametrize("pattern", ["GBRG", "RGGB"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_picture_of_one_slice_is_that_slice_demosaiced(rng: np.random.Generator, pattern: str, dtype: type) -> None:
    stack = mosaic_stack(rng, pattern, dtype)
    for k in (0, 3, 4):
        found = in_focus(stack, torch.full((38, 46), float(k)), "linear")
        expected = demosaic(stack.values[k], pattern)
        assert found.dtype == dtype
        # one count of rounding
        assert np.abs(found - expected).max() <= 0.5 + 1e-3 * np.iinfo(dtype).max / 255


def test_picture_mixes_slices_or_takes_the_nearest(rng: np.random.Generator) -> None:
    stack = mosaic_stack(rng, "GRBG")
    index = torch.full((38, 46), 1.3)
    slices = [demosaic(stack.values[k], "GRBG") for k in (1, 2)]
    mixed = 0.7 * slices[0] + 0.3 * slices[1]
    assert np.abs(in_focus(stack, index, "linear") - mixed).max() <= 0.51
    assert np.abs(in_focus(stack, index, "nearest") - slices[0]).max() <= 0.51


def test_picture_of_grey_and_coloured_stacks(rng: np.random.Generator) -> None:
    index = torch.from_numpy(rng.uniform(-0.5, 5.0, (300, 40)).astype(np.float32))
    grey = rng.integers(0, 65535, (5, 300, 40), dtype=np.uint16)
    colours = rng.integers(0, 255, (5, 3, 300, 40), dtype=np.uint8)
    for mix in ("linear", "nearest"):
        found = in_focus(ViewStack(grey, "grey"), index, mix)
        assert (found.shape, found.dtype) == ((300, 40, 1), np.uint16)
        np.testing.assert_array_equal(found[..., 0], fuse(grey.astype(np.int32), index, mix=mix))
        found = in_focus(ViewStack(colours, "rgb"), index, mix)
        np.testing.assert_array_equal(found, fuse(np.moveaxis(colours, 1, -1).copy(), index, mix=mix))


# stacks


@pytest.mark.parametrize("pattern", ["GBRG", "RGGB"])
def test_green_of_a_part_is_that_of_the_whole(rng: np.random.Generator, pattern: str) -> None:
    mosaic = mosaic_stack(rng, pattern)
    packed = ViewStack(pack_green(mosaic.values, pattern), "packed", pattern)
    whole = unpack_green(packed.values, pattern)
    assert packed.size == mosaic.size == (38, 46)
    for stack in (mosaic, packed):
        np.testing.assert_array_equal(stack.green().numpy(), whole)
        for _ in range(20):
            top, left = rng.integers(0, 30, 2)
            part = slice(top, top + rng.integers(1, 9)), slice(left, left + rng.integers(1, 17))
            np.testing.assert_array_equal(stack.green(*part).numpy(), whole[(..., *part)])


def test_stacks_are_read_as_they_were_taken(rng: np.random.Generator, tmp_path: Path) -> None:
    raw = raw_store(rng, tmp_path, pattern="GBRG")
    stack = read_colours(raw.store, (1, 2))
    assert (stack.kind, stack.colours, stack.n_z) == ("bayer", 3, 5)
    np.testing.assert_array_equal(stack.values, raw.stacks[1, 2])
    green: NDArray = read_green(raw.store, (1, 2)).values
    np.testing.assert_array_equal(green, pack_green(raw.stacks[1, 2], "GBRG"))
    shutil.rmtree(tmp_path / "raw.zarr")
    grey = raw_store(rng, tmp_path, pattern=None)
    assert read_colours(grey.store, (0, 1)).kind == "grey"
    assert read_colours(grey.store, (0, 1)).colours == 1
