"""The published prototypes, crops `name.tif` with `name_label.tif`, as records of a library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.synthesis.prototypes.extraction import Extracted, Rules, extract
from gigascope.synthesis.prototypes.shape_fit import Size3

LABEL = "_label"


def crop_files(folder: Path) -> list[tuple[Path, Path]]:
    """Crops with their labels, in order.

    Raises
    ------
    UserError : no such folder, no crop in it, a crop without labels
    """
    files = sorted(folder.glob("*.tif")) if folder.is_dir() else []
    crops = [file for file in files if not file.stem.endswith(LABEL)]
    if not crops:
        raise UserError("has no crops (name.tif with name_label.tif).", where=folder, do="Check input_phantom_folder.")
    pairs = [(crop, crop.with_name(f"{crop.stem}{LABEL}.tif")) for crop in crops]
    for crop, label in pairs:
        if label not in files:
            raise UserError(f"has no {label.name} beside it.", where=crop, do="Give every crop its labels.")
    return pairs


def record_of(image: NDArray, labels: NDArray, voxel_um: Size3, rules: Rules) -> Extracted:
    """The nucleus of a crop: the label with most voxels. The others are neighbours that reach into the crop.

    Parameters
    ----------
    image, labels : (z, y, x), cut out tightly
    voxel_um : (z, y, x)
    """
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    if not len(values):
        return Extracted()
    # around the crop lies what nobody knows: neither nucleus nor background
    known = np.where(labels == values[counts.argmax()], 1, np.where(labels > 0, 2, 0)).astype(np.uint32)
    around = np.pad(known, 1, constant_values=2)
    return extract(np.pad(image, 1, mode="edge"), around, voxel_um, rules)
