"""Records of labelled nuclei: their shape, brightness and texture, and nothing of their neighbours."""

from __future__ import annotations

from collections import Counter

import h5py
import numpy as np
import pytest
import torch

from gigascope.config.dataset import parse_dataset
from gigascope.errors import UserError
from gigascope.kernels.cells.table import CROP, nuclei_table
from gigascope.runtime.context import Context
from gigascope.stage import DECLARED
from gigascope.store.commit import finish
from gigascope.store.ensemble import create_ensemble
from gigascope.store.open import open_store
from gigascope.synthesis.prototypes.extraction import BORDER, HIDDEN, MISFIT, SMALL, Rules, extract
from gigascope.synthesis.prototypes.library import Library, Variation, crops_tensor, draw_nuclei, read_library
from gigascope.synthesis.prototypes.stages import prototypes
from gigascope.synthesis.seeds import seeds_of

SIZE = (0.5, 0.3, 0.3)


def culture(rng, signals=(100.0, 200.0), background=30.0):
    """Two balls of 4 µm that touch, one cut by the border, a dumb-bell and a speck: image and labels."""
    shape = (60, 90, 110)
    z, y, x = (np.indices(shape) + 0.5) * np.reshape(SIZE, (3, 1, 1, 1))
    labels = np.zeros(shape, np.uint32)

    def ball(number, cz, cy, cx, r=4.0):
        labels[((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= r * r) & (labels == 0)] = number

    ball(11, 8, 8, 8)
    ball(12, 8, 8, 15.9)
    ball(13, 8, 25, 8)
    ball(14, 20, 8, 32)
    for cy, cx in ((8, 8), (18, 8)):  # two balls with a thin bridge
        ball(15, 22, cy, cx)
    labels[42:46, 26:60, 26:29][labels[42:46, 26:60, 26:29] == 0] = 15
    labels[5:7, 60:62, 70:72] = 16
    image = np.full(shape, background)
    image[labels == 11] += signals[0]
    image[labels == 12] += signals[1]
    image[labels > 12] += 100.0
    return image + rng.normal(0, 2, shape), labels


def test_neighbours_are_masked_and_brightness_is_relative(rng):
    image, labels = culture(rng)
    # a structure inside: the far half of nucleus 11 is twice as bright as the near half
    x = np.indices(image.shape)[2]
    image[(labels == 11) & (x * SIZE[2] > 8)] += 100.0
    found = extract(image, labels, SIZE, Rules())
    assert found.label_id == [11, 12]
    assert found.discarded == Counter({BORDER: 2, HIDDEN: 1, SMALL: 1})
    assert found.background == pytest.approx([30, 30], abs=0.5)
    assert found.signal == pytest.approx([150, 200], rel=0.02)
    assert found.intensity == pytest.approx([150 / 175, 200 / 175], rel=0.02)
    assert [shape.radius for shape in found.shapes] == pytest.approx([4.0, 4.0], rel=0.02)
    crop = found.crops[0].astype(np.float32)
    assert crop.shape == (CROP, CROP, CROP)
    # values of 100 and 200 over their mean, and nowhere those of the neighbour or the background
    assert crop.min() > 0.55
    assert crop.max() < 1.55
    steps = (np.arange(CROP) - (CROP - 1) / 2) * 0.25
    body = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    inside = np.linalg.norm(body, axis=-1) < 3.5
    across = body @ found.shapes[0].frame[:, 2]  # x of the image, in the body's frame
    assert crop[inside & (across > 1)].mean() == pytest.approx(200 / 150, rel=0.03)
    assert crop[inside & (across < -1)].mean() == pytest.approx(100 / 150, rel=0.03)


def test_a_lump_that_harmonics_do_not_fit_is_counted(rng):
    """A thin plate through a ball is seen whole from its centre, but is no smooth shape."""
    image, labels = culture(rng)
    labels[:] = 0
    z, y, x = (np.indices(labels.shape) + 0.5) * np.reshape(SIZE, (3, 1, 1, 1))
    r2 = (y - 13) ** 2 + (x - 16) ** 2
    labels[((z - 15) ** 2 + r2 <= 9) | ((np.abs(z - 15) < 0.8) & (r2 <= 121))] = 5
    image[labels == 5] = 130.0
    found = extract(image, labels, SIZE, Rules())
    assert found.discarded == Counter({MISFIT: 1})
    assert extract(image, labels, SIZE, Rules(max_residual=1.0, texture=False)).n == 1


def write_real(path, images):
    ensemble = create_ensemble(path)
    for number, (image, labels) in enumerate(images):
        name = f"a{number:04d}"
        spacing = dict(zip("zyx", SIZE))
        written = ensemble.create_image(name, shape=image.shape, dtype=np.float32, spacing=spacing)
        written[:] = image.astype(np.float32)
        if labels is not None:
            written.create_label("nuclei", np.uint32)[:] = labels
        written.attrs |= {"domain": "A", "use": "train", "source": f"{name}.tif"}
    finish(ensemble, {"stage": "synthesis.ingest"})


def run(tmp_path, **keys):
    dataset = parse_dataset({"pipeline": "synthesis", "name": "a", "prototypes": {"enabled": True, **keys}})
    context = Context(
        DECLARED["synthesis.prototypes"],
        dataset="a",
        inputs={"real": tmp_path / "real.zarr"},
        outputs={"prototypes": tmp_path / "out" / "prototypes.zarr"},
        scratch=tmp_path / "out" / "scratch",
        device="cpu",
    )
    context.scratch.mkdir(parents=True, exist_ok=True)
    prototypes(context, dataset.prototypes)
    context.finish({"stage": "synthesis.prototypes"})
    return open_store(tmp_path / "out" / "prototypes.zarr"), context.warnings


def test_library_keeps_records_of_all_images_with_their_origin(tmp_path, rng):
    write_real(tmp_path / "real.zarr", [culture(rng), (culture(rng)[0], None), culture(rng, (1000.0, 2000.0))])
    store, warnings = run(tmp_path)
    library = read_library(store)
    assert library.n == 4
    assert library.sh.shape == (4, 81)
    assert library.texture.shape == (4, CROP, CROP, CROP)
    np.testing.assert_allclose(library.axes, 4.0, rtol=0.02)
    # one image is ten times brighter; what is compared is the nuclei of one image
    np.testing.assert_allclose(library.intensity, [2 / 3, 4 / 3] * 2, rtol=0.05)
    table = store.table("nuclei")
    assert table["image"].tolist() == ["a0000", "a0000", "a0002", "a0002"]
    assert table["label_id"].tolist() == [11, 12, 11, 12]
    assert store.attrs["voxel_size_um"] == 0.25
    assert store.attrs["source"]["a0002"] == {"path": "a0002.tif", "voxel_size_um": list(SIZE)}
    assert store.attrs["discarded"]["a0000"] == {BORDER: 2, HIDDEN: 1, SMALL: 1}
    assert any("2 of 6 nuclei were kept; 2 touch the border" in line for line in warnings)


def test_keys_have_an_effect(tmp_path, rng):
    write_real(tmp_path / "real.zarr", [culture(rng)])
    shapes_only = read_library(run(tmp_path, texture=False)[0])
    assert shapes_only.texture.shape == (0, CROP, CROP, CROP)
    assert set(draw_nuclei(shapes_only, seeds_of(1, np.arange(5))).texture) == {-1}
    assert read_library(run(tmp_path, max_hidden=1.0, max_residual=1.0)[0]).n == 3
    # one is not star-convex, and so does not fit either
    assert run(tmp_path, max_hidden=1.0)[0].attrs["discarded"]["a0000"][MISFIT] == 1
    with pytest.raises(UserError, match="harmonics of degree 8 do not fit"):
        run(tmp_path, max_residual=1e-9)
    assert read_library(run(tmp_path, min_voxels=8)[0]).n == 3
    with pytest.raises(UserError, match=r"none of the 6 labelled nuclei .* 2 touch the border of the image, 4 are too"):
        run(tmp_path, min_voxels=100_000)
    far = run(tmp_path, margin_um=9.0)[0].table("nuclei")["background"]
    assert not np.array_equal(far, run(tmp_path)[0].table("nuclei")["background"])


def test_images_without_labels_are_refused(tmp_path, rng):
    write_real(tmp_path / "real.zarr", [(culture(rng)[0], None)])
    with pytest.raises(UserError, match="none of the 1 images has labels") as caught:
        run(tmp_path)
    assert "prototypes.enabled: false" in caught.value.do
    assert not (tmp_path / "out" / "prototypes.zarr").exists()


@pytest.fixture(scope="module")
def library():
    rng = np.random.default_rng(5)
    texture = rng.random((3, CROP, CROP, CROP)).astype(np.float16)
    sh = (0.02 * rng.standard_normal((3, 81))).astype(np.float32)
    sh[:, 0] = 0
    return Library(sh, np.full((3, 3), [[4.0], [5.0], [6.0]], np.float32), np.float32([0.5, 1, 2]), texture)


def test_drawn_nuclei_vary_within_their_bounds(library):
    seeds = seeds_of(3, np.arange(4000))
    drawn = draw_nuclei(library, seeds)
    assert np.bincount(drawn.record).min() > 1200
    stretch = np.log(drawn.semi_axes / library.axes[drawn.record])
    assert np.abs(stretch).max() <= 0.15
    assert stretch.std(axis=0) == pytest.approx(0.15 / np.sqrt(3), rel=0.05)
    assert np.abs(np.corrcoef(stretch.T)[np.triu_indices(3, 1)]).max() < 0.06
    assert (drawn.gamma.min(), drawn.gamma.max()) == pytest.approx((0.7, 1.4), abs=0.002)
    change = (drawn.harmonics - library.sh[drawn.record]).astype(np.float64)
    assert (change[:, :4] == 0).all()
    # the mean square over the sphere is the sum of squares over 4 pi
    assert np.sqrt((change**2).sum(axis=1).mean() / (4 * np.pi)) == pytest.approx(0.02, rel=0.02)
    np.testing.assert_array_equal(drawn.intensity, library.intensity[drawn.record])
    np.testing.assert_array_equal(drawn.texture, drawn.record)


def test_drawing_depends_on_the_seed_of_a_nucleus_alone(library):
    seeds = seeds_of(3, np.arange(50))
    all_, some = draw_nuclei(library, seeds), draw_nuclei(library, seeds[17:20])
    for name in ("record", "semi_axes", "harmonics", "gamma"):
        np.testing.assert_array_equal(getattr(all_, name)[17:20], getattr(some, name))


def test_without_variation_a_record_comes_back_as_it_is(library):
    drawn = draw_nuclei(library, seeds_of(3, np.arange(20)), Variation(0.0, 0.0, (1.0, 1.0)))
    np.testing.assert_array_equal(drawn.semi_axes, library.axes[drawn.record])
    np.testing.assert_array_equal(drawn.harmonics, library.sh[drawn.record])
    assert set(drawn.gamma) == {1.0}


def test_drawn_nuclei_are_rows_of_the_table_of_nuclei(library):
    drawn = draw_nuclei(library, seeds_of(3, np.arange(6)))
    table = nuclei_table(
        torch.zeros(6, 3),
        None,
        torch.from_numpy(drawn.semi_axes),
        2.0,
        torch.from_numpy(drawn.harmonics),
        intensity=torch.from_numpy(drawn.intensity),
        texture=torch.from_numpy(drawn.texture),
        gamma=torch.from_numpy(drawn.gamma),
        crops=crops_tensor(library),
    )
    assert table.crops.shape == (3, CROP, CROP, CROP)
    assert (table.reach >= torch.from_numpy(drawn.semi_axes).min(dim=1).values * 0.8).all()


def test_ovule_nuclei_are_prototypes(shared_data):
    """Real labels: all nuclei that are whole have a smooth shape; the others lie at the border of the crop."""
    path = shared_data / "nuclei" / "ovule_nuclei_1135.h5"
    if not path.exists():
        pytest.skip(f"no {path}")
    with h5py.File(path) as file:
        image, labels = file["raw"][:], file["label"][:].astype(np.uint32)
        size = tuple(float(s) for s in file["label"].attrs["element_size_um"])
    found = extract(image, labels, size, Rules())
    assert (found.n, found.discarded) == (11, Counter({BORDER: 43}))
    assert max(shape.residual for shape in found.shapes) < 0.03
    radii = [shape.radius for shape in found.shapes]
    assert 1.5 < min(radii) < max(radii) < 3.0
    volumes = [np.count_nonzero(labels == i) * np.prod(size) for i in found.label_id]
    assert [4 / 3 * np.pi * r**3 for r in radii] == pytest.approx(volumes, rel=0.15)
