"""Config of the synthesis chain: the microscope that looks at the phantoms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gigascope.config.sampled import Distribution, NonNegative, Positive, sampled
from gigascope.config.section import Section

Index = Annotated[float | Distribution, *sampled(ge=1, le=2.5)]
Aperture = Annotated[float | Distribution, *sampled(ge=0.02, le=1.7)]
Wavelength = Annotated[float | Distribution, *sampled(ge=200, le=2000)]
Widening = Annotated[float | Distribution, *sampled(ge=0.25, le=4)]


class Optics(Section):
    """Point spread function (PSF) and how it changes with depth."""

    model: Literal["gibson_lanni", "gaussian", "measured", "none"] = Field(
        "gibson_lanni",
        description=(
            "`gibson_lanni`: diffraction, with the aberration that layers of other refractive index cause; `gaussian`: "
            "widths that grow with depth; `measured`: stacks of the user; `none`: no blur"
        ),
    )
    modality: Literal["confocal", "widefield", "lightsheet"] = Field(
        "confocal", description="kind of microscope; `gibson_lanni` only"
    )
    na: Aperture = Field(0.5, description="numerical aperture of the objective; `gibson_lanni` only")
    n_immersion: Index = Field(1.0, description="refractive index between objective and cover glass")
    n_sample: Index = Field(1.45, description="refractive index of the culture and what it lies in")
    n_glass: Index = Field(1.52, description="refractive index of the cover glass")
    n_immersion_design: Index | None = Field(
        None, description="the immersion that the objective is made for; none: n_immersion"
    )
    n_glass_design: Index | None = Field(None, description="the glass that the objective is made for; none: n_glass")
    t_immersion_um: NonNegative = Field(
        2000.0,
        description="working distance, micrometres; matters where n_immersion is not what the objective is made for",
    )
    t_glass_um: NonNegative = Field(170.0, description="thickness of the cover glass, micrometres")
    t_glass_design_um: NonNegative = Field(
        170.0, description="thickness of the glass that the objective is made for, micrometres"
    )
    lambda_ex_nm: Wavelength = Field(405.0, description="wavelength of excitation, nanometres")
    lambda_em_nm: Wavelength = Field(461.0, description="wavelength of emission, nanometres")
    pinhole_au: Positive = Field(
        1.0, description="diameter of the confocal pinhole in Airy units, 1.22 wavelengths over na"
    )
    sheet_waist_um: Positive = Field(
        3.0,
        description="half thickness of the light sheet at its waist, where intensity is down to 13.5 %, micrometres",
    )
    sheet_field_um: NonNegative = Field(
        200.0, description="length along the light sheet over which its thickness is averaged, micrometres"
    )
    sigma_um: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (0.8, 0.2, 0.2), description="standard deviations (z, y, x) at the surface, micrometres; `gaussian` only"
    )
    sigma_depth_um: Positive = Field(
        150.0, description="depth at which they have grown by a factor of 1.41, micrometres; `gaussian` only"
    )
    paths: tuple[str, ...] = Field(
        (), description="stacks of the PSF (TIFF, OME-Zarr or Zarr), shallow to deep; `measured` only"
    )
    path_depths_um: tuple[float, ...] = Field(
        (), description="depth of each stack, micrometres; not needed for one stack"
    )
    path_voxel_um: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, description="voxel size (z, y, x) of the stacks, micrometres; none: as the files say"
    )
    symmetrise: bool = Field(
        False, description="average the stacks over their mirror images along y and x; `measured` only"
    )
    widen: Widening = Field(1.0, description="all lengths of the PSF times this")
    recentre: bool = Field(
        True,
        description=(
            "undo the shift of focus that layers of other refractive index cause, so that nuclei appear where they "
            "are; false: depth appears compressed or stretched, in labels too, and measured stacks keep their centre"
        ),
    )
    psf_energy: float = Field(0.99, ge=0.5, lt=1, description="share of the light that the PSF keeps when it is cut")
    cap_um: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (20.0, 15.0, 15.0), description="largest half size (z, y, x) of the PSF, micrometres"
    )
    depth_step_um: PositiveFloat = Field(5.0, description="distance of the depths that PSFs are computed for")
    eig_tol: float = Field(
        0.02, gt=0, lt=1, description="largest relative error of a PSF that is composed of eigen-PSFs"
    )
    eig_max: PositiveInt = Field(
        12, description="most eigen-PSFs; where more were needed, PSFs of neighbouring depths are blended instead"
    )

    @model_validator(mode="after")
    def _possible(self) -> Optics:
        constant = {k: v for k in ("na", "n_immersion", "n_sample") if isinstance(v := getattr(self, k), float)}
        if "na" in constant and "n_immersion" in constant and constant["na"] >= constant["n_immersion"]:
            raise ValueError(f"na {self.na:g} must be below n_immersion {self.n_immersion:g}.")
        if (self.model == "measured") != bool(self.paths):
            raise ValueError(
                "model measured needs paths."
                if not self.paths
                else f"paths are of model measured, not of {self.model}."
            )
        if self.path_depths_um and len(self.path_depths_um) != len(self.paths):
            raise ValueError(f"path_depths_um has {len(self.path_depths_um)} depths for {len(self.paths)} paths.")
        if len(self.paths) > 1 and not self.path_depths_um:
            raise ValueError("several paths need path_depths_um, one depth for each.")
        if any(b <= a for a, b in zip(self.path_depths_um, self.path_depths_um[1:])):
            raise ValueError("path_depths_um must grow from stack to stack.")
        return self
