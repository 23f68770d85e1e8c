"""Config of what the synthesis chain reads from outside: real images, and shapes of nuclei out of labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from gigascope.config.section import Section
from gigascope.config.synthesis_phantoms import Phantoms
from gigascope.config.synthesis_simulate import Simulate

VoxelSize = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class RealImage(Section):
    """A real image, and labels of its nuclei where there are any."""

    image: str = Field(
        description=(
            "TIFF, folder or glob of TIFF files, OME-Zarr, or HDF5 (file.h5/raw names a dataset in it); relative to "
            "where you start"
        )
    )
    labels: str | None = Field(
        None,
        description=(
            "label image of the nuclei, of the image's shape, in any of these formats (image.zarr/labels/nuclei, "
            "file.h5/label); with `centres`: a mask; none: no labels"
        ),
    )
    centres: str | None = Field(
        None, description="marks inside the nuclei, from which the mask in `labels` is divided into nuclei"
    )
    axes: str | None = Field(
        None, pattern=r"^[tczyx]+$", description="order of the file's axes, letters of t, c, z, y, x; none: as it says"
    )
    channel: NonNegativeInt | None = Field(None, description="channel that shows the nuclei, from 0, where it has more")
    time: NonNegativeInt | None = Field(None, description="time point, from 0, where the file has several")
    voxel_size_um: VoxelSize | None = Field(
        None, description="voxel size (z, y, x), micrometres; none: ingest.voxel_size_um, else from the file"
    )
    use: Literal["train", "inference"] = Field(
        "train", description="train: the look is learned from it; inference: kept out of training, to compare with"
    )

    @model_validator(mode="after")
    def _mask(self) -> RealImage:
        if self.centres is not None and self.labels is None:
            raise ValueError("centres divide a mask: name the mask in labels.")
        return self


class Planted(Section):
    """A domain that is simulated with another microscope instead of real images: its truth is known.

    The phantoms have the statistics of those of the cultures, with other seeds.
    """

    images: PositiveInt = Field(2, description="images that are made")
    kept_out: NonNegativeInt = Field(1, description="how many of them are kept out of training, to compare with")
    widen: float = Field(1.8, ge=0.25, le=4, description="all lengths of the point spread function times this")
    haze_fraction: NonNegativeFloat = Field(0.35, description="scattered light, as a fraction of what arrives")
    gamma: float = Field(0.8, ge=0.2, le=5, description="exponent of the tone curve on the grey values")
    photons: PositiveFloat = Field(0.5, description="light times this")
    gain: PositiveFloat = Field(2.0, description="grey values per electron times this")
    attenuation: NonNegativeFloat = Field(1.6, description="attenuation in the culture times this")
    phantoms: Phantoms | None = Field(None, description="another section `phantoms`; none: that of this dataset")
    simulate: Simulate | None = Field(None, description="another section `simulate`; none: that of this dataset")

    @model_validator(mode="after")
    def _some_to_train(self) -> Planted:
        if self.kept_out >= self.images:
            raise ValueError(f"kept_out {self.kept_out} leaves none of {self.images} images to train with.")
        if self.phantoms is not None and self.phantoms.nuclei.library is not None:
            raise ValueError("a planted domain has procedural nuclei: set planted.phantoms without nuclei.library.")
        return self


class SynthesisInputs(Section):
    """What the cultures are to look like: real images, or a folder of them. Neither: no look is learned."""

    real: tuple[RealImage, ...] = Field((), description="real images, with labels or without; a path alone will do")
    folders: str | None = Field(
        None,
        description=(
            "folder with trainA and inferenceA (real images), trainB and inferenceB (naive images, in place of "
            "simulated ones: trainB is trained on, inferenceB is adapted; none: simulated), each searched for images "
            "at any depth; <name>_label beside an image is its label image"
        ),
    )
    planted: Planted | None = Field(None, description="simulate the real images too, with another microscope")

    @property
    def gives_naive(self) -> bool:
        """There are naive images in `folders`: something is in trainB. They stand for simulated ones."""
        if self.folders is None:
            return False
        return any(file.is_file() and file.name[0] != "." for file in Path(self.folders, "trainB").rglob("*"))

    @field_validator("real", mode="before", json_schema_input_type=str | tuple[RealImage | str, ...])
    @classmethod
    def _paths(cls, value: Any) -> Any:
        """A path alone is an image without labels."""
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, (list, tuple)):
            return entries
        return [{"image": entry} if isinstance(entry, str) else entry for entry in entries]

    @model_validator(mode="after")
    def _one_source(self) -> SynthesisInputs:
        given = [name for name in ("real", "folders", "planted") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"give one of real, folders and planted, found {' and '.join(given)}.")
        return self


class Ingest(Section):
    """Read real images: check them, mend their labels, keep them in one store."""

    voxel_size_um: VoxelSize | None = Field(
        None,
        description=(
            "voxel size (z, y, x) of all images that have none of their own in `inputs`, micrometres; none: from each "
            "file, which is refused where it does not say it"
        ),
    )
    output_voxel_um: VoxelSize | None = Field(
        None,
        description=(
            "voxel size that images and labels are resampled to, that of the simulation's output grid, for instance; "
            "none: as they are, with a warning where they differ among each other"
        ),
    )
    min_label_voxels: PositiveInt = Field(
        8, description="pieces of labels with fewer voxels than this are taken for specks, and removed"
    )


class Prototypes(Section):
    """Take shapes and textures of nuclei out of labelled images, for the phantoms."""

    enabled: bool = Field(False, description="whether a library is made of the labelled images among the real ones")
    margin_um: PositiveFloat = Field(
        2.0, description="distance from a nucleus within which unlabelled voxels give its local background"
    )
    max_residual: float = Field(
        0.05,
        gt=0,
        le=1,
        description="largest misfit of a shape, RMS over its mean radius; discarded beyond",
    )
    max_hidden: float = Field(
        0.03,
        ge=0,
        le=1,
        description=(
            "largest share of the volume that is not seen from the centre (not star-convex); discarded beyond"
        ),
    )
    min_voxels: PositiveInt = Field(150, description="nuclei of fewer voxels have no shape to fit; discarded")
    texture: bool = Field(True, description="keep the brightness inside, not only the shape")


# Keys of the dataset's sections that do not change what a planted domain is.
_NOT_PLANTED = ("parts", "n_spheroids")


def planted_values(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a dataset whose planted domain, if it has one, has its sections `phantoms` and `simulate` filled in."""
    inputs = values.get("inputs")
    planted = inputs.get("planted") if isinstance(inputs, dict) else None
    if not isinstance(inputs, dict) or not isinstance(planted, dict):
        return values
    filled = dict(planted)
    for name in ("phantoms", "simulate"):
        own = values.get(name)
        if filled.get(name) is None and isinstance(own or {}, dict):
            filled[name] = {key: value for key, value in (own or {}).items() if key not in _NOT_PLANTED}
    return {**values, "inputs": {**inputs, "planted": filled}}
