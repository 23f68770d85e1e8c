"""Rate and distortion on the crop of the bench volume, from bytes; the whole: benchmarks/compression.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from gigascope.compress import compress, decompress
from gigascope.compression.bench_volume import BenchVolume, bench_crop
from gigascope.compression.noise import NoiseModel
from gigascope.compression.peers.codecs import CODECS, at_bytes
from gigascope.compression.peers.codecs_array import encode_sz3
from gigascope.compression.quality.fidelity import Original

# Of the bench volume's camera: 2.2 DN per electron, offset 100, read noise of 1.6 electrons.
CAMERA = NoiseModel(2.2, 100.0, 1.6 * 2.2)


@dataclass(frozen=True)
class Coded:
    """The crop, our file of it, and what that gives back."""

    made: BenchVolume
    data: bytes
    decoded: NDArray

    @property
    def original(self) -> Original:
        return Original(self.made.volume, clean=self.made.clean, variance=CAMERA.variance)


@pytest.fixture(scope="module")
def coded() -> Coded:
    made = bench_crop()
    data = compress(made.volume, device="cpu", lambda_=4.0)
    return Coded(made, data, decompress(data, "cpu"))


@pytest.mark.slow
def test_at_200_to_one_the_noise_is_what_is_missing(coded: Coded) -> None:
    found = coded.original.psnr(coded.decoded)
    assert coded.made.volume.nbytes / len(coded.data) > 200
    # the noise alone is 37.3 dB in the foreground and 45.5 dB in all of this crop
    assert found["psnr_fg"] > 36.2
    assert found["psnr_whole"] > 44.0
    assert found["psnr_fg_clean"] > 41.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["av1", "sperr"])
def test_codecs_are_decibels_behind_at_the_same_bytes(coded: Coded, name: str) -> None:
    theirs = at_bytes(CODECS[name], coded.made.volume, len(coded.data))
    decoded = (coded.decoded, CODECS[name].decode(theirs.data))
    ours, peer = (coded.original.psnr(d)["psnr_fg_clean"] for d in decoded)
    assert abs(len(theirs.data) / len(coded.data) - 1) < 0.1
    # 3.3 dB for twice the bytes: half of them
    assert ours > peer + 3.3


@pytest.mark.slow
def test_with_weights_of_the_noise_the_residual_is_the_noise() -> None:
    made = bench_crop()
    decoded = decompress(compress(made.volume, device="cpu", weight="ml", lambda_=1.0), "cpu").astype(np.float64)
    edges = np.linspace(float(made.volume.min()), float(made.volume.max()), 11)
    tenth = np.clip(np.digitize(decoded, edges) - 1, 0, 9)
    relative = (made.volume - decoded) / CAMERA.sd(made.clean.astype(np.float64))
    counted = [k for k in range(10) if (tenth == k).sum() >= 1000]
    assert len(counted) >= 7
    for k in counted:
        assert 0.95 <= float(relative[tenth == k].std()) <= 1.15, k


@pytest.mark.slow
def test_bounded_error_takes_less_than_half_of_sz3(coded: Coded) -> None:
    volume = coded.made.volume
    data = compress(volume, device="cpu", lambda_=4.0, max_error=100)
    assert int(np.abs(decompress(data, "cpu").astype(np.int64) - volume).max()) <= 100
    assert len(encode_sz3(volume, 100.0)) > 2 * len(data)
