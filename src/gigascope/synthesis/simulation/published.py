"""The chain of Bruch et al. (2023) from a phantom to grey values of 8 bits, beside the default one.

Every nucleus is stretched to 0 ... 255, attenuation and blur are each followed by a stretch of the whole volume and by
truncation to 8 bits, the image picks points of the finer grid, and one grey value is one photon. A stretch needs the
extremes of the whole volume, so the chain works on a whole image at once, as the published program does.

What the specification lists as wrong rather than different is left out: blocks of several PSFs are not stretched apart
from each other, the PSF is not mirrored, nothing wraps around, labels do not grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.kernels.cells.light import attenuate_
from gigascope.kernels.cells.noise import Sensor, camera
from gigascope.synthesis.optics.blocks import Window, window
from gigascope.synthesis.seeds import normal, seed_of, seeds_of
from gigascope.synthesis.simulation.geometry import Region, Three, blocks
from gigascope.synthesis.simulation.scene import Scene, window_of

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

WHITE = 255
# Voxels of the finer grid that are drawn or dimmed at once.
SLAB_VOXELS = 1 << 23
# Exact counts: neither full well nor bits cut what 255 grey values at the largest factor can give.
_COUNTS = Sensor(read_noise_e=0.0, offset_adu=0.0, full_well_e=65535.0)


@dataclass(frozen=True)
class PublishedCamera:
    """The camera, in grey values.

    Attributes
    ----------
    baseline : grey value of the darkest voxel
    poisson_factor : photons per grey value; 0: no shot noise
    gauss, gauss_absolute : standard deviation of normal noise, and of normal noise that is added as its absolute value
    n_acquisitions : that are averaged
    """

    baseline: float = 15.0
    poisson_factor: float = 1.0
    gauss: float = 0.0
    gauss_absolute: float = 0.0
    n_acquisitions: int = 1

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> PublishedCamera:
        """From the resolved section `simulate`."""
        given, counts = settings["camera"], settings["published"]
        noise = (counts["poisson_factor"], counts["gauss"], counts["gauss_absolute"])
        return cls(given["offset_adu"], *noise, given["n_average"])


def published_image(
    scene: Scene,
    region: Region,
    how: PublishedCamera,
    block: Sequence[int],
    keep: Callable[[U8], None] | None = None,
) -> tuple[U8, F32]:
    """Grey values, and those before noise.

    Parameters
    ----------
    region : of the image, all of it: stretches are of what it holds
    how : the camera
    block : (z, y, x) voxels of the image that are blurred at once, at most
    keep : is given what was drawn under the region, uint8 on the finer grid

    Returns
    -------
    (z, y, x) uint8, (z, y, x) float32
    """
    view = window_of(scene.image, scene.psf, region)
    volume = drawn(scene, view)
    if keep is not None:
        keep(volume[tuple(slice(h, n - h) for h, n in zip(scene.psf.half, view.shape))])
    dim(scene, view, volume)
    fine_block = [math.ceil(b * r) for b, r in zip(block, scene.image.ratio)]
    light = stretched(blurred(scene, view, volume, fine_block), 0.0, float(WHITE))
    before = exposed(points(light, view, scene.psf.half), how)
    return photographed(before, how, scene.exposure.key), before.astype(np.float32)


def drawn(scene: Scene, view: Window) -> U8:
    """Nuclei on the finer grid, each stretched so that its brightest voxel is 255."""
    found = np.empty(view.shape, np.uint8)
    brightest = np.zeros(scene.nuclei.n + 1)
    for low, shape, _ in _slabs(view):
        density, labels = _slab(scene, low, shape)
        np.maximum.at(brightest, labels[labels > 0], density[labels > 0])
    for low, shape, planes in _slabs(view):
        density, labels = _slab(scene, low, shape)
        inside = labels > 0
        # a nucleus without any light stays dark
        most = np.maximum(brightest[labels[inside]], np.finfo(np.float32).tiny)
        values = np.zeros(density.shape, np.uint8)
        values[inside] = density[inside].astype(np.float64) * WHITE / most
        found[planes] = values
    return found


def dim(scene: Scene, view: Window, volume: U8) -> None:
    """In place, attenuate, then stretch so that the largest value is what it was before."""
    places = scene.light.grid.places(scene.real_um(scene.image.fine_um))
    before, after = int(volume.max()), 0.0

    def attenuated(low: Three, planes: slice) -> F32:
        slab = torch.from_numpy(volume[planes].astype(np.float32)).to(scene.device)
        attenuate_(slab, scene.light.tau, low, *places)
        return np.asarray(slab.cpu().numpy())

    for low, _, planes in _slabs(view):
        after = max(after, float(attenuated(low, planes).max()))
    if after > 0:
        for low, _, planes in _slabs(view):
            volume[planes] = truncated(attenuated(low, planes).astype(np.float64) * before / after)


def blurred(scene: Scene, view: Window, volume: U8, block: Sequence[int]) -> F32:
    """The volume without the border that light comes from, under the PSF of every plane; nothing lies outside it."""
    half = scene.psf.half
    inner = tuple(n - 2 * h for n, h in zip(view.shape, half))
    found = np.empty(inner, np.float32)
    whole = (slice(0, inner[0]), slice(0, inner[1]), slice(0, inner[2]))
    for part in blocks(whole, block):
        start = [f + h + s.start for f, h, s in zip(view.start, half, part)]
        seen = window(start, [s.stop - s.start for s in part], (1, 1, 1), half)
        source = volume[tuple(slice(s.start, s.stop + 2 * h) for s, h in zip(part, half))].astype(np.float32)
        arrived = scene.blur(torch.from_numpy(source).to(scene.device), seen, seen.positions(scene.image.fine_um[0]))
        found[part] = arrived.clamp_(min=0).cpu().numpy()
    return found


def points(volume: U8, view: Window, half: Three) -> F32:
    """Values at the centres of the image's voxels, linear between those of the finer grid; no mean over them."""
    found: F32 = volume.astype(np.float32) if view.ratio == (1.0, 1.0, 1.0) else volume  # type: ignore[assignment]
    for axis in (2, 1, 0):
        first, last = view.corner[axis] - half[axis], found.shape[axis] - 1
        at = np.clip(first + (np.arange(view.size[axis]) + 0.5) * view.ratio[axis] - 0.5, 0, last)
        low = np.minimum(np.floor(at).astype(np.int64), max(0, last - 1))
        share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        one, other = (np.take(found, np.minimum(low + k, last), axis).astype(np.float32) for k in (0, 1))
        found = one + (other - one) * share
    return found


