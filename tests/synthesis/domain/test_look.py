"""`gigascope init synthesis` looks at a real image and writes a dataset that is valid."""

from __future__ import annotations

import pytest
import tifffile

from gigascope.config.dataset import load_dataset, parse_dataset
from gigascope.errors import UserError
from gigascope.init import write_dataset

from .conftest import balls, grey
from .test_ingest import write_hdf5


def test_image_with_a_voxel_size_gives_the_grid_of_the_simulation(tmp_path, rng):
    image = write_hdf5(tmp_path / "a.h5", [1.2, 0.4, 0.4], raw=grey(balls(), rng))
    path = write_dataset("synthesis", "mine", image, [], tmp_path / "datasets")
    dataset = load_dataset(path)
    assert dataset.inputs.real[0].image == image
    assert dataset.simulate.grid.output_voxel_um == (1.2, 0.4, 0.4)
    assert dataset.ingest.voxel_size_um == (1.2, 0.4, 0.4)
    assert "12 x 30 x 34 voxels" in path.read_text()


def test_image_without_a_voxel_size_says_how_to_set_it(tmp_path, rng):
    tifffile.imwrite(tmp_path / "a.tif", grey(balls(), rng))
    with pytest.raises(UserError, match="no voxel size") as caught:
        write_dataset("synthesis", "mine", str(tmp_path / "a.tif"), [], tmp_path / "datasets")
    assert "--set 'ingest.voxel_size_um=[1.5, 0.5, 0.5]'" in str(caught.value)
    set_ = ["ingest.voxel_size_um=[1.5, 0.5, 0.5]"]
    dataset = load_dataset(write_dataset("synthesis", "mine", str(tmp_path / "a.tif"), set_, tmp_path / "datasets"))
    assert dataset.simulate.grid.output_voxel_um == (1.5, 0.5, 0.5)


def test_folder_of_the_published_layout(tmp_path, rng):
    (tmp_path / "data" / "trainA").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "data" / "trainA" / "a.tif", grey(balls(), rng))
    set_ = ["ingest.voxel_size_um=[1.5, 0.5, 0.5]"]
    dataset = load_dataset(write_dataset("synthesis", "mine", str(tmp_path / "data"), set_, tmp_path / "datasets"))
    assert dataset.inputs.folders == str(tmp_path / "data")
    assert dataset.inputs.real == ()


def test_without_data_cultures_are_simulated(tmp_path):
    dataset = load_dataset(write_dataset("synthesis", "mine", None, [], tmp_path / "datasets"))
    assert dataset.inputs.real == ()


@pytest.mark.parametrize("real", ["a.tif", ["a.tif"], [{"image": "a.tif"}]])
def test_a_path_alone_is_an_image(real):
    dataset = parse_dataset({"pipeline": "synthesis", "name": "a", "inputs": {"real": real}})
    assert [entry.image for entry in dataset.inputs.real] == ["a.tif"]
