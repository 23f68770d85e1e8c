"""Small ensembles of round nuclei, simulated ones with labels and real ones that are darker, blurred and noisy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.store.commit import finish
from gigascope.store.ensemble import create_ensemble, image_name

SPACING = {"z": 1.5, "y": 0.5, "x": 0.5}


def nuclei(rng: np.random.Generator, shape: tuple[int, int, int], n: int) -> NDArray[np.uint32]:
    """(z, y, x) labels of n balls of 3 to 5 micrometres radius, later ones behind earlier ones."""
    labels = np.zeros(shape, np.uint32)
    at = np.indices(shape).astype(float)
    edges = np.array([1.5, 0.5, 0.5])
    for label in range(1, n + 1):
        centre, radius = rng.uniform(0, 1, 3) * shape, rng.uniform(3, 5)
        away = np.sqrt((((at.T - centre) * edges).T ** 2).sum(0))
        labels[(away < radius) & (labels == 0)] = label
    return labels


def simulated(rng: np.random.Generator, labels: NDArray) -> NDArray[np.uint16]:
    """Sharp and bright."""
    return (100 + 900 * (labels > 0) + rng.normal(0, 10, labels.shape)).clip(0).astype(np.uint16)


def real(rng: np.random.Generator, labels: NDArray) -> NDArray[np.uint16]:
    """Blurred, dim, noisy."""
    blurred = ndimage.gaussian_filter((labels > 0).astype(float), (1, 1.5, 1.5))
    return rng.poisson(20 + 200 * blurred).astype(np.uint16)


def write_ensemble(
    path: Path,
    images: list[NDArray],
    labels: list[NDArray] | None = None,
    *,
    spacing: dict[str, float] = SPACING,
    axes: tuple[str, ...] = ("z", "y", "x"),
    **attrs: Any,
) -> Path:
    """A finished store of images."""
    ensemble = create_ensemble(path)
    for n, image in enumerate(images):
        member = ensemble.create_image(image_name(n), shape=image.shape, dtype=image.dtype, axes=axes, spacing=spacing)
        member[...] = image
        if labels is not None:
            member.create_label("nuclei", np.uint32)[...] = labels[n]
    ensemble.attrs |= attrs
    finish(ensemble, {})
    return path


def write_domains(
    folder: Path, rng: np.random.Generator, shape: tuple[int, int, int] = (16, 48, 64), n: int = 2
) -> Path:
    """Stores `cultures` and `real` of n images each."""
    labels = [nuclei(rng, shape, 12) for _ in range(n)]
    write_ensemble(folder / "cultures.zarr", [simulated(rng, found) for found in labels], labels)
    write_ensemble(folder / "real.zarr", [real(rng, nuclei(rng, shape, 12)) for _ in range(n)])
    return folder
