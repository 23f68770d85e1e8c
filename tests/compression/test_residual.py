"""The residual layer: the bound holds everywhere, bytes are refused when damaged, and noise costs what noise must."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.compression.bench_volume import BenchVolume, bench_crop
from gigascope.compression.correction import residual_tables
from gigascope.compression.correction.residual import (
    DTYPES,
    ResidualSettings,
    decode_brick,
    encode_brick,
    encode_residual,
    settings_for,
    step_for,
)
from gigascope.compression.noise import NoiseModel
from gigascope.errors import ShapeError, UserError

NOISE = NoiseModel(2.2, 100.0, 3.5)
# of contexts, shifts and first probabilities as little-endian int32
TABLE_CRCS = [2885967960, 675558884, 4159596932]


@pytest.fixture(scope="module")
def crop(bench: BenchVolume) -> BenchVolume:
    return bench_crop(bench)


@pytest.fixture(scope="module")
def prediction(crop: BenchVolume) -> NDArray[np.int32]:
    """The truth and an error as a fit leaves it: smooth over 1.5 voxels, half the noise, so 1.12 of it together."""
    error = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal(crop.volume.shape), 1.5)
    sd = np.sqrt(crop.gain * (crop.clean - crop.offset) + crop.read**2)
    return np.rint(crop.clean + 0.5 * sd * error / error.std()).astype(np.int32)


def noise_of(crop: BenchVolume) -> NoiseModel:
    return NoiseModel(crop.gain, crop.offset, crop.read)


def random_case(seed: int, dtype: str) -> tuple[NDArray, NDArray[np.int32], NoiseModel]:
    """Values and prediction of one of four kinds, from equal to unrelated, with both ends of the dtype among them."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    shape = tuple(rng.integers(1, 20, 3))
    predicted = rng.integers(limits.min, limits.max + 1, shape)
    kind = rng.integers(4)
    spread = 10 ** rng.uniform(-1, 4)
    values = [
        predicted,
        predicted + np.rint(spread * rng.standard_normal(shape)).astype(np.int64),
        rng.integers(limits.min, limits.max + 1, shape),
        rng.choice([limits.min, limits.max], shape),
    ][kind]
    values.flat[:: rng.integers(1, 9)] = rng.choice([limits.min, limits.max])
    noise = NoiseModel(float(rng.uniform(0, 3)), float(rng.uniform(-9, 9)), float(10 ** rng.uniform(-1, 4)))
    return np.clip(values, limits.min, limits.max).astype(dtype), predicted.astype(np.int32), noise


@settings(max_examples=60, deadline=None)
@given(strategies.integers(0, 2**32 - 1), strategies.sampled_from(DTYPES), strategies.integers(0, 9))
def test_bound_holds_at_every_voxel(seed, dtype, exponent):
    values, predicted, noise = random_case(seed, dtype)
    bound = min(2**exponent - 1, int(np.iinfo(dtype).max))
    law = ResidualSettings(dtype, noise, bound=bound)
    data = encode_brick(values, predicted, law)
    decoded = decode_brick(data, predicted, law)
    assert decoded.dtype == dtype
    assert np.abs(decoded.astype(np.int64) - values).max() <= bound


@settings(max_examples=40, deadline=None)
@given(strategies.integers(0, 2**32 - 1), strategies.sampled_from(DTYPES), strategies.integers(1, 300))
def test_a_step_decodes_to_what_the_encoder_saw(seed, dtype, step):
    """Whatever is left out for its bits, no error passes the residual that was there before."""
    values, predicted, noise = random_case(seed, dtype)
    data, law = encode_residual(values, predicted, noise=noise, step=step, dead_zone=0.6)
    error = np.abs(decode_brick(data, predicted, law).astype(np.int64) - values)
    assert (error <= np.maximum(np.abs(predicted - values.astype(np.int64)), step)).all()
    data, law = encode_residual(values, predicted, noise=noise, step=step, weight=0.0)
    error = np.abs(decode_brick(data, predicted, law).astype(np.int64) - values)
    first = math.ceil(0.6 * step)  # that becomes a level of 1
    assert error.max() <= max(first - 1, step - first)


def test_equal_bytes_every_time_from_any_thread(crop, prediction):
    law = ResidualSettings("uint16", NOISE, bound=10)
    box = np.s_[:16, :40, :40]
    first = encode_brick(crop.volume[box], prediction[box], law)
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: encode_brick(crop.volume[box], prediction[box], law), range(8)))
    assert set(others) == {first}
    strided = np.asfortranarray(crop.volume[box]), np.asfortranarray(prediction[box].astype(np.int64))
    assert encode_brick(*strided, law) == first


def test_nothing_to_correct_is_five_bytes(crop, prediction):
    for values, bound in ((prediction.astype(np.uint16), 0), (crop.volume, 4000)):
        data, law = encode_residual(values, prediction, noise=NOISE, bound=bound)
        assert len(data) == 5
        np.testing.assert_array_equal(decode_brick(data, prediction, law), prediction)


