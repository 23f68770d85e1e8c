"""What taking prototypes out of labelled images will need, from the shapes of the images alone."""

from __future__ import annotations

import math
from typing import Any

from gigascope.runtime.resources import Estimate

# Python with torch, scipy and zarr loaded: the peak of the stage on 4 million voxels, without what follows from these.
LIGHT_BYTES = 250 * 2**20
# Image, ids of 32 bits as they are read and as they are counted, and one more of each while they are compared.
VOXEL_BYTES = 20
# A crop, its record, and its row in the table.
NUCLEUS_BYTES = 48**3 * 2 + 400
# Voxels of an image for each nucleus, at least: one of 6 µm at voxels of 0.5 µm, a third of them inside.
VOXELS_PER_NUCLEUS = 3000
SECONDS_PER_NUCLEUS = 0.1


def estimate_prototypes(dataset: Any, header: Any) -> Estimate:
    """One image after the other; all records are held. `header.domain`: headers of the real images."""
    images = [image for image in header.domain if image.domain == "A" and image.labelled]
    voxels = [math.prod(image.written) for image in images] or [0]
    nuclei = sum(voxels) // VOXELS_PER_NUCLEUS
    disk = nuclei * NUCLEUS_BYTES
    seconds = 5 + SECONDS_PER_NUCLEUS * nuclei
    memory = LIGHT_BYTES + VOXEL_BYTES * max(voxels) + disk
    return Estimate(memory, 0, seconds, disk, 40 + nuclei // 256, f"about {nuclei} nuclei at most")
