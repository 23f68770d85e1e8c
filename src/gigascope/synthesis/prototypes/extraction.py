"""All nuclei of a labelled image that are whole and have a shape that can be described, as records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM
from gigascope.synthesis.prototypes.appearance import local_background, texture_crop
from gigascope.synthesis.prototypes.shape_fit import ShapeFit, Size3, fit_shape

# Why a nucleus is left out, in words.
BORDER = "touch the border of the image"
SMALL = "are too small"
MISFIT = "have a shape that harmonics of degree 8 do not fit"
HIDDEN = "are not star-convex"
DARK = "are not brighter than their surroundings"
REASONS = (BORDER, SMALL, MISFIT, HIDDEN, DARK)


@dataclass(frozen=True)
class Rules:
    """What is kept; see the keys of the section `prototypes`.

    Attributes
    ----------
    margin_um : local background is taken this far around a nucleus
    min_voxels, max_residual, max_hidden : beyond, a nucleus is discarded
    texture : crops are made
    """

    margin_um: float = 2.0
    min_voxels: int = 150
    max_residual: float = 0.05
    max_hidden: float = 0.03
    texture: bool = True


@dataclass
class Extracted:
    """Records of the nuclei of one image, in the order of their ids.

    Attributes
    ----------
    shapes : of each
    label_id : in the image
    signal : mean brightness above the local background, grey values
    background : grey values
    crops : texture of each, empty if none are made
    discarded : why nuclei were left out, and how many
    borrowed : nuclei without free surroundings, whose background is that of the whole image
    """

    shapes: list[ShapeFit] = field(default_factory=list)
    label_id: list[int] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    background: list[float] = field(default_factory=list)
    crops: list[NDArray] = field(default_factory=list)
    discarded: Counter[str] = field(default_factory=Counter)
    borrowed: int = 0

    @property
    def n(self) -> int:
        """Nuclei that were kept."""
        return len(self.shapes)

    @property
    def intensity(self) -> NDArray[np.float32]:
        """Brightness of each over the median of the image: comparable among images of different exposure."""
        signal = np.array(self.signal)
        return (signal / np.median(signal)).astype(np.float32) if self.n else np.zeros(0, np.float32)

    @property
    def beyond_crop(self) -> int:
        """Nuclei that may be larger than their crop: at its border stands the value of its last sample."""
        half = (CROP - 1) / 2 * CROP_SPACING_UM
        return sum(shape.radius * float(np.exp(np.abs(shape.harmonics).max())) > half for shape in self.shapes)


def extract(image: NDArray, labels: NDArray[np.uint32], voxel_um: Size3, rules: Rules) -> Extracted:
    """Records of all nuclei of an image that pass the rules.

    Parameters
    ----------
    image : (z, y, x) grey values
    labels : (z, y, x), each id one connected object
    voxel_um : (z, y, x), micrometres
    """
    found = Extracted()
    ids = np.unique(labels)
    ids = ids[ids > 0]
    compact = np.searchsorted(ids, labels).astype(np.int32) + 1
    compact[labels == 0] = 0
    elsewhere = _level(image[labels == 0])
    margin = [int(np.ceil(rules.margin_um / size)) + 1 for size in voxel_um]
    for number, box in enumerate(ndimage.find_objects(compact), start=1):
        if any(s.start == 0 or s.stop == n for s, n in zip(box, labels.shape)):
            found.discarded[BORDER] += 1
            continue
        wide = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margin))
        _add(found, image[wide], compact[wide], number, int(ids[number - 1]), voxel_um, rules, elsewhere)
    return found


def _level(values: NDArray) -> float:
    return float(np.median(values)) if values.size else 0.0


def _add(
    found: Extracted,
    image: NDArray,
    labels: NDArray[np.int32],
    number: int,
    label_id: int,
    voxel_um: Size3,
    rules: Rules,
    elsewhere: float,
) -> None:
    """Describe the nucleus `number` of a crop, and keep it or count why not."""
    mask = labels == number
    if np.count_nonzero(mask) < rules.min_voxels:
        found.discarded[SMALL] += 1
        return
    shape = fit_shape(mask, voxel_um)
    # first what is nearer to the cause: a body with an arm fits badly because of the arm
    if shape.hidden > rules.max_hidden:
        found.discarded[HIDDEN] += 1
        return
    if shape.residual > rules.max_residual:
        found.discarded[MISFIT] += 1
        return
    level = local_background(image, mask, labels == 0, voxel_um, rules.margin_um)
    borrowed = level is None
    level = elsewhere if level is None else level
    signal = image.astype(np.float32) - np.float32(level)
    mean = float(signal[mask].mean(dtype=np.float64))
    if mean <= 0:
        found.discarded[DARK] += 1
        return
    found.borrowed += borrowed
    found.shapes.append(shape)
    found.label_id.append(label_id)
    found.signal.append(mean)
    found.background.append(level)
    if rules.texture:
        found.crops.append(texture_crop(signal, mask, shape, voxel_um))
