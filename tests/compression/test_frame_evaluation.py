"""Evaluation over times and channels: accounts that add up, numbers of all frames together, tables, large volumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.compression.peers.codecs import CODECS
from gigascope.compression.quality.frame_accounts import frame_accounts
from gigascope.compression.quality.frame_evaluation import SENTENCES, codec_frames, frame_table, tables, together
from gigascope.compression.quality.frame_view import FrameOf
from gigascope.compression.quality.result_evaluation import ResultEvaluation
from gigascope.config.compression import CodecName
from gigascope.errors import UserError
from gigascope.metrics.image import Box
from gigascope.store.commit import finish
from gigascope.store.create import create_image, create_store
from gigascope.store.open import open_store

from .compressed import write_file

SHAPE = (2, 3, 20, 40, 48)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> GaussianVolume:
    """A file of two times and three channels of random Gaussians, with different numbers of them."""
    path = tmp_path_factory.mktemp("file") / "random.gmix"
    return GaussianVolume(write_file(path, np.random.default_rng(5), 60, SHAPE))


@pytest.fixture(scope="module")
def stores(compressed: GaussianVolume, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the file decodes to with noise on it, as original, and a gate."""
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(6)
    clean = np.asarray(compressed).astype(np.float32)
    noisy = np.rint(clean + rng.normal(0, np.arange(1, 7).reshape(2, 3, 1, 1, 1) * 20, SHAPE)).clip(0, 65535)
    image: dict[str, Any] = {"axes": "tczyx", "shape": SHAPE, "spacing": dict.fromkeys("zyx", 1.0)}
    volume = create_image(folder / "volume.zarr", dtype=np.uint16, **image)
    volume[:] = noisy.astype(np.uint16)
    volume.create_array("clean", SHAPE, np.float32)[:] = clean
    frames = noisy.reshape(6, *SHAPE[2:])
    volume.attrs |= {
        "range": [[float(f.min()), float(f.max())] for f in frames],
        "noise": [{"gain": 0.0, "offset": 0.0, "read": 20.0 * n} for n in range(1, 7)],
        "voxel_size_um": [1.0, 1.0, 1.0],
    }
    finish(volume, {})
    gate = create_image(folder / "gate.zarr", dtype=np.uint8, **image)
    gate[:] = (clean > 600).astype(np.uint8)
    finish(gate, {})
    return {name: open_store(folder / f"{name}.zarr") for name in ("volume", "gate")}


@pytest.fixture(scope="module")
def evaluation(stores: dict[str, Any], compressed: GaussianVolume) -> Callable[..., ResultEvaluation]:
    def make(**options: Any) -> ResultEvaluation:
        return ResultEvaluation(stores["volume"], stores["gate"], compressed, **{"rates": 1, **options})

    return make


@pytest.fixture(scope="module")
def frames(evaluation: Callable[..., ResultEvaluation]) -> list[Any]:
    result = evaluation(codecs=("sperr",))
    return [result.frame(n) for n in range(result.n_frames)]


def test_accounts_of_the_frames_add_up_to_the_file(compressed: GaussianVolume) -> None:
    gmix = compressed.decoder.gmix
    accounts = frame_accounts(gmix)
    assert len(accounts) == 6
    assert sum(account.total for account in accounts) == gmix.path.stat().st_size
    assert sum(account.n_gaussians for account in accounts) == len(gmix)
    for name, n_bytes in gmix.bytes_by_component().items():
        assert sum(account.components[name] for account in accounts) == n_bytes


def test_bytes_of_boxes_that_fill_a_frame_add_up_to_it(compressed: GaussianVolume) -> None:
    gmix = compressed.decoder.gmix
    for frame, account in enumerate(frame_accounts(gmix)):
        assert account.bytes_in is not None
        whole: Box = (slice(0, 20), slice(0, 40), slice(0, 48))
        assert account.bytes_in(whole) == pytest.approx(account.total, abs=0.01 * account.total)
        parts: list[Box] = [(slice(0, 7), *whole[1:]), (slice(7, 20), slice(0, 11), whole[2])]
        parts.append((slice(7, 20), slice(11, 40), whole[2]))
        assert sum(map(account.bytes_in, parts)) == pytest.approx(account.bytes_in(whole), abs=2), frame


def test_one_frame_is_given_back_as_it_is(frames: list[Any]) -> None:
    assert together(frames[:1]) == frames[0].evaluation.metrics


