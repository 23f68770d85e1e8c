"""PSFs of confocal, wide-field and light-sheet microscopes out of the light of a point emitter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gigascope.synthesis.optics.gibson_lanni import Field, Objective, brightest
from gigascope.synthesis.optics.radial import disc_mean, subsamples
from gigascope.synthesis.optics.settings import Settings

F64 = NDArray[np.float64]

# Radii per wavelength over NA: for values between them by linear interpolation, good to 0.3 % of a ring's height, and
# for sums over rings, which four would give exactly.
_FINE, _COARSE = 64, 12
# Places along a light sheet over which its thickness is averaged.
_SHEET_STEPS = 33


class Microscope:
    """Round PSFs by depth, as profiles over planes and radii.

    Parameters
    ----------
    settings : of model gibson_lanni
    half_z : planes on either side of the focus
    plane_um : distance of the planes
    radius_um : largest radius
    depth_um : largest depth
    fine : planes are means over their thickness, radii dense enough for interpolation; else just enough for sums
    """

    def __init__(
        self, settings: Settings, half_z: int, plane_um: float, radius_um: float, depth_um: float, *, fine: bool = True
    ) -> None:
        self.settings = settings
        self.objective = _objective(settings)
        waves = [settings.lambda_em_nm / 1e3]
        if settings.modality == "confocal":
            waves.append(settings.lambda_ex_nm / 1e3)
        self.step = min(waves) / settings.na / (_FINE if fine else _COARSE)
        self.n_radii = math.ceil(radius_um / self.step) + 2
        self.pinhole = settings.pinhole_au * 0.61 * settings.lambda_em_nm / 1e3 / settings.na
        more = math.ceil(self.pinhole / self.step) + 1 if settings.modality == "confocal" else 0
        self.radii = self.step * np.arange(self.n_radii + more, dtype=np.float64)
        planes = subsamples(half_z, plane_um)
        self.offsets = planes if fine else planes.mean(1, keepdims=True)
        reach = float(self.offsets.max())
        self.fields = [Field(self.objective, w, float(self.radii[-1]), depth_um, reach) for w in waves]
        if settings.modality == "confocal":
            self._disc = disc_mean(self.pinhole, self.step, self.n_radii, len(self.radii))

    def focus(self, depth: float) -> float:
        """Plane in which an emitter at `depth` is brightest, as the position of the objective."""
        planes = self.fields[-1].search(depth)
        light = np.prod([field.on_axis(planes, depth) for field in self.fields], axis=0)
        return brightest(planes, light)

    def profile(self, depth: float, middle: float) -> F64:
        """(plane, radius) float64: means over the sub-samples of each plane, the middle one at `middle`.

        Absolute: a confocal PSF loses light where pinhole and excitation no longer meet, the others keep theirs.
        """
        planes: F64 = (middle + self.offsets).ravel()
        emission = self.fields[0].intensity(planes, self.radii, depth)
        modality = self.settings.modality
        if modality == "confocal":
            seen = (self._disc @ emission.T).T
            light = seen * self.fields[1].intensity(planes, self.radii, depth)[:, : self.n_radii]
        elif modality == "lightsheet":
            light = emission * self.sheet(self.offsets.ravel())[:, None]
        else:
            light = emission
        return light.reshape(*self.offsets.shape, -1).mean(1)[:, : self.n_radii]

    def sheet(self, offsets: F64) -> F64:
        """(plane,) light of the sheet at distances from its middle, the mean over its length.

        A Gaussian beam, w(x) = w0 sqrt(1 + (x / xR)^2) with xR = pi w0^2 n / wavelength, intensity exp(-2 u^2 / w^2).
        """
        s = self.settings
        range_um = math.pi * s.sheet_waist_um**2 * s.n_sample / (s.lambda_ex_nm / 1e3)
        x = s.sheet_field_um / 2 * np.linspace(-1, 1, _SHEET_STEPS)
        width = s.sheet_waist_um * np.sqrt(1 + (x / range_um) ** 2)
        return (np.exp(-2 * (offsets[:, None] / width) ** 2) * s.sheet_waist_um / width).mean(1)


def energy_reach(profile: F64, step: float, energy: float) -> tuple[int, float]:
    """Half size in planes and radius that hold `energy` of a profile, half of the loss along each.

    Parameters
    ----------
    profile : (2 n + 1, radius)
    step : of the radii, the unit of the radius that comes back
    """
    keep = 1 - (1 - energy) / 2
    rings = profile * np.arange(profile.shape[1])
    along, n = rings.sum(1), profile.shape[0] // 2
    pairs = along[n:].copy()
    pairs[1:] += along[n - 1 :: -1] if n else along[:0]
    held, around = np.cumsum(pairs), np.cumsum(rings.sum(0))
    half = int(np.searchsorted(held, keep * held[-1]))
    return min(half, n), float(np.searchsorted(around, keep * around[-1])) * step


def _objective(s: Settings) -> Objective:
    return Objective(
        na=s.na,
        n_immersion=s.n_immersion,
        n_sample=s.n_sample,
        n_glass=s.n_glass,
        n_immersion_design=s.n_immersion if s.n_immersion_design is None else s.n_immersion_design,
        n_glass_design=s.n_glass if s.n_glass_design is None else s.n_glass_design,
        t_immersion_um=s.t_immersion_um,
        t_glass_um=s.t_glass_um,
        t_glass_design_um=s.t_glass_design_um,
    )
