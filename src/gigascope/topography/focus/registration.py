"""Slices of one stack on common ground: scale, shift and rotation between them, and their brightness.

A lens that is focused changes its magnification (breathing), a stage drifts, a lamp flickers. A stack whose sample
moves under a rigid camera array must *not* be registered: there the change of scale is perspective, and a point is at
its place in the slice in which it is sharp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gigascope.errors import ShapeError
from gigascope.kernels import warp
from gigascope.topography.focus.stream import Sliceable, luminance

Model = Literal["shift", "scale", "similarity"]
# Pixels of the finest level that is compared: a quarter of a million finds its shift to some hundredths of a pixel.
FINEST_PIXELS = 2**18
COARSEST_SIDE = 40
# Correlation of the band-passed slice with the neighbour that it fits best, below which it may lie anywhere.
LEAST_AGREEMENT = 0.15
F64 = NDArray[np.float64]
Pair = tuple[complex, complex, float]
Pairs = dict[tuple[int, int], Pair]


@dataclass(frozen=True)
class StackRegistration:
    """Where the pixels of the reference lie in every slice, and how bright each slice is.

    Parameters
    ----------
    matrices : (z, 2, 3) float64, index in slice k = M[k, :, :2] @ (row, column of the reference) + M[k, :, 2]
    gain : (z, colours) float64, brightness of the slice over that of the reference
    reference : the slice that stays as it is
    agreement : (z,) float64, correlation of the band-passed slice with its neighbour once registered
    largest_px : farthest displacement of any corner in any slice
    identity : the displacements are below the threshold, and `matrices` are exact identities
    """

    matrices: F64
    gain: F64
    reference: int
    agreement: F64
    largest_px: float
    identity: bool

    @property
    def scale(self) -> F64:
        """(z,) magnification of each slice over the reference's."""
        return np.hypot(self.matrices[:, 0, 0], self.matrices[:, 1, 0])

    @property
    def rotation(self) -> F64:
        """(z,) radians, from the row towards the column axis."""
        return np.arctan2(self.matrices[:, 1, 0], self.matrices[:, 0, 0])

    def shift(self, shape: tuple[int, int]) -> F64:
        """(z, 2) displacement of the centre of an image of that shape, pixels (row, column)."""
        centre = (np.array(shape) - 1.0) / 2.0
        return self.matrices[:, :, :2] @ centre + self.matrices[:, :, 2] - centre

    def summary(self, shape: tuple[int, int], name: str | None = None) -> str:
        """One sentence with what was found; `name` is that of the reference."""
        light = 100.0 * (self.gain.max() / self.gain.min() - 1.0)
        if self.identity:
            return f"slices lie on each other to {self.largest_px:.2f} px, brightness to {light:.1f} %: not resampled"
        scale, shift = self.scale, np.abs(self.shift(shape)).max()
        return (
            f"slices registered to {name or f'slice {self.reference}'}: scale {scale.min():.4f} to {scale.max():.4f}, "
            f"shift up to {shift:.1f} px, rotation up to {np.rad2deg(np.abs(self.rotation).max()):.2f} degrees, "
            f"brightness within {light:.1f} %"
        )


