"""Config of the synthesis chain: what a microscope makes of the phantoms."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gigascope.config.presets import over_preset
from gigascope.config.sampled import Distribution, Fraction, NonNegative, Positive, sampled
from gigascope.config.section import Section
from gigascope.config.synthesis_optics import Optics

AtLeastOne = Annotated[float | Distribution, *sampled(ge=1)]
Lengths = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Counts = tuple[PositiveInt, PositiveInt, PositiveInt]

# What a preset says differently from the defaults; keys that are written go before it.
PRESETS: dict[str, dict[str, Any]] = {
    "bruch2023": {
        "chain": "published",
        "grid": {"output_voxel_um": (1.5001311, 0.488759, 0.488759), "oversample": (1.66631366, 4.0, 4.0)},
        "attenuation": {"model": "power", "haze_fraction": 0.0},
        "camera": {"offset_adu": 15.0, "bits": 8},
        "labels": {"subsample": 1},
    },
    "fast": {
        "grid": {"oversample": (1.0, 1.0, 1.0)},
        "attenuation": {"cone_rays": 1, "grid_um": 4.0},
        "optics": {"model": "gaussian", "depth_step_um": 20.0},
    },
    "lightsheet_cleared": {
        "attenuation": {"mu_ex": 0.001, "mu_em": 0.001, "mu_nuc": 0.0005, "illumination": "lightsheet_both"},
        "optics": {"modality": "lightsheet"},
        "camera": {"peak_electrons": 1000.0, "background_electrons": 20.0},
    },
    "confocal_uncleared": {
        "attenuation": {"mu_ex": 0.015, "mu_em": 0.012, "mu_nuc": 0.006, "haze_fraction": 0.2},
        "optics": {"na": 0.8, "n_immersion": 1.33, "n_sample": 1.37},
        "camera": {"excess_noise": 1.25, "peak_electrons": 100.0},
    },
}  # fmt: skip


class Grid(Section):
    """Voxels of the image, and of the finer grid on which nuclei are drawn and blurred."""

    output_voxel_um: Lengths = Field((1.5, 0.5, 0.5), description="voxel size (z, y, x) of the image, micrometres")
    oversample: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1)]] = (
        Field(
            (2.0, 2.0, 2.0), description="voxels of the finer grid per voxel of the image (z, y, x); need not be whole"
        )
    )
    field_um: Lengths | None = Field(
        None,
        description="size (z, y, x) of the image, micrometres, in the middle of the phantom; none: the whole phantom. "
        "Nuclei outside still shade it and shine into it",
    )
    # No key for the depth beyond the field that light comes from: all nuclei of the phantom are drawn as far as the PSF
    # reaches, on every side. Further away nothing would change, nearer something would be missing.
    block: Counts = Field(
        (64, 256, 256),
        description="voxels (z, y, x) of the image that are made at once, at most; more memory, less work twice",
    )


class PowerLaw(Section):
    """Attenuation (1 + (path - start) / length)^-exponent along the path in tissue."""

    length_um: Positive = Field(225.0, description="length, micrometres")
    exponent: NonNegative = Field(6.0, description="exponent")
    start_um: NonNegative = Field(0.0, description="path without attenuation, micrometres")


class Attenuation(Section):
    """How light gets weaker on its way into the culture and out of it."""

    model: Literal["beer_lambert", "power", "none"] = Field(
        "beer_lambert",
        description="`beer_lambert`: absorption along rays, by region and by nuclei; `power`: law of the path in "
        "tissue straight above, as Bruch et al. (2023); `none`: no attenuation",
    )
    mu_ex: NonNegative = Field(0.010, description="attenuation of excitation in the region, per micrometre")
    mu_em: NonNegative = Field(0.008, description="attenuation of emission in the region, per micrometre")
    mu_nuc: NonNegative = Field(0.004, description="what nuclei add to both, per micrometre")
    power: PowerLaw = Field(PowerLaw(), description="parameters of model power")
    cone_rays: Literal[1, 9] = Field(
        9, description="rays of emission: 1 along the axis, or 9: this one and eight at two thirds of the cone's angle"
    )
    grid_um: PositiveFloat = Field(2.0, description="cells on which attenuation and haze are computed, micrometres")
    illumination: Literal["epi", "lightsheet_left", "lightsheet_right", "lightsheet_both"] = Field(
        "epi",
        description="where excitation comes from: through the objective, along +x (left), along -x (right), or both",
    )
    fusion: Literal["mean", "max"] = Field(
        "mean", description="how the views of `lightsheet_both` are put together: their mean, or the brighter one"
    )
    stain_depth_um: Positive | None = Field(
        None,
        description="depth below the surface at which staining has fallen to 37 %, micrometres; none: even staining",
    )
    stain_floor: Fraction = Field(0.3, description="staining that is left far inside, as a fraction")
    haze_fraction: NonNegative = Field(0.10, description="scattered light, as a fraction of the light that arrives")
    haze_um: Positive = Field(20.0, description="standard deviation of the Gaussian that scatters it, micrometres")


class Camera(Section):
    """From photons to grey values."""

    peak_electrons: Positive = Field(
        200.0,
        description="electrons of a voxel inside a nucleus of median brightness, at the surface, without blur",
    )
    background_electrons: NonNegative = Field(5.0, description="electrons of even background light")
    dark_electrons: NonNegative = Field(0.1, description="electrons of the detector in the dark")
    excess_noise: AtLeastOne = Field(
        1.0, description="excess noise factor F squared: 1 is a camera, 1.25 a photomultiplier"
    )
    read_noise_e: NonNegative = Field(1.5, description="standard deviation of the read noise, electrons")
    gain_adu_per_e: Positive = Field(1.0, description="grey values per electron")
    offset_adu: NonNegative = Field(100.0, description="grey value of no electron")
    bits: Annotated[int, Field(ge=1, le=16)] = Field(
        16, description="bits of a grey value; up to 8 are stored as uint8"
    )
    full_well_e: Positive = Field(30000.0, description="electrons at which the detector saturates")
    n_average: PositiveInt = Field(1, description="acquisitions that are averaged")
    fixed_pattern: bool = Field(False, description="pixels differ in gain (1 %) and offset (1 electron)")


class PublishedNoise(Section):
    """Noise of chain `published`, on grey values of 8 bits; what else its camera has is offset_adu and n_average."""

    poisson_factor: Annotated[float | Distribution, *sampled(ge=0, le=200)] = Field(
        1.0, description="photons per grey value, fewer are noisier; 0: no shot noise"
    )
    gauss: NonNegative = Field(0.0, description="standard deviation of normal noise, grey values")
    gauss_absolute: NonNegative = Field(
        0.0, description="standard deviation of normal noise that is added as its absolute value, grey values"
    )


class Labels(Section):
    """Label images; `nuclei` and `spheroid` are always made."""

    # No key for the rule either: the other one that is known, any share of a voxel, makes nuclei a tenth larger.
    subsample: PositiveInt = Field(
        2,
        le=4,
        description="points per axis and voxel; a voxel is labelled if half of them lie in nuclei; 1: its centre",
    )
    boundary: bool = Field(False, description="label image `boundary`: 1 where a nucleus meets another label")
    distance: bool = Field(
        False, description="array `distance`: 1 at the centre of a nucleus, 0 at its surface and outside"
    )
    blurred: bool = Field(False, description="label image `nuclei_blurred`: nuclei as large as they look")
    blurred_threshold: float = Field(
        0.25, gt=0, lt=1, description="value of a blurred nucleus that still counts, of 1 inside"
    )


class Storing(Section):
    """What is kept, and how it is cut."""

    chunk: Counts = Field((64, 256, 256), description="voxels (z, y, x) of a chunk")
    shard: Counts = Field(
        (128, 512, 512), description="voxels (z, y, x) of a shard, whole chunks: one item of the work"
    )
    keep_expected: bool = Field(True, description="keep the electrons expected before noise, float32")
    keep_density: bool = Field(False, description="keep what was drawn on the finer grid, float16; large")

    @model_validator(mode="after")
    def _whole_chunks(self) -> Storing:
        if any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ValueError(f"shard {self.shard} must hold a whole number of chunks {self.chunk}.")
        return self


class Simulate(Section):
    """Draw, blur and photograph the phantoms."""

    parts: PositiveInt = Field(1, description="jobs that the shards of all images are shared out among")
    preset: Literal["none", "bruch2023", "fast", "lightsheet_cleared", "confocal_uncleared"] = Field(
        "none",
        description="other defaults: `bruch2023`: voxels, attenuation and chain of the publication; `fast`: coarse "
        "and quick; `lightsheet_cleared`; `confocal_uncleared`. Keys that are written go before the preset",
    )
    chain: Literal["physical", "published"] = Field(
        "physical",
        description="`physical`: light in electrons, block by block; `published`: grey values of 8 bits with the "
        "stretches, truncations and point sampling of Bruch et al. (2023), a whole image at once",
    )
    grid: Grid = Field(Grid(), description="voxels")
    attenuation: Attenuation = Field(Attenuation(), description="light on its way in and out")
    optics: Optics = Field(Optics(), description="point spread function")
    camera: Camera = Field(Camera(), description="photons to grey values")
    published: PublishedNoise = Field(PublishedNoise(), description="noise of chain published")
    labels: Labels = Field(Labels(), description="label images")
    store: Storing = Field(Storing(), description="what is kept")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        """Lay what is written over the preset."""
        return over_preset(values, PRESETS)

    @model_validator(mode="after")
    def _idle(self) -> Simulate:
        """Keys that nothing would read."""
        if self.chain == "physical":
            if self.published != PublishedNoise():
                raise ValueError("keys of published have no effect on chain physical: set chain: published.")
            return self
        plain = Camera()
        for name in Camera.model_fields:
            if name not in ("offset_adu", "bits", "n_average") and getattr(self.camera, name) != getattr(plain, name):
                raise ValueError(f"camera.{name} has no effect on chain published: leave it out.")
        if self.camera.bits != 8:
            raise ValueError("chain published has grey values of 8 bits: set camera.bits: 8.")
        if isinstance(self.camera.offset_adu, float) and self.camera.offset_adu > 255:
            raise ValueError(f"camera.offset_adu {self.camera.offset_adu:g} is no grey value of 8 bits.")
        if self.attenuation.haze_fraction != 0:
            raise ValueError("chain published has no scattered light: set attenuation.haze_fraction: 0.")
        return self
