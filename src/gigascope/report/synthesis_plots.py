"""Plots of the synthesis page: distances, intensities, spectra, depth, noise, nuclei."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.report.page import Html, details, grid, heading, join, number, paragraph, table
from gigascope.report.plots import Axis, Mark, Series, plot
from gigascope.report.synthesis_result import ADAPTED, NAIVE, REAL, TITLES
from gigascope.synthesis.evaluation.labels import DISTANCES, PAIR_WORDS

if TYPE_CHECKING:
    from gigascope.report.evaluated import Columns
    from gigascope.report.synthesis_result import SynthesisResult

F64 = NDArray[np.float64]
COLOURS = {REAL: 0, NAIVE: 1, ADAPTED: 2}
PAIR_COLOURS = {"real_real": 0, "real_naive": 1, "real_adapted": 2, "naive_adapted": 3, "naive_naive": 0}
REGIONS = {"nuclei": "Nuclei", "inner": "Background between nuclei", "outer": "Background outside"}


def distances(result: SynthesisResult) -> Html:
    """Table of all distances with their floor, intensities of each region, spectra, distances by depth."""
    drawn = [_intensities(result, region) for region in REGIONS]
    spectra = [_spectrum(result, axis) for axis in ("lateral", "axial")]
    by_depth = [_by_depth(result, region) for region in REGIONS]
    blocks = [
        _table(result),
        heading("Intensities"),
        grid(*drawn, columns="three"),
        heading("Power spectra"),
        grid(*spectra),
    ]
    if any(by_depth):
        blocks += [heading("Intensities by depth"), grid(*by_depth, columns="three")]
    return join([*blocks, _parity(result)])


def depth(result: SynthesisResult) -> Html:
    """Brightness and edges against depth."""
    series: dict[str, list[Series]] = {"mean": [], "q95": []}
    for key in result.sets:
        found = result.rows("depth_profiles", images=key)
        for name, curves in series.items():
            curves.append(_line(TITLES[key], found["depth"], found[name], COLOURS[key]))
    blocks = [
        plot(
            curves,
            Axis("spheroid above (µm)", zero=True),
            Axis("brightness, 0 to 1 of the scale"),
            title=title,
            description=f"{title} against the depth below the surface",
        )
        for curves, title in zip(series.values(), ("Mean brightness", "Bright voxels, 95 %"))
    ]
    return join([grid(*blocks, _edges(result), columns="three"), _edge_words(result)])


def noise(result: SynthesisResult) -> Html:
    """Photon-transfer curves."""
    blocks, rows = [], []
    for key in result.sets:
        found = result.rows("photon_transfer", images=key)
        gain, offset = result.value(f"gain_{key}"), result.value(f"offset_{key}")
        rows.append([TITLES[key], gain, offset, *(result.value(f"noise_{k}_{key}") for k in ("axial", "lateral"))])
        brightness = np.asarray(found["brightness"], np.float64)
        series = [Series("measured", brightness, found["variance"], found["error"], style="dots", colour=COLOURS[key])]
        if gain is not None and offset is not None and brightness.size:
            ends = np.array([brightness.min(), brightness.max()])
            series.append(Series(f"{number(gain)} grey values per electron", ends, gain * (ends - offset), colour=3))
        blocks.append(
            plot(
                series,
                Axis("brightness (grey values)"),
                Axis("variance of the noise", zero=True),
                title=f"{TITLES[key].capitalize()} images",
                description=f"Variance of the noise against brightness inside nuclei of {TITLES[key]} images",
                height=220,
            )
        )
    if not any(blocks):
        return Html("")
    head = ["images", "grey values per electron", "grey value without light", "next slice", "three pixels on"]
    text = (
        "Noise inside nuclei against brightness. The slope is the gain of the camera times its excess noise; texture "
        "of nuclei adds to it. The last two columns say how much of the noise two voxels share: nothing, if each voxel "
        "was measured by itself."
    )
    listed = table(head, rows, "Noise of each kind of images")
    return join([grid(*blocks, columns="three"), listed, paragraph(text, class_="note")])


def nuclei(result: SynthesisResult) -> Html:
    """Histograms of the simulated nuclei."""
    found = result.tables["nuclei"]
    blocks = []
    for name in dict.fromkeys(map(str, found.get("quantity", ()))):
        rows = result.rows("nuclei", quantity=name)
        label, unit = str(rows["label"][0]), str(rows["unit"][0])
        low, high, n = (np.asarray(rows[k], np.float64) for k in ("from", "to", "nuclei"))
        # steps, from the floor and back to it
        edges = np.repeat(np.concatenate([low, high[-1:]]), 2)
        steps = np.concatenate([[0.0], np.repeat(n, 2), [0.0]])
        blocks.append(
            plot(
                [Series("", edges, steps, style="line", colour=1)],
                Axis(f"{label} ({unit})" if unit else label),
                Axis("nuclei", zero=True),
                title=label[0].upper() + label[1:],
                description=f"Histogram of the {label} of the simulated nuclei",
                height=210,
            )
        )
    return grid(*blocks)


def _table(result: SynthesisResult) -> Html:
    found = result.tables["distances"]
    pairs = [p for p in PAIR_WORDS if p in set(map(str, found["pair"]))]
    body = []
    for measure, label in DISTANCES.items():
        row: list[Any] = [label]
        for pair in pairs:
            rows = result.rows("distances", pair=pair, measure=measure)
            row.append(_with_interval(rows) if len(rows["value"]) else None)
        if any(row[1:]):
            body.append(row)
    floor = "real to real" if "real_real" in pairs else "simulated to simulated"
    text = paragraph(
        f"Each distance with its 95 % interval over tiles. The column “{floor}” compares one half of these images with "
        "the other: distances of that size say that nothing differs. Halves have half the tiles, and so lie rather "
        "further apart than whole sets of one kind would. Intensities count from −1 to 1 between the percentiles of a "
        "kind of images; a power spectrum differs by so many decades. Kernel distance and classifier see the features "
        "of a fixed random network.",
        class_="note",
    )
    return join([table(["", *(PAIR_WORDS[p] for p in pairs)], body, "Distances between kinds of images"), text])


def _with_interval(rows: Columns) -> str:
    value, low, high = (float(rows[k][0]) for k in ("value", "low", "high"))
    if not math.isfinite(value):
        return number(None)
    return number(value) + (f" ({number(low, 2)} to {number(high, 2)})" if math.isfinite(low) else "")


def _intensities(result: SynthesisResult, region: str) -> Html:
    series = []
    for key in result.sets:
        rows = result.rows("intensities", images=key, region=region)
        share, at = (np.asarray(rows[k], np.float64) for k in ("share", "intensity"))
        # where nothing is, no line
        use = np.convolve(share > 0, np.ones(5), "same") > 0
        series.append(_line(TITLES[key], at[use], 100 * share[use], COLOURS[key]))
    return plot(
        series,
        Axis("intensity, 0 to 1 of the scale"),
        Axis("voxels (%)", zero=True),
        title=REGIONS[region],
        description=f"Histograms of the intensities: {REGIONS[region].lower()}",
        height=220,
    )


def _spectrum(result: SynthesisResult, axis: str) -> Html:
    series = []
    for key in result.sets:
        rows = result.rows("spectra", images=key, axis=axis)
        series.append(_line(TITLES[key], rows["frequency"], rows["power"], COLOURS[key]))
    title = "In the plane" if axis == "lateral" else "Along the optical axis"
    return plot(
        series,
        Axis("spatial frequency (1/µm)"),
        Axis("power", log=True),
        title=title,
        description=f"Power spectra, {title.lower()}",
    )


def _by_depth(result: SynthesisResult, region: str) -> Html:
    series = []
    for pair in ("real_real", "real_naive", "real_adapted", "naive_naive"):
        rows = result.rows("depth_distances", pair=pair, region=region)
        if len(rows["depth"]) > 1:
            series.append(_line(PAIR_WORDS[pair], rows["depth"], rows["w1"], PAIR_COLOURS[pair]))
    if not series:
        return Html("")
    return plot(
        series,
        Axis("spheroid above (µm)", zero=True),
        Axis("distance of intensities", zero=True),
        title=REGIONS[region],
        description=f"Distance of intensities against depth: {REGIONS[region].lower()}",
        height=220,
    )


def _edges(result: SynthesisResult) -> Html:
    series = []
    for key in result.sets:
        rows = result.rows("edge_curves", images=key)
        if len(rows["depth"]):
            band = np.asarray(rows["std"], np.float64)
            colour = COLOURS[key]
            series.append(Series(TITLES[key], rows["depth"], rows["mean"], band, style="line", colour=colour))
    return plot(
        series,
        Axis("depth below the surface (µm)", zero=True),
        Axis("steepest gradients, 0 to 1 of the scale", zero=True),
        title="Sharpness of edges",
        description="Steepest gradients of slices against the depth below the surface, mean and spread over tiles",
        marks=[Mark("y", 0.0)],
    )


def _edge_words(result: SynthesisResult) -> Html:
    found = [(p, result.value(f"edge_{p}")) for p in ("real_naive", "real_adapted")]
    known = [f"{PAIR_WORDS[p]}: {number(v)}" for p, v in found if v is not None]
    return paragraph(f"Mean distance of the curves of edges, {'; '.join(known)}.", class_="note") if known else Html("")


def _parity(result: SynthesisResult) -> Html:
    found = result.tables["parity"]
    n = len(found.get("images", ()))
    if not n:
        return Html("")
    names = ("images", "region", "depth", "score", "slices", "edge_distance")
    rows = [[_cell(found[k][i]) for k in names] for i in range(n)]
    head = ["images", "region", "depth", "1 − W1 / W0, median", "slices", "distance of edge curves"]
    return details("As in Bruch et al. (2023)", table(head, rows, "Slice against slice, images in their order"))


def _line(label: str, x: Any, y: Any, colour: int) -> Series:
    return Series(label, np.asarray(x, np.float64), np.asarray(y, np.float64), style="line", colour=colour)


def _cell(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    return TITLES.get(str(plain), plain) if isinstance(plain, str) else plain
