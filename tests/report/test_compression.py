"""Properties of the compression page, from a complete result with made-up Gaussians."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from html_check import Checked

from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.report import compression_pictures as pictures
from gigascope.report.compression import compression_page
from gigascope.report.compression_plots import size_words
from gigascope.store.open import open_store

SECTIONS = [
    "Original and decoded",
    "What was lost",
    "Beside other codecs",
    "Where the bytes are",
    "Bricks and frames",
    "What was decided, and why",
    "How to use the file",
    "What was done",
    "How to repeat it",
]


@pytest.fixture(scope="module")
def page(compressed, compression_result_of):
    return compression_page(compression_result_of(compressed))


@pytest.fixture(scope="module")
def checked(page):
    return Checked(page)


@pytest.fixture(scope="module")
def two(channels, compression_result_of):
    return Checked(compression_page(compression_result_of(channels)))


def plainly(text: str) -> str:
    """With usual spaces, as the text of a page is read."""
    return re.sub(r"\s", " ", text)


def test_page_is_valid_and_refers_to_nothing_outside(checked, two):
    assert checked.problems == []
    assert two.problems == []


def test_page_is_small(page):
    assert len(page) < 5e6


def test_page_has_every_section_in_order(checked):
    found = [title for level, title in checked.headings if level == 2]
    assert [title for title in found if title in SECTIONS] == SECTIONS
    assert [level for level, _ in checked.headings].count(1) == 1


def test_pictures_come_first_and_have_words(page, checked):
    # projections along three axes, a slice, and a part of it beside the truth; slices of original, ours and SPERR
    assert len(checked.pictures) == 9 + 3 + 4 + 3
    assert all(picture["src"].startswith("data:image/webp;base64,") for picture in checked.pictures)
    words = [picture["alt"] for picture in checked.pictures]
    assert words[0] == "original: maximum projection along z, x to the right, y down"
    assert sum(alt.startswith("Original, z = ") and alt.endswith("edge of the gate") for alt in words) == 1
    assert any(alt.startswith("Noise-free truth") for alt in words)
    assert page.index("data:image/webp") < page.index('class="tiles"')


def test_names_and_warnings_are_escaped(page, checked):
    assert 'look at <b>voxel 3</b> & "others"' in checked.text
    assert "<b>voxel 3</b>" not in page
    assert "cell <42> & co" in checked.text
    assert "cell <42>" not in page


def test_numbers_are_those_of_the_file_and_the_volumes(compressed, checked):
    n_bytes = (compressed.folder / "gaussians.gmix").stat().st_size
    decoded = np.asarray(GaussianVolume(compressed.folder / "gaussians.gmix")).astype(np.float64)
    volume = compressed.volumes[0].astype(np.float64)
    scale = np.ptp(volume)
    psnr = 10 * np.log10(scale**2 / np.mean((volume - decoded) ** 2))
    ratio = compressed.volumes[0].nbytes / n_bytes
    assert re.search(rf"Ratio {ratio:.3g} : 1 against uint16", checked.text)
    assert f"PSNR, all voxels {psnr:.4g} dB" in checked.text
    assert f"{n_bytes:,} bytes by component" in checked.text
    assert "instead of 197 kB" in checked.text


def test_components_add_up_to_the_file(compressed, checked):
    shown = re.search(r"bytes by component (.*?) This result by VolMicro", checked.text)
    assert shown is not None
    parts = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) bytes, ", shown[1])]
    assert sum(parts) == (compressed.folder / "gaussians.gmix").stat().st_size


def test_codec_that_is_better_is_warned_of_in_words(checked):
    assert re.search(
        r"SPERR is better at the same number of bytes \([\d,]+ against [\d,]+\): foreground PSNR", checked.text
    )
    assert re.search(
        r"Best codec at these bytes [\d.]+.dB SPERR, foreground against the noise-free volume", checked.text
    )


def test_numbers_as_volmicro_counts_stand_beside_the_honest_ones(compressed, checked):
    n = len(GaussianVolume(compressed.folder / "gaussians.gmix").decoder.gmix)
    seed = 2 * compressed.volumes[0].size / (22 * n)
    size = (compressed.folder / "gaussians.gmix").stat().st_size
    assert re.search(rf"everything counted as VolMicro counts Ratio [\d.]+ {seed:.4g} ", checked.text)
    assert f"Size {plainly(size_words(size))} {plainly(size_words(22 * n))}" in checked.text


def test_decisions_name_target_lambda_gate_and_noise(checked):
    text = checked.text
    assert "Target ratio 60 as asked for" in text
    assert "found by fitting some bricks at several values" in text
    assert re.search(r"threshold: [\d.]+ % of the voxels objects that reach 6 noise standard deviations", text)
    assert "by a photon-transfer fit" in text


def test_dataset_file_holds_the_sections_of_every_stage(page, compressed, compression_result_of):
    from ruamel.yaml import YAML

    from gigascope.report.records import dataset_yaml

    result = compression_result_of(compressed)
    values = YAML(typ="safe").load(dataset_yaml("x", result.records))
    assert values["pipeline"] == "compression"
    assert {"inputs", "ingest", "gate", "fit", "decode", "evaluate"} <= set(values)


def test_frames_are_listed_and_shown(two, channels):
    assert "volume of 2 frames of 64 × 64 × 24 voxels" in two.text
    assert "Frames, each against its own range" in two.text
    assert re.search(r"Channel 1: SPERR is better", two.text)
    alts = [picture["alt"] for picture in two.pictures]
    assert "channel 1, decoded: maximum projection along z" in alts
    assert not any("truth" in alt for alt in alts)


def test_page_without_a_decoded_store_shows_the_same_as_with_one(compressed, compression_result_of, tmp_path):
    folder = tmp_path / compressed.folder.name
    shutil.copytree(compressed.folder, folder)
    shutil.rmtree(folder / "decoded.zarr")
    copy = type(compressed)(folder, compressed.volumes, compressed.clean)
    with_store, without = (Checked(compression_page(compression_result_of(made))) for made in (compressed, copy))
    assert [p["src"] for p in with_store.pictures] == [p["src"] for p in without.pictures]


def test_empty_gate_and_no_codecs_leave_a_page(compressed, compression_result_of, tmp_path):
    from gigascope.store.commit import finish
    from gigascope.store.create import create_store
    from gigascope.store.table import read_tsv, write_tsv

    folder = tmp_path / "empty"
    shutil.copytree(compressed.folder, folder)
    columns, _ = read_tsv(folder / "codecs.tsv")
    write_tsv(folder / "codecs.tsv", {name: values[:1] for name, values in columns.items()})
    columns, _ = read_tsv(folder / "curves.tsv")
    write_tsv(folder / "curves.tsv", {name: values[columns["method"] == "ours"] for name, values in columns.items()})
    columns, _ = read_tsv(folder / "fit_bricks.tsv")
    write_tsv(folder / "fit_bricks.tsv", {name: values[:0] for name, values in columns.items()})
    finish(create_store(folder / "codec_pictures.zarr"), {"stage": "compression.evaluate", "warnings": []})
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics = {n: ({**e, "value": None} if n.startswith("psnr_fg") else e) for n, e in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps({n: e for n, e in metrics.items() if "sperr" not in n}))
    copy = type(compressed)(folder, compressed.volumes, compressed.clean)
    checked = Checked(compression_page(compression_result_of(copy)))
    assert checked.problems == []
    assert "the file holds the background only" in checked.text
    assert "Best codec" not in checked.text


def test_picture_size_follows_the_config(compressed, compression_result_of):
    small = Checked(compression_page(compression_result_of(compressed), 40))
    assert max(int(picture["width"]) for picture in small.pictures[:9]) <= 32


def test_busiest_part_is_where_values_vary_most():
    image = np.random.default_rng(0).normal(0, 0.01, (90, 120))
    image[50:60, 80:90] += np.random.default_rng(1).normal(0, 1, (10, 10))
    y, x = pictures.busiest_part(image, (20, 30))
    assert (y.stop - y.start, x.stop - x.start) == (20, 30)
    assert y.start <= 50
    assert y.stop >= 60
    assert x.start <= 80
    assert x.stop >= 90
    assert pictures.busiest_part(image, (500, 30))[0] == slice(0, 90)


def test_busiest_slice_is_that_with_most_voxels():
    mask = np.zeros((7, 8, 9), bool)
    assert pictures.busiest_slice(mask) == 3
    mask[5, 2:4, 3:6], mask[1, 0, 0] = True, True
    assert pictures.busiest_slice(mask) == 5


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(0, "0 bytes"), (8343, "8 343 bytes"), (11449, "11.4 kB"), (2.1e6, "2.10 MB"), (3.14e9, "3.14 GB")],
)
def test_sizes_are_said_in_powers_of_1000(n_bytes, words):
    assert plainly(size_words(n_bytes)) == words


def test_pyramid_of_the_gaussians_fits_that_of_the_store(compressed, compression_result_of):
    result = compression_result_of(compressed)
    stored = result.level(0, 1, limit=1)
    assert stored.shape == open_store(compressed.folder / "volume.zarr").array(result.volume.n_levels - 1).shape


def test_stage_writes_the_page(compressed, tmp_path):
    from gigascope.runtime.run import run_stage

    config = tmp_path / "cell42.yaml"
    config.write_text(
        "pipeline: compression\nname: cell42\ninputs:\n  phantom: {}\nreport:\n  picture_px: 128\n", encoding="utf-8"
    )
    page = tmp_path / "out" / "report.html"
    page.parent.mkdir()
    run_stage("compression.report", config, compressed.paths(), {"page": page})
    checked = Checked(page.read_text(encoding="utf-8"))
    assert checked.problems == []
    assert (1, "cell42") in checked.headings
    assert [p.name for p in page.parent.iterdir() if not p.name.startswith(".")] == ["report.html"]
