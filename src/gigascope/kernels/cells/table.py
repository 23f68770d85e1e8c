"""Nuclei as columns: where they are, what shape they have and how they look. Conventions of the whole family.

Triples are in the order of the arrays, (z, y, x), in µm. The field starts at µm 0, and voxel i of a grid of voxel size
v covers [i v, (i + 1) v). The body frame of a nucleus is ``b = R(q) (x - centre)`` with the unit quaternion
q = (w, q0, q1, q2), whose imaginary parts belong to the components in their order:

    R = [[1 - 2 (q1² + q2²), 2 (q0 q1 - w q2),   2 (q0 q2 + w q1)  ],
         [2 (q0 q1 + w q2),  1 - 2 (q0² + q2²),  2 (q1 q2 - w q0)  ],
         [2 (q0 q2 - w q1),  2 (q1 q2 + w q0),   1 - 2 (q0² + q1²)]]

In the direction u = b / |b| the surface is at ``r(u) = (Σ_i |u_i / a_i|^e)^(-1/e) · exp(Σ_lm q_lm Y_lm(u))``, with Y_lm
of :mod:`gigascope.kernels.cells.harmonics` (polar axis: body component 0). Coefficient q_00 carries the factor that
gives a nucleus its volume. A point has ρ = |b| / r(u); the nucleus is ρ ≤ 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.cells.harmonics import N_HARMONICS
from gigascope.kernels.cells.shape import reach

# samples of a library crop along each axis, and their distance in µm; sample (s, s, s) is the body's centre for
# s = (CROP - 1) / 2
CROP, CROP_SPACING_UM = 48, 0.25
N_NUCLEOLI = 4
RIM_LENGTH_UM = 0.5


class NucleiTable(NamedTuple):
    """n nuclei, row by row in the order of their labels: label = row + 1. All contiguous, on one device.

    Attributes
    ----------
    centre : (n, 3) float64 µm, multiples of 1/1024
    rotation : (n, 4) float64 unit quaternion
    semi_axes : (n, 3) float64 µm, along the body's components
    exponent : (n,) float64 of the super-ellipsoid; 2 is an ellipsoid
    harmonics : (n, 81) float32, coefficient of Y_lm of the log radius at l² + l + m
    reach : (n,) float64 µm, upper bound of the radius by :func:`gigascope.kernels.cells.reach`, which is F · max a with
        r(u) <= F times the radius of the ellipsoid; too small a value cuts nuclei
    intensity : (n,) float32, brightness
    texture_sigma : (n,) float32, relative standard deviation of the noise inside
    texture_scale : (n,) float32 µm, lattice spacing of its first octave
    rim : (n,) float32, brightening at the surface; it decays inwards over 0.5 µm
    nucleoli : (n, 4, 4) float32 (z, y, x, radius) in the body frame, µm; radius 0 is none
    seed : (n,) int64, the bits of a uint64
    texture : (n,) int32, row of `crops` that takes the place of the noise, or -1
    gamma : (n,) float32, exponent on that texture
    crops : (m, 48, 48, 48) float16, relative brightness in the body frame at 0.25 µm, body's centre in the middle
    octaves : of the noise, 1 to 8; each has half the amplitude and half the spacing of the one before
    """

    centre: Tensor
    rotation: Tensor
    semi_axes: Tensor
    exponent: Tensor
    harmonics: Tensor
    reach: Tensor
    intensity: Tensor
    texture_sigma: Tensor
    texture_scale: Tensor
    rim: Tensor
    nucleoli: Tensor
    seed: Tensor
    texture: Tensor
    gamma: Tensor
    crops: Tensor
    octaves: int = 3

    @property
    def n(self) -> int:
        """Number of nuclei."""
        return int(self.centre.shape[0])

    def to(self, device: torch.device | str) -> NucleiTable:
        """The same table on another device."""
        moved = {name: getattr(self, name).to(device) for name in (*_COLUMNS, "crops")}
        return self._replace(**moved)

    def rows(self, index: Tensor) -> NucleiTable:
        """Some of the nuclei; they get new labels. Library crops stay as they are."""
        taken = {name: getattr(self, name)[index] for name in _COLUMNS}
        return self._replace(**taken)


_COLUMNS = tuple(name for name in NucleiTable._fields if name not in ("crops", "octaves"))


def nuclei_table(
    centre: Tensor,
    rotation: Tensor | None = None,
    semi_axes: Tensor | float = 4.75,
    exponent: Tensor | float = 2.0,
    harmonics: Tensor | None = None,
    *,
    intensity: Tensor | float = 1.0,
    texture_sigma: Tensor | float = 0.0,
    texture_scale: Tensor | float = 1.5,
    rim: Tensor | float = 0.0,
    nucleoli: Tensor | None = None,
    seed: Tensor | None = None,
    texture: Tensor | None = None,
    gamma: Tensor | float = 1.0,
    crops: Tensor | None = None,
    octaves: int = 3,
) -> NucleiTable:
    """Table on the device of `centre`: columns with their dtypes, what is left out filled in, `reach` computed.

    Parameters
    ----------
    centre : (n, 3) µm, rounded to 1/1024
    others : as in :class:`NucleiTable`, of any dtype; numbers hold for all nuclei. Without more than centres the nuclei
        are plain balls of 9.5 µm diameter and brightness 1, with their row as seed. Quaternions are normalised.

    Raises
    ------
    ShapeError : a column of another shape, semi-axes, exponents or scales that are not above zero, a texture that is no
        row of `crops`
    """
    n = centre.shape[0]

    def column(value: Tensor | float, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        given = torch.as_tensor(value, dtype=dtype, device=centre.device)
        return (given if given.ndim else given.expand(n, *shape)).contiguous()

    upright = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4)
    turned = column(upright if rotation is None else rotation, dtype=torch.float64)
    power = column(exponent, dtype=torch.float64)
    table = NucleiTable(
        centre=(column(centre, dtype=torch.float64) * 1024).round() / 1024,
        rotation=turned / turned.norm(dim=1, keepdim=True),
        semi_axes=column(semi_axes, 3, dtype=torch.float64),
        exponent=power,
        harmonics=column(0.0 if harmonics is None else harmonics, N_HARMONICS),
        reach=torch.zeros_like(power),
        intensity=column(intensity),
        texture_sigma=column(texture_sigma),
        texture_scale=column(texture_scale),
        rim=column(rim),
        nucleoli=column(0.0 if nucleoli is None else nucleoli, N_NUCLEOLI, 4),
        seed=column(torch.arange(n) if seed is None else seed, dtype=torch.int64),
        texture=column(-1 if texture is None else texture, dtype=torch.int32),
        gamma=column(gamma),
        crops=column(torch.zeros(0, CROP, CROP, CROP) if crops is None else crops, dtype=torch.float16),
        octaves=octaves,
    )
    check_nuclei("nuclei_table", table)
    return table._replace(reach=reach(table.semi_axes, table.exponent, table.harmonics))


def check_nuclei(op: str, table: NucleiTable) -> None:
    """Shapes, dtypes, one device, and numbers that have a meaning.

    Raises
    ------
    ShapeError : the column, what it should be, what it is
    """
    n, m = table.centre.shape[0] if table.centre.ndim else 0, table.crops.shape[0] if table.crops.ndim else 0
    real, single = torch.float64, torch.float32
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "centre": ((n, 3), real), "rotation": ((n, 4), real), "semi_axes": ((n, 3), real), "exponent": ((n,), real),
        "harmonics": ((n, N_HARMONICS), single), "reach": ((n,), real), "intensity": ((n,), single),
        "texture_sigma": ((n,), single), "texture_scale": ((n,), single), "rim": ((n,), single),
        "nucleoli": ((n, N_NUCLEOLI, 4), single), "seed": ((n,), torch.int64), "texture": ((n,), torch.int32),
        "gamma": ((n,), single), "crops": ((m, CROP, CROP, CROP), torch.float16),
    }  # fmt: skip
    for name, (shape, dtype) in expected.items():
        value = getattr(table, name)
        if tuple(value.shape) != shape or value.dtype != dtype or value.device != table.centre.device:
            raise ShapeError(
                f"{op}: {name}: expected {shape} {dtype} on {table.centre.device}, "
                f"got {tuple(value.shape)} {value.dtype} on {value.device}"
            )
    if not 1 <= table.octaves <= 8:
        raise ShapeError(f"{op}: octaves: expected 1 to 8, got {table.octaves}")
    if n == 0:
        return
    for name in ("semi_axes", "exponent", "texture_scale"):
        least = float(getattr(table, name).min())
        if not (least > 0 and math.isfinite(least)):
            raise ShapeError(f"{op}: {name}: expected numbers above 0, got {least}")
    low, high = (int(value) for value in table.texture.aminmax())
    if low < -1 or high >= m:
        raise ShapeError(f"{op}: texture: expected rows of the {m} crops or -1, got {low} to {high}")
