"""Properties of the pictures: the right way up, to scale, windowed, small."""

from __future__ import annotations

import base64

import imagecodecs
import numpy as np
import pytest

from gigascope.report import figures
from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.store.open import open_store


def decode(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return imagecodecs.webp_decode(base64.b64decode(body))[..., 0]


def marked_store(path, shape=(20, 90, 130), corner=(True, True, True), spacing=(2.0, 1.0, 1.0)):
    """A volume that is bright near the end of every axis of which `corner` is True."""
    volume = np.zeros(shape, np.float32)
    edge = [slice(int(n * 0.75), n) if end else slice(0, n - int(n * 0.75)) for n, end in zip(shape, corner)]
    # through the middle planes too, so that every slice sees it
    for axis in range(3):
        where = list(edge)
        where[axis] = slice(None)
        volume[tuple(where)] = 1
    writer = create_image(path, shape=shape, dtype=np.float32, axes=("z", "y", "x"), spacing=dict(zip("zyx", spacing)))
    writer[:] = volume
    finish(writer, {})
    return open_store(path)


def brightest_corner(values: np.ndarray) -> tuple[str, str]:
    rows, columns = values.shape
    top = values[: rows // 2].mean() > values[rows // 2 :].mean()
    left = values[:, : columns // 2].mean() > values[:, columns // 2 :].mean()
    return "top" if top else "bottom", "left" if left else "right"


def test_slices_show_y_and_z_up_and_x_to_the_right(tmp_path):
    slices = figures.orthogonal_slices(marked_store(tmp_path / "v.zarr"), 720)
    assert brightest_corner(slices.xy.values) == ("top", "right")
    assert brightest_corner(slices.xz.values) == ("top", "right")
    assert brightest_corner(slices.zy.values) == ("top", "right")


@pytest.mark.parametrize("max_px", [720, 100, 40])
def test_slices_keep_their_size_at_every_resolution(tmp_path, max_px):
    store = marked_store(tmp_path / "v.zarr", shape=(16, 200, 300))
    slices = figures.orthogonal_slices(store, max_px)
    assert max(slices.xy.values.shape) <= max(max_px, 64)
    # whole blocks only: up to a block less than the volume
    assert slices.xy.size == pytest.approx((200.0, 300.0), rel=0.05)
    assert slices.xz.size == pytest.approx((32.0, 300.0), rel=0.1)
    assert slices.zy.size == pytest.approx((200.0, 32.0), rel=0.1)


def test_cropping_keeps_the_middle():
    plane = figures.Plane(np.tile(np.arange(101.0, dtype=np.float32), (3, 1)), (1.0, 2.0)).cropped(42.0)
    assert plane.values.shape[1] == 21
    assert plane.values[0].mean() == pytest.approx(50.0)


def test_level_is_the_coarsest_that_fills_the_picture():
    shapes = [(64, 4096, 4096), (64, 2048, 2048), (64, 1024, 1024), (64, 512, 512)]
    assert figures.level_for(shapes, 720) == 2
    assert figures.level_for(shapes, 4096) == 0
    assert figures.level_for(shapes, 9999) == 0
    assert figures.level_for(shapes, 100) == 3


def test_shrinking_keeps_the_mean(rng):
    values = rng.normal(size=(3, 90, 120)).astype(np.float32)
    small, factor = figures.shrink(values, 40)
    assert (small.shape, factor) == ((3, 30, 40), 3)
    assert small.mean() == pytest.approx(values.mean(), abs=1e-5)


def test_window_ends_at_black_and_white_and_nan_is_black(rng):
    ramp = np.tile(np.linspace(-1, 2, 256, dtype=np.float32), (32, 1))
    ramp[:, :16] = np.nan
    shown = decode(figures.data_uri(ramp, (0.0, 1.0)))
    assert shown.shape == ramp.shape
    assert shown[:, :80].max() <= 4
    assert shown[:, 176:].min() >= 251
    assert abs(int(shown[16, 128]) - 128) <= 4


def test_window_ignores_what_is_not_finite_and_outliers(rng):
    values = rng.uniform(0, 1, 100_000)
    values[:10] = [np.nan, np.inf, -np.inf, 1e9, -1e9, 1e9, 1e9, 1e9, np.nan, np.nan]
    low, high = figures.robust_window([values])
    assert (low, high) == pytest.approx((0.005, 0.995), abs=0.01)
    assert figures.robust_window([np.full(4, 3.0)]) == (2.5, 3.5)


def test_scale_bar_is_round_and_a_tenth_to_a_quarter_of_the_width(rng):
    for width in 10.0 ** rng.uniform(-1, 6, 200):
        nm = figures.bar_length(width)
        assert 0.1 - 1e-9 <= nm / width <= 0.25 + 1e-9
        assert f"{nm:.6e}"[0] in "125"


def test_scale_bar_is_as_long_as_it_says():
    plane = figures.Plane(np.zeros((50, 200), np.float32), (1.5, 1.5))
    made = figures.picture(plane, (0.0, 1.0), alt="a <slice>", name="x–y")
    assert ">50\u00a0nm<" in made.replace(" nm", "\u00a0nm")
    assert "width:16.67%" in made
    assert 'alt="a &lt;slice&gt;"' in made
