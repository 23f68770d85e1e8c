"""Config of the topography chain: z-stacks of a camera array to a mosaic in focus and its height map."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gigascope.config.section import Section

Span = tuple[NonNegativeInt, PositiveInt]
BayerPattern = Literal["GBRG", "GRBG", "RGGB", "BGGR"]


class SyntheticInstrument(Section):
    """A simulated camera array over a specimen and a flat target, with known truth, instead of files."""

    preset: Literal["XS", "S", "M", "L", "XL"] = Field(
        "XS",
        description=(
            "size: XS 8 views of 192 pixels and 9 slices, S 64 of 384 and 17, M 384 of 768 and 33, L 3456 of 1024 and "
            "33, XL 3456 of 3072 and 65 (2 TB)"
        ),
    )
    cameras: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="(rows, columns) of the camera array, such as [1, 1] of a large preset; none: the preset's"
    )
    scan: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="lateral stage positions (y, x) of each camera; none: the preset's"
    )
    specimen: Literal["relief", "blocks", "caps", "pins", "staircase", "tilt", "flat"] = Field(
        "relief", description="what lies under the cameras"
    )
    dz_um: PositiveFloat = Field(40.0, description="stage step between slices, micrometres")
    na: float = Field(0.1, gt=0, le=0.5, description="numerical aperture: how quickly focus is lost")
    overlap: float = Field(0.58, ge=0, lt=1, description="overlap of neighbouring views, as a share of the field")
    snr: PositiveFloat = Field(55.0, description="signal over noise at an albedo of 0.4")
    stage_up: bool = Field(True, description="the specimen comes nearer from slice to slice; false: it moves away")
    renderer: Literal["fast", "reference"] = Field(
        "fast", description="`fast`: one ray and a blur for each pixel; `reference`: rays over the whole pupil, slow"
    )
    flat_dz_um: PositiveFloat = Field(30.0, description="step between the slices of the flat target, micrometres")
    flat_wedge_deg: float = Field(0.0, ge=-2, le=2, description="angle at which the flat target is mounted, degrees")


class FlatTarget(Section):
    """The flat target that the instrument is calibrated on, taken with the same stage positions."""

    captures: str | tuple[str, ...] | None = Field(None, description="as inputs.captures, of the flat target")
    stacks: str | None = Field(None, description="as inputs.stacks, of the flat target")
    images: str | None = Field(None, description="as inputs.images, of the flat target")
    dz_mm: PositiveFloat | None = Field(
        None, description="stage step between its slices, millimetres; none: as its files say"
    )

    @model_validator(mode="after")
    def _one_source(self) -> FlatTarget:
        named = [n for n in ("captures", "stacks", "images") if getattr(self, n) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} cannot both be the flat target: give one.")
        if self.dz_mm is not None and not named:
            raise ValueError("dz_mm is of a flat target, and there is none: give captures, stacks or images.")
        return self

    @property
    def given(self) -> bool:
        """There is a flat target."""
        return any(getattr(self, n) is not None for n in ("captures", "stacks", "images"))


class TopographyInputs(Section):
    """Where the z-stacks come from: files in one of three layouts, or a simulated instrument."""

    captures: str | tuple[str, ...] | None = Field(
        None,
        description=(
            "folder (or several) with a folder y_<mm>_x_<mm> for each stage position, in it netCDF-4 files z_stack* "
            "and best_images* of all cameras"
        ),
    )
    stacks: str | None = Field(
        None,
        description=(
            "TIFF stacks, one for each camera and stage position, as a path with the fields {camera_row}, "
            "{camera_col}, {scan_y}, {scan_x}, and {z} where each slice is a file"
        ),
    )
    images: str | None = Field(
        None, description="folder, or pattern such as run1/*.png, of the slices of one camera: PNG, JPEG or TIFF"
    )
    instrument: SyntheticInstrument | None = Field(None, description="simulate the instrument instead of reading files")
    flat: FlatTarget = Field(FlatTarget(), description="the flat target that the instrument is calibrated on")

    @model_validator(mode="after")
    def _one_source(self) -> TopographyInputs:
        sources = ("captures", "stacks", "images", "instrument")
        named = [n for n in sources if getattr(self, n) is not None]
        if len(named) != 1:
            found = " and ".join(named) or "none"
            raise ValueError(f"give exactly one of {', '.join(sources[:3])} (files) and instrument, found {found}.")
        if self.instrument is not None and self.flat.given:
            raise ValueError("flat cannot be given beside instrument, which simulates its own.")
        return self


class Synth(Section):
    """Simulate the instrument's views of specimen and flat target, with their truth (inputs.instrument)."""

    parts: PositiveInt = Field(1, description="jobs that share the views; the result does not depend on it")


