"""Many images in one store: committed together, each a valid OME-Zarr image that opens by itself."""

from __future__ import annotations

import json

import numpy as np
import ome_zarr_models.v05
import pytest
import zarr

from gigascope.errors import ShapeError, UserError
from gigascope.store.checksum import verify
from gigascope.store.commit import finish
from gigascope.store.create import create_store, open_writer
from gigascope.store.ensemble import EnsembleWriter, create_ensemble, ensemble_plan, image_name
from gigascope.store.open import is_complete, open_store
from gigascope.store.plan import ShardPlan

SPACING = {"z": 1.5, "y": 0.5, "x": 0.5}
# shape, axes and dtype of each image: they differ
IMAGES = {
    "s0000": ((70, 66, 90), ("z", "y", "x"), np.uint16),
    "s0001": ((2, 9, 130, 40), ("c", "z", "y", "x"), np.uint8),
    "s0002": ((5, 6, 7), ("z", "y", "x"), np.float32),
}


def image_of(name: str) -> np.ndarray:
    shape, _, dtype = IMAGES[name]
    return (np.random.default_rng(int(name[1:])).random(shape) * 200).astype(dtype)


def labels_of(name: str) -> np.ndarray:
    """Blocks of ids, some of them large numbers, with background between them."""
    shape = IMAGES[name][0][-3:]
    z, y, x = np.indices(shape)
    ids = 1 + z // 7 + 100 * (y // 9) + 70_000 * (x // 11)
    return np.where((z % 7 == 0) | (y % 9 == 0), 0, ids).astype(np.uint32)


def write_image(ensemble: EnsembleWriter, name: str) -> None:
    shape, axes, dtype = IMAGES[name]
    plan = ensemble_plan(shape, dtype, (8, 16, 32), (16, 32, 64))
    image = ensemble.create_image(name, shape=shape, dtype=dtype, axes=axes, spacing=SPACING, plan=plan)
    for region in image.shard_regions():
        image[region] = image_of(name)[region]
    image.create_label("nuclei", np.uint32)[:] = labels_of(name)
    image.create_label("spheroid")[:] = (labels_of(name) > 0).astype(np.uint8)
    image.create_array("expected", shape[-3:], np.float32)[:] = image_of(name).reshape(-1, *shape[-3:])[0] + 0.5
    image.create_array("tau", (2, 3, 4), np.float32, spacing={"z": 2, "y": 2, "x": 2})[:] = 0.25
    image.write_table("nuclei", {"label_id": np.arange(3), "volume": np.ones(3)}, {"volume": "um^3"})
    image.describe_labels("nuclei", {"label-value": [1, 2], "class": ["interphase", "ghost"]})
    image.attrs["seed"] = np.int64(7 + int(name[1:]))


def write(path, names=tuple(IMAGES)) -> EnsembleWriter:
    ensemble = create_ensemble(path)
    for name in names:
        write_image(ensemble, name)
    ensemble.write_table("spheroids", {"radius_um": np.array([40.0, 50.0])}, {"radius_um": "um"})
    ensemble.attrs["settings"] = {"seed": 3}
    return ensemble


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble") / "cultures.zarr"
    finish(write(path), {"stage": "synthesis.simulate"})
    return open_store(path)


def test_every_image_gives_back_what_was_written(store):
    assert store.images == list(IMAGES)
    assert not store.has_image
    assert store.attrs == {"settings": {"seed": 3}}
    assert store.table("spheroids")["radius_um"].tolist() == [40.0, 50.0]
    for name, (shape, axes, dtype) in IMAGES.items():
        image = store.image(name)
        assert (image.shape, image.axes, image.dtype, image.spacing) == (shape, axes, dtype, SPACING)
        assert (image.unit, image.attrs, image.digest) == ("micrometer", {"seed": 7 + int(name[1:])}, store.digest)
        np.testing.assert_array_equal(image.array()[:], image_of(name))
        np.testing.assert_array_equal(image.label("nuclei")[:], labels_of(name))
        assert image.label("nuclei").dtype == np.uint32
        np.testing.assert_array_equal(image.side("expected")[:], image_of(name).reshape(-1, *shape[-3:])[0] + 0.5)
        assert image.side("tau").attrs["spacing"] == {"z": 2.0, "y": 2.0, "x": 2.0}
        assert (image.tables, image.labels, image.sides) == (["nuclei"], ["nuclei", "spheroid"], ["expected", "tau"])
        assert image.units("nuclei") == {"volume": "um^3"}
        assert image.statistics["max"] == image_of(name).max()
        assert open_store(store.path / name).array().shape == shape
    assert verify(store.path) == []


