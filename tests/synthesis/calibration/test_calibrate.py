"""Settings of a simulated image are found again without its labels, and say how sure they are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from ruamel.yaml import YAML
from scipy import ndimage

from gigascope.config.dataset import merge, parse_dataset
from gigascope.errors import UserError
from gigascope.synthesis.calibration.blur import blur
from gigascope.synthesis.calibration.camera import camera
from gigascope.synthesis.calibration.depth import attenuation
from gigascope.synthesis.calibration.fragment import calibrate, yaml_fragment
from gigascope.synthesis.calibration.nuclei import blobs, nuclei
from gigascope.synthesis.phantom.mask import mask_of_image

SIZE = (1.5, 0.5, 0.5)
SHAPE = (48, 128, 128)


def culture(rng, *, gain=2.0, attenuation=0.018, diameter=9.0, n=90, blur_um=(1.0, 0.4, 0.4)):
    """An ellipsoid of balls under a camera of offset 100 and read noise 1.5: image, region, and number of balls."""
    points = (np.moveaxis(np.indices(SHAPE), 0, -1) + 0.5) * SIZE
    centre, axes = np.array(SHAPE) * SIZE / 2, np.array([33.0, 29.0, 29.0])
    region = (((points - centre) / axes) ** 2).sum(-1) <= 1
    density, balls = np.zeros(SHAPE), []
    for _ in range(20_000):
        at = rng.uniform(0, 1, 3) * centre * 2
        if (((at - centre) / (axes - diameter / 2)) ** 2).sum() > 1:
            continue
        if balls and min(np.linalg.norm(np.array(balls) - at, axis=1)) < diameter:
            continue
        balls.append(at)
        box = tuple(slice(max(0, int((a - diameter) / v)), int((a + diameter) / v) + 2) for a, v in zip(at, SIZE))
        inside = ((points[box] - at) ** 2).sum(-1) <= (diameter / 2) ** 2
        density[box][inside] = rng.lognormal(-0.03, 0.25)
        if len(balls) == n:
            break
    density *= np.exp(-attenuation * np.cumsum(region, axis=0) * SIZE[0])
    expected = ndimage.gaussian_filter(density, [s / v for s, v in zip(blur_um, SIZE)]) * 200 + 5
    grey = np.rint(100 + gain * (rng.poisson(expected) + rng.normal(0, 1.5, SHAPE)))
    return np.clip(grey, 0, 65535).astype(np.uint16), region, len(balls)


@pytest.fixture(scope="module")
def made():
    return culture(np.random.default_rng(7))


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_gain_and_offset_are_found_from_the_noise(gain):
    found, offset = camera(culture(np.random.default_rng(3), gain=gain)[0])
    # texture and the steps of grey values add to the variance
    assert found.value == pytest.approx(gain, rel=0.1)
    # the line ends where only read noise is left: 1.5 squared electrons below the offset
    assert offset.value == pytest.approx(100 - gain * 1.5**2, abs=3 * gain)
    assert 0 < found.error < 0.2 * gain


def test_smoothed_images_have_no_gain(made):
    found, offset = camera(ndimage.gaussian_filter(made[0].astype(np.float32), (0, 2, 2)))
    assert found.value is None
    assert offset.value is None
    assert "share" in found.reason


@pytest.mark.parametrize("per_um", [0.01, 0.03])
def test_attenuation_is_found_from_depth(per_um):
    """Three images of 80 nuclei: the stated error is that of their own brightness, a quarter; no other shows."""
    found = []
    for seed in (4, 11, 12):
        image, region, _ = culture(np.random.default_rng(seed), attenuation=per_um)
        one = attenuation(image, region, SIZE, blobs(image, region, SIZE, (6.5, 12.0))[0])
        assert abs(one.value - per_um) < 3 * one.error
        assert one.error < 0.004
        found.append((one.value, one.error))
    values, errors = np.array(found).T
    # errors of single images are known to a tenth; their mean is half as wide
    assert abs(values.mean() - per_um) < 2.5 * np.sqrt((errors**2).mean() / len(found))
    assert values.mean() == pytest.approx(per_um, rel=0.25)


def test_depth_in_tissue_counts_and_not_in_the_image(made):
    """The same nuclei with empty slices above: nothing changes; brighter ones below: no attenuation."""
    image, region, _ = made
    centres = blobs(image, region, SIZE)[0]
    once = attenuation(image, region, SIZE, centres)
    above = [np.concatenate([np.full((20, *a.shape[1:]), a.min()), a]) for a in (image, region)]
    moved = attenuation(above[0], above[1], SIZE, centres + (20 * SIZE[0], 0, 0))
    assert moved.value == pytest.approx(once.value, rel=0.02)
    turned = attenuation(image[::-1], region[::-1], SIZE, (centres - (SHAPE[0] * SIZE[0], 0, 0)) * (-1, 1, 1))
    assert turned.value is None
    assert "grows with depth" in turned.reason
    assert attenuation(image, region, SIZE, centres[:8]).value is None


@pytest.mark.parametrize("diameter", [7.0, 10.0])
def test_size_and_number_of_nuclei_are_found(diameter):
    image, region, n = culture(np.random.default_rng(5), diameter=diameter, n=60)
    size, spread, share = nuclei(blobs(image, region, SIZE)[1], region, SIZE)
    assert size.value == pytest.approx(diameter, rel=0.1)
    assert spread.value < 0.2
    volume = np.count_nonzero(region) * np.prod(SIZE)
    assert share.value == pytest.approx(n * np.pi / 6 * diameter**3 / volume, rel=0.4)


def test_a_few_nuclei_are_too_few():
    image, region, _ = culture(np.random.default_rng(6), n=3)
    for found in nuclei(blobs(image, region, SIZE, (7.0, 12.0))[1], region, SIZE):
        assert found.value is None
        assert "only 3 blobs" in found.reason


def test_wider_blur_is_found_to_be_wider(made):
    sharp = blur(made[0], made[1], SIZE)
    wide = blur(culture(np.random.default_rng(7), blur_um=(2.5, 1.5, 1.5))[0], made[1], SIZE)
    assert wide[1].value > sharp[1].value
    assert wide[0][0].value > sharp[0][0].value
    # a bound: never below what was made
    assert sharp[0][0].value > 0.4
    assert wide[0][0].value > 1.5


def test_fragment_is_part_of_a_valid_dataset(made):
    text = yaml_fragment(calibrate(made[0], SIZE))
    values = YAML(typ="safe").load(text)
    dataset = parse_dataset(merge({"pipeline": "synthesis", "name": "a"}, values))
    assert dataset.simulate.camera.gain_adu_per_e == pytest.approx(2.0, rel=0.1)
    assert dataset.simulate.attenuation.mu_ex == pytest.approx(0.01, rel=0.3)
    assert dataset.simulate.grid.output_voxel_um == SIZE
    # the tissue ends with its outermost nuclei
    assert dataset.phantoms.region.semi_axes_um == pytest.approx((33, 29, 29), abs=2)
    assert text.count("+-") >= 6


def test_tissue_is_found_without_labels(made):
    """Where nuclei are 9 um wide and apart, a sixth of it is missed between them and at its surface."""
    found, true = mask_of_image(made[0], SIZE), made[1]
    assert (found & ~true).sum() < 0.03 * true.sum()
    assert (found & true).sum() > 0.75 * true.sum()


def test_what_is_not_known_stands_there_as_a_remark():
    flat = np.full((12, 40, 40), 7, np.uint8)
    flat[6, 20, 20] = 8
    text = yaml_fragment(calibrate(flat, SIZE))
    parse_dataset(merge({"pipeline": "synthesis", "name": "a"}, YAML(typ="safe").load(text) or {}))
    assert "# gain_adu_per_e: not identifiable" in text
    assert "# mean: not identifiable" in text


def test_command_writes_the_fragment(tmp_path, made):
    tifffile.imwrite(tmp_path / "a.tif", made[0][:24, :64, :64])
    words = [sys.executable, "-m", "gigascope.cli", "calibrate", str(tmp_path / "a.tif")]
    refused = subprocess.run(words, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "no voxel size" in refused.stderr
    out = tmp_path / "fragment.yaml"
    subprocess.run([*words, "--voxel-um", "1.5,0.5,0.5", "--write", str(out)], check=True, capture_output=True)
    assert out.read_text().startswith("# from a.tif: 24 x 64 x 64 voxels")
    assert YAML(typ="safe").load(out)["simulate"]["grid"]["output_voxel_um"] == [1.5, 0.5, 0.5]


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,0,1"])
def test_voxel_sizes_that_are_none_are_refused(text):
    from gigascope.calibrate import calibrate_image

    with pytest.raises(UserError, match="no voxel size"):
        calibrate_image("a.tif", text, None)
