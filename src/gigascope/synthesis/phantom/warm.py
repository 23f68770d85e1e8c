"""Compile what placing phantoms compiles beside the kernels."""

from __future__ import annotations

import numpy as np

from gigascope.synthesis.phantom.mask import distance_of_mask
from gigascope.synthesis.phantom.phantom import place_phantom
from gigascope.synthesis.phantom.recipe import PlacementRecipe, Recipe, RegionRecipe
from gigascope.synthesis.phantom.spheroid import build_spheroid


def warm() -> None:
    """Call each once: a few nuclei pushed apart in a ball and measured, and placed one after the other in a mask."""
    ball = RegionRecipe(semi_axes_um=(12.0, 12.0, 12.0))
    build_spheroid(Recipe(ball, placement=PlacementRecipe(volume_fraction=0.3)), 0, {})
    mask = distance_of_mask(np.ones((20, 20, 20), bool), (1.0, 1.0, 1.0))
    one_by_one = PlacementRecipe(method="rsa", volume_fraction=0.1)
    place_phantom(Recipe(RegionRecipe(kind="mask"), placement=one_by_one), 0, mask)
