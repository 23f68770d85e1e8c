"""Config of the synthesis chain: phantoms, which are regions with nuclei in them.

A key whose type is a number or a distribution is drawn for every spheroid apart; see :mod:`gigascope.config.sampled`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, WrapValidator, model_validator

from gigascope.config.presets import over_preset
from gigascope.config.sampled import Choice, Distribution, Fraction, NonNegative, Positive, sampled, sampled_word
from gigascope.config.section import Section

RegionKind = Literal["ellipsoid", "clusters", "mask"]
Share = Annotated[float, Field(ge=0, le=1)]
Length = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Whole = Annotated[int | Distribution, *sampled(ge=1, whole=True)]

# What a preset says differently from the defaults. The volume fraction is one that sequential addition never reaches.
PRESETS: dict[str, dict[str, Any]] = {
    "bruch2023": {
        "nuclei": {
            "intensity_cv": 0.0,
            "alignment": 0.0,
            "classes": dict.fromkeys(
                ("metaphase", "anaphase", "pyknotic", "ghost", "core_pyknotic", "core_ghost"), 0.0
            ),
        },
        "placement": {
            "method": "rsa",
            "volume_fraction": 0.5,
            "rsa_count_outside": True,
            "voxel_um": (1.5001311, 0.488759, 0.488759),
        },
    },
}


def _one_or_three(value: Any, handler: Any) -> Any:
    """One value, or one distribution of which a single value is drawn, for all axes; else three."""
    given = handler(value if isinstance(value, (tuple, list)) else (value,))
    if len(given) not in (1, 3):
        raise ValueError(f"should be one number or three (z, y, x), or distributions of such, found {len(given)}.")
    return given


class Clusters(Section):
    """Several spheres that have grown together (region.kind clusters)."""

    number: Annotated[int | Distribution, *sampled(ge=2, le=64, whole=True)] = Field(5, description="how many spheres")
    radius: Annotated[float | Distribution, *sampled(ge=0.2, le=0.95)] = Field(
        0.5, description="their radius, as a share of the smallest of semi_axes_um; it varies by 15 %"
    )
    blend_um: Positive = Field(10.0, description="width over which surfaces run into each other, micrometres")


class RegionMask(Section):
    """A region from a file: labels, a binary volume, or an image of a spheroid (region.kind mask)."""

    path: str | None = Field(None, description="volume to be read: TIFF, OME-Zarr or Zarr")
    label: PositiveInt | None = Field(None, description="value of the voxels inside; none: every value but 0")
    voxel_um: Length | None = Field(None, description="voxel size (z, y, x), micrometres; none: as the file says")
    from_image: bool = Field(False, description="the file is an image of nuclei, in which the spheroid is to be found")
    smooth_um: PositiveFloat = Field(2.5, description="from_image: sigma of the Gaussian before the threshold")
    closing_um: float = Field(15.0, ge=0, description="from_image: gaps between nuclei up to twice this are closed")


class Region(Section):
    """Shape of the spheroid."""

    kind: Annotated[RegionKind | Distribution, *sampled_word(RegionKind)] = Field(
        "ellipsoid", description="ellipsoid with a rough surface; clusters: several spheres in one; mask: from a file"
    )
    semi_axes_um: Annotated[tuple[Positive, ...], WrapValidator(_one_or_three)] = Field(
        (100.0, 100.0, 100.0), description="half the size along z, y, x, micrometres; one value: a ball"
    )
    surface_rms: Annotated[float | Distribution, *sampled(ge=0, le=0.3)] = Field(
        0.04, description="how rough the surface is: RMS of the radius, as a share of it"
    )
    core_fraction: Annotated[float | Distribution, *sampled(ge=0, le=0.8)] = Field(
        0.0, description="radius of the necrotic core as a share of the spheroid's; 0: none, 0.55 is usual above 250 µm"
    )
    flat_bottom: Annotated[float | Distribution, *sampled(ge=0, le=0.5)] = Field(
        0.0, description="share of the height that is cut off at the side of the objective, where it rests on glass"
    )
    margin_um: Annotated[float, Field(ge=0)] = Field(
        10.0, description="empty space around the region within the field, micrometres"
    )
    clusters: Clusters = Field(Clusters(), description="kind clusters: the spheres")
    mask: RegionMask = Field(RegionMask(), description="kind mask: the file")

    @model_validator(mode="after")
    def _mask_has_a_file(self) -> Region:
        if isinstance(self.kind, Choice) and "mask" in self.kind.values:
            raise ValueError("kind can be a choice of ellipsoid and clusters only.")
        if (self.kind == "mask") != (self.mask.path is not None):
            raise ValueError("kind mask and mask.path belong together: give both or none of them.")
        return self


class Diameter(Section):
    """Diameter of the sphere of a nucleus's volume; lognormal over the nuclei."""

    mean: Positive = Field(9.5, description="mean, micrometres")
    cv: Annotated[float | Distribution, *sampled(ge=0, le=0.5)] = Field(
        0.12, description="standard deviation over mean"
    )


