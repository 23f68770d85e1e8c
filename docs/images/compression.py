"""The picture of docs/compression.md, from the result of the demo: ``python docs/images/compression.py RESULTS``.

Maximum projections along z, twice as large as the voxels: original, decoded, AV1 at as many bytes, noise-free truth.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from gigascope.store.open import open_store

SCALE, GAP = 2, 6


def main(folder: Path) -> None:
    codec = open_store(folder / "codec_pictures.zarr")
    clean = open_store(folder / "volume.zarr").side("clean")
    images = [np.asarray(codec.side(f"projection_{name}")[:]) for name in ("original", "ours", "av1")]
    images.append(np.asarray(clean[:]).max(0))
    low, high = np.percentile(images[0], (0.5, 99.7))
    panels = [grey(image, float(low), float(high)) for image in images]
    height, width = panels[0].shape
    picture = np.full((2 * height + GAP, 2 * width + GAP), 255, np.uint8)
    for k, panel in enumerate(panels):
        y, x = (k // 2) * (height + GAP), (k % 2) * (width + GAP)
        picture[y : y + height, x : x + width] = panel
    path = Path(__file__).with_suffix(".png")
    path.write_bytes(imagecodecs.png_encode(picture, level=9))
    print(f"{path}: {picture.shape[1]} x {picture.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def grey(image: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """Faint branches beside bright cell bodies: a square root, as for photons."""
    unit = np.sqrt(np.clip((image.astype(np.float64) - low) / (high - low), 0, 1))
    return np.kron(np.round(255 * unit).astype(np.uint8), np.ones((SCALE, SCALE), np.uint8))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
