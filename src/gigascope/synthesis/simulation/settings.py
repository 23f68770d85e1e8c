"""From the resolved section `simulate` and a phantom to the scene that blocks are made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gigascope.kernels.cells import NucleiTable
from gigascope.kernels.cells.noise import Sensor
from gigascope.synthesis.seeds import seed_of
from gigascope.synthesis.simulation.attenuation import Attenuating
from gigascope.synthesis.simulation.geometry import ImageGrid, image_grid
from gigascope.synthesis.simulation.scene import Exposure

if TYPE_CHECKING:
    from gigascope.synthesis.phantom.region import Region

# spreads of the fixed pattern: relative gain, electrons
FIXED_GAIN, FIXED_OFFSET_E = 0.01, 1.0


def attenuating(settings: Mapping[str, Any]) -> Attenuating:
    """Parameters of attenuation; the collection cone is that of the optics."""
    given, optics = settings["attenuation"], settings["optics"]
    law = given["power"]
    same = ("model", "mu_ex", "mu_em", "mu_nuc", "cone_rays", "illumination", "fusion", "stain_floor", "haze_fraction")
    return Attenuating(
        power_length=law["length_um"],
        power_exponent=law["exponent"],
        power_start=law["start_um"],
        half_angle=math.asin(min(0.999, optics["na"] / optics["n_sample"])),
        stain_depth=given["stain_depth_um"],
        haze=given["haze_um"],
        **{key: given[key] for key in same},
    )


def sensor(settings: Mapping[str, Any]) -> Sensor:
    """The camera."""
    given = settings["camera"]
    fixed = given["fixed_pattern"]
    same = ("excess_noise", "read_noise_e", "gain_adu_per_e", "offset_adu", "full_well_e", "bits", "n_average")
    return Sensor(
        gain_spread=FIXED_GAIN if fixed else 0.0,
        offset_spread_e=FIXED_OFFSET_E if fixed else 0.0,
        **{key: given[key] for key in same},
    )


def median_intensity(nuclei: NucleiTable) -> float:
    """Brightness of the middle nucleus, 1 where there is none."""
    return float(np.median(nuclei.intensity.cpu().numpy())) if nuclei.n else 1.0


def exposure(settings: Mapping[str, Any], median: float, seed: int, number: int) -> Exposure:
    """Electrons by density: `peak_electrons` are those of a nucleus of median brightness.

    Parameters
    ----------
    median : see :func:`median_intensity`
    seed : of the dataset
    number : of the spheroid
    """
    given = settings["camera"]
    background = given["background_electrons"] + given["dark_electrons"]
    return Exposure(given["peak_electrons"] / median, background, sensor(settings), noise_key(seed, number))


def noise_key(seed: int, number: int) -> int:
    """Seed of the noise of a spheroid's image."""
    return seed_of(seed, "spheroid", number, "noise")


def image_of(settings: Mapping[str, Any], region: Region, axial_stretch: float) -> ImageGrid:
    """Voxels of the image of a phantom with this region."""
    grid = settings["grid"]
    field = [float(n) for n in region.field_um]
    field[0] *= axial_stretch
    return image_grid(field, grid["output_voxel_um"], grid["oversample"], grid["field_um"])
