"""Whether views are the Bayer mosaics that they are taken for: a wrong pattern, one camera with another, none given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.topography.capture.bayer import PATTERNS, SiteDifferences, green_offset, site_differences
from gigascope.topography.capture.capture import FileCapture

_SAMPLED = 3
_SHOWN = 5

View = tuple[int, int]


def sites_of(stack: NDArray, capture: FileCapture) -> dict[str, float] | None:
    """Differences of the sites in the middle slice of a view, as JSON values; none: every pixel has its colours."""
    if capture.colours != 1:
        return None
    found = site_differences(stack[len(stack) // 2])
    return {"diagonal": found.diagonal, "across": found.across, "between": found.between}


def refuse_wrong_pattern(capture: FileCapture) -> None:
    """Look at the middle slice of a few views before all of them are read: the pattern must not be wrong in each.

    Raises
    ------
    UserError : the sites that the pattern calls green differ, and the others do not
    """
    if capture.pattern is None:
        return
    there = np.argwhere(capture.present)
    chosen = there[np.unique(np.linspace(0, len(there) - 1, _SAMPLED).astype(int))]
    found = [site_differences(capture.one_slice(int(r), int(c), capture.shape[2] // 2)) for r, c in chosen]
    if all(sites.contradict(capture.pattern) for sites in found):
        raise _wrong(capture, _typical(found), "")


def refuse_other_camera(capture: FileCapture, views: Mapping[View, Mapping[str, float] | None]) -> None:
    """The pattern must be that of every camera.

    Parameters
    ----------
    views : of :func:`sites_of`, of the views that are there

    Raises
    ------
    UserError : the sites that it calls green differ in all that a camera took, by the camera's name
    """
    if capture.pattern is None:
        return
    cameras: dict[tuple[int, int], list[SiteDifferences]] = {}
    for view, sites in views.items():
        if sites is not None:
            cameras.setdefault(capture.grid.place(*view)[:2], []).append(SiteDifferences(**sites))
    typical = {camera: _typical(found) for camera, found in cameras.items()}
    wrong = [camera for camera, found in typical.items() if found.contradict(capture.pattern)]
    if wrong:
        names = ", ".join(f"camera {camera}" for camera in wrong[:_SHOWN])
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise _wrong(capture, typical[wrong[0]], f" for {len(wrong)} of {len(typical)} cameras, {names}{more}")


def mosaic_warnings(capture: FileCapture, views: Mapping[View, Mapping[str, float] | None]) -> list[str]:
    """Views that were taken as grey and look like the raw mosaic of a colour sensor, in plain words.

    Parameters
    ----------
    views : of :func:`sites_of`, of the views that are there
    """
    if capture.pattern is not None:
        return []
    found = {view: SiteDifferences(**sites) for view, sites in views.items() if sites is not None}
    mosaics = {view: sites.patterns for view, sites in found.items() if sites.patterns}
    if not mosaics:
        return []
    fitting = sorted({pattern for patterns in mosaics.values() for pattern in patterns}, key=PATTERNS.index)
    names = "; ".join(capture.name(*view) for view in list(mosaics)[:_SHOWN])
    more = f" and {len(mosaics) - _SHOWN} more" if len(mosaics) > _SHOWN else ""
    return [
        f"{len(mosaics)} of {len(found)} views were taken as grey, but look like the raw Bayer mosaic of a colour "
        f"sensor (brightness alternates from pixel to pixel): {names}{more}. If they are, set ingest.bayer to "
        f"{' or '.join(fitting)}, whichever gives the right colours: else the mosaic is measured as sharpness."
    ]


def _typical(found: Sequence[SiteDifferences]) -> SiteDifferences:
    return SiteDifferences(
        *(float(np.median([getattr(sites, name) for sites in found])) for name in ("diagonal", "across", "between"))
    )


def _wrong(capture: FileCapture, found: SiteDifferences, whose: str) -> UserError:
    pattern = capture.pattern or ""
    others = [p for p in PATTERNS if green_offset(p) != green_offset(pattern)]
    green, other = found.green_and_other(pattern)
    do = f"Set ingest.bayer to {' or '.join(others)}, whichever gives the right colours."
    if whose:
        do = "Give these cameras a dataset of their own (ingest.camera_rows, camera_cols), or repair their files."
    return UserError(
        f"the Bayer pattern {pattern} is wrong{whose}: the sites that it calls green differ by {green:.1%} of the "
        f"light, the other two by {other:.1%}.",
        where=capture.path,
        do=do,
    )
