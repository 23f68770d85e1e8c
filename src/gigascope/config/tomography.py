"""Config of the tomography chain: electron and X-ray tilt series."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from gigascope.config.section import Section

TiltDeg = Annotated[float, Field(gt=-90.001, lt=90.001)]


class EvenTilts(Section):
    """Evenly spaced tilt angles, written as first and last."""

    first_deg: TiltDeg = Field(description="tilt angle of the first view, degrees")
    last_deg: TiltDeg = Field(description="tilt angle of the last view, degrees")


class PhantomSeries(Section):
    """A tilt series simulated from an analytic phantom with known shifts, instead of a file."""

    kind: Literal["object", "section"] = Field(
        "object", description="`object`: an isolated particle; `section`: a slab wider than the field of view"
    )
    n_tilts: int = Field(61, ge=7, description="number of views")
    max_tilt_deg: float = Field(60.0, gt=0, lt=90, description="views are spread evenly over +- this angle, degrees")
    size_px: int = Field(128, ge=32, description="width and height of a view, pixels")
    snr: PositiveFloat = Field(1.0, description="variance of the clean 0 degree view over that of its Poisson noise")
    shift_sigma_px: NonNegativeFloat = Field(3.0, description="standard deviation of the random image shifts, pixels")
    drift: bool = Field(True, description="adds a slow drift of about 6 px over the series")
    pixel_size_nm: PositiveFloat = Field(1.0, description="pixel size written into the store, nanometres")


class TomographyInputs(Section):
    """Where the tilt series comes from: a file, or a phantom."""

    tilt_series: str | None = Field(
        None,
        description=(
            "MRC/ST file, multi-page TIFF, folder or glob of TIFF files, OME-Zarr, DM3/DM4, HDF5 (HyperSpy, EMD) or "
            "MATLAB file, of these also file/array; relative to where you start"
        ),
    )
    mdoc: str | None = Field(None, description="SerialEM .mdoc; none: the one beside the tilt series, if there is one")
    alignment: str | None = Field(
        None,
        description=(
            "alignment made elsewhere, instead of prealign's own: IMOD's .xf (angles from the .tlt beside it), "
            "AreTomo's .aln or the CryoET data portal's .json; refined unless reconstruct.align.enabled is false"
        ),
    )
    phantom: PhantomSeries | None = Field(None, description="simulate the tilt series instead of reading one")

    @model_validator(mode="after")
    def _one_source(self) -> TomographyInputs:
        if (self.tilt_series is None) == (self.phantom is None):
            raise ValueError("give either tilt_series (a file) or phantom (a simulation).")
        if self.phantom is not None and self.alignment is not None:
            raise ValueError("alignment belongs to a tilt_series, a phantom has none: leave it out.")
        return self


class Ingest(Section):
    """Read the tilt series, check it, and keep it raw with all that is known about it."""

    signal: Literal["transmission", "linear"] = Field(
        "transmission",
        description=(
            "`transmission`: bright field, -log(I/I0) is what projects; `linear`: dark field (HAADF) or already logged"
        ),
    )
    invert: bool = Field(False, description="changes the sign of the signal (protein dark to bright)")
    i0: PositiveFloat | None = Field(
        None, description="unscattered intensity in counts (transmission); none: 99.5th percentile of all views"
    )
    dark: float = Field(0.0, description="counts subtracted first (offset of the detector)")
    pixel_size_nm: PositiveFloat | None = Field(
        None, description="pixel size in nanometres; none: from the .mdoc or the header"
    )
    tilt_deg: tuple[TiltDeg, ...] | EvenTilts | str | None = Field(
        None,
        description=(
            "tilt angles in degrees: a list, first and last of an even series, or the path of a .tlt file; none: "
            "found beside the series or in its header"
        ),
    )
    tilt_axis_deg: float | None = Field(
        None,
        description=(
            "angle from the image's upward vertical to the tilt axis, counter-clockwise, degrees (90: "
            "horizontal); none: from the .mdoc, else 0"
        ),
    )
    tilt_sign: Literal[1, -1] = Field(
        1,
        description="multiplies the tilt angles; a wrong sign mirrors the tomogram in z and cannot be seen in the data",
    )
    y_up: bool | None = Field(
        None,
        description=(
            "first row of the file is the bottom of the image; none: as the format does it (MRC true, TIFF false)"
        ),
    )
    extent: Literal["auto", "section", "object", "crop"] = Field(
        "auto",
        description=(
            "`section`: the specimen is wider than the field of view; `object`: it is isolated; `crop`: a section, "
            "with a volume only as wide as the views; `auto`: section or object, decided from the data"
        ),
    )
    exclude: tuple[int, ...] = Field((), description="views to leave out, counted from 0 in file order")
    dark_tol: float = Field(
        0.5, ge=0, lt=1, description="a view darker than this fraction of its neighbours is left out"
    )
    spike: PositiveFloat = Field(8.0, description="pixels this many robust sigma off their 3 x 3 median are masked")
    equalize: bool = Field(False, description="equalise the standard deviation of neighbouring views (gain steps)")


class Prealign(Section):
    """Coarse image shifts by cosine-stretched cumulative cross-correlation, outward from the lowest tilt."""

    width: PositiveInt = Field(1024, description="views are binned to at most this width for the correlation, pixels")
    max_shift_nm: PositiveFloat | None = Field(
        None, description="largest image shift looked for, nanometres; none: 20 % of the width"
    )
    low_pass: float = Field(
        0.12, gt=0, le=0.5, description="low-pass of the correlation, cycles per pixel; very low dose: 0.06"
    )
    high_pass: float = Field(0.015, ge=0, lt=0.5, description="high-pass of the correlation, cycles per pixel")
    taper: float = Field(0.12, ge=0, le=0.5, description="cosine edge, as a fraction of the image on each side")
    cumulative: float = Field(
        0.75, ge=0, lt=1, description="weight of the running reference against the last view; 0: neighbours only"
    )
    passes: PositiveInt = Field(
        4, description="passes over the series, at most; ends earlier when the shifts stand still"
    )
    min_peak: float = Field(
        0.25, ge=0, lt=1, description="a correlation peak below this fraction of the median marks a view as weak"
    )
    axis_search: bool = Field(
        False,
        description="look for the tilt axis angle in the data; taken when it is clearly another than the given one",
    )
    axis_range_deg: float = Field(
        10.0, gt=0, le=45, description="how far on both sides of the given angle the axis is looked for, degrees"
    )
    tilt_offset_search: bool = Field(
        False,
        description="look for the inclination of a section; added to the tilt angles where the data show it clearly",
    )

    @model_validator(mode="after")
    def _band(self) -> Prealign:
        if self.high_pass >= self.low_pass:
            raise ValueError(f"high_pass {self.high_pass} must be below low_pass {self.low_pass}.")
        return self


class Align(Section):
    """Joint alignment: the shifts that prealign left, solved together with the tomogram (FLARA, corrected)."""

    enabled: bool = Field(True, description="false: reconstruct with the shifts of prealign")
    mode: Literal["corrected", "published"] = Field(
        "corrected",
        description="`published`: the iteration of the paper with its defects, for comparison only (no uncertainty)",
    )
    dof: tuple[Literal["shift", "rotation", "magnification"], ...] = Field(
        ("shift",),
        description="what is solved for each view; besides the shift: in-plane `rotation`, `magnification`",
    )
    groups: int = Field(
        4, ge=1, le=8, description="groups of views; a view is compared with the other groups' volume only"
    )
    inner: PositiveInt = Field(4, description="primal-dual iterations between two updates of the shifts")
    outer: PositiveInt = Field(20, description="updates of the shifts per level, at most")
    bins: tuple[PositiveInt, ...] | None = Field(
        None, description="binning levels, coarse to fine, powers of two; none: chosen from the size"
    )
    width: PositiveInt = Field(1024, description="the finest level is binned to at most this width, pixels")
    beta: float = Field(0.5, ge=0, lt=1, description="momentum of the shift updates")
    smooth: NonNegativeFloat = Field(
        0.5, description="Gaussian blur of both images in the shift update, sigma in pixels"
    )
    prior_px: PositiveFloat = Field(
        3.0, description="expected deviation from the starting shifts, standard deviation in raw pixels"
    )
    tol: PositiveFloat = Field(
        0.003, description="a level ends when the updates fall below this (RMS, pixels of the level)"
    )

    @model_validator(mode="after")
    def _dof(self) -> Align:
        if "shift" not in self.dof:
            raise ValueError(f"dof {list(self.dof)} must hold shift, such as [shift, rotation].")
        if self.mode == "published" and self.dof != ("shift",):
            raise ValueError("mode published solves shifts only: leave dof out.")
        return self

    @model_validator(mode="after")
    def _bins(self) -> Align:
        if self.bins is not None:
            if not self.bins or any(b & (b - 1) for b in self.bins):
                raise ValueError(f"bins {self.bins} must be powers of two, such as [4, 2].")
            if tuple(sorted(self.bins, reverse=True)) != self.bins or len(set(self.bins)) != len(self.bins):
                raise ValueError(f"bins {self.bins} must go from coarse to fine, such as [4, 2].")
        return self


class Reconstruct(Section):
    """Joint alignment, then the tomogram at full resolution with the shifts fixed."""

    thickness_nm: PositiveFloat | None = Field(
        None,
        description=(
            "thickness of the volume, nanometres, slightly above the specimen's; none: a guess from the field's "
            "width that the report marks as such"
        ),
    )
    hz: float = Field(
        1.0, ge=0.25, le=8, description="voxel size in z over that in x; above 1 saves memory for thin features"
    )
    regularization: NonNegativeFloat | None = Field(
        None,
        alias="lambda",
        description=(
            "weight of the total variation (data scaled to unit standard deviation): more is smoother, 0 is none; "
            "none: 0.4 times noise times the root of the number of views, at least 0.1; the alignment takes at most 0.1"
        ),
    )
    method: Literal["tv", "wbp", "sirt", "cgls"] = Field(
        "tv",
        description=(
            "`tv`: total variation, primal-dual; `wbp`: weighted backprojection, quick and noisier; `sirt`, `cgls`: "
            "least squares, stopped when the misfit is down to the noise"
        ),
    )
    iterations: PositiveInt = Field(100, description="iterations at full resolution, at most (not wbp)")
    tol: NonNegativeFloat = Field(
        1e-4, description="tv ends when the objective changed less than this fraction over a round"
    )
    round: PositiveInt = Field(
        10,
        description=(
            "iterations of a round: how often the objective is looked at, and slices that a slab reads of its "
            "neighbours; more of them read and write less and compute more"
        ),
    )
    parts: PositiveInt = Field(
        1, description="jobs that share the slabs in each round; the result does not depend on it"
    )
    slab: PositiveInt | None = Field(
        None,
        description=(
            "slices along the tilt axis that are held at once (tv); none: as many as fit into `memory_gib`, and a slab "
            "for each part; the result does not depend on it"
        ),
    )
    memory_gib: PositiveFloat = Field(
        32.0,
        description=(
            "memory that a job may take for its volumes, GiB: the size of the slabs is chosen from it, and where the "
            "alignment does not fit, fewer groups or a coarser finest level"
        ),
    )
    positivity: bool = Field(
        False, description="keeps the tomogram at or above 0 (dark field): in the alignment, tv and sirt"
    )
    weights: Literal["noise", "none"] = Field("noise", description="weigh views by their noise, or all alike")
    bin: Literal[1, 2, 4, 8] = Field(1, description="binning of the final tomogram; 1: the pixel size of the views")
    projector: Literal["own", "astra"] = Field(
        "own", description="`astra`: the ASTRA toolbox instead, for comparison (slow on a CPU; must be installed)"
    )
    align: Align = Field(Align(), description="joint alignment")


class Halves(Section):
    """Tomograms of the even and of the odd views apart, with the same shifts; their FSC tells the resolution."""

    enabled: bool = Field(True, description="false: no half tomograms, and no FSC in the report")
    bin: Literal[1, 2, 4] = Field(2, description="binning relative to the tomogram; 1 doubles time and memory")
    iterations: PositiveInt = Field(
        100, description="primal-dual iterations of each half, at most, and never more than those of the tomogram"
    )
    round: PositiveInt = Field(10, description="iterations of a round, as `reconstruct.round`")
    parts: PositiveInt = Field(
        1, description="jobs that share the slabs of both halves; the result does not depend on it"
    )
    slab: PositiveInt | None = Field(
        None, description="slices that are held at once, as `reconstruct.slab`; the result does not depend on it"
    )
    memory_gib: PositiveFloat = Field(32.0, description="memory that a job may take for its slab, GiB")


class Evaluate(Section):
    """What the alignment and the tomogram are worth: residuals, FRC, FSC, and with known truth the error in pixels."""

    fsc_box: float = Field(
        0.8, gt=0.1, le=1, description="central box of the half tomograms that is compared, as a fraction of x and y"
    )
    thresholds: tuple[float, ...] = Field(
        (0.5, 0.143), min_length=1, description="FSC and FRC values at which the resolution is read off"
    )
    compare: bool = Field(
        True, description="also judge the alignments that prealign tried and did not choose; false: quicker"
    )


class TomographyReport(Section):
    """One HTML page with pictures and numbers."""

    picture_px: int = Field(720, ge=128, le=2048, description="longest side of a slice's picture, pixels")
