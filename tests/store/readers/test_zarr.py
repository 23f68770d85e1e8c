"""OME-Zarr 0.4 and 0.5 as tilt series."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

from gigascope.errors import UserError
from gigascope.store.readers.tilt_series import find_tilt_series, open_tilt_series
from gigascope.store.readers.zarr import open_zarr

AXES = [
    {"name": "tilt"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "nanometer"},
]


@pytest.fixture
def stack(rng):
    return rng.normal(size=(9, 12, 17)).astype(np.float32)


@pytest.fixture
def make(tmp_path, stack):
    """Writes an OME-Zarr image; `zarr_format` 2 is version 0.4, 3 is 0.5."""

    def make(
        zarr_format=3,
        data=stack,
        axes=AXES,
        scale=(1.0, 1.3, 1.3),
        translation=None,
        whole_scale=None,
        name="a.zarr",
        **attributes,
    ):
        path = tmp_path / name
        group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
        array = group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=(1, *data.shape[1:]))
        array[:] = data
        steps = [{"type": "scale", "scale": list(scale)}]
        if translation:
            steps.append({"type": "translation", "translation": list(translation)})
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
        if whole_scale:
            image["coordinateTransformations"] = [{"type": "scale", "scale": list(whole_scale)}]
        if zarr_format == 2:
            group.attrs["multiscales"] = [{**image, "version": "0.4"}]
        else:
            group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
        group.attrs.update(attributes)
        return path

    return make


def _read(source):
    return np.stack([source.read(i) for i in range(source.n_views)])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("first", ["tilt", "z", "angle"])
def test_views_scale_and_angles(make, stack, zarr_format, first):
    tilt = [float(t) for t in range(-12, 15, 3)]
    path = make(zarr_format, axes=[{"name": first}, *AXES[1:]], tilt_deg=tilt, tilt_axis_deg=84.5)
    source = open_tilt_series(path)
    np.testing.assert_array_equal(_read(source), stack[:, ::-1])
    assert source.tilt_deg.tolist() == tilt
    assert (source.pixel_size_nm, source.tilt_axis_deg) == (pytest.approx(1.3), 84.5)
    assert any("flipped" in note for note in source.notes)
    np.testing.assert_array_equal(_read(open_tilt_series(path, y_up=True)), stack)
    np.testing.assert_array_equal(
        _read(open_tilt_series(path / ("zarr.json" if zarr_format == 3 else ".zattrs"))), stack[:, ::-1]
    )


def test_angles_of_a_text_file_beside_it(make, write_tlt, angles):
    path = make(name="b.ome.zarr")
    write_tlt(path.parent / "b.tlt", angles)
    np.testing.assert_allclose(open_tilt_series(path).tilt_deg, angles)


def test_angles_of_the_axis(make):
    axes = [{"name": "tilt", "unit": "degree"}, *AXES[1:]]
    source = open_tilt_series(make(axes=axes, scale=(3.0, 1.3, 1.3), translation=(-12.0, 0.0, 0.0)))
    np.testing.assert_allclose(source.tilt_deg, np.arange(-12, 15, 3))


def test_pixel_size_in_any_unit_and_through_both_scales(make):
    axes = [AXES[0], *({**axis, "unit": "micrometer"} for axis in AXES[1:])]
    path = make(axes=axes, scale=(1, 0.5, 0.5), whole_scale=(1, 0.004, 0.004))
    assert find_tilt_series(path).pixel_size_nm == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"scale": (1, 1.0, 2.0)}, "square"),
        ({"axes": [{"name": n} for n in ("tilt", "y", "x")]}, "unit None"),
        ({"axes": [{"name": "tilt"}, *({**axis, "unit": "furlong"} for axis in AXES[1:])]}, "furlong"),
    ],
)
def test_pixel_size_that_is_not_there_has_a_reason(make, options, reason):
    assert reason in find_tilt_series(make(**options)).missing["pixel_size_nm"]


def test_axes_of_length_one_are_dropped(make, stack):
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, {"name": "z", "type": "space"}, *AXES[1:]]
    path = make(data=stack[None, None], axes=axes, scale=(1, 1, 1, 1.3, 1.3))
    np.testing.assert_array_equal(_read(open_zarr(path)), stack[:, ::-1])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_array_is_taken_as_views(tmp_path, stack, zarr_format):
    array = zarr.create_array(str(tmp_path / "p.zarr"), shape=stack.shape, dtype=stack.dtype, zarr_format=zarr_format)
    array[:] = stack
    source = open_zarr(tmp_path / "p.zarr")
    np.testing.assert_array_equal(_read(source), stack[:, ::-1])
    assert "plain" in source.missing["pixel_size_nm"]


def test_store_of_gigascope_is_y_up_already(tmp_path, stack):
    from gigascope.store.commit import finish
    from gigascope.store.create import create_image

    path = tmp_path / "g.zarr"
    writer = create_image(
        path,
        shape=stack.shape,
        dtype=stack.dtype,
        axes=("tilt", "y", "x"),
        spacing={"y": 1.5, "x": 1.5},
        access="views",
    )
    writer[:] = stack
    with pytest.raises(UserError, match="not finished"):
        open_zarr(path)
    finish(writer, {})
    source = open_zarr(path)
    np.testing.assert_array_equal(_read(source), stack)
    assert source.pixel_size_nm == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda ome: ome.pop("multiscales"), "no OME-Zarr image"),
        (lambda ome: ome.update(multiscales=[]), "`multiscales` is empty"),
        (lambda ome: ome["multiscales"][0].pop("datasets"), "no `datasets`"),
        (lambda ome: ome["multiscales"][0].pop("axes"), "`axes` are missing"),
        (lambda ome: ome["multiscales"][0]["axes"].pop(), "2 axes are named, the array has 3"),
        (lambda ome: ome["multiscales"][0]["axes"].reverse(), "last must be y and x"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="7"), "the array '7', which is not there"),
        (lambda ome: ome.update(version="0.6"), "OME-Zarr 0.6, versions 0.4 and 0.5"),
        (lambda ome: ome.update(plate={}), "plate"),
    ],
)
def test_broken_metadata_are_refused_with_the_reason(make, edit, message):
    path = make()
    document = json.loads((path / "zarr.json").read_text())
    edit(document["attributes"]["ome"])
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=message) as caught:
        open_zarr(path)
    assert "a.zarr" in str(caught.value)


def test_metadata_that_are_no_json_are_refused(make):
    path = make()
    (path / "zarr.json").write_text("{")
    with pytest.raises(UserError, match="metadata are damaged"):
        open_zarr(path)


def test_folder_that_is_named_zarr_and_is_none_is_refused(tmp_path):
    (tmp_path / "e.zarr").mkdir()
    with pytest.raises(UserError, match="not a Zarr store"):
        find_tilt_series(tmp_path / "e.zarr")


def test_damaged_chunk_is_a_user_error(make):
    path = make()
    chunk = path / "0" / "c" / "4" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    source = open_zarr(path)
    source.read(3)
    with pytest.raises(UserError, match="view 4 cannot be read"):
        source.read(4)


def test_values_that_are_not_grey_are_refused(make, stack):
    with pytest.raises(UserError, match="complex64"):
        open_zarr(make(data=stack.astype(np.complex64)))


def test_attribute_that_is_no_angle_is_refused(make):
    with pytest.raises(UserError, match="tilt_deg"):
        open_zarr(make(tilt_deg=["low", "high"]))


REAL = {
    "v0.1_ome-zarr-py/v1.zarr": "OME-Zarr 0.1",
    "v0.4_hcs/hcs_example.ome.zarr": "plate",
    "v0.4_neuroglancer/simple.zarr": "axes y 10, x 10",
    "v0.4_ngio/czyx.zarr": "axes c 2, z 10",
    "v0.4_ngio/tczyx.zarr": "axes t 4, c 2",
    "v0.4_ngio/yx.zarr": "axes y 64",
    "v0.5_ngio/czyx.zarr": "axes c 2, z 10",
    "v0.5_ngio/tczyx.zarr": "axes t 4, c 2",
    "v0.5_ngio/yx.zarr": "axes y 64",
    "v0.6dev_neuroglancer/scale.zarr": r"OME-Zarr 0\.6",
    "v0.4_examples/invalid/image-02.zarr": "`multiscales` is empty",
    "v0.4_examples/invalid/image-03.zarr": "array '0', which is not there",
    "v0.4_examples/valid/image-02.zarr": "axes y 200",
    "v0.4_examples/valid/image-04.zarr": "2 views, at least 7",
    "v0.4_examples/valid/plate-01.zarr": "plate",
    "v0.4_ngio/zyx.zarr": "no tilt angles",
    "v0.5_ngio/zyx.zarr": "no tilt angles",
}


@pytest.mark.parametrize("name", REAL)
def test_published_stores_get_a_clear_message(shared_data, name):
    with pytest.raises(UserError, match=REAL[name]) as caught:
        open_tilt_series(shared_data / "omezarr" / name)
    assert name.rsplit("/", 1)[1] in str(caught.value)


def test_every_published_store_is_in_the_list(shared_data):
    found = {str(p.relative_to(shared_data / "omezarr")) for p in (shared_data / "omezarr").glob("*/*.zarr")}
    found |= {str(p.relative_to(shared_data / "omezarr")) for p in (shared_data / "omezarr").glob("*/*/*.zarr")}
    assert {name for name in found if name.count(".zarr") == 1 and "/labels" not in name} == set(REAL)


@pytest.mark.parametrize("version", ["v0.4_ngio", "v0.5_ngio"])
def test_published_stack_is_read_with_angles_by_hand(shared_data, tmp_path, version):
    path = tmp_path / "zyx.zarr"
    shutil.copytree(shared_data / "omezarr" / version / "zyx.zarr", path)
    source = open_tilt_series(path, angles=list(range(-20, 30, 5)))
    assert (source.shape, source.pixel_size_nm) == ((10, 64, 64), 500.0)
    assert source.read(9).shape == (64, 64)
    assert any("chunks are not stored" in note for note in source.notes)  # published without its pixels
