"""Images of every format come in with their labels and voxel sizes; bad ones are refused, and nothing is written."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from gigascope.config.synthesis_domain import Ingest, RealImage
from gigascope.errors import UserError
from gigascope.synthesis.domain.stored import domain_images

from .conftest import balls, grey

SIZE = [1.5, 0.5, 0.4]


def write_tiff(path, array, size=None, **options):
    """A stack; with its voxel size (z, y, x) as an OME-TIFF, as microscopes' programs write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if size is not None:
        unit = {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
        options["metadata"] = {"axes": "ZYX", **{f"PhysicalSize{a}": s for a, s in zip("ZYX", size)}, **unit}
        options["ome"] = True
    tifffile.imwrite(path, array, **options)
    return str(path)


def write_hdf5(path, size=None, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
            if size is not None:
                file[name].attrs["element_size_um"] = size
    return str(path)


def write_zarr(path, image, labels):
    from gigascope.store.commit import finish
    from gigascope.store.create import create_image

    spacing = dict(zip("zyx", SIZE))
    writer = create_image(path, shape=image.shape, dtype=image.dtype, axes="zyx", spacing=spacing, unit="micrometer")
    writer[:] = image
    writer.create_label("cells", labels.dtype)[:] = labels
    finish(writer, {})
    # as another program's: without our record
    root = zarr.open_group(path, mode="r+")
    attrs = dict(root.attrs)
    del attrs["gigascope"]
    root.attrs.put(attrs)
    return str(path)


@pytest.fixture
def labels():
    return balls()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32])
def test_tiff_with_labels_keeps_values_types_and_voxel_size(tmp_path, ingest, labels, rng, dtype):
    image = grey(labels, rng, dtype)
    entry = {
        "image": write_tiff(tmp_path / "a.ome.tif", image, SIZE),
        "labels": write_tiff(tmp_path / "a_label.tif", labels),
    }
    store = ingest({"real": [entry]})
    assert store.images == ["a0000"]
    found = store.image("a0000")
    np.testing.assert_array_equal(found.array()[:], image)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.label("nuclei")[:], labels)
    assert found.label("nuclei").dtype == np.uint32
    assert [found.spacing[axis] for axis in "zyx"] == pytest.approx(SIZE)
    assert found.attrs["n_labels"] == 4
    assert (found.attrs["domain"], found.attrs["use"]) == ("A", "train")
    assert found.attrs["voxel_size_from"] == "the OME metadata"
    assert ingest.warnings == []
    table = found.table("nuclei")
    assert table["label_id"].tolist() == [1, 2, 3, 900]
    assert table["touching_border"].tolist() == [False, False, False, True]
    assert table["volume_um3"][0] == pytest.approx(np.count_nonzero(labels == 1) * np.prod(SIZE))
    assert [table[axis][0] for axis in "zyx"] == pytest.approx([5.5 * 1.5, 8.5 * 0.5, 8.5 * 0.4])


def test_hdf5_with_raw_and_label(tmp_path, ingest, labels, rng):
    image = grey(labels, rng, np.uint8)
    path = write_hdf5(tmp_path / "a.h5", SIZE, raw=image, label=labels)
    for name in (path, f"{path}/raw"):
        found = ingest({"real": [{"image": name, "labels": f"{path}/label"}]}).image("a0000")
        np.testing.assert_array_equal(found.array()[:], image)
        np.testing.assert_array_equal(found.label("nuclei")[:], labels)
        assert [found.spacing[axis] for axis in "zyx"] == SIZE


def test_ome_zarr_with_labels(tmp_path, ingest, labels, rng):
    image = grey(labels, rng)
    path = write_zarr(tmp_path / "a.zarr", image, labels)
    found = ingest({"real": [{"image": path, "labels": f"{path}/labels/cells"}]}).image("a0000")
    np.testing.assert_array_equal(found.array()[:], image)
    np.testing.assert_array_equal(found.label("nuclei")[:], labels)
    assert [found.spacing[axis] for axis in "zyx"] == SIZE


