"""Images of a domain in the store `real`: a0000, a0001, ... are real, b0000, ... naive ones of the user's own.

Attributes of each image: `domain` ("A" real, "B" naive), `use` ("train" or "inference"), `source`, `source_hash` (of
the voxels as they stand in the file), `voxel_size_from`, `file_voxel_size_um`, `n_labels`, `remarks`. An image with
labels has a label image and a table, both called `nuclei`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gigascope.synthesis.domain.image import DomainImage
from gigascope.synthesis.domain.labels import label_table
from gigascope.synthesis.domain.resample import SAME
from gigascope.synthesis.domain.source import DomainSource

if TYPE_CHECKING:
    from gigascope.store.ensemble import EnsembleWriter
    from gigascope.store.open import StoreReader

LABELS = "nuclei"


def domain_images(store: StoreReader, domain: str = "A", use: str | None = None) -> list[str]:
    """Names of the images of a domain in the store `real`, in order; of one use only, if it is given."""
    found = [(name, store.image(name).attrs) for name in store.images]
    return [name for name, attrs in found if attrs["domain"] == domain and use in (None, attrs["use"])]


def write_image(store: EnsembleWriter, source: DomainSource, image: DomainImage) -> str:
    """Add an image; returns its name."""
    letter = source.domain.lower()
    name = f"{letter}{sum(known.startswith(letter) for known in store.images):04d}"
    spacing = dict(zip("zyx", image.voxel_um))
    written = store.create_image(name, shape=image.voxels.shape, dtype=image.voxels.dtype, spacing=spacing)
    labels = None if image.labels is None else written.create_label(LABELS, np.uint32)
    for region in written.shard_regions():
        written[region] = image.voxels[region]
        if labels is not None and image.labels is not None:
            labels[region] = image.labels[region]
    if image.labels is not None:
        columns, units = label_table(image.labels, image.voxel_um)
        written.write_table(LABELS, columns, units)
    written.attrs |= _attributes(source, image)
    return name


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


def _attributes(source: DomainSource, image: DomainImage) -> dict[str, Any]:
    return {
        "domain": source.domain,
        "use": source.use,
        "source": str(source.image.path),
        "source_hash": image.digest,
        "voxel_size_from": source.voxel_from,
        "file_voxel_size_um": list(source.voxel_um),
        "n_labels": image.n_labels,
        "remarks": image.remarks,
    }


def labelled_images(store: StoreReader) -> list[str]:
    """Names of the real images that have labels, in order."""
    return [name for name in domain_images(store) if LABELS in store.image(name).labels]
