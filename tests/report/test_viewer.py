"""Properties of the viewer: what it serves and how, without a browser."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest

from gigascope.errors import UserError
from gigascope.report import viewer
from gigascope.store.commit import finish
from gigascope.store.ensemble import create_ensemble
from gigascope.store.open import open_store

from .mosaics import write_mosaic


def fetch(url: str, headers: dict[str, str] | None = None, method: str = "GET"):
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}, method=method), timeout=20)


def layer_of(served, name: str) -> dict:
    return next(x for x in served.neuroglancer.state.to_json()["layers"] if x["name"] == name)


@pytest.fixture(scope="module")
def served(made):
    return viewer.serve(made.folder)


def test_tomogram_and_aligned_views_are_shown(served):
    assert served.layers == ["tomogram", "aligned"]
    with fetch(served.url) as answer:
        assert b"neuroglancer" in answer.read()


def test_shards_are_given_out_in_ranges(made, served):
    base = layer_of(served, "tomogram")["source"]["url"].removesuffix("|zarr3:")
    with fetch(f"{base}zarr.json") as answer:
        assert json.load(answer)["attributes"]["gigascope"]["complete"] is True
    shard = next(p for p in (made.folder / "tomogram.zarr" / "0" / "c").rglob("*") if p.is_file())
    url = base + str(shard.relative_to(made.folder / "tomogram.zarr"))
    content = shard.read_bytes()
    for given, expected in [("bytes=100-299", content[100:300]), ("bytes=-68", content[-68:])]:
        with fetch(url, {"Range": given}) as answer:
            assert answer.status == 206
            assert answer.read() == expected
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
    with fetch(url, method="HEAD") as answer:
        assert int(answer.headers["Content-Length"]) == len(content)


@pytest.mark.parametrize("path", ["../secret.txt", "%2e%2e/secret.txt", "tomogram.zarr/../../secret.txt"])
def test_nothing_outside_the_folder_is_given_out(made, served, path):
    (made.folder.parent / "secret.txt").write_text("secret", encoding="utf-8")
    base = layer_of(served, "tomogram")["source"]["url"].split("tomogram.zarr")[0]
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(base + path)
    assert refused.value.code in (403, 404)


def test_missing_shard_is_not_found(served):
    base = layer_of(served, "tomogram")["source"]["url"].removesuffix("|zarr3:")
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(base + "0/c/99/0/0")
    assert refused.value.code == 404


def test_centres_lie_over_each_other_in_nanometres(measured):
    stores = {
        name: (open_store(measured.folder / f"{name}.zarr"), f"http://x/{name}.zarr")
        for name in ("tomogram", "aligned")
    }
    shown = viewer.state(stores)
    assert shown["dimensions"]["x"] == [1.5e-9, "m"]
    assert list(shown["dimensions"])[:3] == ["x", "y", "z"]
    assert shown["position"][:3] == [0.0, 0.0, 0.0]
    for layer in shown["layers"]:
        store = stores[layer["name"]][0]
        for row, (axis, n) in zip(layer["source"]["transform"]["matrix"], zip(store.axes, store.shape)):
            assert row[-1] == (-n / 2 if axis in "zyx" else 0)


def test_window_is_that_of_the_store(made):
    store = open_store(made.folder / "tomogram.zarr")
    shown = viewer.state({"tomogram": (store, "http://x")})
    assert tuple(shown["layers"][0]["shaderControls"]["normalized"]["range"]) == store.window
    assert shown["layout"]["layout"] == "4panel"


def test_views_have_a_panel_of_their_own_with_the_tilt_to_scroll(made):
    stores = {
        name: (open_store(made.folder / f"{name}.zarr"), "http://x") for name in ("tomogram", "aligned", "tilt_series")
    }
    shown = viewer.state(stores)
    panels = shown["layout"]["children"]
    assert [panel["layout"] for panel in panels] == ["4panel", "xy", "xy"]
    assert "tilt" in shown["dimensions"]


def test_second_volume_is_hidden_behind_the_first(made):
    stores = {name: (open_store(made.folder / f"{name}.zarr"), "http://x") for name in ("tomogram", "halves")}
    assert [layer["visible"] for layer in viewer.state(stores)["layers"]] == [True, False]


def test_one_store_can_be_shown_alone(made):
    assert viewer.serve(made.folder / "tomogram.zarr").layers == ["tomogram"]
    assert viewer.serve(made.folder / "prealigned.zarr" / "zarr.json").layers == ["prealigned"]


@pytest.mark.parametrize(
    ("folder", "layers", "words"),
    [
        ("no_such", None, "no such results folder"),
        (".", ["tomogran"], "Stores: aligned"),
        ("empty", None, "no finished store"),
    ],
)
def test_what_is_not_there_is_said(made, folder, layers, words):
    (made.folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=words):
        viewer.serve(made.folder / folder, layers)


def test_taken_port_is_said(made):
    import subprocess
    import sys

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        # a process of its own: the server of this one is running already
        code = f"from gigascope.report.viewer import serve; serve({str(made.folder)!r}, port={port})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "UserError" in done.stderr
    assert "--port" in done.stderr


def test_original_and_decoded_stand_side_by_side_under_the_gate(compressed):
    served = viewer.serve(compressed.folder)
    assert served.layers == ["volume", "decoded", "gate"]
    shown = served.neuroglancer.state.to_json()
    panels = shown["layout"]["children"]
    assert [panel["layers"] for panel in panels] == [["volume", "gate"], ["decoded", "gate"]]
    gate = layer_of(served, "gate")
    assert gate["type"] == "segmentation"
    assert list(gate["segments"]) == ["1"]
    # row 0 is on top, as in the files of light microscopes
    assert shown.get("crossSectionOrientation", [0, 0, 0, 1]) == [0, 0, 0, 1]


def test_volume_that_was_not_decoded_is_shown_alone(channels):
    stores = {n: (open_store(channels.folder / f"{n}.zarr"), f"http://x/{n}") for n in ("volume", "gate")}
    shown = viewer.state(stores)
    assert shown["layout"]["layout"] == "4panel"
    assert [layer["visible"] for layer in shown["layers"]] == [True, True]
    assert shown["dimensions"]["z"] == [0.5e-6, "m"]


@pytest.mark.parametrize("n_colours", [3, 1])
def test_mosaic_has_a_panel_for_its_colours_and_one_for_its_heights(tmp_path, n_colours):
    write_mosaic(tmp_path, n_colours)
    served = viewer.serve(tmp_path)
    assert served.layers == ["mosaic"]
    shown = served.neuroglancer.state.to_json()
    assert [panel["layers"] for panel in shown["layout"]["children"]] == [["mosaic"], ["mosaic height"]]
    colours, heights = layer_of(served, "mosaic"), layer_of(served, "mosaic height")
    # a viewer finds the channels of a pixel together only if they are dimensions of a chunk
    assert list(colours["source"]["transform"]["outputDimensions"]) == ["c^", "y", "x"]
    assert open_store(tmp_path / "mosaic.zarr").array().chunks[0] == n_colours + 4
    values = ["toRaw(getDataValue(0))", "toRaw(getDataValue(1))", "toRaw(getDataValue(2))"]
    assert ", ".join(values if n_colours == 3 else values[:1] * 3) in colours["shader"]
    control = heights["shaderControls"]["normalized"]
    assert control["channel"] == [n_colours]
    assert control["range"] == pytest.approx([-50, 50], abs=1)
    assert shown["dimensions"]["x"] == [1.3e-6, "m"]
    assert shown.get("crossSectionOrientation", [0, 0, 0, 1]) == [0, 0, 0, 1]


def write_cultures(path, n=2):
    ensemble = create_ensemble(path)
    for number in range(n):
        shape = (6 + number, 20, 30)
        spacing = {"z": 1.5, "y": 0.5, "x": 0.5}
        image = ensemble.create_image(f"s000{number}", shape=shape, dtype=np.uint16, spacing=spacing)
        labels = np.zeros(shape, np.uint32)
        labels[1:4, 3:12, 3:12], labels[2:5, 3:17, 15:27] = 7, 70_000
        image[:] = (100 + 50 * (labels > 0)).astype(np.uint16)
        image.create_label("nuclei", np.uint32)[:] = labels
        image.create_label("spheroid")[:] = np.ones(shape, np.uint8)
    finish(ensemble, {"stage": "synthesis.simulate"})


def test_of_a_store_of_many_images_the_first_is_shown_with_its_labels(tmp_path):
    write_cultures(tmp_path / "cultures.zarr")
    served = viewer.serve(tmp_path)
    assert served.layers == ["cultures/s0000"]
    shown = served.neuroglancer.state.to_json()
    assert [(x["name"], x["type"], x.get("visible", True)) for x in shown["layers"]] == [
        ("cultures/s0000", "image", True),
        ("cultures/s0000 nuclei", "segmentation", True),
        ("cultures/s0000 spheroid", "segmentation", False),
    ]
    assert shown["layout"]["layout"] == "4panel"
    for layer in shown["layers"]:
        with fetch(layer["source"]["url"].removesuffix("|zarr3:") + "zarr.json") as answer:
            assert json.load(answer)["attributes"]["ome"]["multiscales"]
        assert [row[-1] for row in layer["source"]["transform"]["matrix"]] == [-3, -10, -15]


def test_another_image_of_many_is_shown_by_its_name(tmp_path):
    write_cultures(tmp_path / "cultures.zarr")
    for served in (viewer.serve(tmp_path, ["cultures/s0001"]), viewer.serve(tmp_path / "cultures.zarr" / "s0001")):
        assert served.layers == ["cultures/s0001"]
        assert "/cultures.zarr/s0001/" in layer_of(served, "cultures/s0001")["source"]["url"]
    with pytest.raises(UserError, match="its images: s0000, s0001"):
        viewer.serve(tmp_path, ["cultures/s0002"])


def test_label_image_of_an_image_with_channels_has_none(tmp_path):
    ensemble = create_ensemble(tmp_path / "real.zarr")
    image = ensemble.create_image("s0000", shape=(2, 4, 5, 6), dtype=np.uint8, axes=("c", "z", "y", "x"))
    image[:] = np.arange(240, dtype=np.uint8).reshape(2, 4, 5, 6)
    image.create_label("nuclei", np.uint32)[:] = np.ones((4, 5, 6), np.uint32)
    finish(ensemble, {"stage": "synthesis.ingest"})
    layer = layer_of(viewer.serve(tmp_path), "real/s0000 nuclei")
    assert list(layer["source"]["transform"]["outputDimensions"]) == ["z", "y", "x"]
    assert layer["source"]["transform"]["matrix"] == [[1, 0, 0, -2], [0, 1, 0, -2.5], [0, 0, 1, -3]]
