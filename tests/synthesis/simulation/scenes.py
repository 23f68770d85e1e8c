"""A small phantom under a microscope, for tests of blocks and shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gigascope.config.section import dump
from gigascope.config.synthesis_optics import Optics
from gigascope.config.synthesis_simulate import Simulate
from gigascope.kernels.cells import NucleiTable, nuclei_table
from gigascope.kernels.cells.noise import Sensor
from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.optics.settings import Settings
from gigascope.synthesis.optics.tabulate import depth_psf
from gigascope.synthesis.simulation.attenuation import Attenuating
from gigascope.synthesis.simulation.geometry import image_grid
from gigascope.synthesis.simulation.illumination import light_grid, light_of
from gigascope.synthesis.simulation.scene import Exposure, Scene

VOXEL, FIELD = (1.5, 0.5, 0.5), (30.0, 26.0, 28.0)
MIDDLE, RADIUS = np.array([15.0, 13.0, 14.0]), 9.0


@dataclass(frozen=True)
class Ball:
    """A region."""

    middle: np.ndarray
    radius: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points - self.middle, axis=1) - self.radius


BALL = Ball(MIDDLE, RADIUS)
HOW, EXPOSURE = Attenuating(haze=4.0), Exposure(200.0, 5.1, Sensor(), 77)


def some_nuclei(rng: np.random.Generator, n: int = 6) -> NucleiTable:
    """Nuclei that overlap here and there, all of them inside the ball."""
    direction = rng.standard_normal((n, 3))
    centre = MIDDLE + direction / np.linalg.norm(direction, axis=1)[:, None] * rng.uniform(2, 5.5, (n, 1))
    return nuclei_table(
        torch.from_numpy(centre),
        torch.from_numpy(rng.standard_normal((n, 4))),
        torch.from_numpy(rng.uniform(2.0, 3.2, (n, 3))),
        intensity=torch.from_numpy(rng.uniform(0.6, 1.5, n)),
        texture_sigma=0.25,
        rim=0.15,
    )


def gaussian_psf(voxel: tuple[float, float, float], **keys: Any) -> DepthPsf:
    """A small PSF that widens with depth."""
    optics = Optics(model="gaussian", sigma_depth_um=20.0, cap_um=(4.0, 1.5, 1.5), **keys)
    return depth_psf(Settings.of(dump(optics)), voxel, FIELD[0])


def scene_of(
    nuclei: NucleiTable,
    ratio: tuple[float, float, float] = (2.0, 2.0, 2.0),
    shown: tuple[float, float, float] | None = None,
    how: Attenuating = HOW,
    exposure: Exposure = EXPOSURE,
    psf: DepthPsf | None = None,
) -> Scene:
    """The phantom's scene."""
    image = image_grid(FIELD, VOXEL, ratio, shown)
    grid = light_grid(nuclei, FIELD, MIDDLE - RADIUS, MIDDLE + RADIUS, 2.0)
    light = light_of(nuclei, BALL.distance, grid, how)
    return Scene(image, nuclei, 0.0, light, psf or gaussian_psf(image.fine_um), exposure)


def settings(**sections: Any) -> dict[str, Any]:
    """The resolved section `simulate`."""
    return dump(Simulate.model_validate(sections))
