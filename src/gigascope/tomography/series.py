"""The tilt series as the stages share it: raw views in a store, and what ingest found out about them.

Written by ingest, read by every later stage; views are handed to the science sorted by tilt and prepared (signal,
rotation, shift and binning in one resampling from the raw pixels), results go back in file order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.tomography.signal import SignalModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gigascope.store.create import ImageWriter
    from gigascope.store.open import StoreReader

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class SeriesFacts:
    """What is known of a series besides its pixels.

    Attributes
    ----------
    pixel_size_nm : nanometres
    tilt_deg : (tilt,) degrees in file order, tilt_sign applied
    tilt_axis_deg : degrees
    tilt_sign : +1 or -1, the sign that was applied to the file's angles
    source : file, or "phantom"
    notes : what was chosen for the user, and from where
    dose : (tilt,) electrons per square angstrom, or none
    true_shifts : (tilt, 2) pixels, of a simulated series, or none
    given_shifts : (tilt, 2) pixels, of an alignment made elsewhere, or none
    alignment : file that they come from, or ""
    """

    pixel_size_nm: float
    tilt_deg: F64
    tilt_axis_deg: float
    tilt_sign: int
    source: str
    notes: tuple[str, ...] = ()
    dose: F64 | None = None
    true_shifts: F64 | None = None
    given_shifts: F64 | None = None
    alignment: str = ""


@dataclass(frozen=True)
class Refinement:
    """What the prealignment found out about the geometry, for the stages after it.

    Attributes
    ----------
    tilt_axis_deg : the tilt axis angle to go on with; none: the series' own
    tilt_offset_deg : added to all tilt angles
    thickness_nm, thickness_sigma_nm : of the specimen between its faces; none: not measured
    """

    tilt_axis_deg: float | None = None
    tilt_offset_deg: float = 0.0
    thickness_nm: float | None = None
    thickness_sigma_nm: float | None = None

    @property
    def volume_nm(self) -> float | None:
        """Thickness that holds the specimen: what was measured and its uncertainty."""
        return None if self.thickness_nm is None else self.thickness_nm + (self.thickness_sigma_nm or 0.0)

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Refinement:
        """From the attributes of a store that the prealignment, or a stage after it, has written."""
        return cls(**attrs.get("refined", {}))


def write_facts(writer: ImageWriter, facts: SeriesFacts, model: SignalModel) -> None:
    """Put everything known about a series into its store."""
    columns: dict[str, Any] = {
        "view": np.arange(len(facts.tilt_deg)),
        "tilt_deg": facts.tilt_deg,
        "excluded": ~model.good,
        "reason": np.array(model.flags),
    }
    units = {"tilt_deg": "degree"}
    if facts.dose is not None:
        columns["dose"] = facts.dose
        units["dose"] = "e/A^2"
    if facts.true_shifts is not None:
        columns |= {"true_f_s_px": facts.true_shifts[:, 0], "true_f_y_px": facts.true_shifts[:, 1]}
        units |= {"true_f_s_px": "pixel", "true_f_y_px": "pixel"}
    if facts.given_shifts is not None:
        columns |= {"given_f_s_px": facts.given_shifts[:, 0], "given_f_y_px": facts.given_shifts[:, 1]}
        units |= {"given_f_s_px": "pixel", "given_f_y_px": "pixel"}
    writer.write_table("views", columns, units)
    writer.attrs |= {
        "pixel_size_nm": facts.pixel_size_nm,
        "tilt_axis_deg": facts.tilt_axis_deg,
        "tilt_sign": facts.tilt_sign,
        "source": facts.source,
        "alignment": facts.alignment,
        "notes": list(facts.notes),
        "signal": model.to_dict(),
    }


class Series:
    """A tilt series read from its store.

    Parameters
    ----------
    store : that ingest wrote
    refined : geometry found since then; it replaces the store's

    Attributes
    ----------
    model : signal model of the whole series, file order
    order : (tilt,) file index of each view in ascending tilt
    tilt : (tilt,) radians, ascending
    use : (tilt,) bool, ascending tilt; false for views left out
    pixel_nm : nanometres
    tilt_axis : phi, radians
    """

    def __init__(self, store: StoreReader, refined: Refinement = Refinement()) -> None:
        self._store, self.refined = store, refined
        self.attrs: Mapping[str, Any] = store.attrs
        self.views = store.table("views")
        self.model = SignalModel.from_dict(self.attrs["signal"])
        self.pixel_nm = float(self.attrs["pixel_size_nm"])
        axis_deg = self.attrs["tilt_axis_deg"] if refined.tilt_axis_deg is None else refined.tilt_axis_deg
        self.tilt_axis = float(np.deg2rad(axis_deg))
        tilt_deg = np.asarray(self.views["tilt_deg"], dtype=np.float64)
        self.order = np.argsort(tilt_deg, kind="stable")
        self.tilt = np.deg2rad(tilt_deg[self.order] + refined.tilt_offset_deg)
        self.use = self.model.good[self.order]

    def with_refinement(self, refined: Refinement) -> Series:
        """The same series with another geometry."""
        return Series(self._store, refined)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(tilt, y, x) of the raw views."""
        n, height, width = self._store.shape
        return n, height, width

    @property
    def extent(self) -> str:
        """`section`, `object` or `crop`."""
        return self.model.extent

    @property
    def noise(self) -> F64:
        """(tilt,) relative noise variance, ascending tilt."""
        return self.model.relative_noise[self.order]

    @functools.cached_property
    def true_shifts(self) -> F64 | None:
        """(tilt, 2) pixels, ascending tilt, of a simulated series."""
        return self._shifts("true")

    @property
    def given_shifts(self) -> F64 | None:
        """(tilt, 2) pixels, ascending tilt, of an alignment made elsewhere."""
        return self._shifts("given")

    def _shifts(self, kind: str) -> F64 | None:
        if f"{kind}_f_s_px" not in self.views:
            return None
        return np.stack([self.views[f"{kind}_f_s_px"], self.views[f"{kind}_f_y_px"]], axis=1)[self.order]

    def prepared(
        self,
        *,
        device: torch.device,
        bin: int = 1,
        largest_bin: int = 1,
        shifts: ArrayLike | None = None,
        linear: ArrayLike | None = None,
        spline: int = 1,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Views and masks, (tilt, s, y), ascending tilt; see :func:`gigascope.tomography.views.prepared_views`."""
        from gigascope.tomography.views import prepared_views

        return prepared_views(
            self._store.array(),
            self.model,
            tilt_axis=self.tilt_axis,
            bin=bin,
            largest_bin=largest_bin,
            shifts=shifts,
            linear=linear,
            order=[int(i) for i in self.order],
            valid=self._store.side("mask"),
            spline=spline,
            device=device,
            progress=progress,
        )

    def prepared_view(
        self,
        k: int,
        *,
        device: torch.device,
        bin: int = 1,
        largest_bin: int = 1,
        shift: ArrayLike = (0.0, 0.0),
        linear: ArrayLike = (0.0, 0.0),
        spline: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """View and mask, (s, y), of one index in ascending tilt, as in :meth:`prepared`; `shift` in raw pixels."""
        from gigascope.tomography.views import prepared_views

        view, mask = prepared_views(
            self._store.array(),
            self.model,
            tilt_axis=self.tilt_axis,
            bin=bin,
            largest_bin=largest_bin,
            shifts=np.asarray(shift)[None],
            linear=np.asarray(linear)[None],
            order=[int(self.order[k])],
            valid=self._store.side("mask"),
            spline=spline,
            device=device,
        )
        return view[0], mask[0]

    def in_file_order(self, values: ArrayLike) -> NDArray[Any]:
        """Per-view values of ascending tilt in the order of the file."""
        values = np.asarray(values)
        back = np.empty_like(values)
        back[self.order] = values
        return back
