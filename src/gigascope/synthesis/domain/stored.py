"""Images of a domain in the store `real`: a0000, a0001, ... are real, b0000, ... naive ones of the user's own.

Attributes of each image: `domain` ("A" real, "B" naive), `use` ("train" or "inference"), `source`, `source_hash` (of
the voxels as they stand in the file), `voxel_size_from`, `file_voxel_size_um`, `n_labels`, `remarks`. An image with
labels has a label image and a table, both called `nuclei`. A planted image also has the attribute `planted` (seed, gap,
settings) and a label image `spheroid`; its labels are its truth.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.synthesis.domain.image import DomainImage
from gigascope.synthesis.domain.labels import label_table
from gigascope.synthesis.domain.resample import SAME
from gigascope.synthesis.domain.source import DomainSource, Size3

if TYPE_CHECKING:
    from gigascope.store.ensemble import EnsembleWriter, MemberWriter
    from gigascope.store.open import StoreReader
    from gigascope.synthesis.domain.planted import PlantedImage

LABELS = "nuclei"


def domain_images(store: StoreReader, domain: str = "A", use: str | None = None) -> list[str]:
    """Names of the images of a domain in the store `real`, in order; of one use only, if it is given."""
    found = [(name, store.image(name).attrs) for name in store.images]
    return [name for name, attrs in found if attrs["domain"] == domain and use in (None, attrs["use"])]


def write_image(store: EnsembleWriter, source: DomainSource, image: DomainImage) -> str:
    """Add an image that was read; returns its name."""
    written = _write(store, source.domain, image.voxels, image.labels, image.voxel_um)
    written.attrs |= {
        "domain": source.domain,
        "use": source.use,
        "source": str(source.image.path),
        "source_hash": image.digest,
        "voxel_size_from": source.voxel_from,
        "file_voxel_size_um": list(source.voxel_um),
        "n_labels": image.n_labels,
        "remarks": image.remarks,
    }
    return written.key


def write_planted(store: EnsembleWriter, image: PlantedImage, use: str) -> str:
    """Add an image of a planted domain, with its truth; returns its name."""
    written = _write(store, "A", image.voxels, image.labels, image.voxel_um)
    spheroid = written.create_label("spheroid")
    for region in written.shard_regions():
        spheroid[region] = image.spheroid[region]
    written.attrs |= {
        "domain": "A",
        "use": use,
        "source": "planted",
        "source_hash": hashlib.sha256(image.voxels.astype("<u2").data).hexdigest(),
        "voxel_size_from": "the simulation",
        "file_voxel_size_um": list(image.voxel_um),
        "n_labels": int(np.count_nonzero(np.unique(image.labels))),
        "remarks": image.warnings,
        "planted": image.facts,
    }
    return written.key


def _write(
    store: EnsembleWriter, domain: str, voxels: NDArray, labels: NDArray[np.uint32] | None, voxel_um: Size3
) -> MemberWriter:
    letter = domain.lower()
    name = f"{letter}{sum(known.startswith(letter) for known in store.images):04d}"
    written = store.create_image(name, shape=voxels.shape, dtype=voxels.dtype, spacing=dict(zip("zyx", voxel_um)))
    label = None if labels is None else written.create_label(LABELS, np.uint32)
    for region in written.shard_regions():
        written[region] = voxels[region]
        if label is not None and labels is not None:
            label[region] = labels[region]
    if labels is not None and labels.any():
        written.write_table(LABELS, *label_table(labels, voxel_um))
    return written


def remark_differences(store: EnsembleWriter) -> list[str]:
    """What differs among the images that are to be one domain, in words."""
    lines = []
    for domain, word in (("A", "real"), ("B", "naive")):
        names = [name for name in store.images if name.startswith(domain.lower())]
        images = [store.image(name) for name in names]
        if not images:
            continue
        first = np.array([images[0].spacing[axis] for axis in "zyx"])
        sizes = {" x ".join(f"{image.spacing[axis]:.4g}" for axis in "zyx") for image in images}
        if any(np.abs([image.spacing[a] for a in "zyx"] / first - 1).max() > SAME for image in images):
            listed = ", ".join(sorted(sizes))
            lines.append(f"the {word} images have different voxel sizes ({listed} um): set ingest.output_voxel_um.")
        kinds = sorted({image.dtype.name for image in images})
        if len(kinds) > 1:
            lines.append(
                f"the {word} images are of different types ({', '.join(kinds)}): their grey values may differ."
            )
    return lines


def labelled_images(store: StoreReader) -> list[str]:
    """Names of the real images that have labels, in order."""
    return [name for name in domain_images(store) if LABELS in store.image(name).labels]
