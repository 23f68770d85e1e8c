"""Settings of the published program become a dataset, which runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from gigascope.config.dataset import load_dataset
from gigascope.errors import UserError
from gigascope.import_legacy import import_legacy
from gigascope.store.open import open_store
from gigascope.synthesis.legacy.simulation import KEYS, simulation_values
from gigascope.synthesis.legacy.training import read_hjson, training_values
from gigascope.synthesis.prototypes.library import read_library

from ..stage_runs import StageRuns

PROTOTYPE, FINE = (0.4501347, 0.0610951, 0.0610951), (0.9002694, 0.1221902, 0.1221902)
IMAGE = (1.5001311, 0.488759, 0.488759)
AXES = (3.6, 3.0, 2.6)


def ball(shape: tuple[int, ...], size: tuple[float, ...], axes: tuple[float, ...]) -> np.ndarray:
    """An ellipsoid in the middle."""
    at = np.meshgrid(*((np.arange(n) + 0.5 - n / 2) * v for n, v in zip(shape, size, strict=True)), indexing="ij")
    return sum((a / r) ** 2 for a, r in zip(at, axes, strict=True)) <= 1


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON, and the files that it names."""
    folder = tmp_path_factory.mktemp("legacy")
    (folder / "crops").mkdir()
    random = np.random.default_rng(4)
    for number in range(2):
        shape = tuple(int(2 * a / v) + 1 for a, v in zip(AXES, PROTOTYPE, strict=True))
        inside = ball(shape, PROTOTYPE, AXES)
        image = np.where(inside, random.integers(100, 256, shape), random.integers(0, 20, shape)).astype(np.uint8)
        labels = np.where(inside, 7, 0).astype(np.uint8)
        # a neighbour reaches into the crop, with a smaller id
        labels[:3, :9, :9] = 3
        tifffile.imwrite(folder / "crops" / f"n{number}.tif", image)
        tifffile.imwrite(folder / "crops" / f"n{number}_label.tif", labels)
    mask = ball((22, 70, 70), IMAGE, (13.0, 14.0, 14.0)).astype(np.uint8)
    tifffile.imwrite(folder / "mask.tif", mask)
    psf = np.zeros((9, 15, 15), np.float32)
    psf[2:7, 5:10, 5:10] = 1
    tifffile.imwrite(folder / "psf.tif", psf)
    values: dict[str, Any] = {
        "output_path": "./Data", "input_phantom_folder": str(folder / "crops"),
        "input_spheroid_mask": [str(folder / "mask.tif")], "paths_psf": [str(folder / "psf.tif")], "use_gpu_conv": 0,
        "generated_image_shape": [], "num_of_images": 1, "max_overlap": 0, "min_dist": 0, "break_criterion": 50,
        "brightness_red_fuction": "f2p", "brightness_red_factor_b": 150, "dc_baseline": 15, "noise_gauss": 0,
        "noise_gauss_absolute": 0, "noise_poisson_factor": 1, "num_of_acquisition_iterations": 1,
        "px_size_phantom_img": PROTOTYPE, "px_size_sim_img": FINE, "px_size_desired": IMAGE,
        "input_subculture_folder": "", "num_of_subcultures": 0, "subculture_radius_xy": 175, "subculture_radius_z": 10,
        "subculture_min_dist": 0, "px_size_subculture_phantoms": [0.3250898, 0.04253006666, 0.04253006666],
    }  # fmt: skip
    assert set(values) == set(KEYS)
    return values


def written(values: dict[str, Any], folder: Path, **changes: Any) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps({**values, **changes}))
    return path


def test_the_dataset_does_what_the_settings_say(published, tmp_path):
    files, remarks = import_legacy(written(published, tmp_path), "old", None, tmp_path)
    assert [path.name for path in files] == ["old.yaml", "old_prototypes.zarr"]
    assert remarks == [f"2 of 2 crops became records of {files[1]}."]
    dataset = load_dataset(files[0])
    assert (dataset.phantoms.placement.method, dataset.phantoms.placement.rsa_max_failures) == ("rsa", 50)
    assert dataset.simulate.chain == "published"
    assert dataset.simulate.attenuation.power.length_um == pytest.approx(225.02, abs=0.01)
    assert dataset.simulate.grid.oversample == pytest.approx((1.6663, 4, 4), abs=1e-4)
    library = read_library(open_store(files[1]))
    # the neighbour is not of the nucleus: the volume is that of the ellipsoid
    volume = 4 / 3 * np.pi * float(library.axes[0, 0]) ** 3 * np.exp(3 * library.sh[0, 0] * 0.28209)
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(AXES), rel=0.05)
    runs = StageRuns("synthesis", {})
    for stage in ("phantoms", "simulate"):
        runs.run(files[0], tmp_path, stage)
    image = open_store(tmp_path / "cultures.zarr").image("s0000")
    grey, table = image.array()[...], image.table("nuclei")
    assert grey.dtype == np.uint8
    assert grey.min() <= 15 < 200 < grey.max()
    assert list(image.spacing.values()) == pytest.approx(IMAGE)
    # axes vary by up to 15 % each
    ratio = table["volume_um3"] / (4 / 3 * np.pi * np.prod(AXES))
    assert len(ratio) > 3
    assert 0.6 < ratio.min() < ratio.max() < 1.6


