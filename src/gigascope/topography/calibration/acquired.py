"""What a store of raw z-stacks says of its instrument: which one it is, where its views are expected, its target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.open import StoreReader
from gigascope.topography.calibration.initial import NAMED, stage_translations
from gigascope.topography.calibration.layout import Layout
from gigascope.topography.calibration.result import InstrumentId
from gigascope.topography.capture.bayer import green_offset
from gigascope.topography.ingest import DARK, FLAT, GREEN, MASK, XY, Z_STAGE
from gigascope.topography.streaming.unpack import unpack_green

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Acquired:
    """An acquisition, and the flat target that was taken with it.

    Parameters
    ----------
    raw : store that ingest left
    """

    raw: StoreReader

    @cached_property
    def instrument(self) -> InstrumentId:
        """Which one it is."""
        facts = self.raw.attrs
        rows, cols = self.raw.member(GREEN).shape[-2:]
        return InstrumentId(
            tuple(facts["camera_rows"]),
            tuple(facts["camera_cols"]),
            (facts["scan"][0], facts["scan"][1]),
            (rows, cols if facts["bayer"] is None else 2 * cols),
            facts["sensor_pitch_um"],
            facts["f_eff_mm"],
            facts["m_ref"],
            facts["ref_view"],
            1 if facts["stage_up"] else -1,
        )

    @property
    def range(self) -> float:
        """Largest value of the dtype of the stacks."""
        return float(np.iinfo(self.raw.member(GREEN).dtype).max)

    @cached_property
    def taken(self) -> Mask:
        """(V,) views of the sample that are there."""
        return np.asarray(self.raw.member(MASK)[...], np.bool_).ravel()

    @cached_property
    def z_mm(self) -> F64:
        """(V, n_z) stage positions of the sample's slices."""
        return np.asarray(self.raw.member(Z_STAGE)[...], np.float64).reshape(self.instrument.n_views, -1)

    @property
    def has_flat(self) -> bool:
        """There is a flat target."""
        return self.raw.attrs["flat"] is not None

    @cached_property
    def layout(self) -> Layout:
        """Cameras and stage positions; the views that are there are those of the flat target."""
        return replace(self.instrument.layout(), present=self.flat_taken)

    @cached_property
    def flat_taken(self) -> Mask:
        """(V,) views of the flat target that are there."""
        return np.asarray(self.raw.member(FLAT + MASK)[...], np.bool_).ravel()

    @cached_property
    def flat_z_mm(self) -> F64:
        """(V, n_z) stage positions of the flat target's slices."""
        return np.asarray(self.raw.member(FLAT + Z_STAGE)[...], np.float64).reshape(self.instrument.n_views, -1)

    @cached_property
    def _flat(self) -> tuple[object, str | None]:
        return self.raw.member(FLAT + GREEN), self.raw.attrs["bayer"]

    def flat_stack(self, view: int) -> NDArray:
        """(n_z, R, C) green of the flat target in one view, in the dtype of the sensor."""
        array, pattern = self._flat
        stored = np.asarray(array[divmod(view, self.instrument.view_shape[1])])  # type: ignore[index]
        if pattern is None:
            return stored
        full = np.empty((*stored.shape[:2], 2 * stored.shape[2]), stored.dtype)
        # slice by slice: the sums of a whole stack would be eight times its size
        for packed, out in zip(stored, full):
            unpack_green(torch.from_numpy(packed[None]), green_offset(pattern), torch.from_numpy(out[None]))
        return full

    def is_dark(self, view: int) -> float | None:
        """Mean of a view of the flat target, as a share of the brightest value of all of them, if that is too low."""
        facts = self.raw.table(f"{FLAT}views")
        share = float(facts["mean"][view] / max(facts["highest"].max(), 1.0))
        return share if share < DARK else None

    def places(self) -> F64:
        """(V, 2) translations that camera grid and stage positions lead to expect, mosaic pixels.

        Raises
        ------
        UserError : several views whose distances, or the size of whose pixels, are not known
        """
        facts, of = self.raw.attrs, self.instrument
        if of.n_views == 1:
            return np.zeros((1, 2))
        moves = of.scan != (1, 1)
        several = of.cameras != (1, 1)
        lacking = []
        if of.pixel_mm is None:
            lacking += [f"ingest.{n}" for n in ("sensor_pitch_um", "m_ref") if facts[n] is None]
        if several and facts["camera_pitch_mm"] is None:
            lacking.append("ingest.camera_pitch_mm")
        if moves and facts["scan_step_y_mm"] is None:
            lacking.append("ingest.scan_step_mm")
        if lacking or of.pixel_mm is None:
            raise UserError(
                "it is not known how far the views are apart in pixels, so that none can be searched in another.",
                where=self.raw.path,
                do=f"Set {', '.join(lacking)}.",
            )
        stage = np.asarray(self.raw.member(XY)[...]) if moves else np.zeros((1, 1, 2))
        pitch = facts["camera_pitch_mm"] if several else 0.0
        signs = (facts["sign_y"], facts["sign_x"])
        return stage_translations(
            stage, of.cameras, (pitch, pitch), of.pixel_mm, signs, (of.camera_rows, of.camera_cols)
        )

    def names(self, views: NDArray[np.int64]) -> str:
        """Some views, for a message."""
        more = f" and {len(views) - NAMED} more" if len(views) > NAMED else ""
        return ", ".join(self.instrument.name(int(v)) for v in views[:NAMED]) + more
