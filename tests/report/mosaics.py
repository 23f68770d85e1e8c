"""A mosaic of heights and colours whose every quarter is known, for the viewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gigascope.store.commit import finish
from gigascope.store.create import create_image
from gigascope.topography.mosaic.layout import channel_names, channels, mosaic_plan

# Red, green, blue and unseen quarters, row by row; heights rise from left to right.
SHAPE = (200, 300)


def write_mosaic(folder: Path, n_colours: int = 3) -> Path:
    """Write `mosaic.zarr` into a folder."""
    names, (rows, cols) = channel_names(n_colours), SHAPE
    values = np.zeros((len(names), *SHAPE), np.float32)
    quarters = ((slice(0, rows // 2), slice(0, cols // 2)), (slice(0, rows // 2), slice(cols // 2, cols)),
                (slice(rows // 2, rows), slice(0, cols // 2)))  # fmt: skip
    for channel, quarter in enumerate(quarters[:n_colours]):
        values[(channel, *quarter)] = 255
    values[n_colours] = np.linspace(-50, 50, cols)
    values[:, rows // 2 :, cols // 2 :] = np.nan
    writer = create_image(
        folder / "mosaic.zarr",
        shape=values.shape,
        dtype=np.float32,
        axes=("c", "y", "x"),
        spacing={"y": 1.3, "x": 1.3},
        unit="micrometer",
        plan=mosaic_plan(SHAPE, n_colours, 128),
        channels=channels(names, 255.0),
        allow_nan=True,
    )
    writer[:] = values
    writer.attrs |= {"channels": names, "height_unit": "micrometer", "white": 255.0}
    finish(writer, {"stage": "topography.mosaic"})
    return writer.path
