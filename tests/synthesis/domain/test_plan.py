"""What is said before reading real images: shapes, needs, and the files that they come from."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from gigascope.config.dataset import parse_dataset
from gigascope.errors import UserError
from gigascope.synthesis.domain.plan import describe_domain, estimate_ingest, read_domain
from gigascope.synthesis.domain.raw import raw_files
from gigascope.synthesis.prototypes.plan import estimate_prototypes

from .conftest import balls, grey


@pytest.fixture
def dataset(tmp_path, rng):
    tifffile.imwrite(tmp_path / "a.tif", grey(balls(), rng))
    tifffile.imwrite(tmp_path / "l.tif", balls())
    tifffile.imwrite(tmp_path / "b.tif", grey(balls(), rng, np.uint8))
    entries = [
        {"image": str(tmp_path / "a.tif"), "labels": str(tmp_path / "l.tif"), "voxel_size_um": [1, 1, 1]},
        {"image": str(tmp_path / "b.tif"), "voxel_size_um": [2, 1, 1]},
    ]
    ingest = {"output_voxel_um": [1, 2, 2]}
    return parse_dataset({"pipeline": "synthesis", "name": "a", "inputs": {"real": entries}, "ingest": ingest})


def test_headers_say_what_there_is_and_what_is_written(dataset):
    images = read_domain(dataset.inputs, dataset.ingest)
    assert [image.shape for image in images] == [(12, 30, 34)] * 2
    assert [image.written for image in images] == [(12, 15, 17), (24, 15, 17)]
    assert describe_domain(images) == [
        "real image a.tif: 12 x 30 x 34 voxels (z, y, x) of uint16, 1 x 1 x 1 um, with labels",
        "real image b.tif: 12 x 30 x 34 voxels (z, y, x) of uint8, 2 x 1 x 1 um, no labels",
    ]


def test_raw_files_are_those_of_images_and_labels(dataset, tmp_path):
    assert raw_files(dataset.inputs, dataset.ingest) == tuple(tmp_path / name for name in ("a.tif", "l.tif", "b.tif"))
    (tmp_path / "l.tif").unlink()
    with pytest.raises(UserError, match=r"l\.tif: no such file"):
        read_domain(dataset.inputs, dataset.ingest)


def test_needs_grow_with_the_largest_image_and_with_labels(dataset):
    images = read_domain(dataset.inputs, dataset.ingest)
    plain = estimate_ingest(dataset, SimpleNamespace(domain=images[1:]))
    both = estimate_ingest(dataset, SimpleNamespace(domain=images))
    assert both.memory > plain.memory
    assert both.disk > plain.disk
    assert both.files > plain.files
    assert (both.shape, both.gpu_memory) == ("2 images", 0)
    assert estimate_prototypes(dataset, SimpleNamespace(domain=images)).memory < 2**30


PROCESS = """
from gigascope.runtime.context import Context
from gigascope.runtime.memory import peak_bytes
from gigascope.config.dataset import parse_dataset
from gigascope.stage import DECLARED
from gigascope.synthesis.domain.stages import ingest
from pathlib import Path
root = Path({root!r})
entry = {{"image": str(root / "a.tif"), "labels": str(root / "l.tif")}}
inputs, keys = {{"real": [entry]}}, {{"voxel_size_um": [1, 1, 1]}}
dataset = parse_dataset({{"pipeline": "synthesis", "name": "m", "inputs": inputs, "ingest": keys}})
(root / "scratch").mkdir()
outputs = {{"real": root / "real.zarr"}}
context = Context(DECLARED["synthesis.ingest"], dataset="m", inputs={{}}, outputs=outputs, scratch=root / "scratch",
                  inputs_section=dataset.inputs)
ingest(context, dataset.ingest)
context.finish({{}})
print(peak_bytes())
"""


def test_peak_memory_is_as_estimated(tmp_path, rng):
    """8 million voxels with labels, in a process of its own; 25 % are for what the machine's libraries differ in."""
    labels = np.tile(balls((16, 32, 32)), (8, 8, 8))[:128]
    number = np.arange(512).reshape(8, 8, 8).repeat(16, 0).repeat(32, 1).repeat(32, 2)
    tifffile.imwrite(tmp_path / "a.tif", grey(labels, rng))
    tifffile.imwrite(tmp_path / "l.tif", np.where(labels > 0, number * 1000 + labels, 0).astype(np.uint32))
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(root=str(tmp_path))], capture_output=True, text=True, check=True
    )
    peak = int(done.stdout.split()[-1])
    entry = {"image": str(tmp_path / "a.tif"), "labels": str(tmp_path / "l.tif")}
    dataset = parse_dataset(
        {"pipeline": "synthesis", "name": "m", "inputs": {"real": [entry]}, "ingest": {"voxel_size_um": [1, 1, 1]}}
    )
    header = SimpleNamespace(domain=read_domain(dataset.inputs, dataset.ingest))
    estimate = estimate_ingest(dataset, header).memory
    print(f"peak {peak / 2**20:.0f} MiB, estimate {estimate / 2**20:.0f} MiB")
    assert 0.75 < estimate / peak < 1.33