def test_images_of_several_shapes_types_and_sizes_are_kept_with_a_warning(tmp_path, ingest, labels, rng):
    small = labels[:, :20]
    first = write_tiff(tmp_path / "a.tif", grey(labels, rng, np.uint8))
    second = write_tiff(tmp_path / "b.tif", grey(small, rng, np.uint16))
    entries = [{"image": first, "voxel_size_um": [2, 1, 1]}, {"image": second, "use": "inference"}]
    store = ingest({"real": entries}, voxel_size_um=SIZE)
    assert [store.image(name).shape for name in store.images] == [labels.shape, small.shape]
    assert store.image("a0000").spacing == {"z": 2, "y": 1, "x": 1}
    assert store.image("a0001").spacing == dict(zip("zyx", SIZE))
    assert store.image("a0000").labels == []
    assert (domain_images(store), domain_images(store, use="inference")) == (["a0000", "a0001"], ["a0001"])
    assert any("different voxel sizes (1.5 x 0.5 x 0.4, 2 x 1 x 1 um)" in line for line in ingest.warnings)
    assert any("different types (uint16, uint8)" in line for line in ingest.warnings)


def test_resampling_puts_all_on_one_grid(tmp_path, ingest, labels, rng):
    image = grey(labels, rng)
    entry = {"image": write_tiff(tmp_path / "a.tif", image), "labels": write_tiff(tmp_path / "l.tif", labels)}
    store = ingest({"real": [entry]}, voxel_size_um=[1.0, 0.5, 0.5], output_voxel_um=[1.0, 1.0, 0.5])
    found = store.image("a0000")
    assert found.shape == (12, 15, 34)
    assert found.spacing == {"z": 1.0, "y": 1.0, "x": 0.5}
    expected = np.rint(image.reshape(12, 15, 2, 34).mean(axis=2)).astype(np.uint16)
    np.testing.assert_array_equal(found.array()[:], expected)
    np.testing.assert_array_equal(found.label("nuclei")[:], labels[:, 1::2])
    assert found.attrs["file_voxel_size_um"] == [1.0, 0.5, 0.5]


def test_published_four_folders(tmp_path, ingest, labels, rng):
    root = tmp_path / "data"
    files = ["trainA/r2.tif", "trainA/r10.tif", "inferenceA/r.tif", "trainB/images/0_final.tif", "inferenceB/n.tif"]
    for name in files:
        write_tiff(root / name, grey(labels, rng, np.uint8))
    write_tiff(root / "trainB/labels/0_final_label.tif", labels)
    store = ingest({"folders": str(root)}, voxel_size_um=SIZE)
    sources = [store.image(name).attrs["source"] for name in store.images]
    assert store.images == ["a0000", "a0001", "a0002", "b0000", "b0001"]
    assert [source.removeprefix(f"{root}/") for source in sources] == files
    assert domain_images(store, "B", "train") == ["b0000"]
    assert domain_images(store, "B", "inference") == ["b0001"]
    np.testing.assert_array_equal(store.image("b0000").label("nuclei")[:], labels)
    assert store.image("b0001").labels == []


def test_mask_and_centres_become_nuclei(tmp_path, ingest, labels, rng):
    mask = (labels > 0).astype(np.uint8) * 255
    mask[:, 8, 8:24] = 255  # nuclei 1 and 3 touch
    centres = np.zeros_like(mask)
    for z, y, x in [(5, 8, 8), (6, 21, 9), (6, 8, 24), (0, 0, 0)]:
        centres[z : z + 2, y, x] = 255
    entry = {"image": grey(labels, rng), "labels": mask, "centres": centres}
    entry = {name: write_tiff(tmp_path / f"{name}.tif", array) for name, array in entry.items()}
    found = ingest({"real": [entry]}, voxel_size_um=SIZE).image("a0000")
    written = found.label("nuclei")[:]
    assert found.attrs["n_labels"] == 4
    np.testing.assert_array_equal(written > 0, mask > 0)
    at = [written[5, 8, 8], written[6, 21, 9], written[6, 8, 24], written[5, 22, 33]]
    assert len(set(at)) == 4
    said = " ".join(ingest.warnings)
    assert "1 of 4 centres lie outside the mask" in said
    assert "1 pieces of the mask have no centre" in said


