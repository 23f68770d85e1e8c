"""The linear systems of a bundle adjustment: ties summed over pairs of views, priors, gauge, and their solution.

Views come first, ordered so that those which share ties are near each other: a band, whose Cholesky factor LAPACK
makes fast. What touches all views, cameras, stage positions, distortion and gauge, is a dense border, eliminated last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.sparse.csgraph import reverse_cuthill_mckee

from gigascope.topography.calibration.layout import Layout
from gigascope.topography.calibration.tie_points import TiePoints
from gigascope.topography.calibration.unknowns import N_POSE, derivatives, parameters, with_parameters
from gigascope.topography.geometry.poses import Poses

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Ties that are differentiated at once: 100 MB.
PIECE = 200_000
# Damping of every unknown's move: without any prior a view's translation is held by its neighbours alone, and all of
# them together by the gauge. In units of 1 / px^2 it is a hundred thousandth of what one tie knows.
DAMPING = 1e-3


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


class Problem:
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
        scaled = sparse.csr_matrix(self.prior_rows.T.multiply(self.prior_weight))
        matrix = sparse.csr_matrix(matrix + scaled @ self.prior_rows + sparse.identity(self.n) * DAMPING)
        move = self._solve(matrix, gradient + scaled @ apart, self.gauge @ x[: self.first_camera])
        new = x + move
        self.groups = new[self.first_camera : self.first_distortion].reshape(-1, N_POSE)
        views = move[: self.first_camera].reshape(-1, N_POSE)
        # at the edge of a field: heights and angles move its half, tilts a tenth of it
        shift = np.abs(views * np.r_[np.array([0.5, 0.1, 0.1, 0.5]) * max(poses.size), 1, 1]).max()
        changed = with_parameters(poses, new[: self.first_camera].reshape(-1, N_POSE), new[self.first_distortion :])
        return changed, float(shift)

    def departure(self, poses: Poses) -> float:
        """Root mean square departure of views from their cameras and stage positions, in standard deviations."""
        x = np.concatenate((parameters(poses).ravel(), self.groups.ravel(), poses.distortion))
        apart = ((self.prior_rows @ x - self.prior_about) ** 2 * self.prior_weight)[: self.n_residual_rows]
        return float(np.sqrt(apart.mean())) if apart.size else 0.0

    def _solve(self, matrix: sparse.csr_matrix, gradient: F64, off_gauge: F64) -> F64:
        """Move (n,) that minimises the quadratic model with the gauge's sums brought to 0."""
        views, n = self.first_camera, self.n
        inner = matrix[:views, :views].tocsr()
        order = reverse_cuthill_mckee(inner, symmetric_mode=True)
        band = _upper_band(inner[order][:, order])
        border = np.concatenate((matrix[:views, views:].toarray(), self.gauge.T.toarray()), axis=1)
        right = np.column_stack((border, -gradient[:views]))[order]
        solved = np.empty_like(right)
        solved[order] = cho_solve_banded((cholesky_banded(band, overwrite_ab=True), False), right, overwrite_b=True)
        schur = -border.T @ solved[:, :-1]
        schur[: n - views, : n - views] += matrix[views:, views:].toarray()
        outer = np.concatenate((-gradient[views:], -off_gauge)) - border.T @ solved[:, -1]
        edge = np.linalg.solve(schur, outer)
        return np.concatenate((solved[:, -1] - solved[:, :-1] @ edge, edge[: n - views]))

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
        self.n_residual_rows = 0
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
            self.n_residual_rows = rows.n
            for k in range(N_POSE):
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
        """(4, 6 V) sums over views that are there: of log heights, angles, translations."""
        views = np.flatnonzero(self.where.present)
        entries = [(g, N_POSE * v + k) for g, k in enumerate((0, 3, 4, 5)) for v in views]
        row, col = np.array(entries).T
        return sparse.csr_matrix((np.ones(len(row)), (row, col)), shape=(4, self.first_camera))


def _upper_band(matrix: sparse.csr_matrix) -> F64:
    """Upper form of a symmetric band matrix: entry (i, j), i <= j, at [width + i - j, j]."""
    entries = sparse.triu(matrix).tocoo()
    width = int((entries.col - entries.row).max()) if entries.nnz else 0
    band = np.zeros((width + 1, matrix.shape[0]))
    band[width + entries.row - entries.col, entries.col] = entries.data
    return band


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
