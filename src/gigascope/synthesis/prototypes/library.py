"""The library of prototypes: its store, and drawing varied nuclei from it.

`arrays/sh` (n, 81) float32: harmonics of the log radius over the mean radius; `arrays/axes` (n, 3) float32 µm: the mean
radius, three times; `arrays/intensity` (n,) float32: brightness over the median of its image; `arrays/texture`
(n, 48, 48, 48) float16: see :func:`gigascope.synthesis.prototypes.appearance.texture_crop`, left out if no textures
were wanted; table `nuclei`: where each comes from. A record is used like a procedural nucleus, and varied as a record:
voxels are never resampled again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.kernels.cells.harmonics import harmonic_scales
from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM
from gigascope.store.create import StoreWriter
from gigascope.store.plan import ShardPlan
from gigascope.synthesis.prototypes.extraction import Extracted
from gigascope.synthesis.seeds import normal, uniform

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

# Crops in a shard: 56 MiB.
_CROPS = 256
# Slots of a nucleus's seed for what is drawn here, far from those of its placement; harmonics take the last 81.
_ROW, _SCALE, _GAMMA, _WAVES = 1 << 20, (1 << 20) + 1, (1 << 20) + 4, (1 << 20) + 16


@dataclass(frozen=True)
class Variation:
    """How far a drawn nucleus may be from its record.

    Attributes
    ----------
    log_scale : each axis is multiplied by exp(U(-log_scale, log_scale))
    shape_rms : RMS over the sphere of what is added to the log radius
    gamma : lowest and highest exponent on the texture
    """

    log_scale: float = 0.15
    shape_rms: float = 0.02
    gamma: tuple[float, float] = (0.7, 1.4)


@dataclass(frozen=True)
class Library:
    """Records of nuclei.

    Attributes
    ----------
    sh : (n, 81) float32
    axes : (n, 3) float32 µm
    intensity : (n,) float32
    texture : (n, 48, 48, 48) float16, or (0, 48, 48, 48) where the library has none
    """

    sh: NDArray[np.float32]
    axes: NDArray[np.float32]
    intensity: NDArray[np.float32]
    texture: NDArray[np.float16]

    @property
    def n(self) -> int:
        """Number of records."""
        return len(self.sh)


@dataclass(frozen=True)
class DrawnNuclei:
    """Columns of a :class:`gigascope.kernels.cells.table.NucleiTable`, but for place and rotation.

    Attributes
    ----------
    record : (n,) int64, rows of the library
    semi_axes : (n, 3) float64 µm
    harmonics : (n, 81) float32
    intensity : (n,) float32
    gamma : (n,) float32
    texture : (n,) int32, rows of the library's crops; -1 where it has none
    """

    record: NDArray[np.int64]
    semi_axes: NDArray[np.float64]
    harmonics: NDArray[np.float32]
    intensity: NDArray[np.float32]
    gamma: NDArray[np.float32]
    texture: NDArray[np.int32]


def write_library(writer: StoreWriter, images: Mapping[str, Extracted], sources: Mapping[str, Any]) -> None:
    """Write the records of several images, in order; there is at least one record.

    Parameters
    ----------
    images : records by the name of their image
    sources : path and voxel size of each image, for the attributes
    """
    found = [extracted for extracted in images.values() if extracted.n]
    shapes = [shape for extracted in found for shape in extracted.shapes]
    columns: dict[str, NDArray] = {
        "sh": np.stack([shape.harmonics for shape in shapes]),
        "axes": np.repeat(np.array([shape.radius for shape in shapes], np.float32)[:, None], 3, axis=1),
        "intensity": np.concatenate([extracted.intensity for extracted in found]),
    }
    for name, values in columns.items():
        writer.create_array(name, values.shape, np.float32)[:] = values
    crops = [crop for extracted in found for crop in extracted.crops]
    if crops:
        shape = (len(crops), CROP, CROP, CROP)
        plan = ShardPlan(shape, 2, (1, CROP, CROP, CROP), (min(len(crops), _CROPS), CROP, CROP, CROP))
        array = writer.create_member("arrays/texture", plan, np.float16)
        for start in range(0, len(crops), _CROPS):
            array[start : start + _CROPS] = np.stack(crops[start : start + _CROPS])
    writer.write_table(
        "nuclei",
        {
            "image": np.concatenate([[name] * images[name].n for name in images]).astype(np.dtypes.StringDType()),
            "label_id": np.concatenate([e.label_id for e in found]).astype(np.uint32),
            "radius": np.array([shape.radius for shape in shapes]),
            "residual": np.array([shape.residual for shape in shapes]),
            "hidden": np.array([shape.hidden for shape in shapes]),
            "background": np.concatenate([e.background for e in found]),
            "signal": np.concatenate([e.signal for e in found]),
        },
        {"radius": "um"},
    )
    discarded = {name: dict(extracted.discarded) for name, extracted in images.items()}
    writer.attrs |= {"voxel_size_um": CROP_SPACING_UM, "source": dict(sources), "discarded": discarded}


def read_library(store: StoreReader) -> Library:
    """All records of the store that :func:`write_library` wrote."""
    texture = store.side("texture")[:] if "texture" in store.sides else np.zeros((0, CROP, CROP, CROP), np.float16)
    sh, axes, intensity = (np.asarray(store.side(name)[:]) for name in ("sh", "axes", "intensity"))
    return Library(sh, axes, intensity, np.asarray(texture))


def draw_nuclei(library: Library, seeds: NDArray[np.uint64], variation: Variation | None = None) -> DrawnNuclei:
    """A varied record for each seed; rotations are free, and the caller's.

    Parameters
    ----------
    seeds : (n,) uint64, one for each nucleus
    variation : how far from the record
    """
    vary = variation or Variation()
    record = np.minimum((uniform(seeds, _ROW) * library.n).astype(np.int64), library.n - 1)
    scale = np.stack([(2 * uniform(seeds, _SCALE + axis) - 1) * vary.log_scale for axis in range(3)], axis=1)
    low, high = vary.gamma
    harmonics = library.sh[record].astype(np.float64)
    sizes = harmonic_scales(vary.shape_rms, 1.8, 8).numpy()
    for wave in np.flatnonzero(sizes):
        harmonics[:, wave] += sizes[wave] * normal(seeds, _WAVES + int(wave))
    has_texture = len(library.texture) > 0
    return DrawnNuclei(
        record,
        library.axes[record].astype(np.float64) * np.exp(scale),
        harmonics.astype(np.float32),
        library.intensity[record],
        (low + (high - low) * uniform(seeds, _GAMMA)).astype(np.float32),
        record.astype(np.int32) if has_texture else np.full(len(seeds), -1, np.int32),
    )


def crops_tensor(library: Library) -> torch.Tensor:
    """The crops as :class:`gigascope.kernels.cells.table.NucleiTable` takes them."""
    return torch.from_numpy(np.ascontiguousarray(library.texture))
