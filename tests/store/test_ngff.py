"""The stores are OME-Zarr 0.5 to others: the independent models, dask, plain zarr, and the ome-zarr reader."""

from __future__ import annotations

import json
import warnings

import dask.array
import numpy as np
import ome_zarr_models.v05
import pytest
import zarr

from gigascope.errors import ShapeError, UserError
from gigascope.store import ngff
from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.store.open import open_store
from gigascope.store.plan import ShardPlan


def test_independent_models_accept_image_and_labels(tmp_path, write_store):
    finish(write_store(tmp_path / "a.zarr"), {})
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    image = ome_zarr_models.v05.Image.from_zarr(group)
    axes = image.attributes.ome.multiscales[0].axes
    assert [(axis.name, axis.type, axis.unit) for axis in axes] == [
        ("tilt", None, None),
        ("y", "space", "nanometer"),
        ("x", "space", "nanometer"),
    ]
    assert len(image.attributes.ome.multiscales[0].datasets) == 2
    assert image.labels is not None
    assert image.labels.attributes.ome.labels == ["mask"]
    label = ome_zarr_models.v05.ImageLabel.from_zarr(group["labels/mask"])
    assert label.attributes.ome.image_label.source.image == "../../"


@pytest.mark.parametrize("axes", [("z", "y", "x"), ("c", "z", "y", "x"), ("t", "c", "y", "x"), ("y", "x")])
def test_models_accept_other_axes(tmp_path, axes):
    shape = (2, 3, 70, 80)[-len(axes) :]
    spacing = {axis: 0.5 for axis in axes if axis in "zyx"}
    writer = create_image(tmp_path / "a.zarr", shape=shape, dtype=np.uint16, axes=axes, spacing=spacing)
    writer[:] = np.ones(shape, np.uint16)
    finish(writer, {})
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(writer.path, mode="r"))
    assert [axis.name for axis in image.attributes.ome.multiscales[0].axes] == list(axes)
    channels = json.loads((writer.path / "zarr.json").read_text())["attributes"]["ome"]["omero"]["channels"]
    assert len(channels) == (shape[axes.index("c")] if "c" in axes else 1)


