"""The adaptive law: steps from the expected increase of the squared error, about the same for every parameter, `theta`.

It writes a Gaussian as ``b phi / |phi|`` with ``|phi|^2 = S = pi^(3/2) sigma_1 sigma_2 sigma_3`` and
quantises ``b = a sqrt(S)`` instead of the amplitude. In these coordinates the error of the amplitude and of the scales
do not mix: to second order the squared error of one isolated Gaussian grows by

====================================  ==================================================
error                                 increase
====================================  ==================================================
``db``                                ``db^2``
log scale k                           ``b^2 / 2 dl_k^2``  (3/4 at fixed amplitude)
mean along own axis k                 ``b^2 / (2 sigma_k^2) dmu_k^2``
rotation about own axis k             ``b^2 / 4 (sigma_i / sigma_j - sigma_j / sigma_i)^2 domega_k^2``
====================================  ==================================================

A uniform quantiser of width s adds s^2 / 12 on average, hence the steps: ``sqrt(12 theta)`` for b, and with
``delta = sqrt(12 theta) / |b|``: ``sqrt(2) delta`` for the log scales, ``sqrt(2) sigma delta`` for the mean,
``2 delta / |sigma_i / sigma_j - sigma_j / sigma_i|`` for the rotation. The mean is rounded along z, y and x one after
the other, each time with the steps of what is left when the coordinates before it are given (:func:`compensation`),
which comes to the same as steps along the own axes. `delta` comes from the class of b (half octaves), so that the
least-squares solve of the amplitudes that follows leaves the geometry as it is; see
:func:`gigascope.compression.gmix.quantise.with_amplitudes`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gigascope.compression.gmix import exact, frames
from gigascope.compression.gmix.quantiser import CELL, Quantiser

# Places in a cell along an axis and steps of a roll; rings on the half sphere: far beyond what any use needs.
MOST = 1 << 14
MOST_RINGS = 1 << 11
# of differences of log scales, for the grids of frames
MOST_UNLIKE = 8.0
_LARGEST = 1 << 20
# pi^(3/4)
ROOT_PI = math.sqrt(math.pi * math.sqrt(math.pi))


def to_integers(
    log_scales: Tensor, q: Tensor, amplitudes: Tensor, quantiser: Quantiser
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers of scales (N, 3), rotation (N, 3) and amplitude (N,), row by row.

    Parameters
    ----------
    log_scales : (N, 3) float64, descending, within the quantiser's range
    q : (N, 4) float64, of length 1, of the sorted axes
    amplitudes : (N,) float64
    quantiser : the law
    """
    b = amplitudes * root_energy(log_scales) / quantiser.amplitude_step
    # 0 would be a Gaussian that is not there: whoever wants it gone leaves it out
    size = torch.clamp(torch.round(b.abs()), 1, _LARGEST).to(torch.int64)
    amplitude = torch.where(b < 0, -size, size)
    scales = torch.round((log_scales - _middle(quantiser)) / _scale_step(amplitude, quantiser)).to(torch.int64)
    grid = RotationGrid.of(scales, amplitude, quantiser)
    columns = frames.matrices(q)
    pole = torch.where(grid.last[:, None], columns[:, :, 2], columns[:, :, 0])
    ring, azimuth = frames.nearest_cell(grid.n_rings, pole)
    angle = _roll(q, frames.directions(grid.n_rings, ring, azimuth), grid.last)
    roll = torch.remainder(torch.round(angle * grid.n_rolls.to(torch.float64) / math.pi).to(torch.int64), grid.n_rolls)
    return scales, torch.stack((ring, azimuth, roll), dim=1), amplitude


