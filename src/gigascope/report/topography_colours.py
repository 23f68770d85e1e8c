"""Pictures in false colours: from a value to a colour, and the bar that says which is which."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.report.page import Html, number, tag
from gigascope.topography.mosaic.relief import HEIGHT_COLOURS, UNSEEN

F32 = NDArray[np.float32]
Ramp = Literal["height", "error", "grey"]
# Blue for too low, red for too high, by equal steps of lightness; what is right is nearly white.
ERROR_COLOURS = np.array(
    [(33, 60, 130), (74, 121, 183), (149, 186, 222), (244, 244, 242), (240, 168, 131), (205, 90, 62), (128, 26, 33)],
    np.float32,
)
STOPS: dict[Ramp, NDArray[np.float32]] = {
    "height": HEIGHT_COLOURS,
    "error": ERROR_COLOURS,
    "grey": np.array([(0, 0, 0), (255, 255, 255)], np.float32),
}


def coloured(values: NDArray, limits: tuple[float, float], ramp: Ramp = "height") -> F32:
    """Colours of values.

    Parameters
    ----------
    values : (rows, columns), NaN where there are none
    limits : values of the first and the last colour

    Returns
    -------
    (rows, columns, 3) float32, 0 to 255, light grey where there are none
    """
    low, high = limits
    known = np.isfinite(values)
    share = (np.where(known, values, low) - low) / max(high - low, 1e-30)
    stops = STOPS[ramp]
    place = np.clip(share, 0.0, 1.0) * (len(stops) - 1)
    found = np.stack([np.interp(place, np.arange(len(stops)), channel) for channel in stops.T], axis=-1)
    return np.where(known[..., None], found, UNSEEN).astype(np.float32)


def colour_bar(limits: tuple[float, float], unit: str = "", ramp: Ramp = "height") -> Html:
    """A bar of the colours with the values at its ends."""
    stops = ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*stop) for stop in STOPS[ramp])
    low, high = (number(v) for v in limits)
    last = f"{high}\N{NO-BREAK SPACE}{unit}" if unit else high
    strip = tag("span", style=f"background:linear-gradient(90deg, {stops})")
    return tag("div", tag("span", low), strip, tag("span", last), class_="ramp")