def register_stack(
    stack: Sliceable,
    *,
    model: Model = "similarity",
    reference: int | None = None,
    threshold_px: float = 0.25,
    gaps: Sequence[int] = (1, 2),
) -> StackRegistration:
    """Geometry and brightness of every slice against a reference, from pairs of neighbours.

    Parameters
    ----------
    stack : (z, r, c) or (z, r, c, colours), in the order of focus; any integer or floating dtype
    model : shift; scale, with a change of magnification; similarity, with rotation too
    reference : slice that stays as it is; none: the one whose field all others cover best, of those that agree with a
        neighbour
    threshold_px : below this displacement of every corner the stack counts as registered
    gaps : how far apart the slices of the compared pairs are

    Returns
    -------
    StackRegistration

    Raises
    ------
    ShapeError : not (z >= 2, r, c[, colours])
    ValueError : `reference` is no slice

    Notes
    -----
    Pairs: band-passed images, normalised by their local mean; start by correlation on the coarsest level, then
    Gauss-Newton with the mean of both gradients (Benhimane and Malis, IROS 2004), which noise and unequal blur do not
    bias, Cauchy weights, and a free contrast, as in ECC (Evangelidis and Psarakis, IEEE Trans. PAMI 30, 1858 (2008)).
    With complex x_j = a x_k + b, pairs are linear in the slices' (alpha, beta): all of them in one least squares.
    """
    shape = tuple(stack.shape)
    if len(shape) not in (3, 4) or shape[0] < 2:
        raise ShapeError(f"register_stack: expected (z >= 2, r, c) or (z >= 2, r, c, colours), got {shape}")
    if reference is not None and not 0 <= reference < shape[0]:
        raise ValueError(f"reference {reference}: the stack has slices 0 to {shape[0] - 1}")
    n_z = shape[0]
    colours = [_block_means(stack, k) for k in range(n_z)]
    pyramids = [_pyramid(luminance(stack[k : k + 1, 0 : shape[1]])[0]) for k in range(n_z)]
    pairs: Pairs = {}
    for gap in sorted(gaps):
        for k in range(n_z - gap):
            # over a slice that fits neither of its neighbours there is no way
            through = min((pairs[j, j + 1][2] for j in range(k, k + gap)), default=0.0) if gap > 1 else 0.0
            known = _along(pairs, k, k + gap) if through >= LEAST_AGREEMENT else None
            pairs[k, k + gap] = _register_pair(pyramids[k], pyramids[k + gap], model, known)
    alpha, beta = _solve(pairs, n_z)
    size = (shape[1], shape[2])
    agreement = np.array([max(pairs[p][2] for p in pairs if k in p) for k in range(n_z)])
    firm = np.flatnonzero(agreement >= LEAST_AGREEMENT)
    chosen = _widest_overlap(alpha, beta, size, firm) if reference is None else reference
    # relative to the chosen one: x_k = (alpha_k / alpha_r) (x_r - beta_r) + beta_k
    alpha, beta = alpha / alpha[chosen], beta - alpha / alpha[chosen] * beta[chosen]
    matrices = matrices_about_centre(alpha, beta, size)
    largest = float(np.abs(_corner_shifts(alpha, beta, size)).max())
    identity = largest < threshold_px
    if identity:
        matrices = np.broadcast_to(np.eye(2, 3), (n_z, 2, 3)).copy()
    gain = np.stack([_gain(colours[k], colours[chosen]) for k in range(n_z)])
    return StackRegistration(matrices, gain, chosen, agreement, largest, identity)