def test_lossless_costs_the_entropy_of_the_noise(crop, prediction):
    """Within 0.2 bits of that of normal noise with the truth known, of which 0.16 are the error of the prediction."""
    data, law = encode_residual(crop.volume, prediction, noise=noise_of(crop), bound=0)
    np.testing.assert_array_equal(decode_brick(data, prediction, law), crop.volume)
    variance = crop.gain * (crop.clean - crop.offset) + crop.read**2 + 1 / 12
    entropy = float(np.mean(0.5 * np.log2(2 * np.pi * np.e * variance)))
    bits = 8 * len(data) / crop.volume.size
    print(f"{bits:.3f} bits per voxel, noise {entropy:.3f}")
    assert entropy < bits < min(entropy + 0.2, 6.0)


def test_error_of_the_prediction_is_learnt_from_neighbours(crop, prediction):
    """Coded voxel by voxel the fit's error would cost half the logarithm of 1.25; half of that is saved."""
    data, _ = encode_residual(crop.volume, prediction, noise=noise_of(crop), bound=0)
    best, _ = encode_residual(crop.volume, np.rint(crop.clean).astype(np.int32), noise=noise_of(crop), bound=0)
    assert 8 * (len(data) - len(best)) / crop.volume.size < 0.75 * 0.5 * math.log2(1.25)


@pytest.mark.parametrize("bound", [20, 50, 100])
def test_less_than_half_of_sz3_at_the_same_bound(crop, prediction, bound):
    """With the 8.4 kB of the Gaussians that the prediction stands for."""
    data, law = encode_residual(crop.volume, prediction, noise=noise_of(crop), bound=bound)
    assert np.abs(decode_brick(data, prediction, law).astype(int) - crop.volume).max() <= bound
    peer = imagecodecs.sz3_encode(crop.volume.astype(np.float32), mode="abs", abs=bound)
    print(f"{len(data) + 8400} bytes, SZ3 {len(peer)}")
    assert len(data) + 8400 < len(peer) / 2


def test_a_wrong_noise_model_costs_little(crop, prediction):
    """Classes follow the neighbours where the model is off by ten."""
    box = np.s_[:32]
    values, predicted = crop.volume[box], prediction[box]
    right = len(encode_residual(values, predicted, noise=noise_of(crop), bound=0)[0])
    for factor in (0.1, 10.0):
        wrong = NoiseModel(crop.gain * factor**2, crop.offset, crop.read * factor)
        assert len(encode_residual(values, predicted, noise=wrong, bound=0)[0]) < 1.02 * right


def test_leaving_levels_out_pays(crop, prediction):
    """Squared error plus weighted bits falls against rounding to the nearest level, and against the dead zone alone."""
    box = np.s_[:32]
    values, predicted, step = crop.volume[box], prediction[box], 30

    def cost(dead_zone: float, weight: float | None) -> float:
        data, law = encode_residual(
            values, predicted, noise=noise_of(crop), step=step, dead_zone=dead_zone, weight=weight
        )
        error = decode_brick(data, predicted, law).astype(np.int64) - values
        price = ResidualSettings("uint16", NOISE, step=step).bit_weight
        return float(np.square(error).sum()) + price * 8 * len(data)

    nearest, zoned, chosen = cost(0.5, 0.0), cost(0.6, 0.0), cost(0.6, None)
    assert chosen < 0.97 * zoned < 0.97 * nearest


def test_step_for_a_mean_square(crop, prediction):
    residual = crop.volume.astype(np.int64) - prediction
    for target in (5.0, 50.0, 150.0):
        step = step_for(residual, target)

        def error(step: int) -> float:
            data, law = encode_residual(crop.volume, prediction, noise=NOISE, step=step, weight=0.0)
            return float(np.square(decode_brick(data, prediction, law).astype(np.int64) - crop.volume).mean())

        assert error(step) <= target * 1.02 < error(step + 2) * 1.1


def test_settings_for_a_mean_square(crop, prediction):
    box = np.s_[:32]
    values, predicted = crop.volume[box], prediction[box]

    def error(law: ResidualSettings) -> float:
        decoded = decode_brick(encode_brick(values, predicted, law), predicted, law)
        return float(np.square(decoded.astype(np.int64) - values).mean())

    for target in (10.0, 50.0, 150.0):
        law = settings_for(values, predicted, NOISE, target)
        assert 0.8 * target < error(law) <= target


