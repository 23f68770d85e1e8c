"""Poses of the views and their maps: pixel of a view to mosaic and back, foot, distance, height lift, gauge.

Frames: a pixel (r, c) of a view has its integer coordinates at its centre, the principal point is (R / 2, C / 2); a
mosaic point is (row, col) in mosaic pixels, common to all views. A view is a pinhole with an even radial distortion
that looks at a plane, the flat target: 6 degrees of freedom per view, focal length and distortion shared. All float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]

# from the distorted radius this many Newton steps reach rounding while |distortion| stays below 0.05
NEWTON_STEPS = 3
# a gauge that was fixed is fixed to rounding; the mean angle shows as pixels at the field's edge, 1.5 px per 1e-3 rad
GAUGE_TOLERANCE = 1e-6

COLUMN_UNITS = {"angle": "rad", "translation_row": "px", "translation_col": "px"}


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses of V views; view number = view_row * n_view_cols + view_col, an id and never a position in a slice.

    Parameters
    ----------
    size : (R, C) pixels of a view
    focal : image distance in the units of `height`, where max(R, C) pixels are 1
    height : (V,) distance from the pinhole to the plane along the optical axis, > 0
    normal : (V, 3) normal of the plane in camera axes (x, y, z), z < 0; brought to length 1
    angle : (V,) rotation about the optical axis, radians
    translation : (V, 2) (row, col), mosaic pixels
    distortion : (order,) coefficients of the even radial polynomial, shared
    offset : (2,) (row, col) added to every translation, mosaic pixels

    Raises
    ------
    ShapeError : shapes that do not go together, numbers that are not finite, a plane not in front of its camera
    """

    size: tuple[int, int]
    focal: float
    height: F64
    normal: F64
    angle: F64
    translation: F64
    distortion: F64
    offset: F64

    def __post_init__(self) -> None:
        arrays = {f.name: np.array(getattr(self, f.name), np.float64) for f in fields(self)[2:]}
        n = arrays["height"].size
        shapes: dict[str, tuple[int, ...]] = {"height": (n,), "normal": (n, 3), "angle": (n,), "translation": (n, 2)}
        shapes |= {"offset": (2,), "distortion": (arrays["distortion"].size,)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ShapeError(f"poses: {name}: expected {shape} as height has {n}, got {arrays[name].shape}")
            if not np.isfinite(arrays[name]).all():
                raise ShapeError(f"poses: {name}: expected finite numbers, got {arrays[name]}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ShapeError(f"poses: size: expected (rows, columns) of a view, got {self.size}")
        if not self.focal > 0 or (arrays["height"] <= 0).any():
            raise ShapeError(
                f"poses: expected focal and heights above 0, got {self.focal} and {arrays['height'].min()}"
            )
        if (arrays["normal"][:, 2] >= 0).any():
            raise ShapeError("poses: normal: expected z below 0, toward the camera")
        arrays["normal"] /= np.linalg.norm(arrays["normal"], axis=1, keepdims=True)
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        object.__setattr__(self, "focal", float(self.focal))

    @property
    def n_views(self) -> int:
        """V."""
        return int(self.height.size)


def to_mosaic(poses: Poses, view: ArrayLike, rc: ArrayLike) -> F64:
    """Mosaic coordinates of pixels by the exact intersection of their rays with the plane.

    Parameters
    ----------
    view : (...) integers, broadcast against the pixels
    rc : (..., 2) (row, column) of the view, pixels

    Returns
    -------
    (..., 2) float64, (row, col) of the mosaic

    Notes
    -----
    The ray tau (x', y', f) meets the plane of unit normal n through (0, 0, h) at tau = n_z h / (n . (x', y', f)); the
    minimal rotation that takes n to (0, 0, -1) lays the plane into the mosaic's.
    """
    i, ray_x, ray_y = _rays(poses, view, rc)
    normal, h, f = poses.normal[i], poses.height[i], poses.focal
    nx, ny, nz = normal[..., 0], normal[..., 1], normal[..., 2]
    tau = nz * h / (nx * ray_x + ny * ray_y + nz * f)
    point = np.stack(np.broadcast_arrays(tau * ray_x, tau * ray_y, tau * f - h), axis=-1)
    plane = np.einsum("...ij,...j->...i", _per_view(levelling, poses.normal, i), point)
    return _on_mosaic(poses, i, plane[..., 1], plane[..., 0])


def to_mosaic_expanded(poses: Poses, view: ArrayLike, rc: ArrayLike) -> F64:
    """Like :func:`to_mosaic` by the expansion to second order in the tilt, as the reference release has it.

    For 3072 pixels it differs from the exact map by 0.005 px at 0.8 degrees of tilt and by 0.11 px at 2.3 degrees.
    """
    i, ray_x, ray_y = _rays(poses, view, rc)
    h, f = poses.height[i], poses.focal
    nx, ny = poses.normal[i, 0], poses.normal[i, 1]
    u = nx * ray_x + ny * ray_y
    stretch = 1 + u / f + (u / f) ** 2
    x = h * ray_x / f * stretch + h * nx * u / (2 * f)
    y = h * ray_y / f * stretch + h * ny * u / (2 * f)
    return _on_mosaic(poses, i, y, x)


def to_view(poses: Poses, view: ArrayLike, mosaic_rc: ArrayLike) -> F64:
    """Pixels of views that see mosaic points, the inverse of :func:`to_mosaic`; also outside the image.

    Parameters
    ----------
    view : (...) integers, broadcast against the points
    mosaic_rc : (..., 2) (row, col) of the mosaic

    Returns
    -------
    (..., 2) float64, (row, column) of the view
    """
    i = _ids(poses, view)
    at = np.asarray(mosaic_rc, dtype=np.float64) - poses.translation[i] - poses.offset
    rows, columns = poses.size
    larger = max(rows, columns)
    plane = np.stack(((at[..., 1] - columns / 2) / larger, (at[..., 0] - rows / 2) / larger), axis=-1)
    turn = _per_view(levelling, poses.normal, i)  # its transpose turns back
    point = np.einsum("...ji,...j->...i", turn[..., :2, :], plane)
    scale = poses.focal / (point[..., 2] + poses.height[i])
    ray_x, ray_y = point[..., 0] * scale, point[..., 1] * scale
    cos, sin = _per_view(np.cos, poses.angle, i), _per_view(np.sin, poses.angle, i)
    y, x = ray_y * cos + ray_x * sin, ray_x * cos - ray_y * sin
    ratio = _undone_distortion(poses.distortion, x * x + y * y)
    return np.stack((y * ratio * larger + rows / 2, x * ratio * larger + columns / 2), axis=-1)


def foot(poses: Poses) -> F64:
    """(V, 2) (row, col) of the foot of the perpendicular from each pinhole to the plane, the vanishing point."""
    return _on_mosaic(
        poses, np.arange(poses.n_views), -poses.height * poses.normal[:, 1], -poses.height * poses.normal[:, 0]
    )


def distance(poses: Poses) -> F64:
    """(V,) distance from each pinhole to the plane along its perpendicular, in mosaic pixels."""
    return np.abs(poses.normal[:, 2]) * poses.height * max(poses.size)


def metric_distance(poses: Poses, f_eff_mm: float, magnification: float, reference_view: int = 0) -> F64:
    """(V,) distance from each pinhole's principal plane to the plane, mm.

    Parameters
    ----------
    f_eff_mm : effective focal length
    magnification : of the reference view
    reference_view : its number

    Notes
    -----
    Thin lens: H_mm = f (1 + H / (M_j H_j)), H in pixels.
    """
    pixels = distance(poses)
    return f_eff_mm * (1 + pixels / (magnification * pixels[_ids(poses, reference_view)]))


def mosaic_pixel_mm(poses: Poses, sensor_pixel_mm: float, magnification: float, reference_view: int = 0) -> float:
    """Size of a mosaic pixel on the plane: p / M_j / (h_j / f), mm."""
    return float(sensor_pixel_mm / magnification * poses.focal / poses.height[_ids(poses, reference_view)])


def lift(q: ArrayLike, foot: ArrayLike, distance_mm: ArrayLike, z_mm: ArrayLike) -> F64:
    """Orthographic position of a point z mm above the plane that appears at q: V + (q - V)(1 - z / H).

    Parameters
    ----------
    q, foot : (..., 2) mosaic pixels
    distance_mm, z_mm : (...) mm, z toward the camera

    Returns
    -------
    (..., 2) float64
    """
    at, origin = np.asarray(q, dtype=np.float64), np.asarray(foot, dtype=np.float64)
    shrink = 1 - np.asarray(z_mm, dtype=np.float64) / np.asarray(distance_mm, dtype=np.float64)
    return origin + (at - origin) * shrink[..., None]


def levelling(normal: ArrayLike) -> F64:
    """(..., 3, 3) minimal rotations that take unit vectors (..., 3) with z < 0 to (0, 0, -1).

    Rodrigues: with v = n x (0, 0, -1), I + [v] + [v]^2 / (1 - n_z).
    """
    n = np.asarray(normal, dtype=np.float64)
    vx, vy = -n[..., 1], n[..., 0]
    result = np.zeros((*n.shape, 3))
    share = 1 / (1 - n[..., 2])
    result[..., 0, 0], result[..., 0, 1], result[..., 0, 2] = 1 - vy * vy * share, vx * vy * share, vy
    result[..., 1, 0], result[..., 1, 1], result[..., 1, 2] = vx * vy * share, 1 - vx * vx * share, -vx
    result[..., 2, 0], result[..., 2, 1], result[..., 2, 2] = -vy, vx, 1 - (vx * vx + vy * vy) * share
    return result


def fix_gauge(poses: Poses, level: bool = False) -> Poses:
    """The gauge in which a calibration works: focal the geometric mean of heights, mean angle and translation 0.

    Parameters
    ----------
    level : also turn all normals together so that their mean is (0, 0, -1)

    Returns
    -------
    Poses with these numbers put in place of the old ones. The maps change, and relative to each other too: this is how
    free parameters are read, at every step of a calibration and once when it is saved. Poses that are true already
    keep their relations under :func:`same_scene`.
    """
    normal = poses.normal
    if level:
        mean = normal.mean(axis=0)
        normal = normal @ levelling(mean / np.linalg.norm(mean)).T
    return replace(
        poses,
        focal=float(np.exp(np.log(poses.height).mean())),
        normal=normal,
        angle=poses.angle - poses.angle.mean(),
        translation=poses.translation - poses.translation.mean(axis=0),
    )


def same_scene(poses: Poses) -> tuple[Poses, F64]:
    """Poses in the gauge of :func:`fix_gauge` whose maps are the old ones but for one similarity of the mosaic.

    Returns
    -------
    poses : heights scaled to a geometric mean of `focal`, angles, normals and translations turned by the mean angle
    matrix : (2, 3) float64, new mosaic (row, col) = matrix[:, :2] @ old + matrix[:, 2]; the offset stays
    """
    scale = poses.focal / float(np.exp(np.log(poses.height).mean()))
    turn = -float(poses.angle.mean())
    # on (row, col) = (y, x): y' = y cos - x sin, x' = y sin + x cos, as the in-plane angle does
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned = poses.translation @ rotation.T * scale
    mean = turned.mean(axis=0)
    normal = poses.normal.copy()
    normal[:, 1::-1] = poses.normal[:, 1::-1] @ rotation.T
    centre = np.array(poses.size) / 2 + poses.offset
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * rotation
    matrix[:, 2] = centre - mean - scale * rotation @ centre
    new = replace(
        poses, height=poses.height * scale, normal=normal, angle=poses.angle + turn, translation=turned - mean
    )
    return new, matrix


def gauge_errors(poses: Poses) -> dict[str, float]:
    """How far poses are from their gauge: focal (relative), mean angle (rad), mean translation (in sizes of a view)."""
    return {
        "focal": float(abs(np.log(poses.height).mean() - np.log(poses.focal))),
        "angle": float(abs(poses.angle.mean())),
        "translation": float(np.abs(poses.translation.mean(axis=0)).max() / max(poses.size)),
    }


def select(poses: Poses, views: ArrayLike) -> Poses:
    """Poses of some views only, in the order given."""
    i = _ids(poses, views).reshape(-1)
    return replace(
        poses,
        height=poses.height[i],
        normal=poses.normal[i],
        angle=poses.angle[i],
        translation=poses.translation[i],
    )


def to_columns(poses: Poses) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Columns of a table with one row per view (units: COLUMN_UNITS), and what all views share, as JSON values."""
    columns: dict[str, NDArray] = {"view": np.arange(poses.n_views), "height": poses.height, "angle": poses.angle}
    columns |= {f"normal_{axis}": poses.normal[:, k] for k, axis in enumerate("xyz")}
    columns |= {f"translation_{axis}": poses.translation[:, k] for k, axis in enumerate(("row", "col"))}
    shared = {
        "size": list(poses.size),
        "focal": poses.focal,
        "distortion": poses.distortion.tolist(),
        "offset": poses.offset.tolist(),
    }
    return columns, shared


def from_columns(columns: Mapping[str, ArrayLike], shared: Mapping[str, Any], any_gauge: bool = False) -> Poses:
    """Poses from what :func:`to_columns` gave.

    Parameters
    ----------
    any_gauge : accept poses whose gauge is not fixed, such as the true ones of a synthetic instrument

    Raises
    ------
    ShapeError : a missing column or value, views not numbered 0, 1, ..., or a gauge that is not fixed: focal length and
        mean angle that a calibration removed would come back as an error of the maps
    """
    wanted = ["height", "angle", "normal_x", "normal_y", "normal_z", "translation_row", "translation_col", "view"]
    if missing := [name for name in wanted if name not in columns]:
        raise ShapeError(f"poses: expected the columns {', '.join(wanted)}; {missing[0]} is missing")
    if lacking := [name for name in ("size", "focal", "distortion", "offset") if name not in shared]:
        raise ShapeError(f"poses: expected size, focal, distortion and offset; {lacking[0]} is missing")
    column = {name: np.asarray(columns[name], dtype=np.float64) for name in wanted}
    if not np.array_equal(column["view"], np.arange(column["view"].size)):
        raise ShapeError("poses: view: expected the numbers 0, 1, 2, ... in this order")
    poses = Poses(
        size=(int(shared["size"][0]), int(shared["size"][1])),
        focal=shared["focal"],
        height=column["height"],
        normal=np.stack([column[f"normal_{axis}"] for axis in "xyz"], axis=1),
        angle=column["angle"],
        translation=np.stack([column["translation_row"], column["translation_col"]], axis=1),
        distortion=np.asarray(shared["distortion"], dtype=np.float64),
        offset=np.asarray(shared["offset"], dtype=np.float64),
    )
    for name, error in gauge_errors(poses).items():
        if not any_gauge and error > GAUGE_TOLERANCE:
            raise ShapeError(f"poses: {name} is {error:.3g} from its gauge, expected 0 to {GAUGE_TOLERANCE:g}")
    return poses


def _ids(poses: Poses, view: ArrayLike) -> NDArray[np.intp]:
    """View numbers as integers; those below 0 would count from the end."""
    i = np.asarray(view)
    if i.dtype.kind not in "iu" or (i.size and (i.min() < 0 or i.max() >= poses.n_views)):
        raise ShapeError(f"poses: view: expected integers of 0 to {poses.n_views - 1}, got {view!r}")
    return i.astype(np.intp)


def _per_view(function: Callable[[F64], F64], values: F64, i: NDArray[np.intp]) -> F64:
    """The function of the values of views i, computed for every view or for every entry, whichever are fewer."""
    return function(values)[i] if len(values) < i.size else function(values[i])


def _rays(poses: Poses, view: ArrayLike, rc: ArrayLike) -> tuple[NDArray[np.intp], F64, F64]:
    """View numbers and the directions (x', y') of pixels at image distance f: undistorted, turned about the axis."""
    i, at = _ids(poses, view), np.asarray(rc, dtype=np.float64)
    rows, columns = poses.size
    y, x = (at[..., 0] - rows / 2) / max(rows, columns), (at[..., 1] - columns / 2) / max(rows, columns)
    m = _polynomial(poses.distortion, 2 * (x * x + y * y))
    cos, sin = _per_view(np.cos, poses.angle, i), _per_view(np.sin, poses.angle, i)
    x, y = m * x, m * y
    return i, y * sin + x * cos, y * cos - x * sin


def _polynomial(distortion: F64, s2: F64) -> F64:
    """1 + sum of d_q s2^q, q from 1."""
    m = np.zeros_like(s2)
    for d in distortion[::-1]:
        m = (m + d) * s2
    return 1 + m


def _undone_distortion(distortion: F64, radius2: F64) -> F64:
    """Ratio k of raw to undistorted radius, k (1 + sum d_q (2 r^2 k^2)^q) = 1, by Newton steps from 1."""
    ratio = np.ones_like(radius2)
    for _ in range(NEWTON_STEPS if distortion.size else 0):
        t = 2 * radius2 * ratio * ratio
        m, slope = np.zeros_like(t), np.zeros_like(t)
        for q in range(distortion.size, 0, -1):
            m = (m + distortion[q - 1]) * t
            slope = (slope + (2 * q + 1) * distortion[q - 1]) * t
        ratio = ratio - (ratio * (1 + m) - 1) / (1 + slope)
    return ratio


def _on_mosaic(poses: Poses, i: NDArray[np.intp], y: F64, x: F64) -> F64:
    """Mosaic coordinates of plane coordinates."""
    rows, columns = poses.size
    at = np.stack((y * max(rows, columns) + rows / 2, x * max(rows, columns) + columns / 2), axis=-1)
    return at + poses.translation[i] + poses.offset
