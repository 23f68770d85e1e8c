"""Properties of the topography page, from a simulated acquisition and from pictures of one camera."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from html_check import Checked

from gigascope.report import topography_colours as colours
from gigascope.report.figures import Plane, picture
from gigascope.report.topography import topography_page
from gigascope.store.table import read_tsv

SECTIONS = [
    "Picture and heights",
    "One view, before and after",
    "How good heights and picture are",
    "Do the views agree",
    "Calibration",
    "Training",
    "What was decided, and why",
    "How to use it",
    "What was done",
    "How to repeat it",
]


@pytest.fixture(scope="module")
def page(evaluated_topography, topography_result_of):
    return topography_page(topography_result_of(evaluated_topography))


@pytest.fixture(scope="module")
def checked(page):
    return Checked(page)


@pytest.fixture(scope="module")
def pictures(evaluated_stack, topography_result_of):
    return Checked(topography_page(topography_result_of(evaluated_stack)))


def test_page_is_valid_and_refers_to_nothing_outside(checked, pictures):
    assert checked.problems == []
    assert pictures.problems == []


def test_page_is_small(page):
    assert len(page) < 5e6


def test_page_has_every_section_in_order(checked):
    found = [title for level, title in checked.headings if level == 2]
    assert [title for title in found if title in SECTIONS] == SECTIONS
    assert [level for level, _ in checked.headings].count(1) == 1


def test_pictures_come_first_and_have_words(page, checked):
    words = [shown["alt"] for shown in checked.pictures]
    assert words[:3] == [
        "All-in-focus picture of the mosaic",
        "Heights of the mosaic in false colours",
        "Shaded relief of the heights, lit from the upper left",
    ]
    assert all(shown["src"].startswith("data:image/webp;base64,") for shown in checked.pictures)
    for said in ("all in focus, the whole view", "Height errors of the mosaic", "How many views see each pixel"):
        assert said in words, said
    assert page.index("data:image/webp") < page.index('class="tiles"')


def test_names_and_warnings_are_escaped(page, checked):
    assert 'look at <b>view 3</b> & "others"' in checked.text
    assert "<b>view 3</b>" not in page


def test_numbers_are_those_of_the_evaluation(evaluated_topography, checked):
    metrics = json.loads((evaluated_topography.folder / "metrics.json").read_text())
    rmse, psnr = metrics["height_rmse"]["value"], metrics["all_in_focus_psnr"]["value"]
    assert re.search(rf"Height error {rmse:.3g} µm RMSE, [\d.]+ z-steps; the best classical estimator", checked.text)
    assert re.search(rf"PSNR {psnr:.4g} dB", checked.text)
    columns, _ = read_tsv(evaluated_topography.folder / "estimators.tsv")
    for label in dict.fromkeys(columns["label"]):
        assert label in checked.text
    assert re.search(r"this result [\d.]+ [\d.]+ [\d.]+ [\d.]+ [\d.]+ [\d.]+ [\d.]+ sharpest slice", checked.text)


def test_plots_of_errors_seams_losses_and_loading_are_there(checked):
    for title in (
        "How far heights are off",
        "Error against height",
        "Error against the place in the field, single views",
        "Seams: picture",
        "Loss",
        "Time of a step",
    ):
        assert title in checked.text, title


def test_decisions_name_the_method_and_its_reason(checked, pictures):
    assert "z-step 40.23 µm median distance of the stage positions" in re.sub(r"\s", " ", checked.text)
    assert "Heights from focus no network was asked for" in checked.text
    assert "z-step unknown heights count slices" in pictures.text


def test_pictures_of_one_camera_have_no_sections_of_many_views(pictures):
    found = {title for level, title in pictures.headings if level == 2}
    assert not {"Do the views agree", "Calibration", "How good heights and picture are"} & found
    assert {"Picture and heights", "One view, before and after", "What was decided, and why"} <= found
    assert "The stack: slice" in pictures.text
    assert "there is one view" in pictures.text
    assert "slices" in pictures.text


def test_picture_size_follows_the_config(evaluated_topography, topography_result_of):
    small = Checked(topography_page(topography_result_of(evaluated_topography), 128))
    assert max(int(shown["width"]) for shown in small.pictures[:6]) <= 128


def test_arrows_of_the_calibration_are_drawn(evaluated_topography, topography_result_of):
    from dataclasses import replace

    from gigascope.report import topography_plots as plots
    from gigascope.topography.calibration.result import Quiver

    result = topography_result_of(evaluated_topography)
    assert plots.quiver(result) == ""
    rows, cols = result.calibration.mosaic_shape
    random = np.random.default_rng(0)
    at = random.uniform(0, 1, (800, 2)) * (rows, cols)
    arrows = Quiver(np.zeros((800, 2), np.int64), at, random.normal(0, 0.05, (800, 2)))
    result.__dict__["calibration"] = replace(result.calibration, quiver=arrows)
    drawn = plots.quiver(result)
    assert re.search(r"Residuals of the calibration, \d+ times as long as they are", drawn)
    path = re.search(r'd="(M[^"]*)"', drawn)
    assert path is not None
    assert path[1].count("M") == plots.MOST_ARROWS


def test_dataset_file_holds_the_sections_of_every_stage(evaluated_topography, topography_result_of):
    from ruamel.yaml import YAML

    from gigascope.report.records import dataset_yaml

    values = YAML(typ="safe").load(dataset_yaml("x", topography_result_of(evaluated_topography).records))
    assert values["pipeline"] == "topography"
    assert {"inputs", "ingest", "evaluate"} <= set(values)


def test_colours_run_from_the_first_to_the_last_and_unknown_is_grey():
    values = np.array([[0.0, 1.0], [np.nan, 5.0]], np.float32)
    found = colours.coloured(values, (0.0, 1.0), "grey")
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[0, 1].tolist() == found[1, 1].tolist() == [255, 255, 255]
    assert found[1, 0].tolist() == [225, 225, 225]
    bar = colours.colour_bar((-2.0, 3.0), "µm", "error")
    assert "linear-gradient" in bar
    assert "−2" in bar


def test_picture_in_colour_keeps_its_colours():
    import base64

    import imagecodecs

    values = np.zeros((40, 60, 3), np.float32)
    values[:, :30, 0], values[:, 30:, 2] = 200, 100
    drawn = picture(Plane(values, (1.0, 1.0)), (0, 255), alt="two halves", bar=False)
    found = re.search(r"base64,([^\"]+)", drawn)
    assert found is not None
    image = imagecodecs.webp_decode(base64.b64decode(found[1]))[..., :3].astype(int)
    assert np.abs(image[20, 10] - (200, 0, 0)).max() < 12
    assert np.abs(image[20, 50] - (0, 0, 100)).max() < 12


def test_stage_writes_the_page(evaluated_topography, tmp_path):
    from gigascope.runtime.run import run_stage

    config = tmp_path / "chip.yaml"
    config.write_text(evaluated_topography.config.read_text() + "report: {picture_px: 128}\n", encoding="utf-8")
    page = tmp_path / "out" / "report.html"
    page.parent.mkdir()
    names = ("sample", "target")
    inputs = {name: path for name, path in evaluated_topography.paths().items() if name not in names}
    run_stage("topography.report", config, inputs, {"page": page})
    checked = Checked(page.read_text(encoding="utf-8"))
    assert checked.problems == []
    assert [p.name for p in page.parent.iterdir() if not p.name.startswith(".")] == ["report.html"]