def test_cut_or_altered_bytes_are_refused(rng):
    for bound, spread in ((0, 3), (2, 1), (0, 0)):
        predicted = rng.integers(100, 200, (9, 10, 11)).astype(np.int32)
        values = np.rint(predicted + spread * rng.standard_normal(predicted.shape)).astype(np.uint8)
        law = ResidualSettings("uint8", NoiseModel(0.0, 0.0, 2.0), bound=bound)
        data = encode_brick(values, predicted, law)
        damaged = [data[:n] for n in range(len(data))] + [data + b"\0", data + bytes(40)]
        for place in range(len(data)):
            altered = bytearray(data)
            altered[place] ^= int(rng.integers(1, 256))
            damaged.append(bytes(altered))
        for piece in damaged:
            with pytest.raises(UserError, match="cannot be decoded"):
                decode_brick(piece, predicted, law)


def test_another_prediction_is_noticed(crop, prediction):
    box = np.s_[:8, :16, :16]
    law = ResidualSettings("uint16", NOISE, bound=100)
    data = encode_brick(crop.volume[box], prediction[box], law)
    other = prediction[box].copy()
    other[3, 4, 5] += 1
    with pytest.raises(UserError, match="Gaussians are not those"):
        decode_brick(data, other, law)


@pytest.mark.slow
def test_no_bytes_lead_out_of_bounds(tmp_path):
    """With numba's checks of every index, which raise IndexError."""
    code = (
        "import numpy as np\n"
        "from gigascope.compression.correction.residual import *\n"
        "from gigascope.compression.correction.residual import _HEAD, FORMAT\n"
        "from gigascope.compression.noise import NoiseModel\n"
        "from gigascope.errors import UserError\n"
        "rng = np.random.default_rng()\n"
        "for trial in range(200):\n"
        "    dtype = DTYPES[trial % 4]\n"
        "    limits = np.iinfo(dtype)\n"
        "    noise = NoiseModel(float(rng.uniform(0, 3)), 0.0, float(10 ** rng.uniform(-2, 4)))\n"
        "    law = ResidualSettings(dtype, noise, bound=int(rng.integers(0, 100)))\n"
        "    shape = tuple(rng.integers(1, 20, 3))\n"
        "    predicted, values = (rng.integers(limits.min, limits.max + 1, shape).astype(dtype) for _ in range(2))\n"
        "    encode_brick(values, predicted, law)\n"
        "    payload = rng.integers(0, 256, int(rng.integers(0, 3000)), dtype=np.uint8) * (trial % 5 > 0)\n"
        "    body = _HEAD.pack(FORMAT << 4 | (2, 4)[trial % 2], 0) + payload.astype(np.uint8).tobytes()\n"
        "    try:\n"
        "        decode_brick(body, predicted, law)\n"
        "        raise SystemExit('garbage was decoded')\n"
        "    except UserError:\n"
        "        pass\n"
    )
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=600)


def test_settings_survive_json(rng):
    for law in (
        ResidualSettings("uint16", NOISE, bound=0),
        ResidualSettings("int8", NoiseModel(0.1 + 0.2, -1e-3, 1 / 3), step=7, dead_zone=0.55, weight=0.25),
    ):
        attributes = json.loads(json.dumps(law.to_attributes()))
        assert ResidualSettings.from_attributes(attributes, law.dtype, law.noise) == law


def test_tables_are_the_stored_ones():
    """Files depend on every entry."""
    tables = residual_tables.contexts(), residual_tables.shifts(), residual_tables.fresh_model()
    assert [zlib.crc32(t.astype("<i4").tobytes()) for t in tables] == TABLE_CRCS


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bound": 3, "step": 4},
        {"bound": -1},
        {"bound": 70000},
        {"step": 0},
        {"step": 4, "dead_zone": 0.3},
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments):
    with pytest.raises(UserError):
        ResidualSettings("uint16", NOISE, **arguments)


@pytest.mark.parametrize("dtype", ["float32", "uint32", "int64"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(UserError, match="integers of 8 or 16 bits"):
        ResidualSettings(dtype, NOISE, bound=1)
    with pytest.raises(UserError, match="integers of 8 or 16 bits"):
        encode_residual(np.zeros((2, 2, 2), dtype), np.zeros((2, 2, 2), np.int32), noise=NOISE, bound=1)


def test_attributes_of_another_kind_are_refused():
    good = ResidualSettings("uint16", NOISE, bound=0).to_attributes()
    for bad in ({}, {**good, "format": 2}, {"format": 1}, {**good, "more": 1}):
        with pytest.raises(UserError):
            ResidualSettings.from_attributes(bad, "uint16", NOISE)


def test_arrays_that_do_not_fit_are_refused():
    law = ResidualSettings("uint8", NOISE, bound=0)
    values, predicted = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.int32)
    with pytest.raises(UserError):
        encode_brick(values.astype(np.uint16), predicted, law)
    for wrong in (predicted[:1], predicted[0], predicted + 256, predicted - 1, predicted.astype(np.float32)):
        with pytest.raises(ShapeError):
            encode_brick(values, wrong, law)
