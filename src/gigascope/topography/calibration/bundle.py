"""Poses of all views from tie points: robust least squares in the mosaic plane, with exact geometry.

    min  sum_ties w |M_a(p_a) - M_b(p_b)|^2 / s^2  +  sum_v |x_v - camera(v) - stage(v)|^2 / prior^2  +  mounting priors

x_v are six numbers of a view: log of its height over the focal length, the two slopes of its normal, its angle, its
translation; one distortion is shared. A camera sits still and a stage position moves the sample under all cameras, so a
view departs little from the sum of the two: these departures have Gaussian priors, and with infinite ones every view
stands for itself. Gauss-Newton on the normal equations; ties are summed in pieces, one 6 x 6 block for each pair of
views, so the size of the system does not depend on their number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from gigascope.errors import ShapeError, UserError
from gigascope.topography.calibration.initial import refuse_unconnected
from gigascope.topography.calibration.tie_points import TiePoints
from gigascope.topography.geometry.poses import Poses, to_mosaic

_log = logging.getLogger(__name__)
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# log height, slope of the normal along x and y, angle, translation along rows and columns
N_POSE = 6
# Steps of the central differences of the map, about the cube root of rounding over each number's effect in pixels.
STEPS = np.array([1e-5, 1e-4, 1e-4, 1e-5, 1e-2, 1e-2])
DISTORTION_STEP = 1e-4
# Ties that are differentiated at once: 100 MB.
PIECE = 200_000


@dataclass(frozen=True)
class Priors:
    """Standard deviations of the Gaussian priors.

    Attributes
    ----------
    residual_px, residual_height, residual_rad : of a view about its camera and stage position: translation, relative
        height, angles; infinite: views are independent
    stage_height, stage_rad : of a stage position about none
    mount_height, mount_rad, mount_tilt : of a camera: relative height, angle in its plane, slope of the normal about
        the start's; with infinite residuals, of a view. Tie points say little of tilt at small field angles, a slope of
        2e-3 moves nothing by more than 0.1 px; the surface of focus says more
    distortion : of each coefficient about 0
    """

    residual_px: float = 2.0
    residual_height: float = 2e-4
    residual_rad: float = 2e-4
    stage_height: float = 1e-3
    stage_rad: float = 1e-3
    mount_height: float = 1e-2
    mount_rad: float = 1e-2
    mount_tilt: float = 2e-3
    distortion: float = 1e-2

    @property
    def hierarchical(self) -> bool:
        """Views hang together through cameras and stage positions."""
        return bool(np.isfinite([self.residual_px, self.residual_height, self.residual_rad]).any())


@dataclass(frozen=True, eq=False)
class Bundle:
    """Result of :func:`adjust`.

    Attributes
    ----------
    poses : gauge fixed
    residual : (T, 2) float64, mosaic pixels, first minus second point of each tie
    weight : (T,) float64, robust weight, 0..1
    scale : pixels, at which the weight is a half
    cost : at the start of every round
    """

    poses: Poses
    residual: F64
    weight: F64
    scale: float
    cost: tuple[float, ...]

    @property
    def statistics(self) -> dict[str, float]:
        """Median, 95th percentile and rms of |residual| in pixels, number of ties, share of ties with weight < 0.1."""
        length = np.linalg.norm(self.residual, axis=1)
        return {
            "n_ties": float(len(length)),
            "median_px": float(np.median(length)),
            "p95_px": float(np.percentile(length, 95)),
            "rms_px": float(np.sqrt(np.average(length**2, weights=self.weight))),
            "rejected": float((self.weight < 0.1).mean()),
        }


@dataclass(frozen=True, eq=False)
class Layout:
    """Which camera and which stage position a view belongs to.

    Attributes
    ----------
    camera, stage : (V,) int64
    present : (V,) bool, views that are there
    """

    camera: I64
    stage: I64
    present: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def __post_init__(self) -> None:
        if self.camera.shape != self.stage.shape or self.camera.ndim != 1:
            raise ShapeError(f"layout: expected two of (V,), got {self.camera.shape} and {self.stage.shape}")
        if self.present.size == 0:
            object.__setattr__(self, "present", np.ones(len(self.camera), np.bool_))

    @property
    def n_cameras(self) -> int:
        return int(self.camera.max()) + 1

    @property
    def n_stages(self) -> int:
        return int(self.stage.max()) + 1


def layout(cameras: tuple[int, int], scan: tuple[int, int], camera_mask: NDArray | None = None) -> Layout:
    """Layout of a grid of views: the scan runs fastest inside a camera.

    Parameters
    ----------
    cameras : (rows, columns)
    scan : (n_scan_y, n_scan_x)
    camera_mask : (rows, columns) bool, cameras that are there; none: all
    """
    shape = (cameras[0] * scan[0], cameras[1] * scan[1])
    row, col = np.indices(shape)
    camera = (row // scan[0]) * cameras[1] + col // scan[1]
    stage = (row % scan[0]) * scan[1] + col % scan[1]
    mask = np.ones(cameras, np.bool_) if camera_mask is None else np.asarray(camera_mask, dtype=np.bool_)
    return Layout(camera.ravel(), stage.ravel(), mask.ravel()[camera.ravel()])


def adjust(ties: TiePoints, start: Poses, where: Layout, priors: Priors | None = None, *, rounds: int = 12) -> Bundle:
    """Poses of all views.

    Parameters
    ----------
    ties : of :func:`gigascope.topography.calibration.tie_points.tie_points`
    start : poses to start from; focal is kept, normals are what the mounting priors are about
    where : cameras and stage positions
    priors : none: the defaults
    rounds : of Gauss-Newton with new robust weights, at most

    Returns
    -------
    Bundle

    Raises
    ------
    UserError : views without tie points, or groups of views that no tie connects

    Notes
    -----
    Weights of Cauchy, 1 / (1 + (r / c)^2), c 2.4 times the robust spread of the residuals (Holland and Welsch, Comm.
    Statist. A6, 813 (1977)). Triggs et al., Bundle adjustment - a modern synthesis (2000), for the reduced system and
    the gauge: sums of log heights, angles and translations are held by Lagrange multipliers.
    """
    chosen = priors or Priors()
    refuse_unconnected(np.unique(ties.view, axis=0), start.n_views, where.present)
    if len(ties) * 2 < N_POSE * where.present.sum():
        raise UserError(
            f"{len(ties)} tie points cannot place {int(where.present.sum())} views.",
            do="Check that the flat target is textured and in focus, and that views overlap.",
        )
    problem = _Problem(start, where, chosen)
    poses, costs, scale = start, [], max(_spread(ties, start), 0.02)
    residual, weight = _residual(ties, poses), np.ones(len(ties))
    for _ in range(rounds):
        length = np.linalg.norm(residual, axis=1)
        scale = max(2.4 * float(np.median(length)) / 1.1774, 0.02)
        weight = 1.0 / (1.0 + (length / scale) ** 2)
        costs.append(float((scale**2 * np.log1p((length / scale) ** 2)).sum()))
        poses, moved = problem.step(ties, poses, residual, weight, scale / 2.4)
        residual = _residual(ties, poses)
        if moved < 1e-4:
            break
    fixed = _without_absent(poses, where.present)
    result = Bundle(fixed, _residual(ties, fixed), weight, scale, tuple(costs))
    _log.info("bundle: %s after %d rounds", result.statistics, len(costs))
    return result


def _without_absent(poses: Poses, present: NDArray[np.bool_]) -> Poses:
    """Views that are not there have neutral numbers, so that the gauge of all is that of those that are."""
    x = parameters(poses)
    x[~present] = 0.0
    return with_parameters(poses, x, poses.distortion)


def _spread(ties: TiePoints, poses: Poses) -> float:
    return float(np.median(np.linalg.norm(_residual(ties, poses), axis=1)))


def _residual(ties: TiePoints, poses: Poses) -> F64:
    return to_mosaic(poses, ties.view[:, 0], ties.first) - to_mosaic(poses, ties.view[:, 1], ties.second)


def parameters(poses: Poses) -> F64:
    """(V, 6): log(height / focal), slopes of the normal along x and y, angle, translation row and column."""
    slopes = poses.normal[:, :2] / -poses.normal[:, 2:]
    return np.column_stack((np.log(poses.height / poses.focal), slopes, poses.angle, poses.translation))


def with_parameters(poses: Poses, x: F64, distortion: F64) -> Poses:
    """Poses from what :func:`parameters` gives."""
    return replace(
        poses,
        height=poses.focal * np.exp(x[:, 0]),
        normal=np.column_stack((x[:, 1:3], np.full(len(x), -1.0))),
        angle=x[:, 3],
        translation=x[:, 4:],
        distortion=distortion,
    )


class _Problem:
    """The system of one adjustment. Unknowns: views (6 each), cameras, stage positions (6 each), distortion."""

    def __init__(self, start: Poses, where: Layout, priors: Priors) -> None:
        self.where, self.priors = where, priors
        self.n_views = start.n_views
        self.n_cameras = where.n_cameras if priors.hierarchical else 0
        self.n_stages = where.n_stages if priors.hierarchical else 0
        self.n_distortion = start.distortion.size
        self.first_camera = N_POSE * self.n_views
        self.first_stage = self.first_camera + N_POSE * self.n_cameras
        self.first_distortion = self.first_stage + N_POSE * self.n_stages
        self.n = self.first_distortion + self.n_distortion
        # the mounting is about what we start from, without its angles and with the mean of a camera's normals
        self.expected = np.zeros((self.n_views, N_POSE))
        self.expected[:, 1:3] = parameters(start)[:, 1:3]
        self.groups = np.zeros((self.n_cameras + self.n_stages, N_POSE))
        self.prior_rows, self.prior_weight, self.prior_about = self._priors(start)
        self.gauge = self._gauge()

    def step(self, ties: TiePoints, poses: Poses, residual: F64, weight: F64, sigma: float) -> tuple[Poses, float]:
        """New poses, and the largest move of a view in pixels."""
        matrix, gradient = self._normal_equations(ties, poses, residual, weight / sigma**2)
        x = np.concatenate((parameters(poses).ravel(), self.groups.ravel(), poses.distortion))
        apart = self.prior_rows @ x - self.prior_about
        scaled = self.prior_rows.T.multiply(self.prior_weight).tocsr()
        # views and groups without any knowledge stay where they are
        matrix = matrix + scaled @ self.prior_rows + sparse.identity(self.n) * 1e-9
        gradient = gradient + scaled @ apart
        n_gauge = self.gauge.shape[0]
        system = sparse.bmat([[matrix, self.gauge.T], [self.gauge, None]], format="csc")
        right = np.concatenate((-gradient, -(self.gauge @ x)))
        move = splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right)[:-n_gauge]
        new = x + move
        views = new[: self.first_camera].reshape(-1, N_POSE)
        self.groups = new[self.first_camera : self.first_distortion].reshape(-1, N_POSE)
        effect = move[: self.first_camera].reshape(-1, N_POSE) * np.array([0.5, 0.1, 0.1, 0.5, 0, 0]) * max(poses.size)
        shift = np.abs(move[: self.first_camera].reshape(-1, N_POSE)[:, 4:]).max()
        return with_parameters(poses, views, new[self.first_distortion :]), float(max(np.abs(effect).max(), shift))

    def _normal_equations(
        self, ties: TiePoints, poses: Poses, residual: F64, weight: F64
    ) -> tuple[sparse.csr_matrix, F64]:
        """J^T W J and J^T W r of the ties, summed over those of each pair of views before anything is assembled."""
        order = np.lexsort((ties.view[:, 1], ties.view[:, 0]))
        pairs, start = np.unique(ties.view[order], axis=0, return_index=True)
        n_local = 2 * N_POSE + self.n_distortion
        blocks = np.zeros((len(pairs), n_local, n_local))
        right = np.zeros((len(pairs), n_local))
        owner = np.repeat(np.arange(len(pairs)), np.diff(np.append(start, len(order))))
        for first in range(0, len(order), PIECE):
            some = order[first : first + PIECE]
            a, da = derivatives(poses, ties.view[some, 0], ties.first[some])
            b, db = derivatives(poses, ties.view[some, 1], ties.second[some])
            j = np.concatenate((a, -b, da - db), axis=2)
            weighted = j * weight[some, None, None]
            which = owner[first : first + PIECE]
            cuts = np.flatnonzero(np.diff(which, prepend=-1))
            blocks[which[cuts]] += np.add.reduceat(np.einsum("tik,til->tkl", weighted, j), cuts, axis=0)
            right[which[cuts]] += np.add.reduceat(np.einsum("tik,ti->tk", weighted, residual[some]), cuts, axis=0)
        six = np.arange(N_POSE)
        index = np.concatenate(
            (
                pairs[:, :1] * N_POSE + six,
                pairs[:, 1:] * N_POSE + six,
                np.broadcast_to(self.first_distortion + np.arange(self.n_distortion), (len(pairs), self.n_distortion)),
            ),
            axis=1,
        )
        rows, cols = np.broadcast_arrays(index[:, :, None], index[:, None])
        matrix = sparse.coo_matrix((blocks.ravel(), (rows.ravel(), cols.ravel())), shape=(self.n, self.n)).tocsr()
        return matrix, np.bincount(index.ravel(), right.ravel(), minlength=self.n).astype(np.float64)

    def _priors(self, start: Poses) -> tuple[sparse.csr_matrix, F64, F64]:
        """Rows, weights and values of all priors: rows @ x is expected to be the value."""
        p, rows = self.priors, _Rows()
        sigmas = {
            "residual": np.array([p.residual_height] + [p.residual_rad] * 3 + [p.residual_px] * 2),
            "stage": np.array([p.stage_height] + [p.stage_rad] * 3 + [np.inf] * 2),
            "mount": np.array([p.mount_height, p.mount_tilt, p.mount_tilt, p.mount_rad, np.inf, np.inf]),
        }
        views = np.arange(self.n_views)
        if not self.n_cameras:
            for k in range(N_POSE):
                rows.add([(N_POSE * views + k, 1.0)], sigmas["mount"][k], self.expected[:, k])
        else:
            camera, stage = self.where.camera, self.where.stage
            size = np.bincount(camera, minlength=self.n_cameras).clip(1)
            mean = np.stack(
                [np.bincount(camera, self.expected[:, k], self.n_cameras) / size for k in range(N_POSE)], axis=1
            )
            at = np.stack([np.bincount(camera, start.translation[:, k], self.n_cameras) / size for k in (0, 1)], axis=1)
            for k in range(N_POSE):
                of_camera, of_stage = self.first_camera + N_POSE * camera + k, self.first_stage + N_POSE * stage + k
                entries = [(N_POSE * views + k, 1.0), (of_camera, -1.0), (of_stage, -1.0)]
                if k >= 4:
                    # a stage position that turns the sample carries the cameras' fields about the mosaic's middle:
                    # (row, col) -> (row - angle col, col + angle row)
                    lever = at[camera, 1] if k == 4 else -at[camera, 0]
                    entries.append((self.first_stage + N_POSE * stage + 3, lever))
                rows.add(entries, sigmas["residual"][k], np.zeros(self.n_views))
                cameras, stages = np.arange(self.n_cameras), np.arange(self.n_stages)
                rows.add([(self.first_camera + N_POSE * cameras + k, 1.0)], sigmas["mount"][k], mean[:, k])
                rows.add([(self.first_stage + N_POSE * stages + k, 1.0)], sigmas["stage"][k], np.zeros(self.n_stages))
            # a camera's and a stage position's share of a translation: the sum of the latter is 0
            for k in (4, 5):
                rows.add(
                    [(np.array([self.first_stage + N_POSE * s + k]), 1.0) for s in range(self.n_stages)],
                    1.0,
                    np.zeros(1),
                )
        rows.add(
            [(self.first_distortion + np.arange(self.n_distortion), 1.0)], p.distortion, np.zeros(self.n_distortion)
        )
        return rows.build(self.n)

    def _gauge(self) -> sparse.csr_matrix:
        """(4, n) sums over views that are there: of log heights, angles, translations."""
        views = np.flatnonzero(self.where.present)
        entries = [(g, N_POSE * v + k) for g, k in enumerate((0, 3, 4, 5)) for v in views]
        row, col = np.array(entries).T
        return sparse.csr_matrix((np.ones(len(row)), (row, col)), shape=(4, self.n))


class _Rows:
    """Rows of a sparse matrix, collected."""

    def __init__(self) -> None:
        self.row: list[NDArray] = []
        self.col: list[NDArray] = []
        self.value: list[NDArray] = []
        self.weight: list[NDArray] = []
        self.about: list[NDArray] = []
        self.n = 0

    def add(self, entries: Sequence[tuple[NDArray, NDArray | float]], sigma: float, about: NDArray) -> None:
        """One row per element of the column arrays: sum of value x[column] = about, with a standard deviation."""
        if not np.isfinite(sigma):
            return
        number = self.n + np.arange(len(about))
        for column, value in entries:
            self.row.append(number)
            self.col.append(column)
            self.value.append(np.broadcast_to(value, column.shape))
        self.weight.append(np.full(len(about), 1.0 / sigma**2))
        self.about.append(about)
        self.n += len(about)

    def build(self, n_columns: int) -> tuple[sparse.csr_matrix, F64, F64]:
        """Matrix, weights and values."""
        where = (np.concatenate(self.row), np.concatenate(self.col))
        matrix = sparse.csr_matrix((np.concatenate(self.value), where), shape=(self.n, n_columns))
        return matrix, np.concatenate(self.weight), np.concatenate(self.about)


def derivatives(poses: Poses, view: I64, rc: F64) -> tuple[F64, F64]:
    """Derivatives of the exact map at pixels, by central differences: every pixel depends on its own view alone.

    Returns
    -------
    (n, 2, 6) by what :func:`parameters` gives, and (n, 2, order) by the distortion
    """
    x = parameters(poses)
    by_pose, by_distortion = np.empty((len(rc), 2, N_POSE)), np.empty((len(rc), 2, poses.distortion.size))
    for k in range(4):
        ends = [x.copy(), x.copy()]
        ends[0][:, k] += STEPS[k]
        ends[1][:, k] -= STEPS[k]
        up, down = (to_mosaic(with_parameters(poses, end, poses.distortion), view, rc) for end in ends)
        by_pose[:, :, k] = (up - down) / (2 * STEPS[k])
    by_pose[:, :, 4:] = np.eye(2)
    for q in range(poses.distortion.size):
        step = np.zeros_like(poses.distortion)
        step[q] = DISTORTION_STEP
        up, down = (to_mosaic(replace(poses, distortion=poses.distortion + s * step), view, rc) for s in (1, -1))
        by_distortion[:, :, q] = (up - down) / (2 * DISTORTION_STEP)
    return by_pose, by_distortion
