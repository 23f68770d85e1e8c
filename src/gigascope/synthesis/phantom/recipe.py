"""What a spheroid is made from: settings without distributions, as the science takes them.

Field by field the keys of the section `phantoms`; :func:`recipe_of` makes it from the resolved JSON values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Triple = tuple[float, float, float]
Pair = tuple[float, float]


@dataclass(frozen=True)
class RegionRecipe:
    """Shape of the spheroid; see the keys of `phantoms.region`."""

    kind: str = "ellipsoid"
    semi_axes_um: Triple = (100.0, 100.0, 100.0)
    surface_rms: float = 0.04
    core_fraction: float = 0.0
    flat_bottom: float = 0.0
    margin_um: float = 10.0
    cluster_number: int = 5
    cluster_radius: float = 0.5
    cluster_blend_um: float = 10.0


@dataclass(frozen=True)
class NucleusRecipe:
    """Shape and look of nuclei; see the keys of `phantoms.nuclei`."""

    diameter_um: float = 9.5
    diameter_cv: float = 0.12
    axis_ratio_b: Pair = (0.75, 1.0)
    axis_ratio_c: Pair = (0.60, 1.0)
    superellipse_e: float = 2.0
    shape_rms: float = 0.06
    l_max: int = 6
    p: float = 1.8
    alignment: float = 0.5
    alignment_um: float = 15.0
    texture_sigma: float = 0.25
    texture_scale_um: float = 1.5
    octaves: int = 3
    rim: float = 0.15
    nucleoli_mean: float = 1.8
    intensity_cv: float = 0.25
    metaphase: float = 0.015
    anaphase: float = 0.010
    pyknotic: float = 0.020
    ghost: float = 0.005
    core_pyknotic: float = 0.5
    core_ghost: float = 0.3
    library: str | None = None


@dataclass(frozen=True)
class PlaceRecipe:
    """Where a population of its own is: see the keys of `phantoms.populations.region`."""

    kind: str = "ball"
    centre: Triple = (0.0, 0.0, 0.0)
    radius_um: float = 30.0
    between: Pair = (0.0, 0.5)
    scale_um: float = 40.0
    share: float = 0.3


@dataclass(frozen=True)
class PopulationRecipe:
    """A population among the others; see the keys of `phantoms.populations`."""

    place: PlaceRecipe
    fraction: float
    nuclei: NucleusRecipe


@dataclass(frozen=True)
class PlacementRecipe:
    """How nuclei are placed; see the keys of `phantoms.placement`."""

    method: str = "relax"
    volume_fraction: float = 0.35
    gap_um: float = 0.0
    max_clip: float = 0.10
    tol_um: float = 0.02
    max_iter: int = 600
    rsa_max_failures: int = 1000
    rsa_count_outside: bool = False
    voxel_um: Triple = (1.5, 0.5, 0.5)


@dataclass(frozen=True)
class Recipe:
    """All of a spheroid. Population 0 is that of `nuclei`; the others follow in their order."""

    region: RegionRecipe = RegionRecipe()
    nuclei: NucleusRecipe = NucleusRecipe()
    placement: PlacementRecipe = PlacementRecipe()
    populations: tuple[PopulationRecipe, ...] = ()

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the prototype libraries that nuclei are taken from, each once."""
        return tuple(dict.fromkeys(kind.library for kind in self.kinds if kind.library is not None))

    @property
    def kinds(self) -> tuple[NucleusRecipe, ...]:
        """Nuclei of each population."""
        return (self.nuclei, *(population.nuclei for population in self.populations))


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """The recipe from the resolved values of the section `phantoms`."""
    main = _nuclei(settings["nuclei"])
    region, clusters, placement = settings["region"], settings["region"]["clusters"], settings["placement"]
    axes = region["semi_axes_um"]
    return Recipe(
        RegionRecipe(
            kind=region["kind"],
            semi_axes_um=_triple(axes * 3 if len(axes) == 1 else axes),
            **{key: region[key] for key in ("surface_rms", "core_fraction", "flat_bottom", "margin_um")},
            cluster_number=clusters["number"],
            cluster_radius=clusters["radius"],
            cluster_blend_um=clusters["blend_um"],
        ),
        main,
        PlacementRecipe(**{**placement, "voxel_um": _triple(placement["voxel_um"])}),
        tuple(
            PopulationRecipe(
                PlaceRecipe(
                    **{**given["region"], "centre": _triple(given["region"]["centre"])}
                    | {"between": tuple(given["region"]["between"])}
                ),
                given["fraction"],
                main if given["nuclei"] is None else _nuclei(given["nuclei"]),
            )
            for given in settings["populations"]
        ),
    )


def _nuclei(given: Mapping[str, Any]) -> NucleusRecipe:
    same = ("superellipse_e", "shape_rms", "l_max", "p", "alignment", "alignment_um", "nucleoli_mean", "intensity_cv")
    size, texture, classes = given["diameter_um"], given["texture"], given["classes"]
    shares = ("metaphase", "anaphase", "pyknotic", "ghost", "core_pyknotic", "core_ghost")
    return NucleusRecipe(
        diameter_um=size["mean"],
        diameter_cv=size["cv"],
        axis_ratio_b=tuple(given["axis_ratio_b"]),
        axis_ratio_c=tuple(given["axis_ratio_c"]),
        texture_sigma=texture["sigma"],
        texture_scale_um=texture["scale_um"],
        octaves=texture["octaves"],
        rim=texture["rim"],
        library=given["library"],
        **{key: given[key] for key in same},
        **{key: classes[key] for key in shares},
    )


def _triple(values: Any) -> Triple:
    z, y, x = values
    return float(z), float(y), float(x)
