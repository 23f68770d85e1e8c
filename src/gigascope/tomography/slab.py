"""How thick the specimen is, and by how much a section is inclined: from small tomograms of the even and the odd views.

What both halves show at the same place is specimen; the noise of one knows nothing of the other's. The mean product of
the halves over a plane, as a function of z, therefore falls to 0 at the specimen's faces, whatever the noise is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.tomography.correlation import vertex
from gigascope.tomography.quick_residual import quick_prediction

F64 = NDArray[np.float64]

# Of the profile's top. Simulated sections of 32 and 64 px at a signal to noise of 1 and 20, tilted to 60 degrees, end
# where their profile crosses 0.2, to 4 px; the blur of the missing wedge moves 0.1 and 0.4 by as much as it is wide.
FACE, OUTER, INNER = 0.2, 0.1, 0.4
# degrees of inclination that are tried, and blocks along the axis, of which one after the other is left out
TRIED = np.arange(-20.0, 20.01, 0.5)
BLOCKS = 4
# standard deviations and degrees that an inclination must exceed to be believed
BELIEVED, LEAST_DEG = 3.0, 0.5


@dataclass(frozen=True)
class Slab:
    """The specimen as a slab, lengths in pixels of the views.

    Parameters
    ----------
    thickness : between the faces
    thickness_sigma : how far it depends on where a face is said to be
    inclination, inclination_sigma : of the slab against the tilt axis' plane at tilt 0, radians; NaN for an object
    """

    thickness: float
    thickness_sigma: float
    inclination: float
    inclination_sigma: float

    @property
    def tilt_offset(self) -> float:
        """Radians to add to all tilt angles so that the slab lies flat; 0 where the data do not say so.

        Within three standard deviations, and below half a degree, the angles stay as they are.
        """
        wrong = abs(self.inclination) > max(BELIEVED * self.inclination_sigma, math.radians(LEAST_DEG))
        return -self.inclination if wrong else 0.0


def measure_slab(
    views: Tensor, valid: Tensor, tilt: F64, shifts: F64, use: NDArray[np.bool_], extent: str
) -> Slab | None:
    """Thickness and inclination of an aligned specimen; none where its profile has no end inside the volume.

    Parameters
    ----------
    views : (tilt, s, y) float32, background removed
    valid : (tilt, s, y) uint8
    tilt : (tilt,) radians, ascending
    shifts : (tilt, 2) pixels
    use : (tilt,) bool
    extent : "object", "section" or "crop"
    """
    n_s = int(views.shape[1])
    found = quick_prediction(views, valid, tilt, shifts, use, extent=extent, n_z=n_s, groups=2)
    if found is None:
        return None
    centred = found.volumes - found.volumes.mean(dim=(2, 3), keepdim=True)
    n_x, width = centred.shape[2], found.data.shape[1]
    margin = (n_x - width // 2) // 2 if extent != "object" else 0
    product = (centred[0] * centred[1])[:, margin : n_x - margin]
    faces = [_faces(_smooth(product.mean(dim=(1, 2)).cpu().numpy()), level) for level in (OUTER, FACE, INNER)]
    if any(face is None for face in faces):
        return None
    outer, face, inner = (f[1] - f[0] for f in faces if f is not None)
    inclination = (math.nan, math.nan) if extent == "object" else _inclination(product)
    return Slab(face * found.factor, (outer - inner) / 2 * found.factor, *inclination)


def _inclination(product: Tensor) -> tuple[float, float]:
    """Shear at which the profile over z has the steepest faces, and its error by leaving out blocks along y; radians.

    Of the root of the product, so that a few bright bodies do not decide. Jackknife: Efron, Stein, Ann. Stat. 9, 586
    (1981).
    """
    blocks = [block.mean(dim=2).cpu().numpy() for block in torch.tensor_split(product, BLOCKS, dim=2)]
    total = np.sum(blocks, axis=0)
    parts = [_steepest(total - block) for block in blocks]
    scatter = math.sqrt((BLOCKS - 1) / BLOCKS * float(np.sum((np.array(parts) - np.mean(parts)) ** 2)))
    step = math.radians(float(TRIED[1] - TRIED[0]))
    return _steepest(total), math.hypot(scatter, step / 2)


def _steepest(product: F64) -> float:
    """Inclination (radians) of a product (z, x) whose sheared profile over z changes most from plane to plane."""
    root = np.sqrt(np.maximum(product, 0.0))
    z, x = np.arange(len(root)), np.arange(root.shape[1]) - (root.shape[1] - 1) / 2

    def steepness(degrees: float) -> float:
        slope = math.tan(math.radians(degrees))
        columns = [np.interp(z + slope * at, z, root[:, j], left=0.0, right=0.0) for j, at in enumerate(x)]
        profile = _smooth(np.mean(columns, axis=0))
        return float((np.diff(profile / max(profile.sum(), 1e-300)) ** 2).sum())

    found = np.array([steepness(degrees) for degrees in TRIED])
    best = int(np.argmax(found))
    part = vertex(*found[best - 1 : best + 2]) if 0 < best < len(TRIED) - 1 else 0.0
    return math.radians(float(TRIED[best] + part * (TRIED[1] - TRIED[0])))


def _smooth(profile: F64) -> F64:
    return np.convolve(np.pad(profile, 1, mode="edge"), np.array([0.25, 0.5, 0.25]), mode="valid")


def _faces(profile: F64, level: float) -> tuple[float, float] | None:
    """Outermost crossings of `level` times the top, in samples between which it lies; none without an end."""
    top = float(profile.max())
    above = np.flatnonzero(profile > level * top)
    if top <= 0 or above[0] == 0 or above[-1] == len(profile) - 1:
        return None

    def crossing(inside: int, outside: int) -> float:
        part = (profile[inside] - level * top) / (profile[inside] - profile[outside])
        return inside + (outside - inside) * float(part)

    return crossing(int(above[0]), int(above[0]) - 1), crossing(int(above[-1]), int(above[-1]) + 1)