class Ingest(Section):
    """Read z-stacks view by view, keep them sharded for reading in patches, and check them."""

    bayer: BayerPattern | None = Field(
        None,
        description=(
            "colours of the top left 2 x 2 pixels, row by row; none: as the files record, GBRG for captures that "
            "record nothing, and no mosaic for pictures"
        ),
    )
    dz_mm: PositiveFloat | None = Field(
        None, description="stage step between slices, millimetres; none: as the files say, else slices are counted"
    )
    stage_up: bool = Field(
        True,
        description=(
            "a larger stage position (or slice number) brings the sample nearer to the cameras; false: further away. "
            "Heights change their sign with it"
        ),
    )
    sensor_pitch_um: PositiveFloat | None = Field(
        None, description="distance of the sensor's pixels, micrometres; none: 1.1 for captures, else unknown"
    )
    f_eff_mm: PositiveFloat | None = Field(
        None, description="effective focal length, millimetres; none: 25.05486 for captures, else unknown"
    )
    m_ref: PositiveFloat | None = Field(
        None, description="magnification of the reference view; none: 0.8448 for captures, else unknown"
    )
    ref_view: NonNegativeInt = Field(0, description="the reference view, counted row by row over the grid of views")
    camera_pitch_mm: PositiveFloat | None = Field(
        None, description="distance of neighbouring cameras, millimetres; none: 13.5 for captures, else unknown"
    )
    scan_step_mm: PositiveFloat | None = Field(
        None, description="inputs.stacks whose {scan_y} and {scan_x} count: millimetres from one number to the next"
    )
    mirror_x: bool = Field(
        True, description="the views of a camera run against ascending stage positions along x, as its field does"
    )
    mirror_y: bool = Field(False, description="likewise along y")
    camera_rows: tuple[NonNegativeInt, ...] | None = Field(
        None, description="rows of cameras that are kept, by their numbers in the instrument; none: all"
    )
    camera_cols: tuple[NonNegativeInt, ...] | None = Field(
        None, description="columns of cameras that are kept, by their numbers in the instrument; none: all"
    )
    crop: tuple[Span, Span] | None = Field(
        None,
        description=(
            "first and last + 1 row, and column, of the sensor that are kept, the first even for a mosaic; none: all"
        ),
    )
    missing: Literal["refuse", "mask"] = Field(
        "refuse",
        description=(
            "views, stage positions or slices that are not there: refused by name, or marked in a mask and left out"
        ),
    )
    chunk_px: int = Field(
        192,
        ge=16,
        le=1024,
        multiple_of=2,
        description="side of the chunks that a patch is read in, pixels; a third of the patch: 32 for XS, 64 for S",
    )
    codec: Literal["plain", "blosc"] = Field(
        "plain", description="`plain`: read at the disk's speed; `blosc`: about a third smaller, for archives"
    )
    verify: Literal["checksums", "source"] = Field(
        "checksums",
        description=(
            "`checksums`: what was written is read back and compared with the checksums of what was read; `source`: "
            "every view is read from its files a second time and compared value by value"
        ),
    )
    readers: int = Field(2, ge=1, le=16, description="views that a job reads at once; each is held in memory")
    parts: PositiveInt = Field(1, description="jobs that share the views; the result does not depend on it")

    @model_validator(mode="after")
    def _cameras(self) -> Ingest:
        for name in ("camera_rows", "camera_cols"):
            ids = getattr(self, name)
            if ids is not None and (not ids or len(set(ids)) != len(ids)):
                raise ValueError(f"{name} {list(ids)} must name at least one camera, and none twice.")
        return self

    @model_validator(mode="after")
    def _crop(self) -> Ingest:
        for first, last in self.crop or ():
            if first >= last:
                raise ValueError(f"crop {first} to {last} is empty.")
        return self


