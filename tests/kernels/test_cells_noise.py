"""The camera: its laws (C1, C2, C3, C5), independence of how an image is cut (C4), agreement with the definition."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from scipy import stats

from gigascope.errors import ShapeError
from gigascope.kernels.cells import noise, reference_noise

PLAIN = noise.Sensor(read_noise_e=0, offset_adu=0)
ALL = noise.Sensor(excess_noise=1.25, n_average=2, gain_spread=0.05, offset_spread_e=1.0, offset_adu=20)


@pytest.fixture
def levels(rng):
    """Expected electrons from 0.05 to 8000, a few of them none."""
    expected = np.exp(rng.uniform(-3, 9, (5, 13, 31)))
    expected[rng.random(expected.shape) < 0.05] = 0
    return torch.from_numpy(expected.astype(np.float32))


def grey_values(level: float, sensor: noise.Sensor, key: int, n: int) -> np.ndarray:
    shape = (1, 1, n)
    expected = torch.full(shape, level, dtype=torch.float32)
    return noise.camera(expected, sensor, key, (0, 0, 0), shape).numpy().astype(np.float64).ravel()


def test_philox_gives_the_published_words():
    # known answers of Salmon et al., Random123, for counter and key of zeros, of ones, and of the digits of pi
    answers = [
        ((0, 0, 0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for (c0, c1, c2, c3, k0, k1), expected in answers:
        index = torch.tensor([noise.signed(c1 << 32 | c0)])
        found = reference_noise.philox(index, c2, c3, k1 << 32 | k0)
        assert tuple(int(word) for word in found) == expected


@pytest.mark.parametrize("sensor", [noise.Sensor(), ALL, noise.Sensor(excess_noise=3.0, bits=12, full_well_e=900)])
def test_camera_agrees_with_the_reference(rng, levels, sensor):
    key = noise.signed(int(rng.integers(1 << 63)) * 2 + 1)
    shape = (1 << 16, 1 << 15, 1 << 15)  # indices beyond 32 bits
    origin = tuple(int(n) for n in rng.integers(1000, 30000, 3))
    numbers = torch.tensor([*sensor[:5], 2.0**sensor.bits - 1, *sensor[6:]], dtype=torch.float64)
    expected = reference_noise.camera(levels, numbers, key, origin, shape)
    found = noise.camera(levels, sensor, key, origin, shape)
    # a logarithm that differs in its last bit may decide otherwise
    assert (found.int() != expected.int()).float().mean() <= 1e-3


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0, 12.0, 60.0, 400.0])
def test_poisson_law(level):
    """C3: chi-square against the exact law, mean and variance, for one fixed seed."""
    n = 200_000
    counts = grey_values(level, PLAIN, 12345, n)
    low, high = (int(k) for k in stats.poisson.ppf([2e-4, 1 - 2e-4], level))
    edges = np.arange(low, high + 1)
    law = stats.poisson.pmf(edges, level)
    found = np.array([(counts == k).sum() for k in edges], float)
    observed = np.append(found, n - found.sum())
    expected = np.append(law, 1 - law.sum()) * n
    keep = expected >= 5
    chi2 = ((observed[keep] - expected[keep]) ** 2 / expected[keep]).sum()
    assert stats.chi2.sf(chi2, keep.sum() - 1) > 1e-3
    assert abs(counts.mean() - level) < 4 * np.sqrt(level / n)
    # variance of a sample variance: (m4 - m2^2) / n with m4 = 3 level^2 + level
    assert abs(counts.var() - level) < 4 * np.sqrt((2 * level**2 + level) / n)


def standard_errors(levels: np.ndarray, sensor: noise.Sensor, n: int) -> tuple[float, float]:
    """Of slope and intercept of variance over mean, fitted with weights 1/variance to levels of n samples.

    A sample variance has the variance (2 v^2 + k4) / n. The count is a Poisson number of jumps of Gamma(1/t, t), with
    t = F^2 - 1, so its cumulants are k_i = level E(jump^i); the normal read noise and rounding have no k4 to speak of.
    """
    gain, t = sensor.gain_adu_per_e, sensor.excess_noise - 1
    variance = gain**2 * (levels * (1 + t) + sensor.read_noise_e**2) + 1 / 12
    k4 = gain**4 * levels * (1 + t) * (1 + 2 * t) * (1 + 3 * t)
    design = np.stack([gain * levels, np.ones(len(levels))], axis=1) / variance[:, None]
    solve = np.linalg.pinv(design)
    spread = (2 * variance**2 + k4) / n / variance**2
    slope, intercept = np.sqrt((solve**2 * spread).sum(axis=1))
    return float(slope), float(intercept)


@pytest.mark.parametrize(("gain", "excess"), [(0.25, 1.0), (1.0, 1.0), (2.2, 1.0), (1.0, 1.25), (1.0, 2.0)])
def test_photon_transfer(gain, excess):
    """C1: slope gain F^2 within 1 %, intercept gain^2 sigma_r^2 + 1/12 within 3 %, from 12 levels of 10^6 samples."""
    n, read = 1_000_000, 1.5
    sensor = noise.Sensor(excess_noise=excess, read_noise_e=read, gain_adu_per_e=gain, full_well_e=1e6)
    # 20,000 e at gain 2.2, and its noise, are below 2^16
    levels = np.geomspace(10, 20000, 12)
    greys = [grey_values(level, sensor, 77 + i, n) for i, level in enumerate(levels)]
    means = np.array([grey.mean() - sensor.offset_adu for grey in greys])
    variances = np.array([grey.var() for grey in greys])
    # below, rounding is no noise of 1/12
    assert variances.min() >= 0.5**2
    slope, intercept = np.polyfit(means, variances, 1, w=1 / variances)
    true = gain**2 * read**2 + 1 / 12
    errors = standard_errors(levels, sensor, n)
    assert slope == pytest.approx(gain * excess, rel=0.01)
    assert abs(slope - gain * excess) < 4 * errors[0]
    assert abs(intercept - true) < 4 * errors[1]
    # the bound of 3 % is more than three standard errors wide, but for F^2 = 2, where it is two
    certain = 3 * errors[1] < 0.03 * true
    assert certain == (excess < 2)
    if certain:
        assert intercept == pytest.approx(true, rel=0.03)
    if gain * read >= 0.5:
        dark = grey_values(0.0, sensor, 5, n)
        assert dark.var() == pytest.approx(true, rel=0.01)


def test_dark_frame_keeps_its_mean():
    """C2: rounding is unbiased."""
    sensor = noise.Sensor(gain_adu_per_e=0.7)
    n, level = 1_000_000, 5.1
    mean = grey_values(level, sensor, 9, n).mean()
    error = 0.7 * np.sqrt((level + 1.5**2) / n)
    assert error < 0.01 / 4
    assert mean == pytest.approx(100 + 0.7 * level, abs=0.01)


def test_average_divides_the_shot_variance():
    """C5: four acquisitions have a quarter of the variance."""
    once = grey_values(2000.0, PLAIN, 3, 1_000_000).var()
    four = grey_values(2000.0, PLAIN._replace(n_average=4), 3, 1_000_000).var() - 1 / 12
    assert four == pytest.approx(once / 4, rel=0.02)


def test_noise_does_not_depend_on_blocks_or_threads(rng, levels, thread_counts):
    """C4: any cut of the image, in any order, with one thread and two."""
    shape, key = tuple(levels.shape), int(rng.integers(1 << 62))
    whole = noise.camera(levels, ALL, key, (0, 0, 0), shape)
    for threads in thread_counts:
        numba.set_num_threads(threads)
        cut = [int(rng.integers(1, n)) for n in shape]
        pieces = torch.zeros(shape, dtype=torch.int32)
        corners = [[(0, c), (c, n)] for c, n in zip(cut, shape, strict=True)]
        boxes = [(z, y, x) for x in corners[2] for y in corners[1] for z in corners[0]]
        for i in rng.permutation(len(boxes)):
            region = tuple(slice(a, b) for a, b in boxes[i])
            origin = tuple(a for a, _ in boxes[i])
            pieces[region] = noise.camera(levels[region].contiguous(), ALL, key, origin, shape).int()
        assert torch.equal(pieces, whole.int())


def test_every_parameter_has_an_effect(levels):
    shape = tuple(levels.shape)
    whole = noise.camera(levels, ALL, 1, (0, 0, 0), shape).int()
    other = noise.Sensor(1.5, 2.0, 0.9, 30.0, 500.0, 8, 3, 0.1, 2.0)
    for name in noise.Sensor._fields:
        changed = noise.camera(levels, ALL._replace(**{name: getattr(other, name)}), 1, (0, 0, 0), shape).int()
        assert not torch.equal(changed, whole), name
    assert not torch.equal(noise.camera(levels, ALL, 2, (0, 0, 0), shape).int(), whole)


def test_fixed_pattern_is_the_same_in_all_slices():
    sensor = PLAIN._replace(offset_spread_e=3.0, offset_adu=100.0)
    dark = noise.camera(torch.zeros(4, 8, 9), sensor, 4, (0, 0, 0), (4, 8, 9)).int()
    assert (dark == dark[:1]).all()
    assert dark.unique().numel() > 3


def test_saturation_and_bits():
    sensor = noise.Sensor(full_well_e=1000, bits=10)
    bright = noise.camera(torch.full((1, 2, 3), 5000.0), sensor, 4, (0, 0, 0), (1, 2, 3))
    assert (bright.int() == 1023).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expected": torch.zeros(2, 3)}, "expected"),
        ({"expected": torch.zeros(2, 3, 4, dtype=torch.float64)}, "float32"),
        ({"origin": (1, 0, 0)}, "leaves the image"),
        ({"sensor": noise.Sensor(excess_noise=0.5)}, "excess noise"),
        ({"sensor": noise.Sensor(bits=17)}, "16 bits"),
        ({"sensor": noise.Sensor(read_noise_e=-1)}, "spreads"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    given = {"expected": torch.zeros(2, 3, 4), "sensor": noise.Sensor(), "key": 0, "origin": (0, 0, 0)}
    with pytest.raises(ShapeError, match=message):
        noise.camera(**{**given, **change}, shape=(2, 3, 4))
