"""All arrays of one shard of an image, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels.filters import area_sample
from gigascope.synthesis.simulation import labelling, published
from gigascope.synthesis.simulation.geometry import Region, blocks
from gigascope.synthesis.simulation.scene import Scene


def simulate_shard(
    scene: Scene,
    region: Region,
    settings: Mapping[str, Any],
    phantom: Mapping[str, NDArray],
    blurred_psf: NDArray[np.float32] | None = None,
) -> dict[str, NDArray]:
    """Image, labels and what else is asked for.

    Parameters
    ----------
    region : of the image
    settings : resolved section `simulate`
    phantom : centroids and volumes of all nuclei of the phantom, where `distance` is asked for
    blurred_psf : PSF on the voxels of the image, for the labels as they look

    Returns
    -------
    arrays by the names of :data:`gigascope.synthesis.simulation.stored.PATHS`
    """
    asked, kept = settings["labels"], settings["store"]
    found = (_published if settings["chain"] == "published" else _physical)(scene, region, settings)
    found = {name: values for name, values in found.items() if name != "expected" or kept["keep_expected"]}
    margin = _margin(asked, blurred_psf)
    labels = _labels(scene, region, margin, asked["subsample"])
    inner = tuple(slice(m, n - m) for m, n in zip(margin, labels.shape))
    found["nuclei"] = np.ascontiguousarray(labels[inner]).astype(np.uint32)
    found["spheroid"] = scene.inside(region).cpu().numpy().astype(np.uint8)
    if asked["boundary"]:
        near = tuple(slice(m - 1, n - m + 1) for m, n in zip(margin, labels.shape))
        found["boundary"] = labelling.boundary(labels[near])
    if asked["distance"]:
        found["distance"] = _distance(scene, region, found["nuclei"], phantom)
    if blurred_psf is not None:
        reach = [n // 2 for n in blurred_psf.shape]
        near = tuple(slice(m - h, n - m + h) for m, h, n in zip(margin, reach, labels.shape))
        found["nuclei_blurred"] = labelling.blurred(labels[near], blurred_psf, asked["blurred_threshold"])
    return found


def _physical(scene: Scene, region: Region, settings: Mapping[str, Any]) -> dict[str, NDArray]:
    """Image, expected electrons, and the density if it is kept, block by block."""
    shape = tuple(s.stop - s.start for s in region)
    expected, density = torch.empty(shape, device=scene.device), _density(scene, shape, settings)
    for block in blocks(region, settings["grid"]["block"]):
        inside = tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(block, region))
        keep = None if density is None else _Keep(density, inside, scene.image.ratio)
        expected[inside] = scene.expected(block, keep)
    grey = scene.photograph(expected, region).cpu().numpy()
    found = {"image": grey.astype(np.uint8) if settings["camera"]["bits"] <= 8 else grey}
    found["expected"] = expected.cpu().numpy()
    return found if density is None else {**found, "density": density}


def _published(scene: Scene, region: Region, settings: Mapping[str, Any]) -> dict[str, NDArray]:
    """The same by the published chain: grey values before noise instead of electrons, 0 ... 255 instead of density."""
    density = _density(scene, tuple(s.stop - s.start for s in region), settings)

    def keep(drawn: NDArray[np.uint8]) -> None:
        if density is not None:
            density[...] = drawn

    how, block = published.PublishedCamera.of(settings), settings["grid"]["block"]
    image, before = published.published_image(scene, region, how, block, keep)
    found: dict[str, NDArray] = {"image": image, "expected": before}
    return found if density is None else {**found, "density": density}


def psf_on_image(kernel: NDArray[np.float32], ratio: tuple[float, float, float]) -> NDArray[np.float32]:
    """A PSF of the finer grid on the voxels of the image, its middle in the middle of a voxel, odd sizes, sum 1."""
    sizes = [2 * int(np.ceil((n / 2) / r - 0.5)) + 1 if n / 2 > r / 2 else 1 for n, r in zip(kernel.shape, ratio)]
    before = [int(np.ceil(max(0.0, (s * r - n) / 2))) + 1 for s, r, n in zip(sizes, ratio, kernel.shape)]
    padded = np.pad(kernel, [(b, b) for b in before])
    start = [b + n / 2 - s * r / 2 for b, n, s, r in zip(before, kernel.shape, sizes, ratio)]
    found = area_sample(torch.from_numpy(padded), ratio, start, sizes).numpy()
    return np.asarray(found / found.sum())


class _Keep:
    """Puts the density under a block into that under the shard."""

    def __init__(self, into: NDArray[np.float16], inside: tuple[slice, ...], ratio: tuple[float, ...]) -> None:
        self.into = into
        self.place = tuple(slice(s.start * round(r), s.stop * round(r)) for s, r in zip(inside, ratio))

    def __call__(self, density: Tensor) -> None:
        self.into[self.place] = density.cpu().numpy().astype(np.float16)


def _density(scene: Scene, shape: tuple[int, ...], settings: Mapping[str, Any]) -> NDArray[np.float16] | None:
    """Room for the density under a region, if it is kept."""
    if not settings["store"]["keep_density"]:
        return None
    return np.empty([n * round(r) for n, r in zip(shape, scene.image.ratio)], np.float16)


def _margin(asked: Mapping[str, Any], psf: NDArray[np.float32] | None) -> list[int]:
    """Voxels around the shard whose labels matter."""
    least = 1 if asked["boundary"] else 0
    return [max(least, n // 2) for n in psf.shape] if psf is not None else [least] * 3


def _labels(scene: Scene, region: Region, margin: list[int], subsample: int) -> NDArray[np.int32]:
    wider = tuple(slice(s.start - m, s.stop + m) for s, m in zip(region, margin))
    return np.asarray(scene.labels((wider[0], wider[1], wider[2]), subsample).cpu().numpy())


def _distance(scene: Scene, region: Region, labels: NDArray, phantom: Mapping[str, NDArray]) -> NDArray[np.float32]:
    centre = np.stack([phantom[f"centroid_{axis}"] for axis in "zyx"], axis=1)
    voxel = scene.real_um(scene.image.voxel_um)
    return labelling.centre_distance(labels, scene.image.origin(region), voxel, centre, phantom["volume_um3"])
