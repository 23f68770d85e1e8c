"""Photon transfer: gain, offset and read noise from a volume, through structure, saturation and cut-off backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.compression import noise
from gigascope.compression.bench_volume import BenchVolume, bench_volume
from gigascope.compression.noise import NoiseModel, PhotonTransfer, high_pass, psnr_ceiling


def fitted(volume: NDArray, slab: int = 64) -> NoiseModel:
    """The model of a volume that comes in slabs."""
    integer = volume.dtype.kind in "iu"
    transfer = PhotonTransfer(volume.shape, integer, float(np.iinfo(volume.dtype).max) if integer else None)
    for z in range(0, len(volume), slab):
        transfer.add(volume[z : z + slab])
    return transfer.fit()


def ceilings(model: NoiseModel, volume: NDArray) -> tuple[float, float]:
    """PSNR_noise of the whole volume and of its foreground, above 10 % of the range."""
    low, span = float(volume.min()), float(volume.max()) - float(volume.min())
    return psnr_ceiling(model, volume, span), psnr_ceiling(model, volume[volume > low + 0.1 * span], span)


def test_model_is_the_formula_for_numbers_arrays_and_tensors() -> None:
    model = NoiseModel(2.0, 100.0, 3.0)
    assert model.variance(150.0) == 109.0
    assert model.variance(50.0) == 9.0
    values = np.array([50.0, 100.0, 150.0], np.float32)
    np.testing.assert_allclose(model.variance(values), [9, 9, 109])
    torch.testing.assert_close(model.sd(torch.from_numpy(values)), torch.tensor([3.0, 3.0, 109**0.5]))


def test_ceiling_of_the_bench_volume_is_found_within_a_tenth_of_a_decibel(bench: BenchVolume) -> None:
    truth = NoiseModel(bench.gain, bench.offset, bench.read)
    found = fitted(bench.volume)
    assert found.gain == pytest.approx(bench.gain, rel=0.05)
    assert found.offset == pytest.approx(bench.offset, abs=5)
    np.testing.assert_allclose(ceilings(found, bench.volume), ceilings(truth, bench.volume), atol=0.15)
    # the figures of the specification, of another run of its generator
    np.testing.assert_allclose(ceilings(found, bench.volume), (47.66, 37.72), atol=0.3)


def test_dim_volume(rng: np.random.Generator) -> None:
    dim = bench_volume((48, 160, 160), seed=int(rng.integers(1 << 31)), peak=150.0)
    truth = NoiseModel(dim.gain, dim.offset, dim.read)
    np.testing.assert_allclose(ceilings(fitted(dim.volume), dim.volume), ceilings(truth, dim.volume), atol=0.3)


def test_slabs_do_not_change_the_model_of_a_volume_of_slabs_much(bench: BenchVolume) -> None:
    """Blocks differ where slabs meet, the line does not."""
    whole, cut = fitted(bench.volume, 100), fitted(bench.volume, 32)
    np.testing.assert_allclose(ceilings(cut, bench.volume), ceilings(whole, bench.volume), atol=0.1)


@pytest.mark.parametrize("shape", [(64, 96, 96), (1, 300, 300), (2, 250, 250), (3, 250, 250), (5, 160, 160)])
def test_white_noise_of_a_thick_and_a_thin_volume(rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    light = ndimage.gaussian_filter(rng.normal(size=shape), (5, 20, 20))
    light = 200 + 150 * light / np.abs(light).max()
    volume = (1.7 * rng.poisson(light) + rng.normal(0, 4, shape)).astype(np.float32)
    found = fitted(volume)
    levels = 1.7 * np.quantile(light, (0.05, 0.3, 0.7, 0.95))
    # 700 blocks of the thinnest of them, each with an error of 27 %, in bins of 50: 4 % and less for the line, 4 sd
    np.testing.assert_allclose(found.variance(levels), 1.7 * levels + 16, rtol=0.16)


def test_dark_images_have_their_read_noise(rng: np.random.Generator) -> None:
    volume = rng.normal(100, 3, (32, 96, 96)).round().astype(np.uint16)
    found = fitted(volume)
    assert float(found.sd(100.0)) == pytest.approx(np.sqrt(9 + 1 / 12), rel=0.05)
    assert float(np.mean(found.variance(volume.astype(float)))) == pytest.approx(9 + 1 / 12, rel=0.1)


def test_saturated_voxels_do_not_count(rng: np.random.Generator) -> None:
    light = np.broadcast_to(np.linspace(20, 400, 128), (32, 96, 128))
    volume = np.minimum(rng.poisson(light), 255).astype(np.uint8)
    assert (volume == 255).mean() > 0.2
    found = fitted(volume)
    np.testing.assert_allclose(found.variance(np.array([50.0, 120.0, 180.0])), [50, 120, 180], rtol=0.12)
    camera = np.minimum(4 * rng.poisson(light), 1023).astype(np.uint16)
    np.testing.assert_allclose(fitted(camera).variance(np.array([200.0, 600.0])), [800, 2400], rtol=0.12)


def test_texture_does_not_count_where_part_of_the_volume_is_smooth(rng: np.random.Generator) -> None:
    light = np.broadcast_to(np.linspace(50, 500, 160), (32, 96, 160)).copy()
    light[:, :50] *= 1 + 0.5 * rng.random((32, 50, 160))
    volume = rng.poisson(light).astype(np.uint16)
    found = fitted(volume)
    # texture gives half of the rows 3 to 10 times the variance
    np.testing.assert_allclose(found.variance(np.array([100.0, 300.0, 450.0])), [100, 300, 450], rtol=0.3)


def test_background_without_noise_leaves_the_rounding(rng: np.random.Generator) -> None:
    volume = np.zeros((32, 96, 96), np.uint8)
    spots = ndimage.gaussian_filter((rng.random(volume.shape) < 2e-4).astype(float), 2.5)
    volume += (120 * spots / spots.max()).astype(np.uint8)
    found = fitted(volume)
    assert float(found.sd(0.0)) == pytest.approx(np.sqrt(1 / 12), rel=0.2)
    assert found.gain >= 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (3, 3, 3), (40, 40, 40)])
def test_constant_and_tiny_volumes_have_a_model(dtype: type[np.generic], shape: tuple[int, int, int]) -> None:
    found = fitted(np.full(shape, 7, dtype))
    assert found.gain == 0
    assert 0 < found.read < 1
    assert np.isfinite(found.offset)


def test_large_volumes_are_sampled(bench: BenchVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = PhotonTransfer(bench.volume.shape, integer=True)
    transfer.add(bench.volume)
    monkeypatch.setattr(noise, "SAMPLED_VOXELS", bench.volume.size // 5)
    sampled = PhotonTransfer(bench.volume.shape, integer=True)
    sampled.add(bench.volume)
    n_all, n_sampled = (sum(f.shape[1] for f in t._found) for t in (transfer, sampled))
    assert n_sampled == pytest.approx(n_all / 5, rel=0.1)
    np.testing.assert_allclose(ceilings(sampled.fit(), bench.volume), ceilings(transfer.fit(), bench.volume), atol=0.3)


def test_high_pass_keeps_the_variance_of_white_noise_and_takes_what_a_microscope_resolves(
    rng: np.random.Generator,
) -> None:
    white = rng.normal(size=(40, 60, 60)).astype(np.float32)
    # 100,000 samples that are correlated over 7
    assert float(high_pass(white).var()) == pytest.approx(1, rel=0.05)
    point = np.zeros((31, 31, 31), np.float32)
    point[15, 15, 15] = 1
    image = ndimage.gaussian_filter(point, (1.3, 0.9, 0.9))
    assert float(np.abs(high_pass(image)).max()) < 0.03 * float(image.max())


REAL = {
    # name, channel: variance at a grey value, read off the plot of block variances against block means
    ("cortex_somata_u16.tif", None): {300.0: (9, 17), 1000.0: (20, 60)},
    ("xyz_8bit__chromosomes.tif", None): {115.0: (22, 45), 160.0: (100, 210)},
    ("xyz_calibrated_16bit__golgi_bfa.tif", None): {10.0: (15, 60), 1000.0: (2500, 8000)},
    ("xyzc_16bit__spots.tif", 1): {1000.0: (2e5, 6e5), 1500.0: (6e5, 2e6)},
    ("pyramidal_neuron_u8.tif", None): {0.0: (0.05, 0.15), 10.0: (0.2, 3)},
    ("mouse_brain_100um_u16.tiff", None): {40.0: (0.5, 5), 1000.0: (50, 500)},
}


@pytest.mark.parametrize(("name", "channel"), REAL)
def test_real_volumes(shared_data: Path, name: str, channel: int | None) -> None:
    volume = tifffile.imread(shared_data / "volumes" / name)
    found = fitted(np.ascontiguousarray(volume if channel is None else volume[:, channel]))
    for level, (low, high) in REAL[name, channel].items():
        assert low < float(found.variance(level)) < high, (found, level)
