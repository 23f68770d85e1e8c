"""Properties of the synthesis page, with all kinds of images and with simulated ones alone."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from html_check import Checked

from gigascope.report.synthesis import synthesis_page
from gigascope.report.synthesis_pictures import outlines

SECTIONS = [
    "The images",
    "How near to real images",
    "What depth does",
    "Noise",
    "Nuclei",
    "Do the labels still fit",
    "What a segmenter finds",
    "Training",
    "What was decided, and why",
    "How to use it",
    "What was done",
    "How to repeat it",
]


@pytest.fixture(scope="module")
def page(evaluated_cultures, synthesis_result_of):
    return synthesis_page(synthesis_result_of(evaluated_cultures))


@pytest.fixture(scope="module")
def checked(page):
    return Checked(page)


@pytest.fixture(scope="module")
def alone(simulated_cultures, synthesis_result_of):
    return Checked(synthesis_page(synthesis_result_of(simulated_cultures)))


def test_page_is_valid_and_refers_to_nothing_outside(checked, alone):
    assert checked.problems == []
    assert alone.problems == []


def test_page_is_small(page):
    assert len(page) < 5e6


def test_page_has_every_section_in_order(checked):
    found = [title for level, title in checked.headings if level == 2]
    assert [title for title in found if title in SECTIONS] == SECTIONS
    assert [level for level, _ in checked.headings].count(1) == 1


def test_pictures_come_first_and_have_words(page, checked):
    words = [shown["alt"] for shown in checked.pictures]
    assert words[:3] == [f"{k} image: x–y slice through the middle" for k in ("Real", "Simulated", "Adapted")]
    assert words[3:6] == [f"{k} image: x–z slice through the middle" for k in ("Real", "Simulated", "Adapted")]
    assert "Adapted image: x–y slice through the middle, labels outlined" in words
    for said in ("Crop 1, simulated", "Crop 2, step 150", "A real crop to compare crop 2 with"):
        assert said in words, said
    assert "Real image: x–y slice through the middle, what the segmenter found outlined" in words
    assert page.index("data:image/webp") < page.index('class="tiles"')


def test_names_and_warnings_are_escaped(page, checked):
    assert 'look at <b>nucleus 3</b> & "others"' in checked.text
    assert "<b>nucleus 3</b>" not in page


def test_numbers_are_those_of_the_evaluation(evaluated_cultures, checked):
    metrics = json.loads((evaluated_cultures / "metrics.json").read_text())
    near, far = metrics["w1_real_adapted"]["value"], metrics["w1_real_naive"]["value"]
    shown = re.search(
        r"Intensities ([\d.]+) distance of adapted images to real ones; simulated: ([\d.]+)", checked.text
    )
    assert shown is not None
    assert float(shown[1]) == pytest.approx(near, rel=6e-3)
    assert float(shown[2]) == pytest.approx(far, rel=6e-3)
    assert re.search(r"DET, adapted [\d.]+ detection score", checked.text)


def test_plots_and_tables_are_there(checked):
    for title in (
        "Distances between kinds of images",
        "Background between nuclei",
        "In the plane",
        "Along the optical axis",
        "Mean brightness",
        "Sharpness of edges",
        "Noise of each kind of images",
        "Diameter of a ball of its volume",
        "Volume lost to neighbours",
        "Shift of each block",
        "Labels and adapted images",
        "DET",
        "Nuclei found, by overlap",
        "As in Bruch et al. (2023)",
        "Cycle",
    ):
        assert title in checked.text, title
    assert re.search(r"\d+ nuclei: \d+ missed, \d+ false, \d+ to split", checked.text)


def test_floor_stands_beside_the_distances(checked):
    assert re.search(r"real to simulated.*real to adapted.*real to real", checked.text)


def test_simulated_images_alone_have_a_page_without_what_needs_others(alone):
    found = {title for level, title in alone.headings if level == 2}
    assert not {"Do the labels still fit", "Training"} & found
    assert {"The images", "How near to real images", "Nuclei", "What a segmenter finds"} <= found
    assert "There are no real images to compare them with." in alone.text
    assert "simulated to simulated" in alone.text


def test_picture_size_follows_the_config(evaluated_cultures, synthesis_result_of):
    small = Checked(synthesis_page(synthesis_result_of(evaluated_cultures), 96))
    assert max(int(shown["width"]) for shown in small.pictures) <= 64


def test_outline_is_the_inner_border_of_every_label():
    labels = np.zeros((7, 9), int)
    labels[1:6, 1:5], labels[1:6, 5:8] = 1, 2
    expected = labels > 0
    expected[2:5, 2:4], expected[2:5, 6:7] = False, False
    np.testing.assert_array_equal(outlines(labels), expected)


def test_report_stage_writes_the_page(simulated_cultures, tmp_path):
    from gigascope.report.synthesis_result import STORES, TABLES
    from gigascope.runtime.run import run_stage

    folder = simulated_cultures
    inputs = {n: p for n in STORES if (p := folder / f"{n}.zarr").exists()}
    inputs |= {"metrics": folder / "metrics.json", **{n: folder / f"{n}.tsv" for n in TABLES}}
    run_stage("synthesis.report", folder / "data.yaml", inputs, {"page": tmp_path / "report.html"})
    assert Checked((tmp_path / "report.html").read_text(encoding="utf-8")).problems == []
