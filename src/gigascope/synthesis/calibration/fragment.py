"""All estimates of an image together, and the part of a dataset YAML that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigascope.synthesis.calibration.blur import blur
from gigascope.synthesis.calibration.camera import camera
from gigascope.synthesis.calibration.depth import Size3, attenuation
from gigascope.synthesis.calibration.estimate import Estimate
from gigascope.synthesis.calibration.nuclei import blobs, nuclei
from gigascope.synthesis.phantom.mask import mask_of_image

# How attenuation is shared out between excitation and emission, as in the defaults of the simulation.
_OF_EXCITATION = 10 / 18
# A key stands in the middle of a line of this width, its comment behind.
_COLUMN = 44


@dataclass(frozen=True)
class Calibration:
    """What an image says of its microscope and its specimen.

    Attributes
    ----------
    voxel_um : (z, y, x)
    semi_axes_um : half the extent of the region along z, y and x
    gain, offset : of the camera, see :func:`gigascope.synthesis.calibration.camera.camera`
    attenuation : per µm, excitation and emission together
    lateral, axial : width of the blur, see :func:`gigascope.synthesis.calibration.blur.blur`; lateral by depth third
    diameter, diameter_cv, volume_fraction : of nuclei
    """

    voxel_um: Size3
    semi_axes_um: Size3
    gain: Estimate
    offset: Estimate
    attenuation: Estimate
    lateral: list[Estimate]
    axial: Estimate
    diameter: Estimate
    diameter_cv: Estimate
    volume_fraction: Estimate


def calibrate(image: NDArray, voxel_um: Size3) -> Calibration:
    """Estimate all from an image without labels.

    Parameters
    ----------
    image : (z, y, x) grey values
    voxel_um : (z, y, x), micrometres
    """
    gain, offset = camera(image)
    region = mask_of_image(image, voxel_um)
    centres, diameters = blobs(image, region, voxel_um)
    lateral, axial = blur(image, region, voxel_um)
    extent = [np.flatnonzero(region.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    half = [0.5 * len(found) * size for found, size in zip(extent, voxel_um)]
    falls = attenuation(image, region, voxel_um, centres)
    return Calibration(
        voxel_um, (half[0], half[1], half[2]), gain, offset, falls, lateral, axial, *nuclei(diameters, region, voxel_um)
    )


def yaml_fragment(found: Calibration) -> str:
    """Sections `phantoms` and `simulate` of a dataset YAML; what could not be estimated stands there as a remark."""
    size = ", ".join(f"{v:.6g}" for v in found.voxel_um)
    half = ", ".join(f"{v:.3g}" for v in found.semi_axes_um)
    ex, em = (_scaled(found.attenuation, share) for share in (_OF_EXCITATION, 1 - _OF_EXCITATION))
    lines = [
        "phantoms:",
        "  region:",
        _line("    semi_axes_um", f"[{half}]", "half the extent of the tissue in the image; it may end at its edges"),
        "  nuclei:",
        "    diameter_um:",
        *_entry("      mean", found.diameter),
        *_entry("      cv", found.diameter_cv),
        "  placement:",
        *_entry("    volume_fraction", found.volume_fraction),
        _line("    voxel_um", f"[{size}]", "the voxels of the image"),
        "simulate:",
        "  grid:",
        _line("    output_voxel_um", f"[{size}]", "the voxels of the image"),
        "  attenuation:",
        *_entry("    mu_ex", ex),
        *_entry("    mu_em", em),
        "  camera:",
        *_entry("    gain_adu_per_e", found.gain),
        *_entry("    offset_adu", found.offset),
    ]
    for name, one in [*zip(("upper", "middle", "lower"), found.lateral), ("along z", found.axial)]:
        what = f"width of the blur, {name}: " + ("not known" if one.value is None else f"{one.value:.3g} um")
        lines.append(f"  # {what}{_error(one)} ({one.reason})")
    return "\n".join(lines) + "\n"


def _scaled(one: Estimate, share: float) -> Estimate:
    return Estimate(None if one.value is None else one.value * share, one.error * share, one.reason)


def _error(one: Estimate) -> str:
    return "" if one.value is None or math.isnan(one.error) else f" +- {one.error:.2g}"


def _entry(key: str, one: Estimate) -> list[str]:
    if one.value is None:
        return [f"{' ' * (len(key) - len(key.lstrip()))}# {key.strip()}: {one.reason}"]
    return [_line(key, f"{one.value:.4g}", f"{_error(one).strip()} {one.reason}".strip())]


def _line(key: str, value: str, remark: str) -> str:
    return f"{key}: {value}".ljust(_COLUMN) + f"  # {remark}"
