"""The bench volume: its fingerprint, its noise, its determinism, and the crops of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gigascope.compression.bench_volume import BenchVolume, bench_crop, bench_volume
from gigascope.compression.peers import codecs_video
from gigascope.compression.peers.lossless import lossless_codecs
from gigascope.errors import ShapeError
from gigascope.metrics import image


@pytest.fixture(scope="module")
def bench() -> BenchVolume:
    return bench_volume()


def test_fingerprint_of_the_bench_volume(bench: BenchVolume) -> None:
    volume = bench.volume
    assert (volume.shape, volume.dtype, volume.max() < 4096) == ((100, 320, 400), np.uint16, True)
    low, high = image.value_range(volume)
    regions = {"whole": None, "fg": image.Above(volume, low + 0.1 * (high - low))}
    assert 0.05 <= bench.foreground() <= 0.07
    assert image.fraction(regions["fg"]) == bench.foreground()
    ceiling = image.psnr(volume, bench.clean, high - low, regions)
    assert ceiling["fg"] == pytest.approx(37.7, abs=0.3)
    jpegxl = next(c for c in lossless_codecs() if c.label == "JPEG XL lossless")
    assert 2.7 <= volume.nbytes / jpegxl.size(volume) <= 2.85
    # twelve bits shifted to ten, as the fingerprint was measured; codecs are compared with the range stretched instead
    data = codecs_video.encode_av1(volume, 30, window=(0, 4092))
    assert 0.055 <= 8 * len(data) / volume.size <= 0.065
    found = image.psnr(volume, codecs_video.decode_av1(data), high - low, regions)
    assert found["fg"] == pytest.approx(34.4, abs=0.5)


def test_the_noise_is_that_of_the_camera(bench: BenchVolume) -> None:
    noise = bench.volume - bench.clean.astype(np.float64)
    for low, high in ((110, 130), (300, 500), (1000, 1400), (2000, 2600)):
        inside = (bench.clean > low) & (bench.clean < high)
        expected = np.mean(bench.gain * (bench.clean[inside] - bench.offset)) + bench.read**2 + 1 / 12
        n = np.count_nonzero(inside)
        assert n > 1000
        # variance of n samples of a normal distribution is known to sqrt(2 / n)
        assert np.var(noise[inside]) == pytest.approx(expected, rel=5 * math.sqrt(2 / n))
        assert abs(noise[inside].mean()) < 5 * math.sqrt(expected / n)


def test_the_same_seed_gives_the_same_voxels(bench: BenchVolume) -> None:
    again = bench_volume()
    assert np.array_equal(again.volume, bench.volume)
    assert np.array_equal(again.clean, bench.clean)
    assert not np.array_equal(bench_volume((24, 48, 48), seed=1).volume, bench_volume((24, 48, 48), seed=2).volume)


def test_the_dim_variant_has_its_noise_ceiling() -> None:
    dim = bench_volume(peak=150.0)
    low, high = image.value_range(dim.volume)
    found = image.psnr(
        dim.volume, dim.clean, high - low, {"whole": None, "fg": image.Above(dim.volume, low + 0.1 * (high - low))}
    )
    # 30.3 and 33.4 dB of the other implementation; the range of a dim volume is set by a few noisy voxels
    assert found["fg"] == pytest.approx(30.3, abs=0.6)
    assert found["whole"] == pytest.approx(33.4, abs=0.8)


def test_crops_are_boxes_of_the_volume_with_their_foreground(bench: BenchVolume) -> None:
    crop = bench_crop(bench)
    assert crop.volume.shape == crop.clean.shape == (64, 128, 128)
    assert 0.10 <= crop.foreground() <= 0.12
    assert np.array_equal(bench_crop(bench).volume, crop.volume)
    corners = np.argwhere(bench.volume[:37, :193, :273] == crop.volume[0, 0, 0])
    z, y, x = next(c for c in corners if np.array_equal(bench.volume[c[0], c[1], c[2] : c[2] + 128], crop.volume[0, 0]))
    box = slice(z, z + 64), slice(y, y + 128), slice(x, x + 128)
    assert np.array_equal(bench.volume[box], crop.volume)
    assert np.array_equal(bench.clean[box], crop.clean)
    demo = bench_crop(bench, (32, 64, 64))
    assert 0.10 <= demo.foreground() <= 0.12


def test_small_volumes_have_a_cell_and_tiny_ones_are_refused() -> None:
    small = bench_volume((16, 40, 48))
    assert small.volume.shape == (16, 40, 48)
    assert 0.0 < small.foreground() < 1.0
    with pytest.raises(ShapeError, match="at least 12"):
        bench_volume((8, 40, 40))
    with pytest.raises(ShapeError, match="does not fit"):
        bench_crop(small)
