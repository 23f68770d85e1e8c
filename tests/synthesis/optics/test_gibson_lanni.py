"""The light of a point emitter behind layers, and what microscopes make of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import j0

from gigascope.synthesis.optics.gibson_lanni import Field, Objective, brightest
from gigascope.synthesis.optics.microscope import Microscope, energy_reach
from gigascope.synthesis.optics.radial import disc_mean, multiplicity, quadrant_matrix, unfold

WAVELENGTH = 0.461


def objective(na: float, n_immersion: float, n_sample: float, **layers: float) -> Objective:
    """Layers as the objective wants them, but for those that are given."""
    return Objective(
        na, n_immersion, n_sample, 1.52, layers.pop("n_immersion_design", n_immersion), 1.52,
        layers.pop("t_immersion_um", 2000.0), layers.pop("t_glass_um", 170.0), 170.0,
    )  # fmt: skip


def width(x: np.ndarray, y: np.ndarray) -> float:
    """Full width at half maximum of a curve with one maximum, by linear interpolation."""
    top = int(np.argmax(y))
    half = y[top] / 2
    left = top - int(np.argmax(y[top::-1] < half))
    right = top + int(np.argmax(y[top:] < half))
    low = np.interp(half, y[left : left + 2], x[left : left + 2])
    high = np.interp(-half, -y[right - 1 : right + 1], x[right - 1 : right + 1])
    return float(high - low)


@pytest.mark.parametrize(("na", "n"), [(0.3, 1.0), (0.5, 1.0), (0.8, 1.33), (1.0, 1.33), (1.0, 1.45)])
def test_widths_of_the_matched_wide_field_psf(na, n):
    """O6"""
    lens = objective(na, n, n)
    field = Field(lens, WAVELENGTH, 3.0, 0.0, 20.0)
    radii = np.arange(0, 2, 0.005)
    profile = field.intensity(np.zeros(1), radii, 0.0)[0]
    lateral = width(np.concatenate((-radii[:0:-1], radii)), np.concatenate((profile[:0:-1], profile)))
    assert lateral == pytest.approx(0.51 * WAVELENGTH / na, rel=0.03)
    expected = 0.88 * WAVELENGTH / (n - math.sqrt(n * n - na * na))
    planes = np.linspace(-expected, expected, 401)
    assert width(planes, field.on_axis(planes, 0.0)) == pytest.approx(expected, rel=0.03)


def test_intensity_is_the_integral_of_the_definition(rng):
    lens = objective(0.9, 1.33, 1.45, t_glass_um=180.0, n_immersion_design=1.35, t_immersion_um=300.0)
    depth, plane, radius = float(rng.uniform(0, 80)), float(rng.uniform(0, 80)), float(rng.uniform(0, 3))
    k, na = 2 * math.pi / WAVELENGTH, lens.na

    def root(n: float, rho: float) -> float:
        return math.sqrt(n * n - (na * rho) ** 2)

    def path(rho: float) -> float:
        z = -plane
        immersion = (z + 300.0) * root(1.33, rho) - 300.0 * root(1.35, rho)
        return immersion + depth * root(1.45, rho) + (180.0 - 170.0) * root(1.52, rho)

    parts = [
        quad(lambda rho, f=f: j0(k * na * radius * rho) * f(k * path(rho)) * rho, 0, 1, limit=2000, epsabs=1e-10)[0]
        for f in (math.cos, math.sin)
    ]
    found = Field(lens, WAVELENGTH, 3.0, 80.0, 90.0).intensity(np.array([plane]), np.array([radius]), depth)[0, 0]
    # float32 sums over a few hundred nodes of weights that add up to 1/2
    assert found == pytest.approx(parts[0] ** 2 + parts[1] ** 2, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("lens", [(0.5, 1.0, 1.45), (0.8, 1.0, 1.33), (1.0, 1.33, 1.37)])
def test_more_nodes_change_nothing(monkeypatch, lens):
    planes, radii = np.linspace(0.6, 1.1, 60) * 1000 * lens[1] / lens[2], np.linspace(0, 15, 40)
    rays = Field(objective(*lens), WAVELENGTH, 15.0, 1000.0, 20.0).rays(1000.0)
    planes = planes[(planes > rays.min() - 20) & (planes < rays.max() + 20)]
    assert len(planes) > 5
    found = Field(objective(*lens), WAVELENGTH, 15.0, 1000.0, 20.0).intensity(planes, radii, 1000.0)
    monkeypatch.setattr("gigascope.synthesis.optics.gibson_lanni._SPARE_NODES", 400)
    more = Field(objective(*lens), WAVELENGTH, 15.0, 1000.0, 20.0).intensity(planes, radii, 1000.0)
    # rounding of float32 sums
    np.testing.assert_allclose(np.sqrt(found), np.sqrt(more), atol=1e-6)


def test_focus_is_at_the_emitter_where_the_indices_match(optics):
    scope = Microscope(optics(na=0.8, n_immersion=1.33, n_sample=1.33), 3, 0.5, 2.0, 100.0)
    assert scope.focus(0.0) == pytest.approx(0, abs=1e-3)
    assert scope.focus(73.0) == pytest.approx(73, abs=1e-3)


def test_focus_of_a_low_aperture_is_the_paraxial_one(optics):
    scope = Microscope(optics(na=0.1, n_immersion=1.0, n_sample=1.45), 3, 0.5, 2.0, 100.0)
    assert scope.focus(100.0) == pytest.approx(100 / 1.45, rel=0.01)


def test_thick_glass_aberrates(optics):
    # 40 µm of glass too much, at an aperture of 0.8
    good, bad = (Microscope(optics(na=0.8, t_glass_um=t), 3, 0.5, 2.0, 0.0) for t in (170.0, 210.0))
    peaks = [s.fields[0].on_axis(np.array([s.focus(0.0)]), 0.0)[0] for s in (good, bad)]
    assert peaks[1] < 0.6 * peaks[0]


def test_brightest_is_the_vertex_of_a_parabola():
    planes = np.linspace(-2, 3, 26)
    assert brightest(planes, 5 - (planes - 0.333) ** 2) == pytest.approx(0.333)


def test_what_is_reflected_totally_does_not_come_through():
    lens = objective(1.4, 1.52, 1.33)
    assert lens.open_pupil == pytest.approx(1.33 / 1.4)
    field = Field(lens, WAVELENGTH, 2.0, 20.0, 5.0)
    assert field.rho.max() < 1.33 / 1.4
    planes = field.search(20.0)
    assert np.isfinite(field.on_axis(planes, 20.0)).all()


def test_wide_field_planes_hold_the_same_light(optics):
    scope = Microscope(optics(modality="widefield", na=0.5, n_sample=1.0), 6, 1.0, 12.0, 0.0, fine=False)
    profile = scope.profile(0.0, 0.0)
    light = (profile * scope.radii[: scope.n_radii]).sum(1)
    # what spreads beyond 12 µm is missing, up to 0.5 % of the plane in focus and 2 % at 6 µm
    assert light.min() > 0.96 * light.max()


def test_pinhole_between_open_and_closed(optics):
    keys = {"na": 0.5, "n_sample": 1.0}
    wide = Microscope(optics(pinhole_au=20.0, **keys), 4, 1.0, 1.5, 0.0)
    excitation = wide.fields[1].intensity(wide.offsets.ravel(), wide.radii[: wide.n_radii], 0.0)
    found, expected = wide.profile(0.0, 0.0), excitation.reshape(9, 3, -1).mean(1)
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=0.02)
    narrow = Microscope(optics(pinhole_au=0.02, **keys), 4, 1.0, 1.5, 0.0)
    planes, radii = narrow.offsets.ravel(), narrow.radii[: narrow.n_radii]
    product = narrow.fields[0].intensity(planes, radii, 0.0) * narrow.fields[1].intensity(planes, radii, 0.0)
    found, expected = narrow.profile(0.0, 0.0), product.reshape(9, 3, -1).mean(1)
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=0.005)


def test_light_sheet_is_a_gaussian_at_its_waist_and_thicker_elsewhere(optics):
    short, long = (
        Microscope(optics(modality="lightsheet", sheet_field_um=f, sheet_waist_um=2.0), 9, 0.5, 1.0, 0.0)
        for f in (0.0, 400.0)
    )
    u = short.offsets.mean(1)
    np.testing.assert_allclose(short.sheet(u), np.exp(-2 * (u / 2.0) ** 2), rtol=1e-12)
    ratio = long.sheet(u) / long.sheet(np.zeros(1))
    assert (ratio[[0, -1]] > 1.5 * short.sheet(u)[[0, -1]]).all()
    # the same light through every section of the beam: in two dimensions w0 / w
    area = [s.sheet(np.linspace(-60, 60, 20001)).sum() for s in (short, long)]
    assert area[0] == pytest.approx(area[1], rel=1e-3)


def test_energy_reach_holds_the_energy(rng):
    planes, radii = np.arange(-20, 21), 0.05 * np.arange(400)
    profile = np.exp(-0.5 * (planes[:, None] / 4.0) ** 2 - 0.5 * (radii / 1.3) ** 2)
    half, radius = energy_reach(profile, 0.05, 0.98)
    assert half == pytest.approx(4.0 * 2.576, abs=1.01)  # 99 % within
    assert radius == pytest.approx(1.3 * math.sqrt(-2 * math.log(0.01)), abs=0.11)


def test_voxels_of_a_quadrant_are_means_of_nine_points(rng):
    step, n = 0.01, 600
    profile = np.cos(3 * step * np.arange(n)) ** 2
    matrix = quadrant_matrix((3, 5), (0.4, 0.3), step, n)
    found = (matrix @ profile).reshape(4, 6)
    sub = (np.arange(3) - 1) / 3
    for y, x in rng.integers(0, (4, 6), (5, 2)):
        radius = np.hypot(0.4 * (y + sub[:, None]), 0.3 * (x + sub))
        assert found[y, x] == pytest.approx(np.mean(np.cos(3 * radius) ** 2), abs=5e-4)
    whole = unfold(found[None])[0]
    assert whole.shape == (7, 11)
    np.testing.assert_array_equal(whole, whole[::-1, ::-1])
    assert (found * multiplicity((3, 5))).sum() == pytest.approx(whole.sum())


def test_mean_over_a_disc_is_that_of_points_in_it(rng):
    step, n_out, n_in, radius = 0.02, 80, 140, 0.57
    matrix = disc_mean(radius, step, n_out, n_in)
    np.testing.assert_allclose(matrix @ np.ones(n_in), 1, rtol=1e-12)
    profile = np.exp(-0.5 * (step * np.arange(n_in) / 0.6) ** 2)
    found = matrix @ profile
    grid = (np.arange(400) + 0.5) / 200 - 1
    y, x = (radius * g for g in np.meshgrid(grid, grid, indexing="ij"))
    inside = y * y + x * x <= radius * radius
    for i in (0, 3, 28, 79):
        expected = np.exp(-0.5 * ((x + i * step) ** 2 + y * y) / 0.36)[inside].mean()
        assert found[i] == pytest.approx(expected, rel=3e-3)
