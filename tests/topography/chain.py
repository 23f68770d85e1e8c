"""The chain stage by stage, in this process or in one of its own, on a dataset that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gigascope.config.dataset import TopographyDataset, load_dataset
from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import open_store
from gigascope.topography.calibration.field import terms
from gigascope.topography.calibration.result import InstrumentId, from_known_poses
from gigascope.topography.calibration.stored import write_calibration
from gigascope.topography.geometry.candidates import find_candidates
from gigascope.topography.synth import build_instrument

from ..stage_runs import StageRuns

# Eight views of 192 pixels and nine slices, of which the truth is known.
TINY: dict[str, Any] = {
    "pipeline": "topography",
    "name": "tiny",
    "seed": 3,
    "device": "cpu",
    "inputs": {"instrument": {"preset": "XS"}},
    "ingest": {"chunk_px": 32},
}
# A training of a second.
SHORT: dict[str, Any] = {"train": {"steps": 8, "patch_px": 48}}
FILES = {"network": "network.pt", "metrics": "metrics.json", "page": "report.html", "mesh": "mosaic.ply"}
FILES |= {"colour_tiff": "mosaic_colour.ome.tif", "height_tiff": "mosaic_height.ome.tif"}
RUNS = StageRuns("topography", FILES)


def write_true_calibration(path: Path, tiny: Path) -> None:
    """A calibration whose poses and surfaces of focus are those of a simulated instrument."""
    dataset = load_dataset(tiny / "data.yaml")
    assert isinstance(dataset, TopographyDataset)
    assert dataset.inputs.instrument is not None
    instrument = build_instrument(dataset.inputs.instrument, dataset.seed)
    poses, facts = instrument.truth.poses, open_store(tiny / "raw.zarr").attrs
    grid = np.moveaxis(np.mgrid[: poses.size[0] : 8, : poses.size[1] : 8], 0, -1).reshape(-1, 2)
    shape = terms(grid, poses.size)
    planes = [
        np.linalg.lstsq(shape, instrument.capture.z_flat_mm(row, col)[tuple(grid.T)], rcond=None)[0]
        for row, col in np.ndindex(*instrument.size.views)
    ]
    identity = InstrumentId(
        camera_rows=tuple(facts["camera_rows"]),
        camera_cols=tuple(facts["camera_cols"]),
        scan=tuple(facts["scan"]),
        size=poses.size,
        sensor_pitch_um=facts["sensor_pitch_um"],
        f_eff_mm=facts["f_eff_mm"],
        magnification=facts["m_ref"],
        ref_view=facts["ref_view"],
        stage_sign=instrument.capture.stage_sign,
    )
    calibration = from_known_poses(poses, identity, focus_plane=np.stack(planes))
    store = create_store(path)
    write_calibration(store, calibration, find_candidates(calibration.poses, calibration.mosaic_shape))
    finish(store, {})