def test_psnr_of_all_frames_is_that_of_their_errors(
    frames: list[Any], stores: dict[str, Any], compressed: GaussianVolume
) -> None:
    found = together(frames)
    errors, counts, inside = 0.0, 0, 0.0
    n_inside = 0
    for frame, (low, high) in enumerate(stores["volume"].attrs["range"]):
        t, c = divmod(frame, 3)
        volume: NDArray[np.float64] = np.asarray(stores["volume"].array()[t, c]).astype(np.float64)
        squared = ((volume - compressed[t, c]) / (high - low)) ** 2
        foreground = volume > low + 0.1 * (high - low)
        errors, counts = errors + squared.sum(), counts + squared.size
        inside, n_inside = inside + squared[foreground].sum(), n_inside + int(foreground.sum())
    assert found["psnr_whole"]["value"] == pytest.approx(-10 * math.log10(errors / counts), abs=1e-6)
    assert found["psnr_fg"]["value"] == pytest.approx(-10 * math.log10(inside / n_inside), abs=1e-6)


def test_sizes_and_ratios_of_all_frames_are_those_of_the_file(frames: list[Any], compressed: GaussianVolume) -> None:
    found = {name: entry["value"] for name, entry in together(frames).items() if name not in SENTENCES}
    n_bytes = compressed.decoder.gmix.path.stat().st_size
    n, n_voxels = len(compressed.decoder.gmix), math.prod(SHAPE)
    assert found["bytes"] == n_bytes == sum(v for k, v in found.items() if k in COMPONENTS)
    assert found["ratio"] == pytest.approx(2 * n_voxels / n_bytes)
    assert found["bpp"] == pytest.approx(8 * n_bytes / n_voxels)
    assert found["n_gaussians"] == n
    assert found["bytes_per_gaussian"] == pytest.approx(n_bytes / n)
    assert found["seed_ratio"] == pytest.approx(2 * n_voxels / (22 * n))
    best = max(v for k, v in found.items() if k.startswith("ratio_") and k != "ratio_lossless")
    assert found["ratio_lossless"] == pytest.approx(found["ratio"] / best)


COMPONENTS = ("bytes_header", "bytes_tables", "bytes_index", "bytes_background", "bytes_payload", "bytes_residual")


def test_residual_is_the_worst_of_all_frames(frames: list[Any]) -> None:
    found, one = together(frames), [frame.evaluation.metrics for frame in frames]
    for name, extreme in (("residual_sd_least", min), ("residual_sd_most", max)):
        assert found[name]["value"] == extreme(m[name]["value"] for m in one)


def test_warnings_name_their_frames_and_stand_once(frames: list[Any]) -> None:
    said = together(frames)["warnings"]
    assert len(said) == len(set(said))
    one = {w for frame in frames for w in frame.evaluation.metrics["warnings"]}
    assert {s.split(": ", 1)[-1] if s.startswith(("Time", "time")) else s for s in said} == one
    assert frames[4].name == "time 1, channel 1"


def test_tables_have_the_frame_in_front_and_all_rows(frames: list[Any]) -> None:
    found = tables(frames)
    for name, (columns, units) in found.items():
        lengths = {len(values) for values in columns.values()}
        assert len(lengths) == 1, name
        assert next(iter(columns)) == "frame"
        assert set(units) <= set(columns)
    assert found["components"][0]["frame"] == [n for n in range(6) for _ in COMPONENTS]
    assert set(found["codecs"][0]["method"]) == {"ours", "sperr"}
    columns, units = frame_table(frames)
    assert columns["t"] == [0, 0, 0, 1, 1, 1]
    assert columns["c"] == [0, 1, 2, 0, 1, 2]
    assert units["psnr_fg"] == "dB"


@pytest.mark.parametrize(
    ("n_times", "n_channels", "allowed", "chosen"),
    [
        (1, 1, 0.5, {0}),
        (2, 3, 6, {0, 1, 2, 3, 4, 5}),
        (2, 3, 5.9, {3, 4, 5}),
        (9, 2, 6, {2, 3, 8, 9, 14, 15}),
        (4, 3, 2, {6, 7}),
        (5, 1, 1, {2}),
    ],
)
def test_codecs_are_run_on_all_channels_of_spread_times(
    n_times: int, n_channels: int, allowed: float, chosen: set[int]
) -> None:
    assert codec_frames(n_times, n_channels, 1000, int(allowed * 1000)) == chosen