def test_translation_follows_the_centre_of_each_mean(tmp_path):
    """A ramp of physical positions, averaged, must lie where the metadata says its samples are."""
    shape, spacing = (130, 140, 150), {"z": 2.0, "y": 3.0, "x": 0.5}
    for axis, name in enumerate(spacing):
        positions = np.arange(shape[axis], dtype=np.float64) * spacing[name]
        ramp = np.broadcast_to(positions.reshape([-1 if k == axis else 1 for k in range(3)]), shape)
        path = tmp_path / f"{name}.zarr"
        writer = create_image(path, shape=shape, dtype=np.float64, axes=tuple(spacing), spacing=spacing)
        writer[:] = ramp
        finish(writer, {})
        store = open_store(path)
        assert store.n_levels == 3
        for level, dataset in enumerate(store.attributes["ome"]["multiscales"][0]["datasets"]):
            scale, translation = (t[t["type"]][axis] for t in dataset["coordinateTransformations"])
            coarse = np.moveaxis(store.array(level)[:], axis, 0)[:, 0, 0]
            inside = slice(0, shape[axis] // 2**level)
            expected = scale * np.arange(coarse.size) + translation
            np.testing.assert_allclose(coarse[inside], expected[inside], rtol=1e-12, atol=1e-12)


def test_tilt_has_a_unit_only_where_its_spacing_is_known():
    assert ngff.axes_metadata(("tilt", "y"), {"y": 1.0}, "nanometer")[0] == {"name": "tilt"}
    assert ngff.axes_metadata(("tilt",), {"tilt": 2.0}, "nanometer") == [{"name": "tilt", "unit": "degree"}]
    assert ngff.axes_metadata(("x",), {}, "nanometer") == [{"name": "x", "type": "space"}]


def test_window_is_robust_or_as_given(tmp_path, rng):
    data = rng.standard_normal((4, 200, 200), dtype=np.float32)
    data[0, :10, 0] = 1e6
    for window in (None, (-1.0, 2.0)):
        writer = create_image(tmp_path / "a.zarr", shape=data.shape, dtype=data.dtype, window=window)
        writer[:] = data
        finish(writer, {})
        store = open_store(tmp_path / "a.zarr")
        assert store.statistics["max"] == 1e6
        if window:
            assert store.window == window
        else:
            # 0.5 and 99.5 % of a normal distribution; 160,000 samples give them to 0.02
            np.testing.assert_allclose(store.window, (-2.576, 2.576), atol=0.1)


def test_channels_have_names_colours_and_windows_of_their_own(tmp_path, rng):
    data = rng.standard_normal((3, 150, 160)).astype(np.float32) * np.array([1, 10, 100], np.float32)[:, None, None]
    data[1, :20] = np.nan
    channels = [
        ngff.Channel("red", "FF0000", (0.0, 2.0)),
        ngff.Channel("height"),
        ngff.Channel("weight", "00FF00", active=False),
    ]
    plan = ShardPlan(data.shape, 4, (3, 64, 64), (3, 128, 128))
    image = {"shape": data.shape, "dtype": data.dtype, "axes": ("c", "y", "x"), "plan": plan}
    writer = create_image(tmp_path / "a.zarr", **image, channels=channels)
    with pytest.raises(ShapeError, match="2 channels are described"):
        create_image(tmp_path / "b.zarr", **image, channels=channels[:2])
    writer[:] = data
    with pytest.raises(UserError, match="has the value nan at c 1, y 0, x 0"):
        finish(writer, {})
    writer = create_image(tmp_path / "a.zarr", **image, channels=channels, allow_nan=True)
    writer[:] = data
    finish(writer, {})
    store = open_store(writer.path)
    assert [(c["label"], c["color"], c["active"]) for c in store.channels] == [
        ("red", "FF0000", True),
        ("height", "FFFFFF", True),
        ("weight", "00FF00", False),
    ]
    assert store.window == (0.0, 2.0)
    for found, values in zip(store.channels, data):
        window, known = found["window"], values[np.isfinite(values)]
        assert (window["min"], window["max"]) == (known.min(), known.max())
        if found["label"] != "red":
            low, high = np.percentile(known, [0.5, 99.5])
            assert (window["start"], window["end"]) == pytest.approx((low, high))
    assert store.statistics["not_finite"] == 20 * 160
    assert np.isfinite(store.array(1)[1, 10:]).all()
    ome_zarr_models.v05.Image.from_zarr(zarr.open_group(writer.path, mode="r"))


def test_opens_without_a_warning_in_zarr_and_dask(tmp_path, write_store, store_views):
    finish(write_store(tmp_path / "a.zarr"), {"run": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "a.zarr", mode="r")
        members = dict(group.members(max_depth=None))
        lazy = dask.array.from_zarr(str(tmp_path / "a.zarr"), component="0")
        np.testing.assert_array_equal(lazy.compute(), store_views(0))
    assert {"0", "1", "labels/mask/1", "tables/shifts/f_s", "arrays/history", "checksums/sha256"} <= set(members)
    assert group["0"].metadata.dimension_names == ("tilt", "y", "x")
    assert (tmp_path / "a.zarr" / "zarr.json").stat().st_size < 10_000


def test_ome_zarr_reader_finds_all_levels(tmp_path, write_store, store_views):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    finish(write_store(tmp_path / "a.zarr"), {})
    nodes = list(Reader(parse_url(str(tmp_path / "a.zarr")))())
    np.testing.assert_array_equal(nodes[0].data[0].compute(), store_views(0))
    assert [level.shape for level in nodes[0].data] == [(3, 70, 90), (3, 35, 45)]
    assert any(node.zarr.basename() == "mask" for node in nodes)
