"""The picture of docs/topography.md, from a result of preset XS: ``python docs/images/topography.py RESULTS``.

The mosaic: one slice of all views, all in focus, heights in false colours, and as a relief lit from the upper left.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from gigascope.report.topography_colours import coloured
from gigascope.store.open import StoreReader, open_store
from gigascope.topography.calibration.stored import read_calibration
from gigascope.topography.capture.bayer import demosaic
from gigascope.topography.geometry.candidates import inside
from gigascope.topography.geometry.poses import to_view
from gigascope.topography.mosaic.relief import height_limits, shaded_relief

GAP = 6
# Of the brightness, at each end.
TAILS = (0.2, 99.8)


def main(folder: Path) -> None:
    mosaic, stacks = open_store(folder / "mosaic.zarr"), open_store(folder / "raw.zarr")
    channels = dict(zip(mosaic.attrs["channels"], np.asarray(mosaic.array()[...])))
    picture = np.stack([channels[name] for name in ("red", "green", "blue")], axis=-1)
    height, known = channels["height"], np.isfinite(channels["height"])
    low, high = np.nanpercentile(picture, TAILS)
    flat = one_slice(folder, stacks, picture.shape[:2])
    shown = [255 * np.clip((values - low) / (high - low), 0, 1) for values in (flat, picture)]
    shown.append(coloured(height, height_limits(height)))
    shown.append(shaded_relief(height, float(mosaic.spacing["x"]), exaggeration=2.0))
    panels = [np.where(known[..., None], np.nan_to_num(panel), 255).round().astype(np.uint8) for panel in shown]
    rows, cols = height.shape
    whole = np.full((2 * rows + GAP, 2 * cols + GAP, 3), 255, np.uint8)
    for k, panel in enumerate(panels):
        row, col = (k // 2) * (rows + GAP), (k % 2) * (cols + GAP)
        whole[row : row + rows, col : col + cols] = panel
    path = Path(__file__).with_suffix(".webp")
    path.write_bytes(imagecodecs.webp_encode(whole, level=75, lossless=False))
    print(f"{path}: {whole.shape[1]} x {whole.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def one_slice(folder: Path, stacks: StoreReader, shape: tuple[int, int]) -> NDArray:
    """The middle slice of all views at their places, (rows, columns, 3); of two at one place the later."""
    calibration, _ = read_calibration(open_store(folder / "calibration.zarr"))
    points = np.moveaxis(np.mgrid[: shape[0], : shape[1]].astype(np.float64), 0, -1)
    bayer, found = stacks.member("bayer"), np.full((*shape, 3), np.nan)
    for number in range(calibration.instrument.n_views):
        row, col = divmod(number, calibration.instrument.view_shape[1])
        image = demosaic(np.asarray(bayer[row, col, bayer.shape[2] // 2]), str(stacks.attrs["bayer"]))
        at = to_view(calibration.poses, number, points)
        seen = inside(at, calibration.instrument.size, 0.5)
        found[seen] = image[tuple(at[seen].round().astype(int).T)]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
