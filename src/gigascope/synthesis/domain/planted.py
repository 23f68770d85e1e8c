"""A domain A that is simulated too, with another microscope: its truth is known, so adaptation can be measured.

The phantoms have the statistics of those that the cultures are made of, with seeds of their own. What differs are the
settings of the simulation (:class:`Gap`) and a tone curve.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.kernels.cells import NucleiTable
from gigascope.store.ensemble import ensemble_plan
from gigascope.synthesis.optics.blocks import refuse_larger
from gigascope.synthesis.optics.cache import cached_psf, psf_folder
from gigascope.synthesis.optics.settings import Settings
from gigascope.synthesis.phantom.recipe import recipe_of
from gigascope.synthesis.phantom.region import region_from
from gigascope.synthesis.phantom.spheroid import build_spheroid, spheroid_seed
from gigascope.synthesis.phantom.stored import StoredPhantom
from gigascope.synthesis.simulation import illumination, settings
from gigascope.synthesis.simulation.geometry import fine_shape
from gigascope.synthesis.simulation.plan import psf_depth
from gigascope.synthesis.simulation.scene import Scene
from gigascope.synthesis.simulation.shard import simulate_shard

if TYPE_CHECKING:
    from gigascope.synthesis.phantom.region import DistanceGrid


@dataclass(frozen=True)
class Gap:
    """How the microscope of domain A differs from that of the cultures.

    Attributes
    ----------
    widen : all lengths of the PSF times this
    haze_fraction : scattered light; takes the place of that of the cultures
    gamma : exponent of the tone curve, on grey values above the offset over those of a bright nucleus
    photons : light times this
    gain : grey values per electron times this
    attenuation : attenuation times this
    """

    widen: float = 1.8
    haze_fraction: float = 0.35
    gamma: float = 0.8
    photons: float = 0.5
    gain: float = 2.0
    attenuation: float = 1.6

    def applied(self, simulate: Mapping[str, Any]) -> dict[str, Any]:
        """Resolved settings of the section `simulate`, changed; only what an image and its labels need is made."""
        found = copy.deepcopy(dict(simulate))
        # the other microscope has light in electrons, whatever chain the cultures are made by
        found["chain"] = "physical"
        found["optics"]["widen"] *= self.widen
        found["attenuation"]["haze_fraction"] = self.haze_fraction
        for key in ("mu_ex", "mu_em", "mu_nuc"):
            found["attenuation"][key] *= self.attenuation
        # the power law has a length where the other model has attenuation
        found["attenuation"]["power"]["length_um"] /= self.attenuation
        found["camera"]["peak_electrons"] *= self.photons
        found["camera"]["gain_adu_per_e"] *= self.gain
        found["store"] |= {"keep_expected": False, "keep_density": False}
        found["labels"] |= {"boundary": False, "distance": False, "blurred": False}
        return found


@dataclass(frozen=True)
class PlantedImage:
    """An image of the planted domain with its truth.

    Attributes
    ----------
    voxels : (z, y, x) uint16, or uint8 for a camera of 8 bits
    labels : (z, y, x) uint32, row of the phantom's table + 1
    spheroid : (z, y, x) uint8, 1 in the spheroid
    voxel_um : (z, y, x)
    facts : seed, settings and the gap, as JSON values
    warnings : of the phantom and of the PSF
    """

    voxels: NDArray
    labels: NDArray[np.uint32]
    spheroid: NDArray[np.uint8]
    voxel_um: tuple[float, float, float]
    facts: dict[str, Any]
    warnings: list[str]


def planted_image(
    number: int,
    seed: int,
    phantoms: Mapping[str, Any],
    simulate: Mapping[str, Any],
    gap: Gap,
    device: torch.device,
    mask: DistanceGrid | None = None,
) -> PlantedImage:
    """Place a spheroid and photograph it with the other microscope.

    Parameters
    ----------
    number : of the image
    seed : of the planted domain
    phantoms, simulate : resolved sections, as JSON values
    gap : what differs
    device : to compute on
    mask : distances of a region that is a file
    """
    of_spheroid = spheroid_seed(seed, number)
    arrays, warnings = build_spheroid(recipe_of(phantoms), of_spheroid, phantoms, mask)
    phantom = _phantom_of(arrays)
    changed = gap.applied(simulate)
    scene, voxel_um = _scene(phantom, changed, seed, number, device)
    plan = ensemble_plan(scene.image.shape, np.uint16, changed["store"]["chunk"], changed["store"]["shard"])
    found: dict[str, NDArray] = {}
    for z, y, x in plan.regions():
        for name, block in simulate_shard(scene, (z, y, x), changed, phantom.columns).items():
            found.setdefault(name, np.empty(scene.image.shape, block.dtype))[z, y, x] = block
    camera = changed["camera"]
    bright = camera["peak_electrons"] * camera["gain_adu_per_e"]
    voxels = tone_curve(found["image"], camera["offset_adu"], bright, gap.gamma, camera["bits"])
    facts = {"seed": of_spheroid, "gap": asdict(gap), "settings": {"phantoms": dict(phantoms), "simulate": changed}}
    said = [*warnings, *scene.psf.warnings]
    return PlantedImage(voxels, found["nuclei"], found["spheroid"], voxel_um, facts, said)


def tone_curve(grey: NDArray, offset: float, bright: float, gamma: float, bits: int) -> NDArray:
    """offset + bright · ((grey - offset) / bright)^gamma, in the dtype of `grey`; below the offset nothing changes.

    Parameters
    ----------
    offset : grey value without light
    bright : grey values above the offset that stay as they are
    bits : of a grey value, the largest is cut
    """
    if gamma == 1:
        return grey
    # as many values as there are grey values: a table
    values = np.arange(int(np.iinfo(grey.dtype).max) + 1, dtype=np.float64)
    above = np.maximum(values - offset, 0)
    curve = np.where(values > offset, offset + bright * (above / bright) ** gamma, values)
    return np.clip(np.rint(curve), 0, 2**bits - 1).astype(grey.dtype)[grey]


def _phantom_of(arrays: Mapping[str, NDArray]) -> StoredPhantom:
    """A spheroid from the arrays that were packed for its store."""
    facts: dict[str, Any] = json.loads(bytes(arrays["facts"]))
    parts: dict[str, dict[str, NDArray]] = {"columns": {}, "nuclei": {}}
    for name, values in arrays.items():
        kind, _, rest = name.partition(".")
        if rest:
            parts[kind][rest] = values
    crops = torch.zeros((0, 48, 48, 48), dtype=torch.float16)
    kernel = {name: torch.from_numpy(values) for name, values in parts["columns"].items()}
    region = region_from(facts["region"], arrays.get("distance"))
    return StoredPhantom(region, NucleiTable(**kernel, crops=crops, octaves=facts["octaves"]), parts["nuclei"], facts)


def _scene(
    phantom: StoredPhantom, found: Mapping[str, Any], seed: int, number: int, device: torch.device
) -> tuple[Scene, tuple[float, float, float]]:
    region, gap_um = phantom.region, float(phantom.facts["settings"]["placement"]["gap_um"])
    z, y, x = (v / r for v, r in zip(found["grid"]["output_voxel_um"], found["grid"]["oversample"]))
    field_um = region.field_um.tolist()
    psf = cached_psf(psf_folder(), Settings.of(found["optics"]), (z, y, x), psf_depth(field_um[0]))
    refuse_larger(psf, fine_shape(field_um, (z / psf.axial_stretch, y, x)))
    image = settings.image_of(found, region, psf.axial_stretch)
    table = phantom.table.to(device)
    spacing, low, high = found["attenuation"]["grid_um"], region.low.tolist(), region.high.tolist()
    grid = illumination.light_grid(table, field_um, low, high, spacing)
    light = illumination.light_of(table, region.distance, grid, settings.attenuating(found), gap_um)
    exposure = settings.exposure(found, settings.median_intensity(table), seed, number)
    return Scene(image, table, gap_um, light, psf, exposure), image.voxel_um
