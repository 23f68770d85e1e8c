"""Bad input of the stages that read stores: one message with what to do, exit code 2, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from gigascope.cli import main

from ..stage_runs import write_dataset
from .adaptation.ensembles import nuclei, real, simulated, write_ensemble
from .chain import RUNS

SHAPE = (12, 40, 48)
TRAIN = {"width": 4, "blocks": 0, "crop": [8, 16, 16], "discriminator": "pixel", "batch": 1, "steps": 0}
TINY: dict[str, Any] = {"pipeline": "synthesis", "name": "bad", "device": "cpu", "train": TRAIN}


@dataclass(frozen=True)
class Case:
    """What is wrong.

    Attributes
    ----------
    stage : that refuses it
    cultures, real : options of `ensembles.write_ensemble`, and of the images: dtypes, shape, labels
    keys : of the dataset
    words : of the message, and of its advice
    """

    stage: str
    words: tuple[str, ...]
    cultures: Callable[[Path, np.random.Generator], object] = lambda path, rng: write(path, rng, simulated)
    real: Callable[[Path, np.random.Generator], object] = lambda path, rng: write(path, rng, real)
    keys: Any = None


def write(
    path: Path,
    rng: np.random.Generator,
    make: Callable[..., np.ndarray],
    dtypes: tuple[str, ...] = ("uint16", "uint16"),
    shape: tuple[int, int, int] = SHAPE,
    labelled: bool = True,
    **options: Any,
) -> None:
    labels = [nuclei(rng, shape, 12) for _ in dtypes]
    share = {"uint16": 1, "uint8": 8}
    images = [(make(rng, found) // share[dtype]).astype(dtype) for found, dtype in zip(labels, dtypes)]
    write_ensemble(path, images, labels if labelled else None, **options)


def read_in(path: Path, image: np.ndarray) -> None:
    """As the stage leaves an image without labels."""
    tifffile.imwrite(path.with_suffix(".tif"), image, photometric="minisblack")
    inputs = {"inputs": {"real": [str(path.with_suffix(".tif"))]}, "ingest": {"voxel_size_um": [1.5, 0.5, 0.5]}}
    RUNS.run(write_dataset(path.parent, TINY, inputs), path.parent, "ingest")


OTHER = {"z": 1.5, "y": 0.4, "x": 0.4}
CASES = {
    "prototypes from images without labels": Case(
        "prototypes",
        ("none of the 1 images has labels", "prototypes.enabled: false"),
        real=lambda path, rng: read_in(path, real(rng, nuclei(rng, SHAPE, 12))),
        keys={"prototypes": {"enabled": True}},
    ),
    "bit depths within a domain": Case(
        "train",
        ("real.zarr: has images of uint16 and uint8", "one bit depth"),
        real=lambda path, rng: write(path, rng, real, dtypes=("uint16", "uint8")),
    ),
    "published range of another bit depth": Case(
        "train", ("holds uint16, and the published mapping is that of 8 bits",), keys={"train": {"preset": "paper"}}
    ),
    "voxels of the domains": Case(
        "train",
        ("real.zarr: has voxels of 1.5 x 0.4 x 0.4 micrometres", "simulate.grid.output_voxel_um"),
        real=lambda path, rng: write(path, rng, real, spacing=OTHER),
    ),
    "too few crops": Case(
        "train",
        ("holds 1 separate crops of 12 x 40 x 48 voxels; 4 are needed", "train.crop"),
        real=lambda path, rng: write(path, rng, real, dtypes=("uint16",)),
        keys={"train": {"crop": list(SHAPE)}},
    ),
    "images smaller than a crop": Case(
        "train",
        ("has 12 x 40 x 48 voxels, a crop 8 x 41 x 16", "train.crop"),
        keys={"train": {"crop": [8, 41, 16]}},
    ),
    "cultures without labels": Case(
        "train",
        ("has no labels `nuclei`", "train.weights.label: 0"),
        cultures=lambda path, rng: write(path, rng, simulated, labelled=False),
    ),
    "network of another architecture": Case(
        "train",
        ("network.pt: is of another architecture: there and here width 4 and 5",),
        keys={"train": {"start": "network.pt", "width": 5}},
    ),
    "network of other voxels": Case(
        "infer",
        ("network.pt: was trained on voxels of 1.5 x 0.5 x 0.5 micrometres, these are 1.5 x 0.4 x 0.4",),
        cultures=lambda path, rng: write(path, rng, simulated, spacing=OTHER),
    ),
    "no network": Case("infer", ("network.pt: cannot be read as a network",)),
    "images too small to be measured": Case(
        "evaluate",
        ("the smallest image has 3 x 40 x 48 voxels", "at least 4 x 16 x 16"),
        cultures=lambda path, rng: write(path, rng, simulated, shape=(3, 40, 48)),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that no step has touched."""
    folder, rng = tmp_path_factory.mktemp("network"), np.random.default_rng(3)
    write(folder / "cultures.zarr", rng, simulated)
    write(folder / "real.zarr", rng, real)
    RUNS.run(write_dataset(folder, TINY), folder, "train")
    return folder / "network.pt"


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_and_nothing_written(
    name: str,
    network: Path,
    rng: np.random.Generator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = CASES[name]
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    case.cultures(inputs / "cultures.zarr", rng)
    case.real(inputs / "real.zarr", rng)
    if name == "no network":
        (inputs / "broken.pt").write_bytes(b"something else")
        (inputs / "network.pt").symlink_to("broken.pt")
    else:
        (inputs / "network.pt").symlink_to(network)
    monkeypatch.chdir(inputs)
    config = write_dataset(tmp_path, TINY, case.keys or {})
    with pytest.raises(SystemExit) as ended:
        main(RUNS.arguments(config, out, case.stage, inputs))
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert "Traceback" not in said
    flat = " ".join(said.split())
    assert all(word in flat for word in case.words), said
    assert not [path for path in out.glob("*") if path.name != "scratch"]