class Texture(Section):
    """Uneven brightness inside a nucleus."""

    sigma: Annotated[float | Distribution, *sampled(ge=0, le=1)] = Field(
        0.25, description="relative standard deviation"
    )
    scale_um: Positive = Field(1.5, description="size of its coarsest grains, micrometres")
    octaves: Annotated[int | Distribution, *sampled(ge=1, le=8, whole=True)] = Field(
        3, description="each octave has half the size and half the strength of the one before"
    )
    rim: Annotated[float | Distribution, *sampled(ge=0, le=2)] = Field(
        0.15, description="how much brighter nuclei are at their surface"
    )


class Classes(Section):
    """Shares of the classes of nuclei; the rest is in interphase."""

    metaphase: Fraction = Field(0.015, description="share that is one bright plate")
    anaphase: Fraction = Field(0.010, description="share of cells that are a pair of plates, with a label each")
    pyknotic: Fraction = Field(0.020, description="share that is small, round and bright, outside the core")
    ghost: Fraction = Field(0.005, description="share that is large and faint, outside the core")
    core_pyknotic: Fraction = Field(0.5, description="share that is pyknotic in the necrotic core")
    core_ghost: Fraction = Field(0.3, description="share that is a ghost in the necrotic core")

    @model_validator(mode="after")
    def _shares(self) -> Classes:
        for names in (("pyknotic", "ghost"), ("core_pyknotic", "core_ghost")):
            given = [
                value for name in (*names, "metaphase", "anaphase") if isinstance(value := getattr(self, name), float)
            ]
            if sum(given) > 1:
                raise ValueError(
                    f"{' + '.join(names)} + metaphase + anaphase is {sum(given):g}, at most 1 is possible."
                )
        return self


