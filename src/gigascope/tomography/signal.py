"""From detector values to a signal that projects: a small model of the whole series, and how it is applied to one view.

In bright field the signal is -log(I / I0), in dark field the intensity itself. One factor scales the whole series so
that the lowest view's signal has standard deviation 1, which makes the weight of the regularisation unitless. It is
estimated by `signal_estimate.estimate_signal` and can be kept as JSON or as a table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography import cleaning

F64 = NDArray[np.float64]

# a view whose noise cannot be seen (few grey levels) must not get an unbounded weight
MIN_RELATIVE_NOISE = 0.1


@dataclass(frozen=True)
class SignalSettings:
    """What the user decides about the signal; the names are those of the `ingest` section.

    Parameters
    ----------
    signal : "transmission" (bright field, -log(I / I0)) or "linear" (dark field, or already logged)
    invert : changes the sign of the signal
    i0 : unscattered intensity, counts; none: 99.5th percentile of all views
    dark : offset of the detector, counts, subtracted first
    exclude : indices of views left out by hand
    dark_tol : a view darker than this fraction of its neighbours is flagged
    spike : threshold of hot pixels in robust sigma
    equalize : multiply views so that neighbours have equal standard deviations
    extent : "section", "object", "crop", or "auto" to decide from the data
    """

    signal: str = "transmission"
    invert: bool = False
    i0: float | None = None
    dark: float = 0.0
    exclude: Sequence[int] = ()
    dark_tol: float = 0.5
    spike: float = 8.0
    equalize: bool = False
    extent: str = "auto"


@dataclass(frozen=True)
class SignalModel:
    """Everything that turns a raw view into a prepared one. Per-view arrays are in the order of the stack.

    Parameters
    ----------
    signal, invert, dark, spike : as in :class:`SignalSettings`
    i0 : unscattered intensity after subtraction of `dark`, counts (transmission)
    floor : lowest intensity that the logarithm is taken of, counts (transmission)
    scale : signal (absorbance, or counts) of one prepared unit; the tomogram times it is in original units
    extent : "section", "object" or "crop"
    extent_views, extent_contrast : the views that decided `extent`, and d of each (object above 5); empty if given
    background : (tilt,) signal that is subtracted
    gain : (tilt,) factor after that, 1 unless equalised
    noise : (tilt,) variance of the noise in prepared units
    spikes : (tilt,) fraction of pixels replaced
    flags : (tilt,) "" for a good view, else "excluded", "dark" or "empty"
    """

    signal: str
    invert: bool
    dark: float
    spike: float
    i0: float
    floor: float
    scale: float
    extent: str
    extent_views: tuple[int, ...]
    extent_contrast: tuple[float, ...]
    background: F64 = field(repr=False)
    gain: F64 = field(repr=False)
    noise: F64 = field(repr=False)
    spikes: F64 = field(repr=False)
    flags: tuple[str, ...] = field(repr=False)

    @property
    def good(self) -> NDArray[np.bool_]:
        """(tilt,) true for views that take part in sums."""
        return np.array([flag == "" for flag in self.flags], dtype=bool)

    @property
    def relative_noise(self) -> F64:
        """(tilt,) noise variance over its median among good views: `noise_i` of the weights; 1 for flagged views."""
        good = self.good
        middle = float(np.median(self.noise[good])) if good.any() else 0.0
        if middle <= 0:
            return np.ones_like(self.noise)
        return np.where(good, np.maximum(self.noise / middle, MIN_RELATIVE_NOISE), 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as for JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            k: v.tolist() if isinstance(v, np.ndarray) else list(v) if isinstance(v, tuple) else v
            for k, v in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SignalModel:
        """Inverse of :meth:`to_dict`."""
        arrays = {"background", "gain", "noise", "spikes"}
        tuples = {"extent_views", "extent_contrast", "flags"}
        read: dict[str, Any] = {f.name: values[f.name] for f in dataclasses.fields(cls)}
        read |= {name: np.asarray(values[name], dtype=np.float64) for name in arrays}
        read |= {name: tuple(values[name]) for name in tuples}
        return cls(**read)

    def table(self) -> dict[str, NDArray[Any]]:
        """Per-view columns, as for a table."""
        return {
            "background": self.background,
            "gain": self.gain,
            "noise_variance": self.noise,
            "spike_fraction": self.spikes,
            "flag": np.array(self.flags),
        }


def prepare_view(
    raw: Tensor, model: SignalModel, index: int, *, valid: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One raw view as scaled signal, with its masks.

    Parameters
    ----------
    raw : (y, x) float, raw values
    model : of the series
    index : of the view in the stack
    valid : (y, x) bool, usable pixels

    Returns
    -------
    view : (y, x) float32, 0 where unusable
    usable : (y, x) bool
    spikes : (y, x) bool, replaced pixels; they count as usable
    """
    usable = torch.isfinite(raw) if valid is None else torch.isfinite(raw) & valid
    signal, spikes = cleaning.replace_spikes(linearised(raw, model), model.spike, usable)
    factor = float(model.gain[index]) / model.scale
    return torch.where(usable, (signal - float(model.background[index])) * factor, 0.0), usable, spikes


def linearised(raw: Tensor, model: SignalModel) -> Tensor:
    """Signal before background and scale: -log(max(I, floor) / I0) or I, with its sign; same shape, float32."""
    signal = raw.float() - model.dark
    if model.signal == "transmission":
        signal = -torch.log(torch.clamp(signal, min=model.floor) / model.i0)
    return -signal if model.invert else signal
