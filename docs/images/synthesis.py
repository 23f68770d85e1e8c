"""The picture of docs/synthesis.md, from the result of the demo: ``python docs/images/synthesis.py RESULTS``.

Middle x-y slices above middle x-z slices, each kind of image between its own percentiles: simulated, the same with the
outlines of its labels, what the network made of it, and an image whose look was to be learned.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from gigascope.report.synthesis_pictures import outlines
from gigascope.store.open import StoreReader, open_store

GAP, SCALE = 6, 2
# Of the grey values, at each end.
TAILS = (0.1, 99.8)
OUTLINE = (255, 176, 0)


def main(folder: Path) -> None:
    cultures, adapted, real = (open_store(folder / f"{name}.zarr") for name in ("cultures", "adapted", "real"))
    labels = np.asarray(cultures.image(cultures.images[0]).label("nuclei")[...])
    simulated = volume(cultures)
    panels = [column(simulated), column(simulated, labels), column(volume(adapted)), column(volume(real))]
    height, width = (max(panel.shape[axis] for panel in panels) for axis in (0, 1))
    whole = np.full((height, len(panels) * (width + GAP) - GAP, 3), 255, np.uint8)
    for k, panel in enumerate(panels):
        left = k * (width + GAP)
        whole[: panel.shape[0], left : left + panel.shape[1]] = panel
    path = Path(__file__).with_suffix(".webp")
    path.write_bytes(imagecodecs.webp_encode(whole, level=80, lossless=False))
    print(f"{path}: {whole.shape[1]} x {whole.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def volume(store: StoreReader) -> NDArray:
    """(z, y, x) of the first image, between 0 and 255."""
    image = store.image(store.images[0])
    values = np.asarray(image.array()[...], np.float64)
    values = values.reshape(values.shape[-3:])
    low, high = np.percentile(values, TAILS)
    return 255 * np.clip((values - low) / (high - low), 0, 1)


def column(values: NDArray, labels: NDArray | None = None) -> NDArray[np.uint8]:
    """x-y slice above x-z slice, in colours; voxels three times as long along z are drawn so."""
    parts = []
    for plane, factors in ((np.s_[values.shape[0] // 2], (1, 1)), (np.s_[:, values.shape[1] // 2], (3, 1))):
        cut = np.kron(values[plane], np.ones((SCALE * factors[0], SCALE)))
        coloured = np.repeat(cut[..., None], 3, axis=-1)
        if labels is not None:
            coloured[outlines(np.kron(labels[plane], np.ones((SCALE * factors[0], SCALE), labels.dtype)))] = OUTLINE
        parts += [coloured, np.full((GAP, cut.shape[1], 3), 255.0)]
    return np.concatenate(parts[:-1]).round().astype(np.uint8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