def geometry(
    scales: Tensor, rotation: Tensor, amplitude: Tensor, quantiser: Quantiser, latent: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3) log scales, (N, 4) quaternions in the canonical frame, (N, 3) int64 places in a cell, of integers.

    With `latent`, quaternions (N, 4) of the sorted axes, a rotation without effect is taken from there.
    """
    log_scales = _middle(quantiser) + scales.to(torch.float64) * _scale_step(amplitude, quantiser)
    q = _frame(rotation, RotationGrid.of(scales, amplitude, quantiser), None)
    counts = _place_counts(log_scales, q, amplitude, quantiser)
    if latent is not None:
        q = _frame(rotation, RotationGrid.of(scales, amplitude, quantiser), latent)
    return log_scales, q, counts


def amplitudes_of(amplitude: Tensor, log_scales: Tensor, quantiser: Quantiser) -> Tensor:
    """(N,) float64 amplitudes of integers."""
    return amplitude.to(torch.float64) * quantiser.amplitude_step / root_energy(log_scales)


def within_class(amplitudes: Tensor, amplitude: Tensor, log_scales: Tensor, quantiser: Quantiser) -> Tensor:
    """(N,) int64, the integers of other amplitudes (N,), as near as the classes of the integers `amplitude` allow."""
    wanted = torch.round(amplitudes * root_energy(log_scales) / quantiser.amplitude_step)
    low, high = class_bounds(amplitude_class(amplitude))
    negative = torch.where(wanted == 0, amplitude < 0, wanted < 0)
    size = torch.minimum(torch.maximum(wanted.abs().to(torch.int64), low), high - 1)
    return torch.where(negative, -size, size)


def choices(scales: Tensor, amplitude: Tensor, quantiser: Quantiser) -> Tensor:
    """(N,) float64, log2 of the steps per unit of the log scales, of the frames, and of the integers of a class."""
    grid = RotationGrid.of(scales, amplitude, quantiser)
    low, high = class_bounds(amplitude_class(amplitude))
    n_directions = torch.clamp(grid.n_rings * grid.n_rings * (8 / math.pi), min=1.0)
    product = n_directions * grid.n_rolls * (high - low)
    return torch.log2(product) - 3 * torch.log2(_scale_step(amplitude, quantiser)[:, 0])


def amplitude_class(amplitude: Tensor) -> Tensor:
    """Half octave of integers that are not 0: 2^k .. 1.5 2^k has class 2 k, 1.5 2^k .. 2^(k+1) has class 2 k + 1."""
    mantissa, exponent = torch.frexp(amplitude.abs().to(torch.float64))
    return 2 * (exponent.to(torch.int64) - 1) + (mantissa >= 0.75)


def class_bounds(classes: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest integer of each class, and the one after its largest; class 1 is empty."""
    k = classes // 2
    octave = torch.ones_like(k) << k
    middle = octave + (octave + 1) // 2
    odd = classes % 2 == 1
    return torch.where(odd, middle, octave), torch.where(odd, 2 * octave, middle)


@dataclass(frozen=True)
class RotationGrid:
    """How the frame of each Gaussian is cut up: a direction on the half sphere for the axis that differs most from the
    middle one (the longest, or where `last` the shortest), and a roll about it.

    Attributes
    ----------
    n_rings, n_rolls : (N,) int64; 0 rings is no choice, 1 roll is no choice
    last : (N,) bool
    free, free_roll : (N,) bool: the frame, or the roll, has no effect because the scales are equal
    """

    n_rings: Tensor
    n_rolls: Tensor
    last: Tensor
    free: Tensor
    free_roll: Tensor

    @staticmethod
    def of(scales: Tensor, amplitude: Tensor, quantiser: Quantiser) -> RotationGrid:
        """From the integers (N, 3) of the scales and (N,) of the amplitude."""
        delta = _delta(amplitude, quantiser)
        step = _scale_step(amplitude, quantiser)[:, 0]
        upper, lower = scales[:, 0] - scales[:, 1], scales[:, 1] - scales[:, 2]
        last = lower > upper
        near = _unlikeness(torch.maximum(upper, lower), step)
        far = _unlikeness(upper + lower, step)
        roll = _unlikeness(torch.minimum(upper, lower), step)
        tilt = torch.sqrt((near * near + far * far) / 2)
        n_rings = _count((math.pi / 4) * tilt / delta, 0, MOST_RINGS)
        return RotationGrid(n_rings, _count((math.pi / 2) * roll / delta, 1), last, tilt == 0, roll == 0)


