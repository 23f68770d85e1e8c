"""The fit as a user starts it: targets are met or missed in words, parts do not matter, seams do not show."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gigascope.compress import compress, decompress
from gigascope.compression.bench_volume import bench_crop
from gigascope.compression.gmix.container import Gmix
from gigascope.errors import UserError

# Small bricks and few iterations: what is tested is how bricks go together, not how well one is fitted.
QUICK: dict[str, Any] = {"brick": [16, 32, 32], "halo": 8, "iterations": 50, "sweep_iterations": 10, "sweeps": 1}


@pytest.fixture(scope="module")
def volume() -> NDArray[np.uint16]:
    """A piece of the bench volume with somata and neurites, (32, 64, 64)."""
    return np.ascontiguousarray(bench_crop(shape=(32, 64, 64)).volume)


def opened(data: bytes, folder: Path) -> Gmix:
    path = folder / "volume.gmix"
    path.write_bytes(data)
    return Gmix(path)


def psnr(volume: NDArray, decoded: NDArray, where: NDArray | slice = slice(None)) -> float:
    error = (decoded.astype(np.float64) - volume)[where]
    return 10 * math.log10((float(volume.max()) - float(volume.min())) ** 2 / float(np.square(error).mean()))


@pytest.mark.slow
def test_same_volume_and_config_give_the_same_bytes(volume: NDArray) -> None:
    first, second = (compress(volume, device="cpu", lambda_=4.0, **QUICK) for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [80.0, 200.0])
def test_ratio_is_kept_to_from_the_right_side(volume: NDArray, ratio: float) -> None:
    data = compress(volume, device="cpu", ratio=ratio, **QUICK)
    assert volume.nbytes / len(data) >= ratio


@pytest.mark.slow
def test_no_ratio_beyond_the_header_is_promised(volume: NDArray, caplog: pytest.LogCaptureFixture) -> None:
    data = compress(volume, device="cpu", bytes=300, **QUICK)
    assert len(data) > 300
    assert "cannot be reached" in caplog.text
    assert f"{len(data)} bytes" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0, 40])
def test_bound_holds_at_every_voxel_across_bricks(volume: NDArray, bound: int) -> None:
    decoded = decompress(compress(volume, device="cpu", max_error=bound, **QUICK), "cpu")
    assert decoded.dtype == volume.dtype
    assert int(np.abs(decoded.astype(np.int64) - volume).max()) <= bound


@pytest.mark.slow
def test_psnr_beyond_the_noise_takes_a_residual_layer(volume: NDArray, tmp_path: Path) -> None:
    data = compress(volume, device="cpu", psnr=50.0, **QUICK)
    assert opened(data, tmp_path).header.residual is not None
    assert psnr(volume, decompress(data, "cpu")) >= 49.5


@pytest.mark.slow
def test_volume_without_signal_is_its_background(rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> None:
    noise = rng.poisson(20, (16, 32, 32)).astype(np.uint16)
    data = compress(noise, device="cpu", **QUICK)
    assert "empty" in caplog.text
    decoded = decompress(data, "cpu")
    assert abs(float(decoded.mean()) - 20) < 1
    assert float(decoded.std()) < 1


@pytest.mark.slow
def test_one_slice_and_signed_integers(volume: NDArray) -> None:
    plane = (volume[16:17].astype(np.int32) - 1000).astype(np.int16)
    decoded = decompress(compress(plane, device="cpu", lambda_=2.0, **(QUICK | {"brick": [16, 32, 32]})), "cpu")
    assert decoded.shape == plane.shape
    assert decoded.dtype == np.int16
    assert psnr(plane, decoded) > 25


@pytest.mark.slow
def test_channels_and_times_are_frames_of_their_own(volume: NDArray) -> None:
    halves = np.stack([volume[:16, :32, :32], volume[16:, 32:, 32:]])
    both = decompress(compress(halves, axes="czyx", device="cpu", lambda_=4.0, **QUICK), "cpu")
    assert both.shape == halves.shape
    for c in range(2):
        alone = decompress(compress(halves[c], device="cpu", lambda_=4.0, **QUICK), "cpu")
        assert abs(psnr(halves[c], both[c]) - psnr(halves[c], alone)) < 1.0


@pytest.mark.slow
def test_positive_amplitudes_only(volume: NDArray, tmp_path: Path) -> None:
    gmix = opened(compress(volume, device="cpu", lambda_=4.0, nonneg=True, **QUICK), tmp_path)
    amplitudes = torch.cat([gmix.read_brick(0, i).amplitudes for i in gmix.bricks(0)])
    assert len(amplitudes) > 20
    assert (amplitudes >= 0).all()


def test_two_targets_are_refused(volume: NDArray) -> None:
    with pytest.raises(UserError, match="cannot all be met"):
        compress(volume, device="cpu", ratio=100, psnr=35)


@pytest.mark.slow
def test_seams_between_bricks_do_not_show() -> None:
    made = bench_crop(shape=(64, 96, 96))
    quick = {"iterations": 200, "sweep_iterations": 30, "lambda_": 1.0}
    cut = decompress(compress(made.volume, device="cpu", brick=[32, 48, 48], halo=16, **quick), "cpu")
    whole = decompress(compress(made.volume, device="cpu", brick=[64, 96, 96], halo=16, **quick), "cpu")
    foreground = made.clean > made.clean.min() + 0.1 * np.ptp(made.clean)
    assert psnr(made.volume, cut, foreground) > psnr(made.volume, whole, foreground) - 0.3
    near = np.zeros(made.volume.shape, bool)
    near[30:34], near[:, 46:50], near[:, :, 46:50] = True, True, True
    error = cut.astype(np.float64) - made.volume
    rms = [math.sqrt(float(np.square(error[foreground & m]).mean())) for m in (near, ~near)]
    assert rms[0] <= 1.1 * rms[1]
    # steps of the mean residual from two planes to the next two: at a seam as anywhere, where they scatter too
    for axis, seam in ((0, 32), (1, 48), (2, 48)):
        planes = np.moveaxis(error, axis, 0).mean(axis=(1, 2))
        steps = (planes[2:-1] + planes[3:] - planes[1:-2] - planes[:-3]) / 2
        elsewhere = np.delete(steps, range(seam - 4, seam + 1))
        assert abs(steps[seam - 2]) < 3 * float(elsewhere.std())