def test_other_frames_are_measured_without_codecs(evaluation: Callable[..., ResultEvaluation]) -> None:
    result = evaluation(codecs=("sperr",), max_voxels=math.prod(SHAPE[2:]))
    found = [result.frame(n) for n in (0, 3)]
    assert not found[0].evaluation.comparison.equal
    assert found[1].evaluation.comparison.equal
    assert "(1 of 2 frames)" in together(found)["sperr_psnr_fg"]["label"]
    assert "(1 of 2 frames)" in together(found)["ratio_jpeg_xl_lossless"]["label"]


def test_volume_larger_than_the_box_of_the_codecs_is_measured_whole(
    evaluation: Callable[..., ResultEvaluation], frames: list[Any]
) -> None:
    result = evaluation(codecs=("sperr",), max_voxels=math.prod(SHAPE[2:]) // 3)
    found = result.frame(3).evaluation
    whole = frames[3].evaluation.metrics
    for name in ("psnr_whole", "psnr_fg", "ssim_whole", "mip_ssim", "slice_gmsd", "fsc", "cl_dice"):
        assert found.metrics[name]["value"] == pytest.approx(whole[name]["value"], rel=1e-6), name
    assert found.ours.n_bytes < 0.6 * whole["bytes"]["value"]
    assert any(note.startswith("Codecs were run on the box") for note in found.metrics["notes"])


def test_pictures_of_the_codecs_are_slices_of_one_frame(
    evaluation: Callable[..., ResultEvaluation], stores: dict[str, Any], tmp_path: Path
) -> None:
    result = evaluation(codecs=("sperr",))
    result.frame(0)
    result.frame(1)
    writer = create_store(tmp_path / "codec_pictures.zarr")
    result.pictures.write(writer)
    finish(writer, {})
    store = open_store(tmp_path / "codec_pictures.zarr")
    assert {"slice_original", "slice_ours", "slice_sperr", "projection_sperr"} <= set(store.sides)
    assert store.attrs["frame"] == 0
    volume = np.asarray(stores["volume"].array()[0, 0])
    np.testing.assert_array_equal(store.side("slice_original")[:], volume[store.attrs["slice"]])
    np.testing.assert_array_equal(store.side("projection_original")[:], volume.max(0))


def test_decoded_store_is_used_and_gives_the_same_numbers(
    evaluation: Callable[..., ResultEvaluation], compressed: GaussianVolume, frames: list[Any], tmp_path: Path
) -> None:
    writer = create_image(tmp_path / "decoded.zarr", shape=SHAPE, dtype=np.uint16, axes="tczyx")
    writer[:] = np.asarray(compressed)
    finish(writer, {})
    result = evaluation(decoded=open_store(tmp_path / "decoded.zarr"))
    psnr = "psnr_whole"
    assert result.frame(2).evaluation.metrics[psnr] == frames[2].evaluation.metrics[psnr]


def test_decoded_store_of_another_resolution_is_not_used(
    evaluation: Callable[..., ResultEvaluation], compressed: GaussianVolume, frames: list[Any], tmp_path: Path
) -> None:
    coarse = compressed.at_level(2)
    writer = create_image(tmp_path / "decoded.zarr", shape=coarse.shape, dtype=np.uint16, axes="tczyx")
    writer[:] = np.asarray(coarse)
    finish(writer, {})
    result = evaluation(decoded=open_store(tmp_path / "decoded.zarr"))
    assert result.frame(2).evaluation.metrics["psnr_fg"] == frames[2].evaluation.metrics["psnr_fg"]


def test_file_of_another_volume_is_refused(stores: dict[str, Any], tmp_path: Path) -> None:
    other = GaussianVolume(write_file(tmp_path / "other.gmix", np.random.default_rng(1), 5, (20, 40, 50), "zyx"))
    with pytest.raises(UserError, match=r"other\.gmix: holds a volume of \(20, 40, 50\) uint16, the original is"):
        ResultEvaluation(stores["volume"], stores["gate"], other)


def test_frame_is_read_like_an_array() -> None:
    array = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    frame = FrameOf(array, (1, 2))
    assert frame.shape == (4, 5, 6)
    np.testing.assert_array_equal(frame[1:3], array[1, 2, 1:3])
    np.testing.assert_array_equal(frame[1:3, 2:4, 5], array[1, 2, 1:3, 2:4, 5])


def test_config_knows_every_codec() -> None:
    from typing import get_args

    assert set(get_args(CodecName)) == set(CODECS)
