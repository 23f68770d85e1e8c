"""Light of a whole phantom: what the cells cover, and that shares and haze add up to the nuclei."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gigascope.kernels import cells
from gigascope.synthesis.simulation import illumination
from gigascope.synthesis.simulation.attenuation import Attenuating

from .scenes import BALL, FIELD, MIDDLE, RADIUS, some_nuclei


def test_cells_cover_field_region_and_nuclei(rng):
    nuclei = some_nuclei(rng)
    grid = illumination.light_grid(nuclei, FIELD, MIDDLE - 40, MIDDLE + 10, 2.0)
    low, high = np.array(grid.corner_um), np.array(grid.corner_um) + 2.0 * np.array(grid.shape)
    centre, reach = nuclei.centre.numpy(), nuclei.reach.numpy()[:, None]
    assert (low <= np.minimum(MIDDLE - 40, (centre - reach).min(0))).all()
    assert (high >= np.maximum(FIELD, (centre + reach).max(0))).all()


def test_absorption_and_haze_are_those_of_the_nuclei(rng, monkeypatch):
    """Slab by slab as at once; the emission's sum is that of the nuclei as they are drawn."""
    nuclei = some_nuclei(rng)
    grid = illumination.light_grid(nuclei, FIELD, MIDDLE - 30, MIDDLE + 30, 2.0)
    how = Attenuating(model="none", haze_fraction=1.0, haze=3.0)
    light = illumination.light_of(nuclei, BALL.distance, grid, how)
    drawn = cells.density(nuclei, (0, 0, 0), (120, 104, 112), (0.25, 0.25, 0.25)).double().sum() * 0.25**3
    assert float(light.haze.double().sum()) * 8 == pytest.approx(float(drawn), rel=0.03)
    through = Attenuating(mu_ex=0, mu_em=0, mu_nuc=0.01, cone_rays=1, haze_fraction=0)
    below = illumination.light_of(nuclei, BALL.distance, grid, through).tau[-1].double().sum()
    volume = float((cells.labels(nuclei, (0, 0, 0), (120, 104, 112), (0.25,) * 3) > 0).sum()) * 0.25**3
    # excitation and emission both pass all nuclei above the lowest layer
    assert float(below) * 4 == pytest.approx(2 * 0.01 * volume, rel=0.02)
    monkeypatch.setattr(illumination, "SLAB_CELLS", 1)
    again = illumination.light_of(nuclei, BALL.distance, grid, how)
    assert torch.equal(again.haze, light.haze)
    assert torch.equal(again.distance, light.distance)
    inside = light.distance < -RADIUS / 2
    assert 0 < int(inside.sum()) * 8 < 4 / 3 * np.pi * RADIUS**3
