"""What the page of a mosaic is made from: its stores, tables and metrics."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.report.evaluated import EvaluatedResult
from gigascope.report.figures import level_for, level_shapes, level_spacing
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.capture.bayer import demosaic
from gigascope.topography.evaluation.labels import TABLES as EVALUATED

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader
    from gigascope.topography.calibration.result import Calibration

F32 = NDArray[np.float32]
TABLES = (*EVALUATED, "losses")
# In the order in which the stages ran.
STORES = ("truth", "raw", "registered", "calibration", "training", "views", "mosaic", "evaluation")
COLOURS = ("red", "green", "blue")
NM_PER_UM = 1000.0


@dataclass(frozen=True)
class TopographyResult(EvaluatedResult):
    """Everything the page is made from.

    Attributes
    ----------
    name : of the dataset
    stores : by the names of STORES; `truth` and `registered` where there are any
    tables : columns by name of the table; see TABLES
    metrics : content of metrics.json
    """

    ORDER = STORES

    @property
    def stacks(self) -> StoreReader:
        """The stacks that focus was found in."""
        return self.stores.get("registered", self.stores["raw"])

    @property
    def mosaic(self) -> StoreReader:
        """Picture and heights."""
        return self.stores["mosaic"]

    @property
    def simulated(self) -> bool:
        """The instrument was simulated, heights are compared with the truth."""
        return bool(self.stores["evaluation"].attrs.get("truth"))

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Of the instrument."""
        return read_calibration(self.stores["calibration"])[0]

    @property
    def n_views(self) -> int:
        """Views that are there."""
        return int(self.calibration.present.sum())

    @property
    def n_slices(self) -> int:
        """Slices of a stack."""
        return int(self.stacks.member("green").shape[2])

    @property
    def height_unit(self) -> str:
        """Of heights: µm, or slices where the step is not known."""
        return "µm" if self.mosaic.attrs.get("height_unit", "micrometer") == "micrometer" else "slices"

    @property
    def dz(self) -> float:
        """Step between slices in the unit of heights."""
        return 1000.0 * abs(float(self.stacks.attrs["dz_mm"])) if self.height_unit == "µm" else 1.0

    @property
    def pixel_um(self) -> float | None:
        """Pixel of the mosaic, none where it is not known."""
        found = self.mosaic.spacing.get("x")
        return None if found is None else float(found)

    def channels(self, max_px: int) -> tuple[dict[str, F32], int]:
        """All channels (rows, columns) of the mosaic at the coarsest level whose longest side is still `max_px`, and
        mosaic pixels along a side of theirs."""
        level = level_for(level_shapes(self.mosaic), max_px)
        factor = round(level_spacing(self.mosaic, level)[-1] / level_spacing(self.mosaic, 0)[-1])
        block = np.asarray(self.mosaic.array(level)[...], np.float32)
        return {str(name): block[n] for n, name in enumerate(self.mosaic.attrs["channels"])}, factor

    def picture(self, channels: Mapping[str, F32]) -> F32:
        """(rows, columns, 3) 0 to 255 of the sensor's full scale."""
        names = COLOURS if "red" in channels else ("grey",) * 3
        white = float(self.mosaic.attrs.get("white", 255.0))
        return np.stack([channels[name] for name in names], axis=-1) * np.float32(255.0 / white)

    @functools.cached_property
    def looked_at(self) -> int:
        """Number of the view that is shown: the middle one of those that are there."""
        present = np.flatnonzero(self.calibration.present)
        rows, cols = self.calibration.instrument.view_shape
        middle = np.array([(rows - 1) / 2, (cols - 1) / 2])
        places = np.stack(np.divmod(present, cols), axis=1)
        return int(present[np.linalg.norm(places - middle, axis=1).argmin()])

    def view(self, name: str) -> NDArray[Any]:
        """`index`, `confidence` or `aif` of the view that is shown."""
        place = divmod(self.looked_at, self.calibration.instrument.view_shape[1])
        return np.asarray(self.stores["views"].member(name)[place])

    @functools.cached_property
    def stack(self) -> NDArray[Any]:
        """Slices of the view that is shown, in the first axis: as the camera has them, with (c, rows, columns) or grey.

        Read once: a chunk holds all slices of its place, one slice costs as much as all of them.
        """
        place, stacks = divmod(self.looked_at, self.calibration.instrument.view_shape[1]), self.stacks
        colours = int(stacks.attrs.get("colours", 1)) == 3
        name = "bayer" if stacks.attrs.get("bayer") is not None else "rgb" if colours else "green"
        return np.asarray(stacks.member(name)[place])

    def slice(self, k: int) -> F32:
        """(rows, columns, 3) slice of the view that is shown, in the units of the stacks."""
        image, pattern = self.stack[k], self.stacks.attrs.get("bayer")
        if pattern is not None:
            return demosaic(image, pattern)
        if image.ndim == 3:
            return np.moveaxis(image.astype(np.float32), 0, -1)
        return np.repeat(image.astype(np.float32)[..., None], 3, axis=-1)


def load(name: str, stores: Mapping[str, StoreReader], metrics: Path, tables: Mapping[str, Path]) -> TopographyResult:
    """Gather the inputs of the page; `stores` and `tables` by the names of :class:`TopographyResult`."""
    from gigascope.store.table import read_tsv

    return TopographyResult(
        name=name,
        stores=stores,
        tables={key: read_tsv(path)[0] for key, path in tables.items()},
        metrics=json.loads(metrics.read_text(encoding="utf-8")),
    )