def test_every_image_is_ome_zarr_to_an_independent_validator(store):
    """Z1: image, labels and collection validate against OME-Zarr 0.5; voxel sizes and centres of levels are right."""
    root = zarr.open_group(store.path, mode="r")
    collection = ome_zarr_models.v05.BioFormats2Raw.from_zarr(root)
    assert collection.attributes.ome.bioformats2raw_layout == 3
    assert root["OME"].attrs["ome"]["series"] == list(IMAGES)
    for name, (shape, axes, _) in IMAGES.items():
        image = ome_zarr_models.v05.Image.from_zarr(root[name])
        found = image.attributes.ome.multiscales[0]
        assert [axis.name for axis in found.axes] == list(axes)
        assert {axis.unit for axis in found.axes if axis.type == "space"} == {"micrometer"}
        assert image.labels is not None
        assert image.labels.attributes.ome.labels == ["nuclei", "spheroid"]
        label = ome_zarr_models.v05.ImageLabel.from_zarr(root[f"{name}/labels/nuclei"])
        assert [axis.name for axis in label.attributes.ome.multiscales[0].axes] == ["z", "y", "x"]
        assert len(label.attributes.ome.multiscales[0].datasets) == len(found.datasets)
        for level, (mine, its) in enumerate(zip(found.datasets, label.attributes.ome.multiscales[0].datasets)):
            scale = mine.coordinateTransformations[0].scale
            assert scale[-3:] == its.coordinateTransformations[0].scale
            halved = [round(step / SPACING[axis]) for step, axis in zip(scale[-3:], "zyx")]
            expected = [-(-n // f) for n, f in zip(shape[-3:], halved)]
            assert list(store.image(name).label("nuclei", level).shape) == expected
        described = label.attributes.ome.image_label
        assert described.source.image == "../../"
        assert [(p.label_value, p.model_extra["class"]) for p in described.properties] == [
            (1, "interphase"),
            (2, "ghost"),
        ]


def test_label_pyramid_holds_only_ids_that_exist(store):
    """Z1: a level of labels has no id that the full one does not have, and the most frequent of each block."""
    for name in ("s0000", "s0001"):
        image = store.image(name)
        assert image.n_levels > 1
        for level in range(1, image.n_levels):
            finer, coarser = image.label("nuclei", level - 1)[:], image.label("nuclei", level)[:]
            assert set(np.unique(coarser)) <= set(np.unique(labels_of(name)))
            steps = [-(-n // m) for n, m in zip(finer.shape, coarser.shape)]
            for at in zip(*(np.random.default_rng(1).integers(0, n, 40) for n in coarser.shape)):
                block = [np.minimum(np.arange(i * f, i * f + f), n - 1) for i, f, n in zip(at, steps, finer.shape)]
                ids, counts = np.unique(finer[np.ix_(*block)], return_counts=True)
                assert coarser[at] == ids[counts == counts.max()].min()


def test_digest_depends_on_content_alone(tmp_path, store):
    assert finish(write(tmp_path / "cultures.zarr", list(IMAGES)[::-1]), {"stage": "another"}) == store.digest
    ensemble = write(tmp_path / "cultures.zarr")
    ensemble.image("s0001").attrs["seed"] = 1
    assert finish(ensemble, {}) != store.digest


def test_attributes_and_tables_of_an_image_may_come_when_the_store_is_opened_again(tmp_path, store):
    """As in the gather of a scattered stage: the attributes that `open` gave are handed over, the rest is on disk."""
    attrs = write(tmp_path / "cultures.zarr").attrs
    again = open_writer(tmp_path / "cultures.zarr")
    assert isinstance(again, EnsembleWriter)
    again.attrs = attrs
    assert again.images == list(IMAGES)
    again.image("s0002").attrs["late"] = True
    again.image("s0002").write_table("late", {"n": np.arange(2)})
    finish(again, {})
    image = open_store(tmp_path / "cultures.zarr").image("s0002")
    assert image.attrs == {"seed": 9, "late": True}
    assert image.tables == ["late", "nuclei"]


@pytest.mark.parametrize("array", ["s0000/0", "s0000/labels/nuclei/0", "s0001/interim/expected"])
def test_a_shard_that_was_not_written_is_named(tmp_path, array):
    ensemble = write(tmp_path / "cultures.zarr")
    shard = next(path for path in sorted((ensemble.path / array / "c").rglob("*")) if path.is_file())
    shard.unlink()
    with pytest.raises(UserError, match="shards were not written") as caught:
        finish(ensemble, {})
    assert shard.relative_to(ensemble.path).as_posix() in str(caught.value)
    assert not is_complete(ensemble.path)


def test_an_unfinished_ensemble_opens_neither_whole_nor_in_part(tmp_path):
    ensemble = write(tmp_path / "cultures.zarr")
    for path in (ensemble.path, ensemble.path / "s0000"):
        with pytest.raises(UserError, match="is unfinished"):
            open_store(path)


def test_damage_is_found_and_named(tmp_path):
    finish(write(tmp_path / "a.zarr"), {})
    store = open_store(tmp_path / "a.zarr")
    metadata = store.path / "s0001" / "zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"seed": 8', '"seed": 9'))
    assert text != metadata.read_text()
    assert [problem.split(":")[0] for problem in verify(store.path)] == ["s0001/zarr.json"]
    record = json.loads(text)
    record["attributes"]["gigascope"]["complete"] = False
    metadata.write_text(json.dumps(record))
    with pytest.raises(UserError, match="not those that were committed"):
        store.image("s0001")
    next(path for path in (store.path / "s0000" / "0" / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(UserError, match="1 shards of a finished store are missing") as caught:
        store.image("s0000").array()
    assert f"Remove {store.path / 'zarr.json'}" in caught.value.do


def test_names_that_are_not_there_or_are_there_twice_are_refused(tmp_path, store):
    with pytest.raises(UserError, match="has no s0009; its images: s0000, s0001, s0002"):
        store.image("s0009")
    ensemble = create_ensemble(tmp_path / "a.zarr")
    write_image(ensemble, "s0002")
    with pytest.raises(ShapeError, match="has an image s0002 already"):
        write_image(ensemble, "s0002")
    with pytest.raises(ShapeError, match="label-value"):
        ensemble.image("s0002").describe_labels("nuclei", {"class": [1]})
    with pytest.raises(ValueError, match="without an image"):
        finish(create_ensemble(tmp_path / "b.zarr"), {})
    finish(create_store(tmp_path / "c.zarr"), {})
    assert open_store(tmp_path / "c.zarr").images == []


def test_properties_of_very_many_labels_are_left_to_the_table(tmp_path):
    ensemble = create_ensemble(tmp_path / "a.zarr")
    write_image(ensemble, "s0002")
    ensemble.image("s0002").describe_labels("spheroid", {"label-value": np.arange(5001)})
    finish(ensemble, {})
    labels = zarr.open_group(tmp_path / "a.zarr", mode="r")["s0002/labels"]
    assert "properties" in labels["nuclei"].attrs["ome"]["image-label"]
    assert "properties" not in labels["spheroid"].attrs["ome"]["image-label"]


@pytest.mark.parametrize(
    ("shape", "chunks", "shards"),
    [
        ((200, 600, 600), (64, 256, 256), (128, 512, 512)),
        ((100, 300, 90), (64, 256, 90), (128, 512, 90)),
        ((2, 64, 256, 40), (1, 64, 256, 40), (1, 64, 256, 40)),
        ((3, 4, 5), (3, 4, 5), (3, 4, 5)),
    ],
)
def test_chunks_and_shards_are_smaller_for_small_images(shape, chunks, shards):
    assert ensemble_plan(shape, np.uint16) == ShardPlan(shape, 2, chunks, shards)


def test_shards_of_part_chunks_are_refused():
    with pytest.raises(ValueError, match="whole number of chunks"):
        ensemble_plan((4, 4, 4), np.uint8, (4, 4, 4), (6, 4, 4))


def test_images_stand_in_the_order_of_their_numbers(tmp_path):
    ensemble = create_ensemble(tmp_path / "a.zarr")
    names = [image_name(n) for n in (10_000, 9999, 17)]
    assert names == ["s10000", "s9999", "s0017"]
    for name in names:
        ensemble.create_image(name, shape=(1, 1, 1), dtype=np.uint8)[:] = np.uint8(1)
    finish(ensemble, {})
    assert open_store(ensemble.path).images == names[::-1]