class Register(Section):
    """Bring the slices of one moving camera (inputs.images) into the order of focus and onto each other."""

    enabled: bool = Field(
        True,
        description=(
            "register the slices; false: they are used as they are, as for a camera that stands still above a stage "
            "and has a telecentric lens"
        ),
    )
    order: Literal["auto", "as_is"] = Field(
        "auto",
        description=(
            "`auto`: slices whose files are not numbered in the order of focus are found and put into it; `as_is`: the "
            "order of the files"
        ),
    )
    model: Literal["shift", "scale", "similarity"] = Field(
        "similarity",
        description=(
            "what may change from slice to slice: `shift`; `scale`, the magnification too (a lens that is focused); "
            "`similarity`, rotation too. Brightness is always matched"
        ),
    )

    @model_validator(mode="after")
    def _without_effect(self) -> Register:
        if not self.enabled and (self.order != "auto" or self.model != "similarity"):
            raise ValueError("order and model have no effect where enabled is false: leave them out.")
        return self


class Calibrate(Section):
    """Find where every view lies, where it is in focus and how even its light is: from the flat target, or as given."""

    poses: str | None = Field(
        None,
        description=(
            "file of known poses (CSV, TSV or JSON, a row for each view, see `known poses`); the flat target, where "
            "there is one, then gives height 0 and light only; none: poses from the flat target"
        ),
    )
    calibration: str | None = Field(
        None,
        description=(
            "calibration.zarr of another dataset, taken with the same instrument, stage positions and crop; none: "
            "this dataset has its own"
        ),
    )
    datum: Literal["quadratic", "integer"] = Field(
        "quadratic",
        description=(
            "where the flat target is in focus, which is height 0: `quadratic`, a surface over the field, between the "
            "slices; `integer`, one slice for each view, as the published release has it"
        ),
    )
    search_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="largest error of the distance of two views as the stage gives it, as a share of a view",
    )
    rounds: int = Field(
        2, ge=1, le=8, description="of tie points and bundle adjustment, each with the poses of the one before"
    )
    independent: bool = Field(
        False,
        description=(
            "every view has poses of its own; false: cameras sit still and the stage repeats its positions to "
            "micrometres, so that views differ from the sum of the two by little"
        ),
    )
    parts: PositiveInt = Field(
        1, description="jobs that share the views of the flat target; the result does not depend on it"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Calibrate:
        if self.poses is not None and self.calibration is not None:
            raise ValueError("poses and calibration cannot both be given: both say where the views lie.")
        known = "calibration" if self.calibration is not None else "poses" if self.poses is not None else None
        idle = ["search_share", "rounds", "independent", *(["datum"] if known == "calibration" else [])]
        if known and (given := [n for n in idle if getattr(self, n) != type(self).model_fields[n].default]):
            raise ValueError(f"{given[0]} has no effect beside {known}: leave it out.")
        return self


class Mosaic(Section):
    """Put the views together: every point of the sample from all views that see it, tile by tile."""

    blend: Literal["mean", "best", "two_band", "splat_uniform"] = Field(
        "mean",
        description=(
            "`mean`: all views, weighted by confidence and by the distance from their border, least noise; `best`: the "
            "view of largest weight; `two_band`: what is coarse of the mean and what is fine of the best view; "
            "`splat_uniform`: every pixel of every view alike, as the published release does it, for comparison"
        ),
    )
    sampling: Literal["cubic", "linear"] = Field(
        "cubic",
        description="colours between the pixels of a view: `cubic` keeps them sharp, `linear` takes less time",
    )
    clear_dz: PositiveFloat | None = Field(
        0.2,
        description=(
            "colours count less where a view's focus lies between two slices, by e at this distance from the nearest "
            "one, in slices: another view has it sharper. None: as the heights do, which leaves less noise"
        ),
    )
    feather_px: PositiveFloat | None = Field(
        None,
        description="pixels over which a view fades toward its border; none: a 24th of its side, 128 of 3072",
    )
    epsilon: float = Field(0.01, gt=0, le=1, description="weight of a pixel whose focus is not known, of 1")
    gate: PositiveFloat = Field(
        3.0, description="robust deviations from the median of a point's heights beyond which a view does not count"
    )
    gate_floor_dz: float = Field(0.25, ge=0, description="least such deviation, in steps between slices")
    band_px: PositiveFloat = Field(8.0, description="blend two_band: radius between coarse and fine, pixels")
    margin_px: NonNegativeInt = Field(
        35, description="blend splat_uniform: pixels left out on each side of a view's bounding box"
    )
    refine: Literal["none", "offset", "tilt"] = Field(
        "none",
        description=(
            "bring the heights of overlapping views together before they are blended: `offset`, one number for each "
            "view; `tilt`, two more. The views are read twice"
        ),
    )
    tile: int = Field(
        4096,
        ge=64,
        multiple_of=64,
        description="side of the tiles that are made one by one, pixels: a file each. Smaller ones take less memory",
    )
    parts: PositiveInt = Field(1, description="jobs that share the tiles; the result does not depend on it")

    @model_validator(mode="after")
    def _without_effect(self) -> Mosaic:
        """Keys of one way of blending, where it is another."""
        fields = type(self).model_fields
        idle = {"band_px": self.blend != "two_band", "margin_px": self.blend != "splat_uniform"}
        unused = ("sampling", "clear_dz", "feather_px", "epsilon", "gate", "gate_floor_dz")
        idle |= dict.fromkeys(unused, self.blend == "splat_uniform")
        for name, without in idle.items():
            if without and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} has no effect on blend {self.blend}: leave it out.")
        return self