def covariances(log_scales: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """zz, zy, zx, yy, yx of the covariances, (N,) float64 each, voxels squared."""
    variances = exact.exp(2 * log_scales)
    a, b, c = variances.unbind(1)
    r = frames.matrices(q)

    def entry(j: int, k: int) -> Tensor:
        return r[:, j, 0] * r[:, k, 0] * a + r[:, j, 1] * r[:, k, 1] * b + r[:, j, 2] * r[:, k, 2] * c

    return entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2)


def _place_counts(log_scales: Tensor, q: Tensor, amplitude: Tensor, quantiser: Quantiser) -> Tensor:
    """(N, 3) places in a cell: steps from the variance along z, along y given z, and along x given both."""
    zz, zy, _, yy, _ = covariances(log_scales, q)
    y_given_z = yy - zy * zy / zz
    total = exact.exp(2 * (log_scales[:, 0] + log_scales[:, 1] + log_scales[:, 2]))
    variances = torch.stack((zz, y_given_z, total / (zz * y_given_z)), dim=1)
    return _count(CELL / _delta(amplitude, quantiser)[:, None] / torch.sqrt(2 * variances), 1)


def compensation(log_scales: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What errors of a mean call for in the coordinates that are rounded after it.

    The squared error is least, for given errors along z (and y), with an error of (first) x error_z along y, and of
    (second) x error_z + (third) x error_y along x. Rounding one coordinate after the other with this in mind is
    worth as much as steps along the own axes.
    """
    zz, zy, zx, yy, yx = covariances(log_scales, q)
    y_given_z = yy - zy * zy / zz
    third = (yx - zy * zx / zz) / y_given_z
    return zy / zz, (zx - third * zy) / zz, third


def _frame(rotation: Tensor, grid: RotationGrid, latent: Tensor | None) -> Tensor:
    direction = frames.directions(grid.n_rings, rotation[:, 0], rotation[:, 1])
    angle = rotation[:, 2].to(torch.float64) * math.pi / grid.n_rolls.to(torch.float64)
    if latent is not None:
        angle = torch.where(grid.free_roll, _roll(latent, direction, grid.last), angle)
    q = frames.about_pole(direction, angle)
    # from (pole, next, last) to the order of the axes
    q = torch.where(grid.last[:, None], frames.multiply(q, torch.full_like(q, 0.5)), q)
    q = q if latent is None else torch.where(grid.free[:, None], latent, q)
    return frames.smallest_angle(q)


def _count(wanted: Tensor, least: int, most: int = MOST) -> Tensor:
    return torch.clamp(torch.round(wanted), least, most).to(torch.int64)


def _unlikeness(difference: Tensor, step: Tensor) -> Tensor:
    """sigma_i / sigma_j - sigma_j / sigma_i of scales so many steps apart, at most e^8."""
    x = torch.clamp(difference.to(torch.float64) * step, max=MOST_UNLIKE)
    return exact.exp(x) - exact.exp(-x)


def _scale_step(amplitude: Tensor, quantiser: Quantiser) -> Tensor:
    return math.sqrt(2.0) * _delta(amplitude, quantiser)[:, None]


def _delta(amplitude: Tensor, quantiser: Quantiser) -> Tensor:
    return _delta_table(quantiser, amplitude.device)[amplitude_class(amplitude)]


@functools.lru_cache
def _delta_table(quantiser: Quantiser, device: torch.device) -> Tensor:
    return quantiser.deltas().to(device)


def _middle(quantiser: Quantiser) -> float:
    low, high = quantiser.log_range
    return (low + high) / 2


def root_energy(log_scales: Tensor) -> Tensor:
    """sqrt(S)."""
    return ROOT_PI * exact.exp((log_scales[:, 0] + log_scales[:, 1] + log_scales[:, 2]) / 2)


def _roll(q: Tensor, direction: Tensor, last: Tensor) -> Tensor:
    """(N,) angle, 0 .. pi, of the axis after the pole in frames `q`, about poles at `direction`."""
    columns = frames.matrices(q)
    axis = torch.where(last[:, None], columns[:, :, 0], columns[:, :, 1])
    level = frames.matrices(frames.about_pole(direction, torch.zeros_like(direction[:, 0])))
    along, across = (axis * level[:, :, 1]).sum(1), (axis * level[:, :, 2]).sum(1)
    return torch.remainder(torch.atan2(across, along), math.pi)
