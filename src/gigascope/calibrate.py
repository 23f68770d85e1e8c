"""`gigascope calibrate`: settings of a simulation from unlabelled real images, as part of a dataset YAML."""

from __future__ import annotations

from pathlib import Path

from gigascope.config.synthesis_domain import Ingest, RealImage, SynthesisInputs
from gigascope.errors import UserError


def calibrate_image(image: str, voxel_um: str | None, channel: int | None) -> str:
    """Estimates from one image, as YAML with the uncertainty of each.

    Parameters
    ----------
    image : TIFF, folder of TIFF files, OME-Zarr or HDF5
    voxel_um : "z,y,x" in micrometres; none: as the file says
    channel : where it has several

    Raises
    ------
    UserError : the image is broken, not clear, or of unknown voxel size
    """
    from gigascope.synthesis.calibration.fragment import calibrate, yaml_fragment
    from gigascope.synthesis.domain.image import read_image
    from gigascope.synthesis.domain.source import open_sources

    entry = RealImage(image=image, channel=channel, voxel_size_um=_size(voxel_um))
    (source,) = open_sources(SynthesisInputs(real=(entry,)), Ingest())
    read = read_image(source, None, 1)
    z, y, x = read.voxels.shape
    head = [f"# from {Path(image).name}: {z} x {y} x {x} voxels (z, y, x), voxel size from {source.voxel_from}"]
    head += [f"# {remark}" for remark in read.remarks]
    return "\n".join(head) + "\n" + yaml_fragment(calibrate(read.voxels, read.voxel_um))


def _size(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        z = y = x = 0.0
    if not min(z, y, x) > 0:
        raise UserError(f"{text!r} is no voxel size.", do="Write --voxel-um z,y,x in micrometres, such as 1.5,0.5,0.5.")
    return z, y, x
