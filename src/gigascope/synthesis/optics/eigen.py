"""PSFs of many depths as sums of a few eigen-PSFs whose shares change with depth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

# Voxels that go into a sum of float64 at once.
_AT_ONCE = 1 << 18


class Eigen(NamedTuple):
    """Composition of PSFs.

    Attributes
    ----------
    kernels : (K, voxel) float32
    shares : (depth, K) float64; shares @ kernels has the sum 1 at every depth
    error : largest relative L2 error of all depths
    """

    kernels: F32
    shares: F64
    error: float


def compose(psfs: F32, counts: F64, tolerance: float, most: int) -> Eigen | None:
    """The fewest eigen-PSFs by which every PSF is met within `tolerance`; None where more than `most` were needed.

    Parameters
    ----------
    psfs : (depth, voxel) float32, each of sum 1 with `counts`
    counts : (voxel,) how often a voxel counts, where symmetry lets one stand for several
    tolerance : relative L2 error of the worst depth

    Notes
    -----
    Singular value decomposition by way of the (depth, depth) products: its relative accuracy is the root of float64's,
    1e-8. Nothing is subtracted before. Shares are scaled so that light is conserved to rounding, not only within
    `tolerance`; the error is that after scaling.
    """
    products, sums = _products(psfs, counts)
    values, vectors = np.linalg.eigh(products)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    for n in range(1, min(most, len(psfs)) + 1):
        light = vectors[:, :n] @ (vectors[:, :n].T @ sums)
        if (light <= 0).any():
            continue
        shares = vectors[:, :n] / light[:, None]
        error = float(np.sqrt(_squares(products, values[:n], vectors[:, :n], shares) / np.diagonal(products)).max())
        if error <= tolerance:
            return Eigen((vectors[:, :n].T.astype(np.float32) @ psfs), shares, error)
    return None


def needed(psfs: F32, counts: F64, tolerance: float) -> int:
    """How many eigen-PSFs that takes."""
    found = compose(psfs, counts, tolerance, len(psfs))
    return len(psfs) if found is None else len(found.kernels)


def _squares(products: F64, values: F64, vectors: F64, shares: F64) -> F64:
    """Squared error of each depth, out of products only: |h|^2 - 2 h.e + |e|^2."""
    met = (shares * vectors * values).sum(1)
    return np.maximum(np.diagonal(products) - 2 * met + (shares**2 * values).sum(1), 0.0)


def _products(psfs: F32, counts: F64) -> tuple[F64, F64]:
    """Scalar products of all pairs, and sums."""
    products, sums = np.zeros((len(psfs), len(psfs))), np.zeros(len(psfs))
    for at in range(0, psfs.shape[1], _AT_ONCE):
        part = psfs[:, at : at + _AT_ONCE].astype(np.float64)
        weighted = part * counts[at : at + _AT_ONCE]
        products += weighted @ part.T
        sums += weighted.sum(1)
    return products, sums