def test_labels_are_mended_and_it_is_said(tmp_path, ingest, labels, rng):
    """Holes are filled, an id of two objects is split, specks go; what lies in a hole by right is left alone."""
    broken = labels.copy()
    broken[5, 8, 8] = 0  # a hole
    broken[labels == 2] = 3  # one id for two objects
    broken[0, 29, 0] = 1  # a speck
    broken[6, 8, 24] = 77  # another label inside of 3, a speck too
    entry = {
        "image": write_tiff(tmp_path / "a.tif", grey(labels, rng)),
        "labels": write_tiff(tmp_path / "l.tif", broken),
    }
    found = ingest({"real": [entry]}, voxel_size_um=SIZE).image("a0000")
    written = found.label("nuclei")[:]
    assert found.attrs["n_labels"] == 4
    np.testing.assert_array_equal(written == 1, labels == 1)
    parts = {int(written[6, 21, 9]), int(written[6, 8, 20])}
    assert 3 in parts
    assert len(parts) == 2
    assert written[0, 29, 0] == 0
    said = " ".join(ingest.warnings)
    assert "1 ids stood for several objects each: 1 of these got new ids" in said
    assert "2 specks" in said
    assert "holes in 1 labels were filled" in said
    few = ingest({"real": [entry]}, voxel_size_um=SIZE, min_label_voxels=1).image("a0000")
    assert few.attrs["n_labels"] == 6


def test_saturated_images_are_said(tmp_path, ingest, labels, rng):
    image = grey(labels, rng, np.uint8)
    image[labels == 1] = 255
    ingest({"real": [{"image": write_tiff(tmp_path / "a.tif", image)}]}, voxel_size_um=SIZE)
    assert any("voxels are saturated" in line for line in ingest.warnings)


BAD = {
    "no such file": (lambda p, i, n: {"image": "nowhere.tif"}, "no such file or folder", "inputs.real"),
    "no voxel size": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", i)},
        "no voxel size along z, y, x",
        "ingest.voxel_size_um",
    ),
    "labels of another shape": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", i), "labels": write_tiff(p / "l.tif", n[1:])},
        r"has the shape 11 x 30 x 34 \(z, y, x\), its image a.tif has 12 x 30 x 34",
        "same image",
    ),
    "two channels": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", np.stack([i, i])), "axes": "czyx"},
        "has 2 channels",
        "Set channel",
    ),
    "channel that is not there": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", i), "channel": 1},
        "has channels only 0, not 1",
        "Correct channel",
    ),
    "two times": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", np.stack([i, i])), "axes": "tzyx"},
        "has 2 time points",
        "Set time",
    ),
    "constant": (lambda p, i, n: {"image": write_tiff(p / "a.tif", np.full_like(i, 7))}, "every voxel is 7", "written"),
    "not finite": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", np.where(n == 900, np.nan, i).astype(np.float32))},
        "not finite .* first at z 1, y 22, x 33",
        "Repair",
    ),
    "no labels in labels": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", i), "labels": write_tiff(p / "l.tif", n * 0)},
        "no labelled voxel",
        "Name a label image",
    ),
    "probabilities for labels": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", i), "labels": write_tiff(p / "l.tif", n.astype("f4") / 7)},
        "no whole numbers",
        "Name a label image",
    ),
    "negative ids": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", i), "labels": write_tiff(p / "l.tif", -n.astype(np.int32))},
        "negative id",
        "Name a label image",
    ),
    "specks only": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", i), "labels": write_tiff(p / "l.tif", specks(n))},
        "no label of 8 voxels",
        "min_label_voxels",
    ),
    "no mark in the mask": (
        lambda p, i, n: {
            "image": write_tiff(p / "a.tif", i),
            "labels": write_tiff(p / "l.tif", n),
            "centres": write_tiff(p / "c.tif", (n == 0).astype(np.uint8)),
        },
        "no mark inside the mask",
        "centres",
    ),
    "no such dataset": (
        lambda p, i, n: {"image": write_hdf5(p / "a.h5", raw=i, other=i) + "/rw"},
        "no dataset rw; it has: other, raw",
        "inputs.real",
    ),
    "several datasets": (
        lambda p, i, n: {"image": write_hdf5(p / "a.h5", one=i, two=i)},
        "has the datasets: one, two",
        "a.h5/raw",
    ),
    "no hdf5": (lambda p, i, n: {"image": broken_hdf5(p / "a.h5")}, "no HDF5 file", "Copy"),
    "colour": (
        lambda p, i, n: {"image": write_tiff(p / "a.tif", np.stack([i] * 3, -1).astype(np.uint8), photometric="rgb")},
        "colour image",
        "one channel",
    ),
    "complex": (lambda p, i, n: {"image": write_hdf5(p / "a.h5", raw=i.astype(complex))}, "no grey values", "Save"),
}  # fmt: skip


