"""Tilt axis, inclination and thickness from the data: planted ones are found, right ones stay, noise has none."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gigascope.config.tomography import Prealign
from gigascope.tomography import coarse
from gigascope.tomography.axis_search import AxisSearch, minimum_of
from gigascope.tomography.geometry import rms_error
from gigascope.tomography.matching import match_projections
from gigascope.tomography.phantom import TiltSeriesSim, object_phantom, section_phantom, simulate
from gigascope.tomography.series import Refinement, Series
from gigascope.tomography.signal import SignalSettings
from gigascope.tomography.signal_estimate import estimate_signal
from gigascope.tomography.slab import measure_slab
from gigascope.tomography.views import prepared_views

TILT = np.deg2rad(np.linspace(-60.0, 60.0, 41))


def section(seed: int, half_thickness: float = 32.0, offset_deg: float = 0.0, axis_deg: float = 0.0) -> TiltSeriesSim:
    """A section whose angles in the header, `TILT`, are wrong by an offset."""
    body = dataclasses.replace(section_phantom(seed), half_thickness=half_thickness)
    return simulate(body, seed=seed, snr=4.0, tilt=TILT + np.deg2rad(offset_deg), tilt_axis=np.deg2rad(axis_deg))


def series_of(sim: TiltSeriesSim, axis_deg: float, extent: str) -> Series:
    """A store in memory, with the header's angles."""
    raw = np.ascontiguousarray(sim.views.swapaxes(1, 2))
    model = estimate_signal(raw, TILT, SignalSettings(extent=extent), tilt_axis=np.deg2rad(axis_deg))
    attrs = {"signal": model.to_dict(), "pixel_size_nm": 2.0, "tilt_axis_deg": axis_deg, "tilt_sign": 1}
    return Series(
        SimpleNamespace(
            attrs=attrs,
            table=lambda name: {"tilt_deg": np.rad2deg(TILT)},
            shape=raw.shape,
            array=lambda: raw,
            side=lambda name: None,
        )
    )


def prepared(sim: TiltSeriesSim, extent: str) -> tuple[torch.Tensor, torch.Tensor]:
    raw = np.ascontiguousarray(sim.views.swapaxes(1, 2))
    return prepared_views(raw, estimate_signal(raw, TILT, SignalSettings(extent=extent)), tilt_axis=0.0)


ALL = np.ones(41, dtype=bool)


@pytest.mark.parametrize("half_thickness", [16.0, 32.0])
def test_thickness_of_a_section_is_measured_within_its_uncertainty(half_thickness):
    sim = section(1, half_thickness)
    views, valid = prepared(sim, "section")
    found = measure_slab(views, valid, TILT, sim.shifts_true, ALL, "section")
    print(f"{2 * half_thickness:g} px: {found.thickness:.1f} +- {found.thickness_sigma:.1f}")
    assert found.thickness_sigma < 10
    assert abs(found.thickness - 2 * half_thickness) < found.thickness_sigma
    assert found.tilt_offset == 0.0


def test_thickness_of_an_object_is_measured_within_its_uncertainty():
    sim = simulate(object_phantom(1), seed=1, snr=4.0, tilt=TILT)
    views, valid = prepared(sim, "object")
    found = measure_slab(views, valid, TILT, sim.shifts_true, ALL, "object")
    assert abs(found.thickness - 58) < found.thickness_sigma < 20
    assert np.isnan(found.inclination)
    assert found.tilt_offset == 0.0


def test_inclined_section_is_laid_flat():
    """Offsets of the angles, of either sign."""
    for offset in (8.0, -6.0):
        sim = section(1, 16.0, offset)
        views, valid = prepared(sim, "section")
        found = measure_slab(views, valid, TILT, sim.shifts_true, ALL, "section")
        print(f"{offset} degrees: {np.rad2deg(found.tilt_offset):.2f} +- {np.rad2deg(found.inclination_sigma):.2f}")
        assert np.rad2deg(found.tilt_offset) == pytest.approx(offset, abs=2.0)


def test_noise_has_no_thickness(rng):
    views = torch.from_numpy(rng.normal(size=(41, 64, 64)).astype(np.float32))
    found = measure_slab(views, torch.ones_like(views, dtype=torch.uint8), TILT, np.zeros((41, 2)), ALL, "section")
    assert found is None or found.tilt_offset == 0.0


@pytest.mark.slow
def test_wrong_axis_of_a_section_is_found_and_used():
    sim = section(0, axis_deg=5.0)
    found = coarse.coarse_alignment(
        series_of(sim, 0.0, "section"), Prealign(axis_search=True, axis_range_deg=9.0), torch.device("cpu")
    )
    print(found.notes)
    assert found.axis.taken
    assert np.rad2deg(found.series.tilt_axis) == pytest.approx(5.0, abs=1.5)
    assert found.series.refined.tilt_axis_deg == found.axis.found
    assert min(found.axis.angles) >= -9.0
    assert max(found.axis.angles) <= 9.0


@pytest.mark.slow
def test_right_axis_stays():
    sim = section(2)
    found = coarse.coarse_alignment(series_of(sim, 0.0, "section"), Prealign(axis_search=True), torch.device("cpu"))
    print(found.notes)
    assert not found.axis.taken
    assert found.series.tilt_axis == 0.0
    assert found.describe()["axis_search"]["taken"] is False


def test_what_was_found_reaches_the_series():
    series = series_of(section(1, 16.0, 8.0), 0.0, "section")
    found = coarse.coarse_alignment(series, Prealign(tilt_offset_search=True), torch.device("cpu"))
    refined = Refinement.of(found.describe())
    again = series.with_refinement(refined)
    assert np.rad2deg(again.tilt - TILT) == pytest.approx(refined.tilt_offset_deg, abs=1e-9)
    assert refined.tilt_offset_deg > 3.0
    # 2 nm per pixel
    assert refined.thickness_nm == pytest.approx(64.0, abs=16.0)
    assert set(found.tried) == {"correlation", "projection matching"}


def test_matching_goes_on_from_correlation_and_leaves_unused_views_alone(rng):
    sim = section(1)
    views, valid = prepared(sim, "section")
    start = sim.shifts_true + rng.normal(0.0, 1.0, (41, 2))
    use = ALL.copy()
    use[7] = False
    found = match_projections(views, valid, TILT, start, use, "section", 0.12)
    before, after = (rms_error(f, sim.shifts_true, TILT, use) for f in (start, found))
    print(f"{before:.2f} -> {after:.2f} px")
    assert after < 0.5 * before
    assert np.array_equal(found[7], start[7])


def test_vertex_and_error_of_a_parabola(rng):
    x = np.linspace(-4, 6, 9)
    place, sigma = minimum_of(dict(zip(x, 0.2 + 1e-3 * (x - 1.5) ** 2)))
    assert place == pytest.approx(1.5, abs=1e-6)
    # 0.3 % of 0.2 over the curvature
    assert sigma == pytest.approx(np.sqrt(0.003 * 0.2 / 1e-3), rel=0.02)
    assert np.isinf(minimum_of(dict(zip(x, 0.2 - 1e-3 * (x - 1.5) ** 2)))[1])
    assert not AxisSearch(0.0, 1.5, sigma, (), ()).taken
    assert AxisSearch(0.0, 1.6, 0.7, (), ()).angle == 1.6
