"""What a browser makes of the viewer and of the page. Chromium renders WebGL in software."""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from gigascope.report import browser, viewer
from gigascope.report.style import CSS
from gigascope.store.commit import finish
from gigascope.store.create import create_image

from .mosaics import SHAPE, write_mosaic

needs_browser = pytest.mark.skipif(
    browser.find_chromium() is None, reason="no Chromium or Chrome here: apt install chromium to run this test"
)


def rendered(folder: Path, tmp_path: Path, size: tuple[int, int]) -> np.ndarray:
    path = tmp_path / "shot.png"
    viewer.serve(folder).screenshot(path, size)
    return imagecodecs.png_decode(path.read_bytes())[..., :3].astype(float)


@needs_browser
@pytest.mark.browser
@pytest.mark.slow
def test_viewer_shows_tomogram_and_views_on_a_canvas(made, tmp_path):
    shot = rendered(made.folder, tmp_path, (1200, 600))
    assert shot.shape == (600, 1200, 3)
    # four panels of the volume on two thirds of the width, the views beside them
    panels = {"xy": shot[:300, :400], "xz": shot[:300, 400:800], "zy": shot[300:, 400:800], "views": shot[:, 810:]}
    for name, panel in panels.items():
        middle = panel[panel.shape[0] // 4 : -panel.shape[0] // 4, panel.shape[1] // 4 : -panel.shape[1] // 4]
        grey = middle[np.ptp(middle, axis=2) < 2]
        assert len(grey) > 0.9 * middle.shape[0] * middle.shape[1], f"{name}: not a grey image"
        assert grey.std() > 10, f"{name}: nothing to be seen"


@needs_browser
@pytest.mark.browser
@pytest.mark.slow
def test_viewer_shows_y_up_and_x_to_the_right(tmp_path):
    shape = (8, 96, 160)
    writer = create_image(
        tmp_path / "tomogram.zarr", shape=shape, dtype=np.float32, axes=("z", "y", "x"),
        spacing=dict.fromkeys("zyx", 2.0), window=(0.0, 1.0),
    )  # fmt: skip
    volume = np.zeros(shape, np.float32)
    volume[:, 72:, 120:] = 1
    writer[:] = volume
    finish(writer, {})
    panel = rendered(tmp_path, tmp_path, (900, 600))[:300, :450].min(axis=2)
    rows, columns = np.nonzero(panel > 200)
    # the scale bar is white as well, at the lower left
    inside = (rows < 240) & (columns > 120)
    # the block's middle lies at (84 / 96, 140 / 160); the volume is 340 px wide about the panel's middle
    assert np.median(columns[inside]) == pytest.approx(225 + 340 * (140 / 160 - 0.5), abs=3)
    assert np.median(rows[inside]) == pytest.approx(150 - 340 * 96 / 160 * (84 / 96 - 0.5), abs=3)


@needs_browser
@pytest.mark.browser
@pytest.mark.slow
def test_viewer_shows_original_and_decoded_with_the_gate_in_colour(compressed, tmp_path):
    shot = rendered(compressed.folder, tmp_path, (1600, 600))
    for name, panel in {"original": shot[60:240, 80:330], "decoded": shot[60:240, 890:1130]}.items():
        assert panel.max() > 150, f"{name}: nothing bright"
        assert (np.ptp(panel, axis=2) > 20).mean() > 0.03, f"{name}: no colour of the gate"
    # another picture on each side: the Gaussians are made up
    assert np.abs(shot[60:240, 80:330] - shot[60:240, 885:1135]).mean() > 1


@needs_browser
@pytest.mark.browser
@pytest.mark.slow
def test_viewer_shows_colours_and_heights_of_a_mosaic(tmp_path):
    write_mosaic(tmp_path)
    shot = rendered(tmp_path, tmp_path, (1200, 600))
    # two panels; the mosaic is 340 px wide about the middle of each
    high = 340 * SHAPE[0] / SHAPE[1]

    def at(panel: int, row: float, col: float) -> np.ndarray:
        """Colour at a place of the mosaic, -1 to 1 from its middle."""
        return shot[int(300 + row * high / 2), int((300, 905)[panel] + col * 170)]

    np.testing.assert_allclose(at(0, -0.5, -0.5), (255, 0, 0), atol=2)
    np.testing.assert_allclose(at(0, -0.5, 0.5), (0, 255, 0), atol=2)
    np.testing.assert_allclose(at(0, 0.5, -0.5), (0, 0, 255), atol=2)
    np.testing.assert_allclose(at(1, -0.5, -0.96), (68, 1, 84), atol=15)
    np.testing.assert_allclose(at(1, -0.5, 0.96), (253, 231, 37), atol=25)
    # what is unseen is the background
    for panel in (0, 1):
        np.testing.assert_allclose(at(panel, 0.5, 0.5), (22, 25, 29), atol=2)


@pytest.fixture(scope="module")
def pages(made, result_of, compressed, channels, compression_result_of, evaluated_topography, topography_result_of):
    from gigascope.report.compression import compression_page
    from gigascope.report.tomography import tomography_page
    from gigascope.report.topography import topography_page

    return {
        "tomography": tomography_page(result_of(made)),
        "compression": compression_page(compression_result_of(compressed)),
        "channels": compression_page(compression_result_of(channels)),
        "topography": topography_page(topography_result_of(evaluated_topography)),
    }


@needs_browser
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "width"),
    [
        ("tomography", 390),
        ("tomography", 1600),
        ("compression", 390),
        ("compression", 1300),
        ("compression", 1600),
        ("channels", 390),
        ("topography", 390),
        ("topography", 1300),
    ],
)
def test_page_fits_the_width_of_the_screen(pages, tmp_path, kind, width):
    # in a frame, because a window of Chromium is at least 500 px wide
    frame = html.escape(pages[kind], quote=True)
    report = "document.title = d.clientWidth + ' ' + d.scrollWidth"
    page = tmp_path / "frame.html"
    page.write_text(
        f'<iframe style="width:{width}px;height:800px;border:0" srcdoc="{frame}" '
        f'onload="const d = this.contentDocument.documentElement; {report}"></iframe>',
        encoding="utf-8",
    )
    command = browser.command(page.as_uri(), (1800, 900), tmp_path / "profile", ["--dump-dom"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert found, done.stderr[-500:]
    assert (int(found[1]), int(found[2])) == (width, width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(scheme):
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme == "dark"]))
    for name in ("ink", "soft", "accent", "fine"):
        assert contrast(colours[name], colours["ground"]) >= 4.5, name
    assert contrast(colours["ink"], colours["warn-ground"]) >= 7
    for name in ("c0", "c1", "c2", "c3", "c4"):
        assert contrast(colours[name], colours["ground"]) >= 3, name


def contrast(a: str, b: str) -> float:
    """Ratio of luminances as the Web Content Accessibility Guidelines 2.1 define it."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
