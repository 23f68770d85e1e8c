"""How far calibrated poses are from true ones: distances on the mosaic once the gauge, a similarity, is removed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.topography.geometry.poses import Poses, to_mosaic

F64 = NDArray[np.float64]


def field_points(size: tuple[int, int], n: int = 9) -> F64:
    """(n * n, 2) pixels spread evenly over a view, its corners included."""
    axes = [np.linspace(0, m - 1, n) for m in size]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def fit_similarity(source: ArrayLike, target: ArrayLike) -> F64:
    """(2, 3) matrix of the similarity (turn, scale, translation, no reflection) that takes points to others best.

    Parameters
    ----------
    source, target : (n, 2)

    Notes
    -----
    Least squares, Umeyama, IEEE Trans. PAMI 13, 376 (1991).
    """
    p, q = (np.asarray(a, dtype=np.float64) for a in (source, target))
    a, b = p - p.mean(axis=0), q - q.mean(axis=0)
    # complex numbers row + i col: the least-squares factor
    u, v = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    factor = np.vdot(u, v) / np.vdot(u, u).real
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack((linear, q.mean(axis=0) - linear @ p.mean(axis=0)))


def mosaic_to_truth(poses: Poses, truth: Poses, views: ArrayLike | None = None, n: int = 9) -> F64:
    """(2, 3) matrix of the similarity from the mosaic of calibrated poses to that of the true ones.

    Parameters
    ----------
    views : numbers of the views that count; none: all
    n : points along each side of a view
    """
    found, true = _both(poses, truth, views, n)
    return fit_similarity(found.reshape(-1, 2), true.reshape(-1, 2))


def reprojection_errors(poses: Poses, truth: Poses, views: ArrayLike | None = None, n: int = 9) -> F64:
    """Distances on the mosaic between where poses and true poses put pixels, one similarity of the mosaic removed.

    Parameters
    ----------
    views : numbers of the views that count; none: all
    n : points along each side of a view

    Returns
    -------
    (views, n * n) float64, mosaic pixels of `truth`
    """
    found, true = _both(poses, truth, views, n)
    matrix = fit_similarity(found.reshape(-1, 2), true.reshape(-1, 2))
    aligned = found @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(np.linalg.norm(aligned - true, axis=-1))


def _both(poses: Poses, truth: Poses, views: ArrayLike | None, n: int) -> tuple[F64, F64]:
    """(views, n * n, 2) points of the views on both mosaics."""
    which = np.arange(poses.n_views) if views is None else np.asarray(views, dtype=np.int64)
    points = field_points(poses.size, n)
    return to_mosaic(poses, which[:, None], points[None]), to_mosaic(truth, which[:, None], points[None])
