"""Light of a point emitter behind layers that an objective is not made for.

Gibson, Lanni, *Experimental test of an analytical model of aberration in an oil-immersion objective lens used in
three-dimensional light microscopy*, JOSA A 9:154 (1992): scalar diffraction by a pupil whose phase is the difference of
optical path between the layers that are there and those that the objective is made for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import j0, roots_legendre

F64 = NDArray[np.float64]

# Steps of the search for the brightest plane, per depth of focus.
_STEPS_PER_FOCUS = 40
# Nodes beyond those that see each turn of the phase twice, by which the quadrature has converged to rounding.
_SPARE_NODES = 48
# Places of the pupil at which its turns are looked up.
_TRIAL_NODES = 512


@dataclass(frozen=True)
class Objective:
    """Layers between objective and emitter, as they are and as the objective wants them; lengths in micrometres."""

    na: float
    n_immersion: float
    n_sample: float
    n_glass: float
    n_immersion_design: float
    n_glass_design: float
    t_immersion_um: float
    t_glass_um: float
    t_glass_design_um: float

    @property
    def open_pupil(self) -> float:
        """Share of the pupil's radius through which light comes; what is beyond is reflected totally."""
        indices = self.n_immersion, self.n_sample, self.n_glass, self.n_immersion_design, self.n_glass_design
        return min(1.0, *(n / self.na for n in indices))

    @property
    def depth_of_focus(self) -> float:
        """Axial extent of the focus in wavelengths: 1 / (n - sqrt(n^2 - NA^2))."""
        n = self.n_immersion
        return 1 / (n - math.sqrt(n * n - self.na * self.na))


class Field:
    """Intensity of the light of one wavelength.

    Positions along z are those of the plane in focus: how far the objective has come nearer, micrometres, 0 where it
    focuses on the cover glass through the layers that it is made for.

    Parameters
    ----------
    wavelength_um : in vacuum
    radius_um : largest distance from the axis that is asked for
    depth_um : largest depth of an emitter
    reach_um : largest distance from the focus, along z, that is asked for
    """

    def __init__(
        self, objective: Objective, wavelength_um: float, radius_um: float, depth_um: float, reach_um: float
    ) -> None:
        self.objective, self.k = objective, 2 * math.pi / wavelength_um
        self._length = wavelength_um * objective.depth_of_focus
        end = objective.open_pupil
        # Gauss-Legendre converges once its nodes, which are pi sqrt(x (1 - x)) / n apart, see each turn of the phase
        # twice: of the farthest planes, at the largest radius
        x = np.arange(1, _TRIAL_NODES) / _TRIAL_NODES
        self._set_nodes(end * (np.arange(_TRIAL_NODES) + 0.5) / _TRIAL_NODES)
        low, high = self._span(depth_um)
        ends = np.array([low - self._length - reach_um, high + self._length + reach_um])
        slope = _TRIAL_NODES * np.abs(np.diff(self._path(ends, depth_um))).max(0) + objective.na * end * radius_um
        needed = self.k * (slope * np.sqrt(x * (1 - x))).max()
        nodes, weights = roots_legendre(_SPARE_NODES + math.ceil(needed))
        self._set_nodes(end * (nodes + 1) / 2)
        self.weights = end / 2 * weights * self.rho
        self._bessel: tuple[F64, NDArray[np.float32]] | None = None

    def _set_nodes(self, rho: F64) -> None:
        o = self.objective
        sine = (o.na * rho) ** 2
        indices = o.n_immersion, o.n_sample, o.n_glass, o.n_immersion_design, o.n_glass_design
        self.rho, self._roots = rho, {n: np.sqrt(np.maximum(n * n - sine, 0.0)) for n in set(indices)}

    def intensity(self, planes: F64, radii: F64, depth: float) -> F64:
        """(plane, radius) float64 of an emitter at `depth`, for any number of planes and radii.

        The integral of the pupil over ``J0(k NA r rho) exp(i k OPD) rho d rho``, squared; Gauss-Legendre quadrature.
        """
        if self._bessel is None or not np.array_equal(self._bessel[0], radii):
            table = j0(self.k * self.objective.na * np.outer(self.rho, radii)).astype(np.float32)
            self._bessel = radii.copy(), table
        wave = self._pupil(planes, depth)
        # float32: errors of 1e-6 of the peak, and half the time
        field = np.concatenate((wave.real, wave.imag)).astype(np.float32) @ self._bessel[1]
        squares = np.square(field, dtype=np.float64)
        return squares[: len(planes)] + squares[len(planes) :]

    def on_axis(self, planes: F64, depth: float) -> F64:
        """(plane,) float64 of an emitter at `depth`."""
        return np.abs(self._pupil(planes, depth).sum(1)) ** 2

    def rays(self, depth: float) -> F64:
        """Planes in which rays through the rings of the pupil meet the axis: where the phase is stationary."""
        o, root = self.objective, self._roots
        design = o.t_immersion_um / root[o.n_immersion_design] + o.t_glass_design_um / root[o.n_glass_design]
        there = o.t_immersion_um / root[o.n_immersion] + o.t_glass_um / root[o.n_glass] + depth / root[o.n_sample]
        return (there - design) * root[o.n_immersion]

    def search(self, depth: float) -> F64:
        """Planes among which the brightest is, fine enough for a parabola through three of them."""
        low, high = self._span(depth)
        n = max(3, math.ceil((high - low + 2 * self._length) / self._length * _STEPS_PER_FOCUS))
        return np.linspace(low - self._length, high + self._length, n)

    def _span(self, depth: float) -> tuple[float, float]:
        """First and last plane in which rays meet the axis."""
        # at the edge of total reflection rays run off to infinity, with hardly any energy
        ends = (0.0, 1.0) if self.objective.open_pupil == 1 else (0.05, 0.95)
        low, high = np.quantile(self.rays(depth), ends)
        return float(low), float(high)

    def _path(self, planes: F64, depth: float) -> F64:
        """(plane, node): difference of the optical paths, micrometres."""
        o, root = self.objective, self._roots
        layers = o.t_immersion_um * (root[o.n_immersion] - root[o.n_immersion_design])
        layers = layers + o.t_glass_um * root[o.n_glass] - o.t_glass_design_um * root[o.n_glass_design]
        layers = layers + depth * root[o.n_sample]
        return layers[None] - np.outer(planes, root[o.n_immersion])

    def _pupil(self, planes: F64, depth: float) -> NDArray[np.complex128]:
        """(plane, node): integrand on the axis with its quadrature weight."""
        return self.weights * np.exp(1j * self.k * self._path(planes, depth))


def brightest(planes: F64, intensity: F64) -> float:
    """Position of the maximum, from a parabola through the largest sample and its neighbours."""
    i = int(np.clip(np.argmax(intensity), 1, len(planes) - 2))
    before, here, after = intensity[i - 1 : i + 2]
    bend = before - 2 * here + after
    offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(planes[i] + np.clip(offset, -1, 1) * (planes[1] - planes[0]))
