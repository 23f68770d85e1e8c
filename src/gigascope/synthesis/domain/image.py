"""One image of a domain, read and checked: finite, not constant, its labels mended, on the grid that is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.synthesis.domain.instances import divide_mask
from gigascope.synthesis.domain.labels import mend_labels
from gigascope.synthesis.domain.resample import SAME, resample_image, resample_labels
from gigascope.synthesis.domain.source import DomainSource, Size3, read_whole

# More saturated voxels than this share are worth a warning: what is cut off there cannot come back.
SATURATED = 1e-3


@dataclass(frozen=True)
class DomainImage:
    """An image in memory.

    Attributes
    ----------
    voxels : (z, y, x), in the grey values and the type of the file
    labels : (z, y, x) uint32, or None
    voxel_um : (z, y, x), micrometres
    digest : SHA-256 of shape, type and voxels of the file, hexadecimal
    n_labels : objects
    remarks : what a person should know, one sentence each
    """

    voxels: NDArray
    labels: NDArray[np.uint32] | None
    voxel_um: Size3
    digest: str
    n_labels: int = 0
    remarks: list[str] = field(default_factory=list)


def read_image(source: DomainSource, target_um: Size3 | None, min_label_voxels: int) -> DomainImage:
    """Read an image and its labels.

    Parameters
    ----------
    target_um : voxel size (z, y, x) to resample to; None: as it is
    min_label_voxels : smaller pieces of labels are removed

    Raises
    ------
    UserError : values that are not finite, a constant image, labels that are none
    """
    voxels = source.read()
    digest = hashlib.sha256(f"{list(voxels.shape)} {voxels.dtype.name}\n".encode())
    digest.update(voxels.astype(voxels.dtype.newbyteorder("<"), copy=False).data)
    remarks = _check(voxels, source)
    labels, n_labels, of_labels = _labels(source, min_label_voxels)
    remarks += of_labels
    if target_um is not None and any(abs(t / s - 1) > SAME for t, s in zip(target_um, source.voxel_um)):
        voxels = resample_image(voxels, source.voxel_um, target_um)
        if labels is not None:
            labels = resample_labels(labels, source.voxel_um, target_um)
            left = np.count_nonzero(np.unique(labels))
            if left < n_labels:
                remarks.append(f"{n_labels - left} labels have no voxel left after resampling.")
            n_labels = int(left)
    size = source.voxel_um if target_um is None else target_um
    return DomainImage(voxels, labels, size, digest.hexdigest(), n_labels, remarks)


def _check(voxels: NDArray, source: DomainSource) -> list[str]:
    path = source.image.path
    remarks = list(source.image.warnings)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        z, y, x = np.unravel_index(int(np.isfinite(voxels).argmin()), voxels.shape)
        what = f"holds values that are not finite (NaN or infinite), the first at z {z}, y {y}, x {x}."
        raise UserError(what, where=path, do="Repair the file.")
    low, high = voxels.min(), voxels.max()
    if low == high:
        raise UserError(f"is constant: every voxel is {low}.", where=path, do="Was it exported before it was written?")
    if voxels.dtype.kind in "iu" and high == np.iinfo(voxels.dtype).max:
        share = np.count_nonzero(voxels == high) / voxels.size
        if share > SATURATED:
            remarks.append(f"{100 * share:.2f} % of the voxels are saturated: their light is not known.")
    return remarks


def _labels(source: DomainSource, min_voxels: int) -> tuple[NDArray[np.uint32] | None, int, list[str]]:
    if source.labels is None:
        return None, 0, []
    remarks: list[str] = []
    found = read_whole(source.labels)
    if source.centres is not None:
        found, remarks = divide_mask(found, read_whole(source.centres), source.voxel_um, source.centres.path)
    mended = mend_labels(found, min_voxels, source.labels.path)
    return mended.labels, mended.n, [*remarks, *mended.remarks()]
