"""Mixtures and backgrounds under linear maps and box averages: coarser volumes, physical units, rotated views.

The mean of a Gaussian over a box of f samples is close to a Gaussian with the variance ``(f^2 - 1) / 12`` of the box
added: both have the same integral, mean and covariance. So any coarser volume follows from the table of Gaussians,
without the finer one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError

Factor = tuple[int, int, int]


def checked_factor(factor: Sequence[int]) -> Factor:
    """The factors (z, y, x) as integers of at least 1.

    Raises
    ------
    ShapeError : not three of them, or one below 1
    """
    if len(factor) != 3 or any(int(f) != f or f < 1 for f in factor):
        raise ShapeError(f"factors are three integers of at least 1 (z, y, x), not {tuple(factor)}")
    z, y, x = (int(f) for f in factor)
    return z, y, x


def coarse_shape(shape: Sequence[int], factor: Factor) -> tuple[int, int, int]:
    """Samples of the coarser volume; the last one of an axis may reach beyond the end."""
    z, y, x = (-(-n // f) for n, f in zip(shape, factor))
    return z, y, x


def coarse_centre(index: Sequence[int], factor: Factor) -> tuple[float, float, float]:
    """Position, in fine voxels, of the centre of a coarse sample: ``f (j + 1/2) - 1/2``."""
    z, y, x = (f * (j + 0.5) - 0.5 for j, f in zip(index, factor))
    return z, y, x


def coarser(mixture: Mixture, factor: Factor) -> Mixture:
    """The mixture whose samples at coarse centres are the means over boxes of `factor` samples.

    Parameters
    ----------
    mixture : N Gaussians
    factor : (z, y, x) samples of the box

    Returns
    -------
    N Gaussians in the same (fine) voxels, wider and fainter: ``Sigma' = Sigma + diag((f^2 - 1) / 12)``,
    ``a' = a sqrt(det Sigma / det Sigma')``
    """
    if factor == (1, 1, 1) or len(mixture) == 0:
        return mixture
    before = mixture.log_scales.double()
    widening = torch.tensor([(f * f - 1) / 12 for f in factor], dtype=torch.float64)
    if len(set(factor)) == 1:  # a round box leaves the axes as they are
        after = torch.log((2 * before).exp() + float(widening[0])) / 2
        wider = replace(mixture, log_scales=after.to(mixture.log_scales.dtype))
    else:
        wider, after = with_covariances(mixture, covariances(mixture) + torch.diag(widening))
    fainter = mixture.amplitudes.double() * (before.sum(1) - after.to(before.device).sum(1)).exp()
    return replace(wider, amplitudes=fainter.to(mixture.amplitudes.dtype))


def coarser_eps(eps: float, factor: Factor) -> float:
    """Amplitude below which a Gaussian counts as nothing: the noise of a mean over a box is smaller by its root."""
    return eps / math.sqrt(math.prod(factor))


def worthwhile(mixture: Mixture, eps: float) -> Tensor:
    """(N,) bool: Gaussians of a coarser mixture with ``a'^2 S' >= eps^2``, energies that the noise does not hide."""
    return mixture.amplitudes.square() * mixture.energies() >= eps * eps


def mapped(mixture: Mixture, matrix: Tensor, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> Mixture:
    """The mixture in other coordinates ``x' = matrix x + offset``: physical units, or a rotated view.

    Parameters
    ----------
    matrix : (3, 3) float64, invertible
    offset : added to the means, in the new unit

    Returns
    -------
    ``mu' = M mu + offset`` and ``Sigma' = M Sigma M^T`` in its own axes; amplitudes (heights) unchanged
    """
    if len(mixture) == 0:
        return mixture
    matrix = matrix.double().cpu()
    means = mixture.means.double().cpu() @ matrix.T + torch.tensor(list(offset), dtype=torch.float64)
    moved = replace(mixture, means=means.to(mixture.means))
    return with_covariances(moved, matrix @ covariances(mixture) @ matrix.T)[0]


def covariances(mixture: Mixture) -> Tensor:
    """(N, 3, 3) float64 on the CPU."""
    exact = Mixture(*(column.double().cpu() for column in mixture.tensors))
    return exact.covariances()


def with_covariances(mixture: Mixture, sigma: Tensor) -> tuple[Mixture, Tensor]:
    """The mixture with other covariances (N, 3, 3) float64, and their log-scales (N, 3) float64.

    On the CPU in float64 on every device: the solver of a GPU may choose its method by the number of matrices, and a
    region would differ in its last digits from the whole.
    """
    values, axes = torch.linalg.eigh(sigma.cpu())
    log_scales = values.clamp_min(torch.finfo(torch.float64).tiny).log() / 2
    # eigh's axes may be left-handed
    axes[:, :, 0] *= torch.sign(torch.linalg.det(axes))[:, None]
    changed = replace(
        mixture,
        log_scales=log_scales.to(mixture.log_scales),
        quaternions=quaternions(axes).to(mixture.quaternions),
    )
    return changed, log_scales


def quaternions(rotations: Tensor) -> Tensor:
    """(N, 4) quaternions (w, x, y, z), largest component positive, of rotation matrices (N, 3, 3).

    Shepperd, J. Guid. Control 1, 223 (1978): divide by the largest of the four components.
    """
    r = rotations
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    squares = torch.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], 1)
    wx, wy, wz = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    xy, xz, yz = r[:, 1, 0] + r[:, 0, 1], r[:, 0, 2] + r[:, 2, 0], r[:, 2, 1] + r[:, 1, 2]
    rows = torch.stack(
        [
            torch.stack([squares[:, 0], wx, wy, wz], 1),
            torch.stack([wx, squares[:, 1], xy, xz], 1),
            torch.stack([wy, xy, squares[:, 2], yz], 1),
            torch.stack([wz, xz, yz, squares[:, 3]], 1),
        ],
        1,
    )
    chosen = rows[torch.arange(len(r)), squares.argmax(1)]
    return torch.nn.functional.normalize(chosen, dim=1)


def background_means(
    grid: Tensor, cell: Sequence[int], origin: Sequence[int], shape: Sequence[int], factor: Factor = (1, 1, 1)
) -> Tensor:
    """Means of the trilinear background over the boxes of coarse samples.

    Parameters
    ----------
    grid : (nz, ny, nx) float32, one value per cell, at the cell's centre
    cell : voxels of a cell
    origin : first fine sample of the first coarse one
    shape : coarse samples
    factor : fine samples per coarse one

    Returns
    -------
    (z, y, x) float32 on the device of `grid`, clamped outside the centres

    Notes
    -----
    Sums of products in a fixed order, element by element: a matrix product would round a value differently in another
    shape, and a region must equal the crop of the whole to the last bit.
    """
    values = grid
    # x last, so that the largest pass runs along contiguous rows
    for axis in range(3):
        first, weights = cell_weights(grid.shape[axis], cell[axis], origin[axis], shape[axis], factor[axis])
        column = [1] * 3
        column[axis] = -1
        total: Tensor | None = None
        for k in range(weights.shape[1]):
            rows = torch.from_numpy(np.minimum(first + k, grid.shape[axis] - 1)).to(grid.device)
            weight = torch.from_numpy(weights[:, k]).to(grid.device).view(column)
            term = values.index_select(axis, rows) * weight
            total = term if total is None else total + term
        assert total is not None  # there are at least two weights
        values = total
    return values


def background_at(grid: Tensor, cell: Sequence[int], points: Tensor) -> Tensor:
    """The trilinear background at points (..., 3), voxels (z, y, x); clamped outside the centres of the cells.

    Returns
    -------
    (...) float32 on the device of `grid`
    """
    size = torch.tensor(grid.shape, dtype=torch.float32, device=grid.device)
    edge = torch.tensor(list(cell), dtype=torch.float32, device=grid.device)
    place = (points.to(grid.device, torch.float32) - (edge - 1) / 2) / edge
    # grid_sample wants x first, and -1 to 1 from the first value to the last
    scaled = torch.where(size > 1, place * 2 / (size - 1).clamp_min(1) - 1, torch.zeros_like(place))
    flat = scaled.reshape(1, -1, 1, 1, 3).flip(-1)
    values = torch.nn.functional.grid_sample(
        grid[None, None], flat, mode="bilinear", padding_mode="border", align_corners=True
    )
    return values.reshape(points.shape[:-1])


def cell_weights(n: int, cell: int, origin: int, length: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """First cell (length,) and weights (length, k) float32 of the mean over `factor` fine samples of linear weights.

    k depends on cell and factor only, so that the sums have the same terms wherever a region begins.
    """
    fine = origin + np.arange(length)[:, None] * factor + np.arange(factor)
    place = np.clip((fine - (cell - 1) / 2) / cell, 0, n - 1)
    low = np.minimum(np.floor(place).astype(np.int64), max(n - 2, 0))
    above = place - low
    first = low[:, :1]
    weights = np.zeros((length, (factor - 1) // cell + 3 if factor > 1 else 2))
    rows = np.arange(length)[:, None]
    np.add.at(weights, (rows, low - first), (1 - above) / factor)
    np.add.at(weights, (rows, low - first + 1), above / factor)
    return first[:, 0], weights.astype(np.float32)