class Nuclei(Section):
    """Shape and look of nuclei."""

    diameter_um: Diameter = Field(Diameter(), description="size")
    axis_ratio_b: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.75, 1.0), description="second axis over the first: smallest and largest, evenly between"
    )
    axis_ratio_c: tuple[PositiveFloat, PositiveFloat] = Field((0.60, 1.0), description="third axis over the first")
    superellipse_e: Annotated[float | Distribution, *sampled(ge=1.8, le=3)] = Field(
        2.0, description="exponent of the body: 2 ellipsoid, above more like a box"
    )
    shape_rms: Annotated[float | Distribution, *sampled(ge=0, le=0.2)] = Field(
        0.06, description="how uneven the surface is: RMS of the radius, as a share of it"
    )
    l_max: Annotated[int | Distribution, *sampled(ge=2, le=8, whole=True)] = Field(
        6, description="finest spherical harmonics of the surface"
    )
    p: Annotated[float | Distribution, *sampled(ge=0, le=5)] = Field(
        1.8, description="how fast harmonics of degree l fall off: variance l^(-2p)"
    )
    alignment: Fraction = Field(
        0.5, description="how far nuclei near the surface lie flat along it: 0 not at all, 1 entirely"
    )
    alignment_um: NonNegative = Field(15.0, description="thickness of the layer in which they do, micrometres")
    texture: Texture = Field(Texture(), description="uneven brightness inside")
    nucleoli_mean: Annotated[float | Distribution, *sampled(ge=0, le=4)] = Field(
        1.8, description="mean number of dark nucleoli, at most 4 each; 0: none"
    )
    intensity_cv: Annotated[float | Distribution, *sampled(ge=0, le=2)] = Field(
        0.25, description="how much brightness differs between nuclei: standard deviation over mean"
    )
    classes: Classes = Field(Classes(), description="shares of the classes")
    library: str | None = Field(
        None,
        description="interphase nuclei are taken from a library, with their own sizes and brightness: prototypes, that "
        "which the dataset makes, or the path of another's store; none: procedural ones",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Nuclei:
        for name in ("axis_ratio_b", "axis_ratio_c"):
            low, high = getattr(self, name)
            if not 0.1 <= low <= high <= 1:
                raise ValueError(f"{name} should be two rising numbers between 0.1 and 1, found {low:g}, {high:g}.")
        return self


class Placement(Section):
    """How nuclei are placed."""

    method: Literal["relax", "rsa"] = Field(
        "relax",
        description="relax: all at once, pushing each other apart; rsa: one after the other, which reaches 0.28",
    )
    volume_fraction: Annotated[float | Distribution, *sampled(ge=0.02, le=0.5)] = Field(
        0.35, description="volume of nuclei over volume of the region"
    )
    gap_um: NonNegative = Field(0.0, description="distance that nuclei keep from each other, micrometres")
    max_clip: Fraction = Field(
        0.10, description="share of its volume that a nucleus may lose to others before it is made smaller, or left out"
    )
    tol_um: PositiveFloat = Field(0.02, description="relax: overlap at which it ends, micrometres")
    max_iter: PositiveInt = Field(600, description="relax: iterations after which it ends anyway")
    rsa_max_failures: PositiveInt = Field(1000, description="rsa: failed attempts one after the other that end it")
    rsa_count_outside: bool = Field(
        False,
        description="rsa: places beside the region, in its bounding box, count as failed attempts too, as published",
    )
    voxel_um: Length = Field(
        (1.5, 0.5, 0.5),
        description="voxel size (z, y, x) at which contacts are settled, micrometres: that of the simulated image",
    )


class PopulationRegion(Section):
    """Where in the spheroid a population is."""

    kind: Literal["ball", "shell", "layer", "noise"] = Field(
        "ball", description="ball; shell between two radii; layer between two heights; noise: patches"
    )
    centre: tuple[float, float, float] = Field(
        (0.0, 0.0, 0.0), description="ball: its centre (z, y, x), from -1 to 1 over the spheroid's bounding box"
    )
    radius_um: Positive = Field(30.0, description="ball: its radius, micrometres")
    between: tuple[Share, Share] = Field(
        (0.0, 0.5), description="shell: from centre 0 to surface 1; layer: from 0 at the objective's side to 1"
    )
    scale_um: Positive = Field(40.0, description="noise: size of the patches, micrometres")
    share: Fraction = Field(0.3, description="noise: share of the spheroid that the patches take")


class Population(Section):
    """Cells of another kind among the others."""

    region: PopulationRegion = Field(PopulationRegion(), description="where they are")
    fraction: Fraction = Field(1.0, description="share of the cells there that are of this population")
    nuclei: Nuclei | None = Field(
        None, description="their nuclei, all keys as in phantoms.nuclei and with its defaults; none: as all others"
    )


class Phantoms(Section):
    """Place nuclei in spheroids."""

    n_spheroids: PositiveInt = Field(8, description="how many; each is the same however many are asked for")
    preset: Literal["none", "bruch2023"] = Field(
        "none",
        description="other defaults: `bruch2023`: nuclei of one class and brightness, placed one after the other as in "
        "the publication. Keys that are written go before the preset",
    )
    region: Region = Field(Region(), description="shape of the spheroid")
    nuclei: Nuclei = Field(Nuclei(), description="shape and look of nuclei")
    placement: Placement = Field(Placement(), description="how nuclei are placed")
    populations: tuple[Population, ...] = Field((), description="further kinds of cells, in places of their own")
    parts: PositiveInt = Field(1, description="jobs that share the spheroids; the result does not depend on it")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        """Lay what is written over the preset."""
        return over_preset(values, PRESETS)