class Tiff(Section):
    """Colours and heights of the mosaic as TIFF files, tiled and with their pyramid, for other programs."""

    enabled: bool = Field(False, description="write them; they are as large as the mosaic")


class Mesh(Section):
    """The height map as a surface of triangles with the sample's colours (PLY)."""

    enabled: bool = Field(True, description="write it")
    vertices: int = Field(
        500_000,
        ge=100,
        le=100_000_000,
        description="most vertices of the surface; 41 bytes each in the file, with its triangles",
    )


EstimatorName = Literal["argmax", "parabola", "log_parabola", "centroid"]


class Evaluate(Section):
    """How good heights and picture are: against the truth of a simulated instrument, and by what the views agree on."""

    estimators: tuple[EstimatorName, ...] = Field(
        ("argmax", "parabola", "log_parabola", "centroid"),
        description="classical estimators of focus that are run on the same stacks where the truth is known",
    )
    max_pixels: PositiveInt = Field(
        2**26, description="pixels of the mosaic that are measured; of a larger one, tiles evenly spread over it"
    )
    max_view_pixels: PositiveInt = Field(
        2**24,
        description=(
            "pixels of single views that are measured, and that the estimators are run on: a compact block of views in "
            "the middle of a larger acquisition"
        ),
    )


class TopographyReport(Section):
    """One HTML page with pictures, curves and numbers."""

    picture_px: int = Field(720, ge=128, le=2048, description="longest side of a picture, pixels")