def test_every_mask_is_a_dataset_of_its_own(published, tmp_path):
    mask = published["input_spheroid_mask"]
    files, _ = import_legacy(written(published, tmp_path, input_spheroid_mask=mask * 2), "old", None, tmp_path)
    assert [path.name for path in files] == ["old_000.yaml", "old_001.yaml", "old_prototypes.zarr"]
    with pytest.raises(UserError, match="exists already"):
        import_legacy(written(published, tmp_path, input_spheroid_mask=mask * 2), "old", None, tmp_path)


@pytest.mark.parametrize("key", ["paths_psf", "px_size_subculture_phantoms"])
def test_a_missing_key_is_named(published, tmp_path, key):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({k: v for k, v in published.items() if k != key}))
    with pytest.raises(UserError, match=f"the key {key} is missing"):
        import_legacy(path, "old", None, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"brightness_red_fuction": "fOld"}, "no counterpart"),
        ({"brightness_red_fuction": "f9"}, "is no attenuation"),
        ({"input_phantom_folder": "/nowhere"}, "has no crops"),
        ({"input_spheroid_mask": ["a.nrrd"]}, "NRRD"),
        ({"new": 1}, "the key new is not one"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(published, tmp_path, changes, message):
    path = written(published, tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        import_legacy(path, "old", None, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_attenuations_are_the_published_ones(published):
    """The published factors, but for a constant, which the stretch takes away."""
    slices, d = 40, np.linspace(0, 60, 13)
    z_fine = round(slices * IMAGE[0] / FINE[0]) + 15
    factors = {
        "f2p": (d / 150 + 1) ** -6.0,
        "f2": (d / 150 + 1) ** -6.0,
        "f3p": np.minimum(1, ((d - 10) / 150 + 1) ** -6.0),
        "f3": np.minimum(1, ((d - 10) / 200 + 1) ** -6.0),
        "f1": ((d + 5) / z_fine + 1) ** -6.0,
    }
    for name, factor in factors.items():
        given = {**published, "brightness_red_fuction": name}
        law = simulation_values(given, "m", slices, None).values["simulate"]["attenuation"]["power"]
        path = np.maximum(0, d * IMAGE[0] - law["start_um"])
        ours = (1 + path / law["length_um"]) ** -law["exponent"]
        np.testing.assert_allclose(ours / ours[0], factor / factor[0], rtol=1e-9)


def test_stacks_stand_in_the_middle_of_their_slabs(published):
    given = {**published, "paths_psf": ["a", "b", "c"]}
    optics = simulation_values(given, "m", 100, None).values["simulate"]["optics"]
    assert optics["path_depths_um"] == pytest.approx([0.1 * 150.01311, 0.5 * 150.01311, 0.9 * 150.01311])


HJSON = """{
  # what is trained
  experiment: spheroids one
  dataset_folder: ./Data/set
  mode: train          # or inference
  norm: instance
  netG: resnet_9blocks
  discriminator: PixelDiscriminator
  ngf: 32
  learning_rate: 0.0001
  learning_rate_fix: 20
  learning_rate_decay: 30,
  lambda_identity: 0.25
  lambda_cycle_A: 5
  lambda_cycle_B: 5
  crop_size: [
    16
    , 64, 64]
  inf_patch_size: null
  inf_patch_overlap: 0.25
}"""


def test_training_settings_are_read_and_mapped(published, tmp_path):
    training = tmp_path / "settings.hjson"
    training.write_text(HJSON)
    (tmp_path / "models.pth").touch()
    files, remarks = import_legacy(written(published, tmp_path), "old", training, tmp_path)
    assert any("trainB" in remark for remark in remarks)
    assert any("models.pth is not used" in remark for remark in remarks)
    dataset = load_dataset(files[0])
    train, infer = dataset.train, dataset.infer
    assert dataset.inputs.folders == "./Data/set"
    assert (train.preset, train.width, train.norm, train.discriminator) == ("paper", 32, "instance", "pixel")
    assert (train.lr, train.epochs, train.crop, train.start) == (1e-4, (20, 30), (16, 64, 64), None)
    assert (train.weights.identity, train.weights.cycle) == (0.25, 5)
    assert (infer.blend, infer.scale, infer.overlap) == ("half_cut", "full", 0.25)
    assert min(infer.window) > 10_000


def test_trained_networks_are_used_as_they_are():
    found = training_values(read_hjson("mode: inference", "a"), "models.pth", "a").values
    assert (found["train"]["steps"], found["train"]["start"]) == (0, "models.pth")
    for text, message in (
        ("mode: inference", "needs models.pth"),
        ("netG: unet", "has no counterpart"),
        ("colour: 1", "is not one"),
        ("lambda_cycle_A: 1", "differ"),
        ("what is this", "no `key: value`"),
    ):
        with pytest.raises(UserError, match=message):
            training_values(read_hjson(text, "a"), None, "a")
