"""Mosaics in other formats, read back with other programs: TIFF, mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from plyfile import PlyData
from scipy import ndimage

from gigascope.cli import main
from gigascope.errors import UserError
from gigascope.runtime.run import run_stage
from gigascope.store.commit import finish
from gigascope.store.create import create_image, create_store
from gigascope.store.open import StoreReader, open_store
from gigascope.topography.mosaic.layout import channel_names, channels, choose_level, mosaic_plan
from gigascope.topography.mosaic.mesh import comments_of, surface_of, triangles, write_ply
from gigascope.topography.mosaic.tiff import write_picture

PIXEL_UM = 1.3


def mosaic(
    folder: Path, rng: np.random.Generator, *, shape: tuple[int, int] = (700, 1130), n: int = 3, white: float = 255.0,
    spacing: bool = True,
) -> StoreReader:  # fmt: skip
    """A store with a hill, noise for colours, and two holes."""
    row, col = np.indices(shape)
    height = 200 * np.exp(-((row - 300) ** 2 + (col - 500) ** 2) / 4e4).astype(np.float32)
    hole = (row - 350) ** 2 + (col - 900) ** 2 < 60**2
    hole[:, :40] = True
    values = np.empty((n + 4, *shape), np.float32)
    values[:n] = ndimage.gaussian_filter(rng.uniform(0, white, (n, *shape)), (0, 3, 3))
    values[n], values[n + 1], values[n + 2], values[n + 3] = height, 2.0, 1.5, 3.0
    values[: n + 2, hole] = np.nan
    values[n + 2 :, hole] = 0
    names = channel_names(n)
    writer = create_image(
        folder / "mosaic.zarr",
        shape=values.shape,
        dtype=np.float32,
        axes=("c", "y", "x"),
        spacing={"y": PIXEL_UM, "x": PIXEL_UM} if spacing else {},
        unit="micrometer",
        plan=mosaic_plan(shape, n, 512),
        channels=channels(names, white),
        allow_nan=True,
    )
    writer[:] = values
    writer.attrs |= {"channels": names, "white": white, "height_datum": "flat target"}
    writer.attrs["height_unit"] = "micrometer" if spacing else "slice"
    finish(writer, {"stage": "topography.mosaic"})
    return open_store(writer.path)


@pytest.mark.parametrize(("n", "white"), [(3, 255.0), (3, 4095.0), (1, 255.0)])
def test_colours_are_the_sensors_values(tmp_path: Path, rng: np.random.Generator, n: int, white: float) -> None:
    store = mosaic(tmp_path, rng, n=n, white=white)
    write_picture(tmp_path / "colour.tif", store, "colour")
    expected = np.rint(np.nan_to_num(store.array()[:n])).astype(np.uint8 if white == 255 else np.uint16)
    expected = np.moveaxis(expected, 0, -1) if n == 3 else expected[0]
    with tifffile.TiffFile(tmp_path / "colour.tif") as file:
        assert file.is_bigtiff
        assert file.is_ome
        series = file.series[0]
        assert [level.shape for level in series.levels] == [
            (*store.array(k).shape[1:], *([3] if n == 3 else [])) for k in range(store.n_levels)
        ]
        assert file.pages[0].tile == (512, 512)
        np.testing.assert_array_equal(series.asarray(), expected)
        coarse = np.rint(np.nan_to_num(store.array(2)[:n]))
        np.testing.assert_array_equal(series.levels[2].asarray(), np.moveaxis(coarse, 0, -1) if n == 3 else coarse[0])
        assert f'PhysicalSizeX="{PIXEL_UM}"' in (file.ome_metadata or "")
    if white == 255:
        # by libtiff
        with Image.open(tmp_path / "colour.tif") as image:
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_heights_are_exact_and_unseen_is_nan(tmp_path: Path, rng: np.random.Generator) -> None:
    store = mosaic(tmp_path, rng)
    seen: list[int] = []
    write_picture(tmp_path / "h.tif", store, "height", lambda places: (seen.append(1) or p for p in places))
    with tifffile.TiffFile(tmp_path / "h.tif") as file:
        for level, page in enumerate(file.series[0].levels):
            np.testing.assert_array_equal(page.asarray(), store.array(level)[3])
    assert len(seen) == sum(
        -(-a // 512) * -(-b // 512) for _, a, b in (store.array(k).shape for k in range(store.n_levels))
    )


def test_surface_lies_where_the_heights_are(tmp_path: Path, rng: np.random.Generator) -> None:
    store = mosaic(tmp_path, rng)
    surface = surface_of(store, 20_000)
    write_ply(tmp_path / "s.ply", surface, comments_of(store))
    ply = PlyData.read(tmp_path / "s.ply")
    vertex, faces = ply["vertex"], np.stack(ply["face"]["vertex_indices"])
    assert 15_000 < len(vertex) <= 20_000
    assert "units micrometer" in ply.comments
    x, y, z = (np.asarray(vertex[name]) for name in "xyz")
    row, col = -y / PIXEL_UM, x / PIXEL_UM
    height = store.array()[3]
    expected = ndimage.map_coordinates(np.nan_to_num(height), (row, col), order=1, mode="nearest")
    # means over blocks of four pixels and more of a curved hill
    assert np.abs(z - expected)[np.abs(col - 40) > 20].max() < 3
    assert z.max() > 195
    # nothing over the holes
    assert ((row - 350) ** 2 + (col - 900) ** 2 > 55**2).all()
    assert col.min() > 38
    corners = np.stack((x, y, z), axis=1)[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normal[:, 2] > 0).all()
    # all that is seen is covered: the area of the triangles from above
    area = normal[:, 2].sum() / 2 / PIXEL_UM**2
    assert area == pytest.approx(np.isfinite(height).sum(), rel=0.02)
    red = ndimage.map_coordinates(np.nan_to_num(store.array()[0]), (row, col), order=1, mode="nearest")
    assert np.abs(np.asarray(vertex["red"]) - red)[np.abs(col - 40) > 20].mean() < 6


def test_every_cell_with_three_corners_has_a_triangle() -> None:
    height = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    colour, one = np.zeros((3, 3, 4)), np.ones(2)
    whole = triangles(height, colour, 0 * one, one, 100)
    assert (len(whole.vertices), len(whole.faces)) == (12, 12)
    for missing in np.ndindex(3, 4):
        holed = height.copy()
        holed[missing] = np.nan
        found = triangles(holed, colour, 0 * one, one, 100)
        touched = sum(
            1 for r in (missing[0] - 1, missing[0]) for c in (missing[1] - 1, missing[1]) if 0 <= r < 2 and 0 <= c < 3
        )
        assert len(found.vertices) == 11
        assert len(found.faces) == 12 - touched
        a, b, c = np.moveaxis(found.vertices[found.faces], 1, 0)
        assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    with pytest.raises(UserError, match="nothing was seen"):
        triangles(np.full((3, 4), np.nan, np.float32), colour, 0 * one, one, 100)


def test_the_coarsest_level_with_enough_pixels_is_taken() -> None:
    shapes = [(1000, 800), (500, 400), (250, 200)]
    assert [choose_level(shapes, n) for n in (10**7, 300_000, 200_000, 60_000, 50_000, 10)] == [0, 0, 1, 1, 2, 2]


def run(*words: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_command_exports_a_finished_mosaic(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    store = mosaic(tmp_path, rng, shape=(140, 210), spacing=False)
    assert run("export", tmp_path, tmp_path / "c.tif") == 0
    assert run("export", store.path, tmp_path / "h.tif", "--picture", "height") == 0
    assert run("export", store.path / "zarr.json", tmp_path / "m.ply", "--vertices", 900) == 0
    printed = capsys.readouterr().out
    assert "colour, 210 x 140 pixels" in printed
    assert tifffile.imread(tmp_path / "h.tif").dtype == np.float32
    ply = PlyData.read(tmp_path / "m.ply")
    assert len(ply["vertex"]) <= 900
    assert "units of x and y pixel, of z slice" in ply.comments


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["c.jpg"], "can be written as .tif, .tiff, .ply, not '.jpg'"),
        (["c.tif", "--picture", "weight"], "'weight' is none of colour, height"),
        (["c.tif", "--roi", "0:1,:,:"], "--roi: is for compressed volumes"),
        (["m.ply", "--vertices", "2"], "at least 3 vertices"),
        (["there.tif"], "is there already"),
        (["none/c.tif"], "there is no such folder"),
    ],
)
def test_wrong_exports_are_refused(
    tmp_path: Path, rng: np.random.Generator, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mosaic(tmp_path, rng, shape=(70, 80))
    (tmp_path / "there.tif").touch()
    assert run("export", tmp_path, tmp_path / words[0], *words[1:]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "c.tif").exists()


def test_other_stores_are_no_mosaic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = create_store(tmp_path / "mosaic.zarr")
    finish(writer, {})
    assert run("export", tmp_path, tmp_path / "c.tif") == 2
    assert "is no mosaic of heights" in capsys.readouterr().err


def test_stages_write_what_the_command_does(tmp_path: Path, rng: np.random.Generator) -> None:
    store = mosaic(tmp_path, rng, shape=(140, 210))
    yaml = tmp_path / "data.yaml"
    sizes = []
    for vertices in (400, 4000):
        yaml.write_text(
            "pipeline: topography\nname: data\ninputs: {instrument: {preset: XS}}\n"
            f"tiff: {{enabled: true}}\nmesh: {{vertices: {vertices}}}\n"
        )
        run_stage("topography.mesh", yaml, {"mosaic": store.path}, {"mesh": tmp_path / "m.ply"})
        sizes.append(len(PlyData.read(tmp_path / "m.ply")["vertex"]))
    assert sizes[0] <= 400 < sizes[1] <= 4000
    files = {"colour_tiff": tmp_path / "colour.ome.tif", "height_tiff": tmp_path / "height.ome.tif"}
    run_stage("topography.tiff", yaml, {"mosaic": store.path}, files)
    np.testing.assert_array_equal(tifffile.imread(files["height_tiff"]), store.array()[3])
    assert tifffile.imread(files["colour_tiff"]).shape == (140, 210, 3)