def apply_registration(
    stack: NDArray | Tensor, found: StackRegistration, *, brightness: bool = True
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Every slice resampled once onto the reference, and brought to its brightness.

    Parameters
    ----------
    stack : (z, r, c) or (z, r, c, colours), as given to :func:`register_stack`
    found : what it returned
    brightness : divide by the gain too

    Returns
    -------
    registered : like `stack`, a NumPy array; cubic splines, rounded and clipped where the dtype is integer. Outside its
        field a slice continues by its border
    valid : (r, c), inside the field of every slice

    Raises
    ------
    ShapeError : another number of slices
    """
    values = stack.numpy(force=True) if isinstance(stack, Tensor) else np.asarray(stack)
    if len(values) != len(found.matrices):
        raise ShapeError(f"apply_registration: {len(found.matrices)} slices registered, got {len(values)}")
    size = (values.shape[1], values.shape[2])
    result = np.empty_like(values)
    valid = np.ones(size, bool)
    for k, image in enumerate(values):
        result[k], inside = register_slice(image, found, k, brightness=brightness)
        valid &= inside
    return result, valid


def register_slice(
    image: NDArray, found: StackRegistration, k: int, *, brightness: bool = True
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Slice k of :func:`apply_registration`, one colour after another: at most four float32 layers are held.

    Parameters
    ----------
    image : (r, c) or (r, c, colours)

    Returns
    -------
    registered : like `image`, and it itself where there is nothing to do
    inside : (r, c), within the field of the slice
    """
    size = (int(image.shape[0]), int(image.shape[1]))
    gain = found.gain[k] if brightness else np.ones_like(found.gain[k])
    still = np.array_equal(found.matrices[k], np.eye(2, 3))
    inside = np.ones(size, bool)
    if still and bool((gain == 1).all()):
        return image, inside
    result = np.empty_like(image)
    matrix = torch.from_numpy(found.matrices[k][None])
    for colour, (source, target) in enumerate(zip(_layers(image), _layers(result), strict=True)):
        layer = torch.from_numpy(source.astype(np.float32))[None]
        if not still:
            layer = warp.spline_coefficients(layer)
            layer, valid = warp.resample(layer, matrix, size)
            inside = valid[0].numpy() > 0
            del valid
        moved = layer[0].div_(float(np.float32(gain[colour]))).numpy()
        if np.issubdtype(image.dtype, np.integer):
            info = np.iinfo(image.dtype)
            np.clip(np.rint(moved, out=moved), info.min, info.max, out=moved)
        target[...] = moved
    return result, inside


def _layers(image: NDArray) -> list[NDArray]:
    """Views (r, c) of the colours of a picture."""
    return [image] if image.ndim == 2 else [image[..., colour] for colour in range(image.shape[2])]


def _pyramid(image: Tensor) -> list[Tensor]:
    """Band-passed relative contrast on levels halved until the short side is small; finest first, empty if too fine."""
    levels = []
    grey = image
    while True:
        # not grey[:0], which would keep all of it
        level = grey.new_empty(0)
        if grey.numel() <= FINEST_PIXELS:
            smooth, wide = (warp.gaussian_blur(grey[None], sigma)[0] for sigma in (1.0, 5.0))
            level = smooth / wide.clamp_min(1.0) - 1.0
        levels.append(level)
        if min(grey.shape) < 2 * COARSEST_SIDE:
            return levels
        grey = functional.avg_pool2d(grey[None, None], 2)[0, 0]


def _register_pair(
    first: list[Tensor], second: list[Tensor], model: Model, known: tuple[complex, complex] | None
) -> Pair:
    """(a, b, correlation): x_second = a x_first + b, complex row + i column from the image centre, full-size pixels."""
    coarsest = len(first) - 1
    a, b = known if known is not None else (1.0 + 0j, _start(first[-1], second[-1]) * 2**coarsest)
    correlation = 0.0
    used = [level for level in range(coarsest, -1, -1) if first[level].numel()]
    # what is known already needs the finest levels only
    for level in used if known is None else used[-2:]:
        a, b, correlation = _gauss_newton(first[level], second[level], model, a, b / 2**level, last=level == used[-1])
        b *= 2**level
    return a, b, correlation


def _start(first: Tensor, second: Tensor) -> complex:
    """Whole-pixel shift by the largest correlation under a window, 0 where none stands out."""
    window = torch.outer(*(torch.hann_window(n, periodic=False) for n in first.shape))
    spectra = [torch.fft.rfft2(image * window) for image in (first, second)]
    surface = torch.fft.irfft2(spectra[0].conj() * spectra[1], s=first.shape)
    best = int(surface.argmax())
    if float(surface.flatten()[best]) < 1.2 * float(surface[0, 0]):
        return 0j
    place = divmod(best, first.shape[1])
    row, column = ((p + n // 2) % n - n // 2 for p, n in zip(place, first.shape, strict=True))
    return complex(row, column)


def _gauss_newton(
    first: Tensor, second: Tensor, model: Model, a: complex, b: complex, *, last: bool
) -> tuple[complex, complex, float]:
    """Refined (a, b) on one level, more exactly on the last, and the correlation there."""
    size = (int(first.shape[0]), int(first.shape[1]))
    coefficients = warp.spline_coefficients(second[None])
    radius = 0.5 * math.hypot(*size)
    row, column = (torch.arange(n, dtype=torch.float32) - (n - 1) / 2.0 for n in size)
    row, column = row[:, None] / radius, column[None, :] / radius
    gradient = torch.gradient(first)
    correlation = 0.0
    for _ in range(10):
        matrix = torch.from_numpy(matrices_about_centre(np.array([a]), np.array([b]), size))
        warped, valid = warp.resample(coefficients, matrix, size)
        moved, inside = warped[0], valid[0]
        contrast = float((moved * first * inside).sum() / (moved**2 * inside).sum().clamp_min(1e-12))
        correlation = contrast * math.sqrt(
            float((moved**2 * inside).sum()) / max(float((first**2 * inside).sum()), 1e-12)
        )
        # a pair that hardly correlates must not be scaled away
        contrast = min(max(contrast, 0.3), 3.0)
        difference = contrast * moved - first
        other = torch.gradient(moved)
        g_row, g_column = ((0.5 * (g + contrast * o)) for g, o in zip(gradient, other, strict=True))
        columns = [g_row, g_column]
        if model != "shift":
            columns.append(g_row * row + g_column * column)
        if model == "similarity":
            columns.append(g_column * row - g_row * column)
        weight = _weights(difference, g_row**2 + g_column**2) * inside
        jacobian = torch.stack(columns).flatten(1).double()
        normal = (jacobian * weight.flatten()) @ jacobian.T
        right = (jacobian * weight.flatten()) @ difference.flatten().double()
        ridge = 1e-9 * normal.diagonal().max().clamp_min(1e-30)
        step = -torch.linalg.solve(normal + ridge * torch.eye(len(normal), dtype=normal.dtype), right)
        # farther than a few pixels the linearisation means nothing
        step *= min(1.0, 4.0 / max(float(step.abs().max()), 1e-12))
        shift, growth, turn = complex(step[0], step[1]), *(float(v) / radius for v in (*step[2:], 0.0, 0.0)[:2])
        a, b = a + complex(growth, turn), b + shift
        if float(step.abs().max()) < (5e-3 if last else 2e-2):
            break
    return a, b, correlation


def _weights(difference: Tensor, energy: Tensor) -> Tensor:
    """Cauchy weights; their scale is that of the residuals where there is structure, since flat areas have none."""
    sample = slice(None, None, max(1, difference.numel() // 50_000))
    size, strength = difference.abs().flatten()[sample], energy.flatten()[sample]
    scale = 1.4826 * float(size[strength >= strength.quantile(0.75)].median())
    return 1.0 / (1.0 + (difference / max(2.385 * scale, 1e-6)) ** 2)


def _along(
    pairs: dict[tuple[int, int], tuple[complex, complex, float]], first: int, last: int
) -> tuple[complex, complex]:
    """Composition of the neighbours from one slice to another."""
    a, b = 1.0 + 0j, 0j
    for k in range(first, last):
        step = pairs[k, k + 1]
        a, b = step[0] * a, step[0] * b + step[1]
    return a, b


def _solve(pairs: Pairs, n_z: int) -> tuple[NDArray, NDArray]:
    """alpha, beta of every slice, slice 0 being (1, 0), from all pairs, those that agree badly counting less."""
    weight = np.array([max(c, 0.05) ** 2 for _, _, c in pairs.values()])
    alpha, beta = np.ones(n_z, complex), np.zeros(n_z, complex)
    system = np.zeros((len(pairs), n_z), complex)
    for row, ((k, j), (a, _, _)) in enumerate(pairs.items()):
        system[row, j], system[row, k] = 1.0, -a
    right = np.array([b for _, b, _ in pairs.values()])
    robust = np.ones(len(pairs))
    for _ in range(5):
        root = np.sqrt(weight * robust)
        alpha[1:] = np.linalg.lstsq(system[:, 1:] * root[:, None], -system[:, 0] * root, rcond=None)[0]
        beta[1:] = np.linalg.lstsq(system[:, 1:] * root[:, None], right * root, rcond=None)[0]
        off = np.abs(system @ beta - right)
        robust = 1.0 / (1.0 + (off / max(3.0 * float(np.median(off)), 0.02)) ** 2)
    return alpha, beta


def matrices_about_centre(alpha: NDArray, beta: NDArray, size: tuple[int, int]) -> F64:
    """Index maps (z, 2, 3) of x -> alpha x + beta about the image centre."""
    centre = (np.array(size) - 1.0) / 2.0
    matrices = np.empty((len(alpha), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = alpha.real
    matrices[:, 1, 0], matrices[:, 0, 1] = alpha.imag, -alpha.imag
    matrices[:, :, 2] = np.stack((beta.real, beta.imag), axis=1) + centre - matrices[:, :, :2] @ centre
    return matrices


def _corner_shifts(alpha: NDArray, beta: NDArray, size: tuple[int, int]) -> NDArray:
    """(z, 4) complex displacement of the corners."""
    half = [complex(s * (size[0] - 1) / 2, t * (size[1] - 1) / 2) for s in (-1, 1) for t in (-1, 1)]
    return (alpha[:, None] - 1.0) * np.array(half) + beta[:, None]


def _widest_overlap(alpha: NDArray, beta: NDArray, size: tuple[int, int], firm: NDArray[np.int64]) -> int:
    """The slice of `firm` whose corners stay farthest inside the fields of the others; the middle one among equals."""
    firm = firm if len(firm) else np.arange(len(alpha))
    middle, alpha, beta = (len(alpha) - 1) / 2, alpha[firm], beta[firm]
    half = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2])
    lack = []
    for k in range(len(alpha)):
        shifts = _corner_shifts(alpha / alpha[k], beta - alpha / alpha[k] * beta[k], size)
        corners = np.array([complex(s * half[0], t * half[1]) for s in (-1, 1) for t in (-1, 1)]) + shifts
        outside = np.maximum(np.abs(corners.real) - half[0], np.abs(corners.imag) - half[1])
        lack.append(max(float(outside.max()), 0.0) + 1e-3 * abs(firm[k] - middle))
    return int(firm[np.argmin(lack)])


def _block_means(stack: Sliceable, k: int) -> F64:
    """(blocks, colours) means of one slice over a grid of about 16 x 16 blocks."""
    image = np.asarray(stack[k : k + 1, 0 : stack.shape[1]])[0]
    layers = (torch.from_numpy(layer.astype(np.float32))[None] for layer in _layers(image))
    means = torch.cat([functional.adaptive_avg_pool2d(layer, (16, 16)) for layer in layers])
    return means.flatten(1).T.double().numpy()


def _gain(means: F64, reference: F64) -> F64:
    """(colours,) median ratio over the blocks that are not dark."""
    bright = reference > 0.02 * max(float(reference.max()), 1e-12)
    ratio = np.where(bright, means / np.maximum(reference, 1e-12), np.nan)
    found = np.nanmedian(ratio, axis=0) if bright.any(axis=0).all() else np.ones(means.shape[1])
    return np.where(found > 0, found, 1.0)