# Key of an entry, or of the stage with a dot before it: what both have, and two values of it.
KEYS = {
    "image": ({}, "a.tif", "b.tif"),
    "axes": ({}, "zyx", "zxy"),
    "channel": ({"image": "many.tif", "time": 0}, 0, 1),
    "time": ({"image": "many.tif", "channel": 0}, 0, 1),
    "voxel_size_um": ({}, None, [2.0, 0.5, 0.5]),
    "use": ({}, "train", "inference"),
    "labels": ({}, None, "l.tif"),
    "centres": ({"labels": "l.tif"}, None, "c.tif"),
    ".voxel_size_um": ({}, SIZE, [2.0, 0.5, 0.5]),
    ".output_voxel_um": ({}, None, [3.0, 1.0, 1.0]),
    ".min_label_voxels": ({"labels": "l.tif"}, 8, 200),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_an_effect(tmp_path, ingest, labels, rng, key, monkeypatch):
    assert {name for name in KEYS if "." not in name} == set(RealImage.model_fields)
    assert {name[1:] for name in KEYS if "." in name} == set(Ingest.model_fields)
    monkeypatch.chdir(tmp_path)
    first, second = grey(labels, rng), grey(labels, rng)
    write_tiff(tmp_path / "a.tif", first)
    write_tiff(tmp_path / "b.tif", second)
    many = np.stack([[first, second], [second, first]]).swapaxes(1, 2)
    tifffile.imwrite(tmp_path / "many.tif", many, imagej=True, metadata={"axes": "TZCYX"})
    write_tiff(tmp_path / "l.tif", labels)
    marks = np.zeros(labels.shape, np.uint8)
    marks[5:7, 8, 8], marks[6, 21, 7], marks[6, 21, 12] = 1, 2, 3
    write_tiff(tmp_path / "c.tif", marks)
    beside, *both = KEYS[key]
    found = []
    for value in both:
        entry, stage = {"image": "a.tif", **beside}, {"voxel_size_um": SIZE}
        (stage if "." in key else entry)[key.removeprefix(".")] = value
        store = ingest({"real": [entry]}, **stage)
        image = store.image("a0000")
        found.append((store.digest, image.attrs["use"], str(image.spacing)))
    assert found[0] != found[1]


def specks(labels):
    """Single voxels, far from each other."""
    found = np.zeros(labels.shape, np.uint8)
    found[::3, ::3, ::3] = 1
    return found


def broken_hdf5(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n broken")
    return str(path)


@pytest.mark.parametrize("case", BAD)
def test_bad_images_are_refused_with_what_to_do(tmp_path, ingest, labels, rng, case):
    make, words, advice = BAD[case]
    entry = make(tmp_path, grey(labels, rng), labels)
    keys = {} if case == "no voxel size" else {"voxel_size_um": SIZE}
    with pytest.raises(UserError, match=words) as caught:
        ingest({"real": [entry]}, **keys)
    assert advice in str(caught.value)
    assert not (tmp_path / "results" / "real.zarr").exists()


def test_folders_without_real_images_are_refused(tmp_path, ingest):
    with pytest.raises(UserError, match="there is no such folder"):
        ingest({"folders": str(tmp_path / "nowhere")})
    (tmp_path / "data" / "trainB").mkdir(parents=True)
    with pytest.raises(UserError, match="no image in trainA"):
        ingest({"folders": str(tmp_path / "data")})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"real": [{"image": "a.tif", "centres": "c.tif"}]}, "name the mask in labels"),
        ({"real": [{"image": "a.tif"}], "folders": "b"}, "found real and folders"),
        ({"real": [{"image": "a.tif", "voxel_size_um": [1, 0, 1]}]}, "greater than 0"),
    ],
)
def test_inputs_that_contradict_themselves_are_refused(ingest, inputs, words):
    with pytest.raises(UserError, match=words):
        ingest(inputs)
