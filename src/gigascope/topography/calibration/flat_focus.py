"""Where the flat target is in focus over the field of a view, and its image with every pixel in focus.

The stage position of focus is smooth over the field: tilt and field curvature, a quadratic. Sharpness is averaged over
blocks, each block's peak is found between the slices, and a quadratic is laid through the peaks so that a few blocks
without texture do not count. Positions are in millimetres of the stage, so that a sample with other steps is measured
against the same surface, and steps that are not even do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.topography.calibration.cubic import cubic
from gigascope.topography.calibration.field import N_TERMS, terms, whole_field

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

SIGMA_PX = 8.0
LARGEST_BLOCK_PX = 64
SMALLEST_BLOCK_PX = 16
# Blocks along the shorter side of a small view: six coefficients need more than the 3 x 3 blocks of 64 pixels of XS.
BLOCKS = 12
# Largest over least sharpness along the stack: of blank blocks of 16 pixels with 1 % of noise up to 1.33 in 1600, of
# textured ones from 3 on.
LEAST_CONTRAST = 1.5
LEAST_BLOCKS = 0.5
# Defocus of a thin lens leaves T^-1.5 of a texture a parabola in z, see topography.focus.peak; noise as there.
LENS_POWER, FLOOR_FRACTION = 1.5, 0.9


@dataclass(frozen=True, eq=False)
class FlatFocus:
    """The surface of focus of one view.

    Attributes
    ----------
    plane : (6,) float64, mm: stage position q0 + q1 x + q2 y + q3 x^2 + q4 x y + q5 y^2 at which the target is in
        focus, see :mod:`gigascope.topography.calibration.field`
    rms_mm : of the blocks that were used about it
    error_mm : expected of the surface, root mean square over the field
    n_blocks : blocks with texture and a peak within the stack
    n_total : all blocks
    """

    plane: F64
    rms_mm: float
    error_mm: float
    n_blocks: int
    n_total: int


def block_side(size: tuple[int, int]) -> int:
    """Side of the blocks over which sharpness is averaged, pixels: 64, less for small views."""
    return int(np.clip(min(size) // BLOCKS, SMALLEST_BLOCK_PX, LARGEST_BLOCK_PX))


def flat_focus(
    stack: NDArray,
    z_mm: ArrayLike,
    *,
    name: str = "view",
    sigma: float = SIGMA_PX,
    method: Literal["lens", "log_parabola"] = "lens",
    device: torch.device | str = "cpu",
) -> FlatFocus:
    """Surface of focus of the flat target in one view.

    Parameters
    ----------
    stack : (n_z, R, C) uint8, uint16 or float32, grey or green; at most two slices are held as float32
    z_mm : (n_z,) stage positions, rising or falling
    name : of the view, for messages
    sigma : radius of the window of the sharpness, pixels
    method : lens, a parabola through the power of S that a thin lens makes one; log_parabola, through ln S. On the
        synthetic instrument the surface is off by 0.01 and 0.05 slices

    Returns
    -------
    FlatFocus

    Raises
    ------
    UserError : too little texture, or focus outside the stack
    ShapeError : not (n_z >= 3, R, C), or as many positions as slices
    """
    z = np.asarray(z_mm, dtype=np.float64)
    if stack.ndim != 3 or stack.shape[0] < 3 or z.shape != (stack.shape[0],):
        raise ShapeError(f"flat_focus: expected (n_z >= 3, R, C) and (n_z,), got {stack.shape} and {z.shape}")
    centres, curves = _block_curves(stack, sigma, device)
    top = curves.argmax(axis=0)
    textured = curves.max(axis=0) > LEAST_CONTRAST * np.maximum(curves.min(axis=0), 1e-9)
    if textured.mean() < LEAST_BLOCKS:
        raise UserError(
            f"the flat target has too little texture: {int(textured.sum())} of {textured.size} blocks of "
            f"{block_side(stack.shape[1:])} pixels get sharper and blurred along the stack.",
            where=name,
            do="Print fine random noise over the whole target and take it in even, not saturated light.",
        )
    within = textured & (top > 0) & (top < len(z) - 1)
    if within.sum() < max(N_TERMS + 2, LEAST_BLOCKS * textured.sum()):
        first, last = (int((top[textured] == end).sum()) for end in (0, len(z) - 1))
        raise UserError(
            f"the flat target is not in focus within its stack of {len(z)} slices: the sharpest one is the first in "
            f"{first} and the last in {last} of {int(textured.sum())} blocks.",
            where=name,
            do="Take the stack of the flat target so that focus lies in its middle.",
        )
    peaks = _peaks(curves[:, within], top[within], z, method)
    return _surface(centres[within], peaks, stack.shape[1:], textured.size)


def all_in_focus(
    stack: NDArray,
    z_mm: ArrayLike,
    plane: ArrayLike,
    *,
    distance_mm: float | None = None,
    stage_sign: int = 1,
    foot: ArrayLike | None = None,
    rows_at_once: int = 256,
) -> F32:
    """Image of the flat target with every pixel in focus.

    Parameters
    ----------
    stack : (n_z, R, C)
    z_mm : (n_z,) stage positions
    plane : (6,) of :class:`FlatFocus`
    distance_mm : from the pupil to the target in focus, f (1 + 1 / M); none: slices are mixed as they are
    stage_sign : +1 where a larger stage position brings the target nearer
    foot : (row, column) of the view below its pupil; none: the centre
    rows_at_once : bounds the memory

    Returns
    -------
    (R, C) float32: two neighbouring slices, mixed linearly

    Notes
    -----
    A slice that is off focus by e shows the target larger or smaller by e / distance about the foot. The mean of the
    two displacements is 0, but the sharper slice counts for more in a correlation: a bias of 0.03 pixels at the edge
    of the field, in the same direction for all views of a camera. So each slice is resampled to the scale in focus.
    """
    z = np.asarray(z_mm, dtype=np.float64)
    size = (int(stack.shape[1]), int(stack.shape[2]))
    about = np.array(size) / 2 if foot is None else np.asarray(foot, dtype=np.float64)
    image = np.empty(size, np.float32)
    for start in range(0, size[0], rows_at_once):
        rows = slice(start, min(start + rows_at_once, size[0]))
        focus = whole_field(plane, size, rows)
        index = slice_at(focus, z)
        lower = np.minimum(index.astype(np.int64), len(z) - 2)
        share = (index - lower).astype(np.float32)
        values = [
            _in_focus_scale(stack, rows, lower + d, focus - z[lower + d], about, stage_sign, distance_mm)
            for d in (0, 1)
        ]
        image[rows] = values[0] + share * (values[1] - values[0])
    return image


def _in_focus_scale(
    stack: NDArray,
    rows: slice,
    index: NDArray[np.int64],
    off_mm: F64,
    foot: F64,
    stage_sign: int,
    distance_mm: float | None,
) -> F32:
    """Pixels of some rows out of the slices `index`, which are `off_mm` short of focus, at the scale in focus."""
    if distance_mm is None:
        return np.take_along_axis(stack[:, rows], index[None], axis=0)[0].astype(np.float32)
    r, c = np.arange(rows.start, rows.stop)[:, None], np.arange(stack.shape[2])[None]
    shrink = -stage_sign * off_mm / distance_mm
    at = np.stack((r + (r - foot[0]) * shrink, c + (c - foot[1]) * shrink), axis=-1)
    out = np.empty(index.shape, np.float32)
    for k in np.unique(index):
        here = index == k
        out[here] = cubic(torch.as_tensor(stack[k].astype(np.float32)), torch.as_tensor(at[here])).numpy()
    return out


def slice_at(z_mm: ArrayLike, stack_z_mm: ArrayLike) -> F64:
    """Fractional slices 0..n_z - 1 at stage positions; those outside the stack get its ends.

    Parameters
    ----------
    z_mm : (...) positions
    stack_z_mm : (n_z,) positions of the slices, rising or falling
    """
    z, k = np.asarray(stack_z_mm, dtype=np.float64), np.arange(len(np.asarray(stack_z_mm)), dtype=np.float64)
    if z[-1] < z[0]:
        z, k = z[::-1], k[::-1]
    return np.asarray(np.interp(np.asarray(z_mm, dtype=np.float64), z, k))


def nearest_slice(plane: ArrayLike, stack_z_mm: ArrayLike, size: tuple[int, int]) -> F64:
    """(6,) surface of focus that is the position of one slice: the one nearest to the mean of `plane` over the field.

    The datum of the published release, an integer slice per view: wrong by up to half a step, by tilt and curvature.
    """
    z = np.asarray(stack_z_mm, dtype=np.float64)
    mean = float(whole_field(plane, size).mean())
    return np.array([float(z[np.abs(z - mean).argmin()]), 0.0, 0.0, 0.0, 0.0, 0.0])


def _block_curves(stack: NDArray, sigma: float, device: torch.device | str) -> tuple[F64, F64]:
    """Centres (n, 2) of the blocks, pixels, and their mean sharpness (n_z, n), slice by slice."""
    from gigascope.kernels.filters import sharpness

    size = (int(stack.shape[1]), int(stack.shape[2]))
    side = block_side(size)
    count = [max(1, n // side) for n in size]
    edges = [np.linspace(0, n, m + 1).round().astype(int) for n, m in zip(size, count)]
    curves = np.empty((len(stack), count[0] * count[1]))
    area = np.outer(np.diff(edges[0]), np.diff(edges[1])).ravel()
    for k in range(len(stack)):
        measured = sharpness(torch.as_tensor(np.ascontiguousarray(stack[k : k + 1])).to(device), sigma)[0]
        sums = np.add.reduceat(measured.double().cpu().numpy(), edges[0][:-1], axis=0)
        curves[k] = np.add.reduceat(sums, edges[1][:-1], axis=1).ravel() / area
    rows, cols = ((e[:-1] + e[1:] - 1) / 2 for e in edges)
    centres = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    return centres, curves


def _peaks(curves: F64, top: NDArray[np.int64], z: F64, method: str) -> F64:
    """Stage positions (n,) of the vertices of parabolas through three samples about the largest, at their true z."""
    three = np.stack([np.take_along_axis(curves, (top + d)[None], axis=0)[0] for d in (-1, 0, 1)])
    at = np.stack([z[top + d] for d in (-1, 0, 1)])
    if method == "lens":
        noise = FLOOR_FRACTION * curves.min(axis=0)
        signal = np.sqrt(np.maximum(three**2 - noise**2, (0.02 * three[1]) ** 2))
        y = -((signal / signal[1]) ** -LENS_POWER)
    else:
        y = np.log(np.maximum(three, 1e-12))
    # Newton's divided differences: the nodes need not be even
    first, second = (y[1] - y[0]) / (at[1] - at[0]), (y[2] - y[1]) / (at[2] - at[1])
    bend = np.minimum((second - first) / (at[2] - at[0]), -1e-12)
    vertex = 0.5 * (at[0] + at[1]) - 0.5 * first / bend
    return np.clip(vertex, at.min(axis=0), at.max(axis=0))


def _surface(centres: F64, peaks: F64, size: tuple[int, ...], n_total: int) -> FlatFocus:
    """Quadratic through peaks, by least squares with Tukey's weights."""
    shape = (int(size[0]), int(size[1]))
    design = terms(centres, shape)
    weight: F64 = np.ones(len(peaks))
    plane: F64 = np.zeros(N_TERMS)
    apart: F64 = peaks
    for _ in range(10):
        root = np.sqrt(weight)[:, None]
        plane = np.asarray(np.linalg.lstsq(design * root, peaks * root[:, 0], rcond=None)[0])
        apart = peaks - design @ plane
        scale = max(1.4826 * float(np.median(np.abs(apart))), 1e-7)
        weight = np.maximum(1.0 - (apart / (4.685 * scale)) ** 2, 0.0) ** 2
    used = weight > 0
    rms = float(np.sqrt((weight * apart**2).sum() / weight.sum() * used.sum() / max(used.sum() - N_TERMS, 1)))
    covariance = np.linalg.pinv(design.T @ (design * weight[:, None])) * rms**2
    everywhere = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 9) for n in shape), indexing="ij"), axis=-1)
    spread = terms(everywhere.reshape(-1, 2), shape)
    error = float(np.sqrt(np.einsum("ni,ij,nj->n", spread, covariance, spread).mean()))
    return FlatFocus(plane, rms, error, int(used.sum()), int(n_total))


def plane_error(plane: ArrayLike, truth_mm: NDArray) -> float:
    """Root mean square difference, mm, of a surface of focus from a true one (R, C)."""
    size = (int(truth_mm.shape[0]), int(truth_mm.shape[1]))
    return float(np.sqrt(np.mean((whole_field(plane, size) - truth_mm) ** 2)))
