"""What a camera makes of expected electrons: signature, checks, dispatch."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check_positive
from gigascope.kernels.library import define


class Sensor(NamedTuple):
    """How electrons become grey values.

    Attributes
    ----------
    excess_noise : F^2 >= 1 of a multiplying detector: each count n > 0 becomes Gamma(n / (F^2 - 1), F^2 - 1)
    read_noise_e : standard deviation, electrons
    gain_adu_per_e, offset_adu : of the converter
    full_well_e : electrons at which it saturates
    bits : of the grey values, 16 at most
    n_average : acquisitions whose mean is taken
    gain_spread, offset_spread_e : standard deviations of the fixed pattern, by lateral position; relative, electrons
    """

    excess_noise: float = 1.0
    read_noise_e: float = 1.5
    gain_adu_per_e: float = 1.0
    offset_adu: float = 100.0
    full_well_e: float = 30000.0
    bits: int = 16
    n_average: int = 1
    gain_spread: float = 0.0
    offset_spread_e: float = 0.0


def camera(expected: Tensor, sensor: Sensor, key: int, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Grey values of a block of an image.

    Parameters
    ----------
    expected : (z, y, x) float32, electrons, >= 0
    sensor : see :class:`Sensor`
    key : 64 bits, the seed of this image's noise
    origin : (z, y, x) of the block's first voxel in the whole image
    shape : (z, y, x) of the whole image

    Returns
    -------
    (z, y, x) uint16: rint(offset + gain min(mean over acquisitions of e, full well)), halves to even, cut to
    0 ... 2^bits - 1, with e = pattern gain * Gamma(Poisson(expected)) + pattern offset + N(0, read noise)

    Raises
    ------
    ShapeError : another rank or dtype, a block that leaves the image, parameters out of range

    Notes
    -----
    Every number is addressed by the voxel's index in the whole image: a block's result does not depend on how the image
    is cut, on threads or on the order of blocks. Poisson: inversion below 10, above it transformed rejection (Hörmann,
    Insurance: Mathematics and Economics 12:39, 1993), never a normal law. Gamma: Marsaglia and Tsang, ACM TOMS 26:363
    (2000). Normal: Box and Muller. Implementations may differ where the last bit of a logarithm decides.
    """
    numbers = [float(number) for number in sensor]
    return torch.ops.gigascope.cells_camera(expected, numbers, signed(key), list(origin), list(shape))


def signed(key: int) -> int:
    """64 bits as torch's int64 holds them."""
    key &= (1 << 64) - 1
    return key - (1 << 64) if key >> 63 else key


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.cells import cpu_noise

        return cpu_noise
    if chosen == "cuda":
        from gigascope.kernels.cells import cuda_noise

        return cuda_noise
    from gigascope.kernels.cells import reference_noise

    return reference_noise


def _check(expected: Tensor, sensor: Sensor, origin: Sequence[int], shape: Sequence[int]) -> None:
    if expected.ndim != 3 or expected.dtype != torch.float32:
        found = f"{tuple(expected.shape)} {expected.dtype}"
        raise ShapeError(f"camera: expected: expected (z, y, x) torch.float32, got {found}")
    ends = [o + n for o, n in zip(origin, expected.shape, strict=True)]
    if min(origin) < 0 or any(end > n for end, n in zip(ends, shape, strict=True)):
        raise ShapeError(f"camera: block {list(origin)} to {ends} leaves the image {list(shape)}")
    check_positive("camera", gain_adu_per_e=sensor.gain_adu_per_e, full_well_e=sensor.full_well_e)
    if not (sensor.excess_noise >= 1 and 1 <= sensor.bits <= 16 and sensor.n_average >= 1):
        raise ShapeError(f"camera: excess noise >= 1, 1 to 16 bits, an acquisition or more, got {sensor}")
    if min(sensor.read_noise_e, sensor.gain_spread, sensor.offset_spread_e) < 0:
        raise ShapeError(f"camera: spreads are 0 or more, got {sensor}")


@define("cells_camera", "(Tensor expected, float[] sensor, int key, int[] origin, int[] shape) -> Tensor")
def _camera(expected: Tensor, sensor: Sequence[float], key: int, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
    excess, read, gain, offset, well, bits, n_average, gain_spread, offset_spread = sensor
    given = Sensor(excess, read, gain, offset, well, int(bits), int(n_average), gain_spread, offset_spread)
    _check(expected, given, origin, shape)
    largest = float(2**given.bits - 1)
    numbers = torch.tensor([*given[:5], largest, *given[6:]], dtype=torch.float64)
    return _implementation(expected).camera(expected.contiguous(), numbers, key, tuple(origin), tuple(shape))


@_camera.register_fake
def _camera_meta(
    expected: Tensor, sensor: Sequence[float], key: int, origin: Sequence[int], shape: Sequence[int]
) -> Tensor:
    return expected.new_empty(expected.shape, dtype=torch.uint16)
