"""Where the calibration of an acquisition comes from: its flat target, known poses, another acquisition, or nothing."""

from __future__ import annotations

from typing import Literal

from gigascope.errors import UserError

Origin = Literal["flat target", "known poses", "another acquisition", "single view"]


def origin_of(*, poses: bool, calibration: bool, flat: bool, n_views: int) -> Origin:
    """Which of the sources there are is used.

    Parameters
    ----------
    poses, calibration : a path is given
    flat : there is a flat target
    n_views : V

    Raises
    ------
    UserError : several views, and nothing that tells where they lie
    """
    if calibration:
        return "another acquisition"
    if poses:
        return "known poses"
    if n_views == 1:
        return "single view"
    if flat:
        return "flat target"
    raise UserError(
        f"nothing tells where the {n_views} views lie on the sample: there is no flat target.",
        where="calibrate",
        do="Give the flat target (inputs.flat), the calibration of another acquisition with this instrument "
        "(calibrate.calibration), or known poses (calibrate.poses).",
    )