def exposed(values: F32, how: PublishedCamera) -> U8:
    """Grey values without noise: the smallest becomes the baseline, the largest stays."""
    return stretched(values, how.baseline, float(values.max()))


def photographed(before: U8, how: PublishedCamera, key: int) -> U8:
    """Noise in 8 bits, truncated after each kind of it, and the truncated mean over acquisitions.

    Parameters
    ----------
    before : (z, y, x), of :func:`exposed`
    key : 64 bits, the seed of this image's noise
    """
    total = np.zeros(before.shape, np.float32)
    for number in range(how.n_acquisitions):
        seed = seed_of(key, "acquisition", number)
        values = before
        if how.poisson_factor > 0:
            photons = torch.from_numpy(before.astype(np.float32) * np.float32(how.poisson_factor))
            counts = camera(photons, _COUNTS, seed, (0, 0, 0), before.shape).numpy()
            values = truncated(counts.astype(np.float64) / how.poisson_factor)
        if how.gauss > 0:
            values = truncated(values + how.gauss * _normal(before.shape, seed, 0))
        if how.gauss_absolute > 0:
            values = truncated(values + np.abs(how.gauss_absolute * _normal(before.shape, seed, 1)))
        total += values
    return truncated(total / how.n_acquisitions)


def stretched(values: NDArray, low: float, high: float) -> U8:
    """Linear, the smallest value becomes `low` and the largest `high`, truncated; all `low` where they are equal."""
    least, most = float(values.min()), float(values.max())
    scale = (high - low) / (most - least) if most > least else 0.0
    found = np.empty(values.shape, np.uint8)
    for plane in range(len(values)):
        found[plane] = truncated(low + (values[plane].astype(np.float64) - least) * scale)
    return found


def truncated(values: NDArray) -> U8:
    """Cut to 0 ... 255, digits behind the point dropped; what rounding of float64 took from a whole number is not."""
    return np.clip(values + 1e-9, 0, WHITE).astype(np.uint8)


def _normal(shape: Sequence[int], seed: int, slot: int) -> F32:
    found = np.empty(shape, np.float32)
    plane = math.prod(shape[1:])
    for z in range(shape[0]):
        index = np.arange(z * plane, (z + 1) * plane)
        found[z] = normal(seeds_of(seed, index), slot).reshape(shape[1:])
    return found


def _slabs(view: Window) -> Iterator[tuple[Three, Three, slice]]:
    """Origin and shape of slabs of planes, and which planes they are."""
    step = max(1, SLAB_VOXELS // math.prod(view.shape[1:]))
    for z in range(0, view.shape[0], step):
        n = min(step, view.shape[0] - z)
        yield (view.start[0] + z, *view.start[1:]), (n, *view.shape[1:]), slice(z, z + n)


def _slab(scene: Scene, low: Three, shape: Three) -> tuple[F32, NDArray[np.int32]]:
    """Density, and whose voxels they are."""
    from gigascope.kernels import cells

    voxel = scene.real_um(scene.image.fine_um)
    labels = cells.labels(scene.nuclei, low, shape, voxel, scene.gap_um, 1)
    return scene.density(low, shape).cpu().numpy(), labels.cpu().numpy()
