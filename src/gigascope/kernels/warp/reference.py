"""Definition of the warp ops in plain torch, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from gigascope.kernels.warp.weights import axis_footprint, axis_taps, gaussian_taps, padded_index


def spline_coefficients(views: Tensor) -> Tensor:
    """Coefficients c with (c[i-1] + 4 c[i] + c[i+1]) / 6 = view[i] along both axes, mirrored at the borders."""
    result = views.double()
    for axis in (1, 2):
        n = views.shape[axis]
        index = padded_index(n, 1, "mirror")
        basis = torch.zeros(n, n, dtype=torch.float64, device=views.device)
        for i in range(n):
            for neighbour, weight in zip(index[i : i + 3].tolist(), (1 / 6, 4 / 6, 1 / 6), strict=True):
                basis[i, neighbour] += weight
        result = (
            torch.linalg.solve(basis, result.movedim(axis, 1).flatten(2))
            .unflatten(2, [m for a, m in enumerate(result.shape) if a not in (0, axis)])
            .movedim(1, axis)
        )
    return result.to(views.dtype)


def resample(
    views: Tensor, matrices: Tensor, shape_out: tuple[int, int], order: int, bin: int = 1, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean of bin x bin interpolated samples per output pixel, and where every footprint is on valid pixels."""
    n_t, h, w = views.shape
    fine = [torch.arange(n * bin, dtype=torch.float64, device=views.device) for n in shape_out]
    grid = torch.stack(torch.meshgrid(*fine, indexing="ij"))
    out, valid = [], []
    for t in range(n_t):
        matrix = matrices[t].to(views.device)
        where = torch.einsum("ab,bij->aij", matrix[:, :2], grid) + matrix[:, 2, None, None]
        (rows, row_weights), (columns, column_weights) = axis_taps(where[0], h, order), axis_taps(where[1], w, order)
        samples = views[t].double()[rows[..., :, None], columns[..., None, :]]
        fine_out = torch.einsum("ijab,ija,ijb->ij", samples, row_weights, column_weights)
        (r0, r1, on_rows), (c0, c1, on_columns) = axis_footprint(where[0], h), axis_footprint(where[1], w)
        good = on_rows & on_columns
        if mask is not None:
            m = mask[t] > 0
            good = good & m[r0, c0] & m[r0, c1] & m[r1, c0] & m[r1, c1]
        blocks = (shape_out[0], bin, shape_out[1], bin)
        out.append(fine_out.reshape(blocks).mean((1, 3)))
        valid.append(good.reshape(blocks).all(3).all(1))
    return torch.stack(out).to(views.dtype), torch.stack(valid).to(views.dtype)


def translate(views: Tensor, shifts: Tensor, order: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """out(s, y) = views(s + f_s, y + f_y)."""
    matrices = torch.eye(2, 3, dtype=torch.float64, device=shifts.device).repeat(shifts.shape[0], 1, 1)
    matrices[:, :, 2] = shifts
    return resample(views, matrices, (views.shape[1], views.shape[2]), order, 1, mask)


def translate_adjoint(cotangent: Tensor, shifts: Tensor, order: int) -> Tensor:
    """Transpose of `translate` with respect to the views."""
    result = cotangent.double()
    for axis in (1, 2):
        n = cotangent.shape[axis]
        where = torch.arange(n, dtype=torch.float64) + shifts[:, axis - 1, None].cpu()
        index, weights = axis_taps(where, n, order)
        matrix = torch.zeros(cotangent.shape[0], n, n, dtype=torch.float64)
        matrix.scatter_add_(2, index, weights)
        result = torch.einsum("tij,tiy->tjy", matrix.to(result), result.movedim(axis, 1)).movedim(1, axis)
    return result.to(cotangent.dtype)


def gaussian_blur(views: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian cut at 4 sigma, edges continued by their last value."""
    result = views.double()
    if sigma > 0:
        taps = gaussian_taps(sigma).to(views.device)
        reach = len(taps) // 2
        for axis in (1, 2):
            index = padded_index(views.shape[axis], reach, "nearest").to(views.device)
            result = result.index_select(axis, index).unfold(axis, len(taps), 1) @ taps
    return result.to(views.dtype)


def shift_sums(model: Tensor, data: Tensor, weights: Tensor) -> Tensor:
    """Sums over w of 1, g_s, g_y, r, g_s g_s, g_s g_y, g_y g_y, g_s r, g_y r, r r."""
    m, w = model.double(), weights.double()
    g_s, g_y = (central_difference(m, axis) for axis in (1, 2))
    r = m - data.double()
    terms = (torch.ones_like(m), g_s, g_y, r, g_s * g_s, g_s * g_y, g_y * g_y, g_s * r, g_y * r, r * r)
    return torch.stack([torch.where(w > 0, w * term, 0.0).sum((1, 2)) for term in terms], dim=1)


def central_difference(model: Tensor, axis: int) -> Tensor:
    """Central differences, one-sided at the borders, 0 on an axis of one sample."""
    if model.shape[axis] == 1:
        return torch.zeros_like(model)
    return torch.gradient(model, dim=axis)[0]
