"""The published simulation's JSON as sections `phantoms` and `simulate`, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gigascope.errors import UserError

# All keys of the JSON, in its order; each is mandatory.
KEYS = (
    "output_path", "input_phantom_folder", "input_spheroid_mask", "paths_psf", "use_gpu_conv", "generated_image_shape",
    "num_of_images", "max_overlap", "min_dist", "break_criterion", "brightness_red_fuction", "brightness_red_factor_b",
    "dc_baseline", "noise_gauss", "noise_gauss_absolute", "noise_poisson_factor", "num_of_acquisition_iterations",
    "px_size_phantom_img", "px_size_sim_img", "px_size_desired", "input_subculture_folder", "num_of_subcultures",
    "subculture_radius_xy", "subculture_radius_z", "subculture_min_dist", "px_size_subculture_phantoms",
)  # fmt: skip
EXPONENT = 6.0
# Lengths of the attenuation that are not a key, in slices of the image; where f3 begins, and where f1 does.
FIXED_F2, FIXED_F3, START_F3, START_F1 = 150.0, 200.0, 10.0, -5.0
# Slices of the prototypes that are appended to the volume, of which f1 counts them.
APPENDED = 30


@dataclass
class Imported:
    """Values of a dataset, and what of the published settings has no counterpart.

    Attributes
    ----------
    values : nested, that differ from the defaults
    remarks : one sentence each
    """

    values: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def check_keys(given: Mapping[str, Any], where: str) -> None:
    """All keys are there, and no others.

    Raises
    ------
    UserError : naming the first that is missing, or that is not known
    """
    for key in KEYS:
        if key not in given:
            raise UserError(f"the key {key} is missing.", where=where, do="Take the whole settings of the program.")
    if unknown := [key for key in given if key not in KEYS]:
        raise UserError(f"the key {unknown[0]} is not one of the published program.", where=where)


def simulation_values(given: Mapping[str, Any], mask: str, mask_slices: int, library: str | None) -> Imported:
    """Sections `phantoms` and `simulate` for one mask.

    Parameters
    ----------
    given : of the JSON, with all its keys
    mask : path of the mask
    mask_slices : along z
    library : path of the prototypes

    Raises
    ------
    UserError : an attenuation that is not known or has no counterpart
    """
    found = Imported()
    fine, image = ([float(v) for v in given[key]] for key in ("px_size_sim_img", "px_size_desired"))
    phantoms: dict[str, Any] = {
        "preset": "bruch2023",
        "n_spheroids": int(given["num_of_images"]),
        "region": {"kind": "mask", "mask": {"path": mask, "voxel_um": image}},
        "placement": {"rsa_max_failures": int(given["break_criterion"]), "voxel_um": image},
    }
    if library is not None:
        phantoms["nuclei"] = {"library": library}
    if given["min_dist"]:
        phantoms["placement"]["gap_um"] = given["min_dist"] * fine[1]
        found.remarks.append("min_dist: voxels became micrometres, in all directions those of the plane.")
    simulate: dict[str, Any] = {
        "preset": "bruch2023",
        "grid": {"output_voxel_um": image, "oversample": [i / f for i, f in zip(image, fine)]},
        "attenuation": _attenuation(given, image, fine, mask_slices),
        "camera": {"offset_adu": float(given["dc_baseline"]), "n_average": int(given["num_of_acquisition_iterations"])},
        "published": {
            "poisson_factor": float(given["noise_poisson_factor"]),
            "gauss": float(given["noise_gauss"]),
            "gauss_absolute": float(given["noise_gauss_absolute"]),
        },
        "optics": _optics(given, fine, mask_slices * image[0]),
    }
    if given["generated_image_shape"]:
        simulate["grid"]["field_um"] = [n * f for n, f in zip(given["generated_image_shape"], fine)]
    if not given["use_gpu_conv"]:
        found.values["device"] = "cpu"
    if given["max_overlap"]:
        found.remarks.append(f"max_overlap {given['max_overlap']}: nuclei are placed without overlap here; left out.")
    if given["num_of_subcultures"]:
        found.remarks.append(
            f"num_of_subcultures {given['num_of_subcultures']}: left out; name their places under phantoms.populations."
        )
    found.values |= {"phantoms": phantoms, "simulate": simulate}
    return found


def _attenuation(
    given: Mapping[str, Any], image: Sequence[float], fine: Sequence[float], mask_slices: int
) -> dict[str, Any]:
    """The published factor of d slices as one of the path; constants before it fall to the stretch that follows."""
    name, factor = str(given["brightness_red_fuction"]), float(given["brightness_red_factor_b"])
    if name == "None":
        return {"model": "none"}
    appended = round(APPENDED * float(given["px_size_phantom_img"][0]) / fine[0])
    slices = round(mask_slices * image[0] / fine[0]) + appended
    laws = {
        "f2p": (factor, 0.0),
        "f2": (FIXED_F2, 0.0),
        "f3p": (factor, START_F3),
        "f3": (FIXED_F3, START_F3),
        # ((d + 5) / Z + 1)^-6 is ((Z + 5) / Z)^-6 (d / (Z + 5) + 1)^-6
        "f1": (slices - START_F1, 0.0),
    }
    if name not in laws:
        do = "Choose f2p, the published default, or name a law under simulate.attenuation."
        what = "has no counterpart" if name == "fOld" else "is no attenuation of the published program"
        raise UserError(f"brightness_red_fuction {name!r} {what}.", do=do)
    length, start = laws[name]
    return {"power": {"length_um": length * image[0], "exponent": EXPONENT, "start_um": start * image[0]}}


def _optics(given: Mapping[str, Any], fine: Sequence[float], height_um: float) -> dict[str, Any]:
    """Stacks as they are: their middle is the middle. Of n stacks stack k is the only one in slab 2 k of 2 n - 1."""
    paths = list(given["paths_psf"])
    optics: dict[str, Any] = {"model": "measured", "paths": paths, "path_voxel_um": list(fine), "recentre": False}
    if len(paths) > 1:
        optics["path_depths_um"] = [(2 * k + 0.5) / (2 * len(paths) - 1) * height_um for k in range(len(paths))]
    return optics
