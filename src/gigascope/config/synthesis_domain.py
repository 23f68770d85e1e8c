"""Config of what the synthesis chain reads from outside: real images, and shapes of nuclei out of labelled ones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from gigascope.config.section import Section

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


class SynthesisInputs(Section):
    """What the cultures are to look like: real images, or a folder of them. Neither: no look is learned."""

    real: tuple[RealImage, ...] = Field((), description="real images, with labels or without; a path alone will do")
    folders: str | None = Field(
        None,
        description=(
            "folder with trainA and inferenceA (real images), trainB and inferenceB (naive images, instead of "
            "simulated ones), each searched for images at any depth; <name>_label beside an image is its label image"
        ),
    )

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
        if self.real and self.folders is not None:
            raise ValueError("give either real (a list of images) or folders (one folder), not both.")
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
