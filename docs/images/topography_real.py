"""The second picture of docs/topography.md: ``python docs/images/topography_real.py PCB_EDGE HEATSINK``, two results.

A row for each result of one camera: its middle slice, all in focus, heights in false colours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gigascope.report.topography_colours import coloured
from gigascope.store.open import open_store
from gigascope.topography.mosaic.relief import height_limits

GAP = 6
# Pixels of a panel.
SIZE = (288, 384)


def main(folders: list[Path]) -> None:
    rows = [np.concatenate([panel(values) for values in panels(folder)], axis=1) for folder in folders]
    whole = np.concatenate(rows)[:-GAP, :-GAP]
    path = Path(__file__).with_suffix(".webp")
    path.write_bytes(imagecodecs.webp_encode(whole, level=75, lossless=False))
    print(f"{path}: {whole.shape[1]} x {whole.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def panels(folder: Path) -> list[NDArray]:
    """Middle slice, colours and heights of one result."""
    mosaic, stacks = open_store(folder / "mosaic.zarr"), open_store(folder / "registered.zarr")
    channels = dict(zip(mosaic.attrs["channels"], np.asarray(mosaic.array()[...])))
    picture = np.stack([channels[name] for name in ("red", "green", "blue")], axis=-1)
    slices = stacks.member("rgb")
    middle = np.moveaxis(np.asarray(slices[0, 0, slices.shape[2] // 2]), 0, -1)
    height = channels["height"]
    return [middle, np.nan_to_num(picture), coloured(height, height_limits(height))]


def panel(values: NDArray) -> NDArray:
    """One picture at the panel's size, with a white gap below and on the right."""
    small = Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).resize(SIZE[::-1], Image.Resampling.BOX)
    found = np.full((SIZE[0] + GAP, SIZE[1] + GAP, 3), 255, np.uint8)
    found[: SIZE[0], : SIZE[1]] = np.asarray(small)
    return found


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
