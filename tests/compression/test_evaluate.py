"""The evaluation: every measure has a name and a unit, codecs stand beside ours, and where they win it is said."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from gigascope.compression.bench_volume import BenchVolume, bench_volume
from gigascope.compression.noise import NoiseModel
from gigascope.compression.peers import codecs
from gigascope.compression.quality.comparison import Comparison, Point, compare
from gigascope.compression.quality.evaluate import Account, evaluate
from gigascope.compression.quality.fidelity import LABELS, Original, busiest_box, entries
from gigascope.store.table import write_tsv

ACCOUNT = Account({"header": 200, "index": 100, "background": 300, "payload": 4400}, 500)


@pytest.fixture(scope="module")
def bench() -> BenchVolume:
    return bench_volume((32, 96, 96), seed=3, cells=2)


@pytest.fixture(scope="module")
def original(bench: BenchVolume) -> Original:
    noise = NoiseModel(bench.gain, bench.offset, bench.read)
    gate = ndimage.binary_dilation(bench.clean > 200, iterations=2)
    return Original(bench.volume, bench.clean, gate, noise.variance, (0.5, 0.2, 0.2))


def blurred(bench: BenchVolume, sigma: float = 1.5) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(bench.clean, sigma)).astype(np.uint16)


def test_a_perfect_decode_is_perfect_in_every_measure(original: Original, bench: BenchVolume) -> None:
    found = original.measure(bench.volume)
    assert found["psnr_whole"] == found["psnr_fg"] == found["psnr_gate"] == math.inf
    for name in ("ssim_whole", "ssim_fg", "ssim_gate", "mip_ssim", "mip_ms_ssim", "slice_ms_ssim"):
        assert found[name] == pytest.approx(1.0, abs=1e-4), name
    assert found["mip_gmsd"] == found["slice_gmsd"] == 0.0
    assert found["fsc"] == pytest.approx(0.5, abs=0.02)
    truth = Original(bench.clean, bench.clean, voxel_size_um=(0.5, 0.2, 0.2)).measure(bench.clean)
    assert truth["cl_dice"] == truth["skeleton_recall"] == 1.0
    assert truth["n_parts"] == truth["n_parts_reference"] > 0
    for name in ("object_light_median", "object_light_total", "object_place_median"):
        assert truth[name] == pytest.approx(0.0, abs=1e-9), name


def test_more_blur_is_worse_in_every_measure(original: Original, bench: BenchVolume) -> None:
    good, bad = (original.measure(blurred(bench, sigma)) for sigma in (0.5, 2.5))
    rising = ["psnr_fg", "psnr_fg_clean", "psnr_gate", "ssim_fg", "mip_ssim", "mip_ms_ssim", "slice_ms_ssim"]
    rising += ["fsc", "fsc_clean", "cl_dice"]
    for name in rising:
        assert good[name] > bad[name], name
    for name in ("mip_gmsd", "slice_gmsd", "object_light_median"):
        assert good[name] < bad[name], name


def test_the_noise_free_volume_reaches_the_noise_ceiling(original: Original, bench: BenchVolume) -> None:
    ceilings, found = original.ceilings(), original.psnr(bench.clean)
    for region in ("whole", "fg", "gate"):
        assert found[f"psnr_{region}"] == ceilings[f"true_noise_ceiling_{region}"]
        assert found[f"psnr_{region}"] == pytest.approx(ceilings[f"noise_ceiling_{region}"], abs=0.3)
        assert found[f"psnr_{region}_clean"] == math.inf
    curve = original.residual(bench.clean)
    assert curve is not None
    low, high = curve.extremes()
    assert 0.95 < low <= high < 1.05


def test_what_is_not_known_is_left_out(bench: BenchVolume) -> None:
    bare = Original(bench.volume)
    assert set(bare.psnr(bench.volume)) == {"psnr_whole", "psnr_fg"}
    assert bare.ceilings() == {}
    assert bare.residual(bench.volume) is None
    assert "fsc_clean" not in bare.resolution(bench.volume)


def test_every_measure_has_a_label_and_a_unit(original: Original, bench: BenchVolume) -> None:
    values = original.measure(blurred(bench)) | original.ceilings()
    assert set(values) <= set(LABELS)
    for name, entry in entries(values).items():
        assert set(entry) == {"value", "unit", "label"}, name
        assert entry["label"]
    assert entries({"psnr_fg": math.inf})["psnr_fg"]["value"] is None


def test_the_busiest_box_is_where_the_mask_is(rng: np.random.Generator) -> None:
    mask = np.zeros((70, 200, 300), bool)
    place = [int(rng.integers(0, n - 40)) for n in mask.shape]
    mask[tuple(slice(a, a + 40) for a in place)] = True
    box = busiest_box(mask, 70 * 100 * 75)
    sizes = [cut.stop - cut.start for cut in box]
    assert math.prod(sizes) <= 70 * 100 * 75
    assert all(0 <= cut.start < cut.stop <= n for cut, n in zip(box, mask.shape))
    # cells of 32 cut a few planes off at most
    assert mask[box].sum() > 0.5 * mask.sum()
    assert busiest_box(mask, mask.size) == (slice(0, 70), slice(0, 200), slice(0, 300))


def test_a_volume_read_in_boxes_gives_the_same_measures(original: Original, bench: BenchVolume) -> None:
    class Sliced:
        """A store: gives arrays when it is sliced, nothing else."""

        def __init__(self, values: np.ndarray) -> None:
            self._values, self.shape = values, values.shape

        def __getitem__(self, key: Any) -> np.ndarray:
            return self._values[key]

    decoded = blurred(bench)
    assert original.clean is not None
    assert original.gate is not None
    lazy = Original(
        *(Sliced(np.asarray(v)) for v in (original.volume, original.clean, original.gate)),
        original.variance,
        original.voxel_size_um,
    )
    assert lazy.measure(Sliced(decoded)) == original.measure(decoded)


def test_evaluation_of_the_decoded_bytes(original: Original, bench: BenchVolume) -> None:
    kept: dict[str, Any] = {}
    found = evaluate(original, blurred(bench, 0.7), ACCOUNT, codecs=("hevc12", "sperr"), keep=kept.__setitem__)
    value = {name: entry["value"] for name, entry in found.metrics.items() if name not in ("warnings", "notes")}
    assert value["bytes"] == 5000
    assert value["ratio"] == pytest.approx(bench.volume.nbytes / 5000)
    assert value["bpp"] == pytest.approx(8 * 5000 / bench.volume.size)
    assert value["bytes_per_gaussian"] == 10.0
    assert sum(v for k, v in value.items() if k.startswith("bytes_") and k[6:] in ACCOUNT.components) == 5000
    best = max(value[f"ratio_{k}"] for k in ("blosc2_zstd", "pcodec", "jpeg_ls", "jpeg_xl_lossless"))
    assert value["ratio_lossless"] == pytest.approx(value["ratio"] / best)
    assert value["seed_ratio"] == pytest.approx(2 * bench.volume.size / (22 * 500))
    assert value["fraction_fg"] == pytest.approx(bench.foreground())
    assert value["psnr_fg"] == original.psnr(blurred(bench, 0.7))["psnr_fg"]
    assert set(found.comparison.equal) == set(kept) == {"hevc12", "sperr"}
    for method, point in found.comparison.equal.items():
        assert abs(point.n_bytes / 5000 - 1) < 0.03
        assert point.values["psnr_fg"] == original.psnr(kept[method])["psnr_fg"]
        assert value[f"{method}_psnr_fg_clean"] == point.values["psnr_fg_clean"]
    for points in found.comparison.curves.values():
        sizes = [p.n_bytes for p in points]
        assert len(sizes) >= 4
        assert sizes == sorted(sizes)
    assert json.loads(json.dumps(found.metrics, allow_nan=False)) == found.metrics


def test_tables_are_columns_of_one_length_that_can_be_written(
    original: Original, bench: BenchVolume, tmp_path: Any
) -> None:
    found = evaluate(original, blurred(bench), ACCOUNT, codecs=("av1",), rates=2)
    tables = found.tables()
    assert set(tables) == {"codecs", "curves", "components", "residual"}
    for name, (columns, units) in tables.items():
        assert len({len(column) for column in columns.values()}) == 1
        assert set(units) <= set(columns)
        write_tsv(tmp_path / f"{name}.tsv", columns, units)
    assert tables["codecs"][0]["method"] == ["ours", "av1"]
    assert tables["curves"][0]["method"].count("av1") >= 2


def test_a_better_codec_is_said_and_a_worse_one_is_not(original: Original, bench: BenchVolume) -> None:
    poor = evaluate(original, blurred(bench, 3.0), ACCOUNT, codecs=("hevc12",), rates=1)
    said = [w for w in poor.metrics["warnings"] if w.startswith("HEVC 12-bit is better at the same number of bytes")]
    assert len(said) == 1
    assert "foreground PSNR" in said[0]
    assert any(w.startswith("Signal was lost") for w in poor.metrics["warnings"])
    good = evaluate(original, np.rint(bench.clean).astype(np.uint16), ACCOUNT, codecs=("hevc12",), rates=1)
    assert not any("better" in w for w in good.metrics["warnings"])
    noisy = evaluate(original, bench.volume, ACCOUNT)
    assert any(w.startswith("Noise was coded") for w in noisy.metrics["warnings"])


def test_a_codec_that_cannot_be_run_is_named_with_the_reason(
    original: Original, bench: BenchVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {**codecs.CODECS, "av1": codecs.Codec(**{**vars(codecs.CODECS["av1"]), "missing": lambda: "not installed"})}
    monkeypatch.setattr(codecs, "CODECS", gone)
    found = evaluate(original, blurred(bench), Account({"payload": 900}, 90), codecs=("av1", "jpegxl", "x264"), rates=1)
    left = found.comparison.left_out
    assert left["AV1 10-bit"] == "not installed"
    assert "no codec is called x264" in left["x264"]
    assert "nearest gives" in left["JPEG XL slices"]
    assert sum("not compared at equal bytes" in w for w in found.metrics["notes"]) == 3


def test_large_volumes_are_compared_in_their_busiest_box(original: Original, bench: BenchVolume) -> None:
    decoded, limit = blurred(bench), bench.volume.size // 4
    found = evaluate(original, decoded, ACCOUNT, codecs=("sz3",), rates=1, max_voxels=limit)
    assert found.ours.n_bytes == 1250
    assert any("box with the most foreground" in w for w in found.metrics["notes"])
    assert found.metrics["psnr_fg"]["value"] == original.psnr(decoded)["psnr_fg"]
    asked = []

    def bytes_in(box: Any) -> int:
        asked.append(box)
        return 2000

    found = evaluate(
        original, decoded, Account(ACCOUNT.components, 500, bytes_in), codecs=("sz3",), rates=1, max_voxels=limit
    )
    assert found.ours.n_bytes == 2000
    assert asked == [original.box(limit)]


def test_rates_at_equal_quality_and_delta_rate() -> None:
    def curve(method: str, factor: float) -> list[Point]:
        return [Point(method, method, round(factor * n), {"psnr_fg": q}) for n, q in ((1e5, 30), (2e5, 33), (4e5, 36))]

    comparison = Comparison(curves={"av1": curve("av1", 1.0)})
    ours = curve("ours", 0.6)
    assert comparison.delta_rate(ours, "av1", "psnr_fg") == pytest.approx(-0.4)
    assert comparison.bytes_at_quality(ours[1], "av1", "psnr_fg") == pytest.approx(-0.4)
    assert math.isnan(comparison.bytes_at_quality(ours[1], "sperr", "psnr_fg"))
    assert math.isnan(comparison.delta_rate(ours, "av1", "psnr_whole"))


def test_curves_reach_from_half_to_four_times_our_bytes(original: Original) -> None:
    points = compare(original, 4000, ("sperr",), rates=4, full=False).curves["sperr"]
    assert points[0].n_bytes == pytest.approx(2000, rel=0.05)
    assert points[-1].n_bytes == pytest.approx(16000, rel=0.05)
    qualities = [p.values["psnr_fg"] for p in points]
    assert qualities == sorted(qualities)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_other_types_are_evaluated(bench: BenchVolume, dtype: str) -> None:
    unit = (bench.clean - bench.clean.min()) / np.ptp(bench.clean)
    low, high = {"uint8": (0, 250), "int16": (-2000, 5000), "float32": (0.0, 1.0)}[dtype]
    volume = (low + (high - low) * unit).astype(dtype)
    decoded = ndimage.gaussian_filter(volume.astype(np.float32), 1).astype(dtype)
    found = evaluate(Original(volume), decoded, ACCOUNT, codecs=("av1", "sperr"), rates=1)
    assert found.metrics["ratio"]["value"] == pytest.approx(volume.nbytes / 5000)
    assert found.metrics["psnr_fg"]["value"] > 20
    assert set(found.comparison.equal) == {"av1", "sperr"}


def test_a_constant_volume_and_one_slice_have_what_they_can_have() -> None:
    flat = np.full((4, 40, 40), 7, np.uint16)
    found = evaluate(Original(flat), flat, Account({"header": 50}, 0))
    assert found.metrics["psnr_whole"]["value"] is None
    assert found.metrics["psnr_fg"]["value"] is None
    assert found.metrics["ratio"]["value"] == pytest.approx(flat.nbytes / 50)
    one = np.random.default_rng(0).integers(0, 100, (1, 40, 40)).astype(np.uint16)
    found = evaluate(Original(one), (one // 2 * 2).astype(np.uint16), Account({"header": 50}, 1))
    assert found.metrics["psnr_whole"]["value"] > 30
    assert "fsc" not in found.metrics
