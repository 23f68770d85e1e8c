"""Datasets of any size that exist on no disk: a config and the header that opening the files would have given.

What one of a field's instruments gives is taken as it is, and as many of it as are asked for; a volume or a mosaic
grows instead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from gigascope.compression.plan import VolumeHeader
from gigascope.config.dataset import parse_dataset
from gigascope.registry import stages
from gigascope.synthesis import plan as synthesis
from gigascope.tomography.plan import SeriesHeader
from gigascope.topography.plan import TopographyHeader

CHAINS = ("compression", "topography", "synthesis", "tomography")
TB = 1e12
# A part should last some minutes: its start takes half of one, and what is lost with a job has to be done again.
PART_S = 1200.0
# More do not run at the same time: the profile's queue holds a hundred jobs.
MOST_PARTS = 400


def planned(chain: str, terabytes: float) -> tuple[Any, Any, int, float]:
    """Dataset, header, how many of them, and raw bytes of one (of synthesis, whose raw data is made: of its images)."""
    return {
        "compression": _volume,
        "topography": _mosaic,
        "synthesis": _cultures,
        "tomography": _series,
    }[chain](terabytes * TB)


def sized(dataset: Any, header: Any, cpus: int, measured_cpus: int = 2) -> Any:
    """The dataset in as many parts as make a part last twenty minutes on these CPUs."""
    for stage in stages(dataset.pipeline):
        if stage.scatter is None or stage.estimate is None or not dataset.runs(stage.key):
            continue
        section = getattr(dataset, stage.key)
        seconds = stage.estimate(dataset, header).seconds * measured_cpus / cpus / max(1, stage.rounds(section))
        parts = min(MOST_PARTS, max(1, math.ceil(seconds / PART_S)))
        dataset = dataset.model_copy(update={stage.key: section.model_copy(update={"parts": parts})})
    return dataset


def _parsed(chain: str, inputs: dict[str, Any], **sections: Any) -> Any:
    return parse_dataset({"pipeline": chain, "name": "planned", "inputs": inputs, **sections})


def _volume(n_bytes: float) -> tuple[Any, Any, int, float]:
    """One volume of 16 bits, all sides alike."""
    side = round((n_bytes / 2) ** (1 / 3) / 64) * 64
    header = VolumeHeader((1, 1, side, side, side), "uint16", (1.0, 1.0, 1.0))
    return _parsed("compression", {"volume": "planned.zarr"}), header, 1, 2.0 * side**3


def _mosaic(n_bytes: float) -> tuple[Any, Any, int, float]:
    """Views of 3072 x 3072 pixels and 65 slices, as the published instrument takes them, on ever larger stages."""
    pixels, n_z = 3072, 65
    n_views = n_bytes / (n_z * pixels**2)
    cols = max(1, round(math.sqrt(n_views * 1.5)))
    rows = max(1, round(n_views / cols))
    step = 0.42 * pixels
    mosaic = (round(pixels + step * (rows - 1)), round(pixels + step * (cols - 1)))
    sensor = (pixels, pixels)
    header = TopographyHeader((rows, cols, n_z, *sensor), "uint8", "GBRG", 1, 0.04, sensor, 5, mosaic)
    flat = {"flat": {"captures": "planned_flat"}}
    return _parsed("topography", {"captures": "planned", **flat}), header, 1, float(rows * cols * n_z * pixels**2)


def _cultures(n_bytes: float) -> tuple[Any, Any, int, float]:
    """Cleared spheroids of 300 um diameter under a light sheet, two hundred in a dataset at most."""
    sections: dict[str, Any] = {
        "phantoms": {"n_spheroids": 1, "region": {"semi_axes_um": [150]}},
        "simulate": {
            "preset": "lightsheet_cleared",
            "optics": {"na": 0.3, "n_immersion": 1.45},
            "attenuation": {"grid_um": 4},
        },
    }
    one = _parsed("synthesis", {}, **sections)
    header = synthesis.read_header(one)
    from gigascope.synthesis.simulation.plan import estimate_simulate

    image = estimate_simulate(one, header).disk
    n = max(1, round(n_bytes / image))
    copies = math.ceil(n / 200)
    sections["phantoms"]["n_spheroids"] = math.ceil(n / copies)
    return _parsed("synthesis", {}, **sections), header, copies, 0.0


def _series(n_bytes: float) -> tuple[Any, Any, int, float]:
    """Tilt series of 61 views of 4096 x 4096 pixels of 16 bits, a nanometre each, reconstructed at a quarter."""
    shape = (61, 4096, 4096)
    tilts = tuple(float(t) for t in np.linspace(-60, 60, shape[0]))
    header = SeriesHeader(shape, 2, 1.0, tilts, 0.0)
    raw = 2.0 * math.prod(shape)
    dataset = _parsed("tomography", {"tilt_series": "planned.mrc"}, reconstruct={"thickness_nm": 400, "bin": 4})
    return dataset, replace(header), max(1, round(n_bytes / raw)), raw
