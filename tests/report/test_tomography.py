"""Properties of the tomography page, from a complete made-up result."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from html_check import Checked

from gigascope.report.tomography import tomography_page
from gigascope.report.tomography_result import reason_in_words

SECTIONS = [
    "Tomogram",
    "Before and after alignment",
    "Alignment",
    "Quality",
    "What was decided, and why",
    "What was done",
]


@pytest.fixture(scope="module")
def page(made, result_of):
    return tomography_page(result_of(made))


@pytest.fixture(scope="module")
def checked(page):
    return Checked(page)


def test_page_is_valid_and_refers_to_nothing_outside(checked):
    assert checked.problems == []


def test_page_is_small(page):
    assert len(page) < 5e6


def test_page_has_every_section_in_order(checked):
    found = [title for level, title in checked.headings if level == 2]
    assert [title for title in found if title in SECTIONS] == SECTIONS
    levels = [level for level, _ in checked.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1


def test_pictures_come_first_and_have_words(checked):
    # the tomogram's three slices; sinogram, x-z and x-y slice of raw, pre-aligned and aligned views
    assert len(checked.pictures) == 3 + 9
    assert all(picture["src"].startswith("data:image/webp;base64,") for picture in checked.pictures)
    assert "x–y slice" in checked.pictures[0]["alt"]


def test_names_and_warnings_are_escaped(page, checked):
    assert 'look at <b>view 3</b> & "others"' in checked.text
    assert "<b>view 3</b>" not in page
    assert "cell <42> & co" in checked.text
    assert "cell <42>" not in page


def test_alignment_error_is_that_of_the_stores(made, checked, result_of):
    difference = made.found_shifts - made.true_shifts
    tilt = np.deg2rad(made.tilt_deg)
    used = np.ones(len(tilt), bool)
    used[[3, len(tilt) - 1]] = False
    views = result_of(made).views()
    used &= views.use
    basis = np.stack([np.cos(tilt), np.sin(tilt)], axis=1)
    along = basis @ np.linalg.lstsq(basis[used], difference[used, 0], rcond=None)[0]
    free = np.stack([difference[:, 0] - along, difference[:, 1] - difference[used, 1].mean()], axis=1)[used]
    rms = np.sqrt((free**2).sum(axis=1).mean())
    assert re.search(rf"Alignment error {rms:.3g}", checked.text)


def test_views_are_joined_by_number_and_sorted_by_tilt(made, result_of):
    views = result_of(made).views()
    np.testing.assert_allclose(views.tilt_deg, made.tilt_deg)
    np.testing.assert_allclose(views.found, made.found_shifts)
    np.testing.assert_allclose(views.truth, made.true_shifts)
    assert not views.use[3]
    assert views.reason[3] == reason_in_words(True, "excluded", "")


def test_views_left_out_are_named_with_the_reason(checked):
    for words in (
        "left out by hand",
        "too dark beside its neighbours",
        "differs from the tomogram more than its neighbours",
    ):
        assert words in checked.text


def test_thickness_guess_and_tilt_sign_are_warned_of(measured, result_of):
    text = Checked(tomography_page(result_of(measured))).text
    assert "is a guess" in text
    assert "mirrored in z" in text


def test_page_without_halves_or_truth_says_so(measured, result_of):
    checked = Checked(tomography_page(result_of(measured)))
    assert checked.problems == []
    assert "No half tomograms were written" in checked.text
    assert "Alignment error" not in checked.text
    assert "What the joint alignment changed" in checked.text


def test_wide_volume_is_shown_over_the_field_only(measured, result_of):
    assert "that the untilted view covers" in Checked(tomography_page(result_of(measured))).text


def test_picture_size_follows_the_config(made, result_of):
    small = Checked(tomography_page(result_of(made), 40))
    assert max(int(p["width"]) for p in small.pictures[:3]) <= 40


def test_dataset_file_on_the_page_is_valid_and_complete(checked):
    from ruamel.yaml import YAML

    from gigascope.report.records import dataset_yaml

    records = [
        {
            "stage": "tomography.ingest",
            "seed": 3,
            "config": {"inputs": {"tilt_series": "a.st"}, "ingest": {"i0": None}},
        },
        {"stage": "tomography.prealign", "config": {"prealign": {"width": 512}}},
    ]
    values = YAML(typ="safe").load(dataset_yaml("cell42", records))
    assert values == {
        "pipeline": "tomography", "name": "cell42", "seed": 3, "inputs": {"tilt_series": "a.st"},
        "ingest": {"i0": None},
        "prealign": {"width": 512},
    }  # fmt: skip
    assert "snakemake --profile local" in checked.text


def test_stages_are_listed_with_time_device_and_memory(checked):
    assert re.search(r"tomography\.reconstruct 41\.0 s CPU \(2 cores\) 900 MiB", checked.text)


@pytest.mark.parametrize("drop", [("fsc", "fsc"), ("history", "step_max_px"), ("frc_views", "residual_raw")])
def test_missing_columns_leave_plots_out_but_not_the_page(made, tmp_path, drop, result_of):
    from gigascope.store.table import read_tsv, write_tsv

    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    table, column = drop
    columns, units = read_tsv(folder / f"{table}.tsv")
    del columns[column]
    write_tsv(folder / f"{table}.tsv", columns, {k: v for k, v in units.items() if k in columns})
    copy = type(made)(folder, *(getattr(made, f) for f in ("tilt_deg", "true_shifts", "found_shifts", "volume")))
    assert Checked(tomography_page(result_of(copy))).problems == []


def test_stage_writes_the_page(made, tmp_path):
    from gigascope.runtime.run import run_stage

    config = tmp_path / "cell42.yaml"
    config.write_text(
        "pipeline: tomography\nname: cell42\ninputs:\n  phantom: {kind: object}\nreport:\n  picture_px: 128\n",
        encoding="utf-8",
    )
    inputs = {
        name: made.folder / f"{name}.zarr" for name in ("tilt_series", "prealigned", "tomogram", "aligned", "halves")
    }
    inputs |= {name: made.folder / f"{name}.tsv" for name in ("history", "fsc", "frc_views")}
    inputs["metrics"] = made.folder / "metrics.json"
    page = tmp_path / "out" / "report.html"
    page.parent.mkdir()
    run_stage("tomography.report", config, inputs, {"page": page})
    checked = Checked(page.read_text(encoding="utf-8"))
    assert checked.problems == []
    assert (1, "cell42") in checked.headings
    assert [p.name for p in page.parent.iterdir() if not p.name.startswith(".")] == ["report.html"]
