"""Core time of simulating images of cultures, by step, beside the published steps re-implemented; prints a table.

    python benchmarks/synthesis.py [--quick] [--json FILE]

Ours: an image of 64 x 256 x 256 voxels full of nuclei (volume fraction 0.35, harmonics, texture, nucleoli), oversample
(2, 4, 4), a PSF of 15 x 25 x 25 = 9375 voxels that does not change with depth (K=1) or is composed of six kernels
(K=6), in blocks of 64 x 128 x 128 with their borders, labels included; the light of the whole phantom is shared out
over the image. --quick: an image of 32 x 128 x 128. Time is that of the process on all cores, per million voxels of the
finer grid under the image, once after a small image has compiled the kernels.

Case published: the same image by our chain `published`, which does what the peer does, with K=1 and the published law
of attenuation, in steps, with labels and without placement.

Peer: the steps of Bruch et al. (2023) as published, on a crop of the finer grid, with one thread: voxel prototypes
placed one after the other until 1000 attempts fail in a row, attenuation column by column, direct summation of the
convolution, sampling by linear interpolation, shot noise in 8 bits. Time per million voxels of the crop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray
from projector import Table, arguments

from gigascope.kernels.cells import NucleiTable, harmonic_scales, nuclei_table
from gigascope.kernels.cells.light import attenuate_
from gigascope.kernels.cells.noise import Sensor
from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.simulation import published
from gigascope.synthesis.simulation.attenuation import Attenuating
from gigascope.synthesis.simulation.geometry import ImageGrid, Region, blocks
from gigascope.synthesis.simulation.illumination import light_grid, light_of
from gigascope.synthesis.simulation.scene import Exposure, Light, Scene, window_of

VOXEL, RATIO, BLOCK = (1.5, 0.5, 0.5), (2.0, 4.0, 4.0), (64, 128, 128)
FINE = tuple(v / r for v, r in zip(VOXEL, RATIO))
PSF = (15, 25, 25)
METRIC, UNIT = "core_seconds_per_mvoxel", "s/Mvoxel"
STEPS = ("rasterise", "attenuation", "optics and sampling", "camera", "labels")
# Measured by the authors of the specification: 4.56 Mvoxel, the same PSF, one core.
PUBLISHED = 22.0


def tissue(field: tuple[float, ...], rng: np.random.Generator) -> NucleiTable:
    """Nuclei of 9.5 um on a jittered lattice: 0.35 of the volume, contacts as they come."""
    pitch = (math.pi / 6 * 9.5**3 / 0.35) ** (1 / 3)
    counts = [max(1, round(n / pitch)) for n in field]
    places = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in counts), indexing="ij"), -1).reshape(-1, 3)
    places = (places + rng.uniform(-0.15, 0.15, places.shape)) * (np.array(field) / counts)
    n = len(places)
    ratios = np.stack([np.ones(n), rng.uniform(0.75, 1, n), rng.uniform(0.6, 1, n)], axis=1)
    axes = 4.75 * ratios / np.cbrt(ratios.prod(1))[:, None]
    spots = np.concatenate([rng.uniform(-2, 2, (n, 4, 3)), rng.uniform(0.6, 1.3, (n, 4, 1))], axis=2)
    spots[:, 2:] = 0
    return nuclei_table(
        torch.from_numpy(places),
        torch.from_numpy(rng.standard_normal((n, 4))),
        torch.from_numpy(axes),
        harmonics=torch.from_numpy(rng.standard_normal((n, 81))) * harmonic_scales(0.06, 1.8, 6),
        intensity=torch.from_numpy(rng.lognormal(0, 0.25, n)),
        texture_sigma=0.25,
        rim=0.15,
        nucleoli=torch.from_numpy(spots),
    )


def depth_psf(n_kernels: int, depth_um: float) -> DepthPsf:
    """Gaussians that widen with depth; every plane is a mixture of two of them."""
    at = [np.arange(n) - n // 2 for n in PSF]
    kernels = np.empty((n_kernels, *PSF), np.float32)
    for k in range(n_kernels):
        z, y, x = (np.exp(-0.5 * (a / (n / 8 * (1 + 0.1 * k))) ** 2) for a, n in zip(at, PSF))
        kernel = z[:, None, None] * y[:, None] * x
        kernels[k] = kernel / kernel.sum()
    depths, one = np.linspace(0, depth_um, n_kernels), np.ones(n_kernels)
    return DepthPsf(kernels, np.eye(n_kernels), depths, one, 0 * one)


def core_seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of all threads of this process, and what came out."""
    begun = time.process_time()
    found = run()
    return time.process_time() - begun, found


def simulate(scene: Scene, region: Region, taken: dict[str, float]) -> None:
    """A block step by step, as :meth:`Scene.expected` does it."""
    view = window_of(scene.image, scene.psf, region)
    places = scene.light.grid.places(scene.image.fine_um)

    def step(name: str, run: Callable[[], Any]) -> Any:
        seconds, found = core_seconds(run)
        taken[name] += seconds
        return found

    density = step("rasterise", lambda: scene.density(view.start, view.shape))
    step("attenuation", lambda: attenuate_(density, scene.light.tau, view.start, *places))
    arrived = step("optics and sampling", lambda: scene.blur(density, view, view.positions(FINE[0])))
    expected = arrived.clamp_(min=0).mul_(scene.exposure.electrons).add_(scene.exposure.background)
    step("camera", lambda: scene.photograph(expected, region))
    step("labels", lambda: scene.labels(region))


def measure_own(table: Table, shape: tuple[int, int, int], n_kernels: int) -> float:
    """Every step and all of it."""
    field = tuple(n * v for n, v in zip(shape, VOXEL))
    nuclei = tissue(field, np.random.default_rng(1))
    image = ImageGrid(shape, VOXEL, RATIO)
    grid = light_grid(nuclei, field, (0, 0, 0), field, 2.0)
    taken = dict.fromkeys(STEPS, 0.0)

    def light() -> Light:
        return light_of(nuclei, lambda points: np.full(len(points), -10.0), grid, Attenuating())

    seconds, found = core_seconds(light)
    taken["attenuation"] += seconds
    scene = Scene(image, nuclei, 0.0, found, depth_psf(n_kernels, field[0]), Exposure(200.0, 5.1, Sensor(), 1))
    begun = time.perf_counter()
    for block in blocks((slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])), BLOCK):
        simulate(scene, block, taken)
    mvoxel = math.prod(n * r for n, r in zip(shape, RATIO)) / 1e6
    case = f"K={n_kernels}"
    for name in STEPS:
        table.add(case, f"gigascope {name}", METRIC, taken[name] / mvoxel, UNIT)
    whole = sum(taken.values()) / mvoxel
    table.add(case, "gigascope", METRIC, whole, UNIT)
    table.add(case, "gigascope", "seconds on all cores", time.perf_counter() - begun, "s")
    return whole


def measure_published(table: Table, shape: tuple[int, int, int]) -> float:
    """The published chain as it is here, step by step as :func:`published.published_image` does it."""
    field = tuple(n * v for n, v in zip(shape, VOXEL))
    nuclei, image = tissue(field, np.random.default_rng(1)), ImageGrid(shape, VOXEL, RATIO)
    grid = light_grid(nuclei, field, (0, 0, 0), field, 2.0)
    how = Attenuating(model="power", haze_fraction=0.0)
    light = light_of(nuclei, lambda points: np.full(len(points), -10.0), grid, how)
    scene = Scene(image, nuclei, 0.0, light, depth_psf(1, field[0]), Exposure(200.0, 5.1, Sensor(), 1))
    region = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    view, camera = window_of(image, scene.psf, region), published.PublishedCamera()
    block, half = [math.ceil(b * r) for b, r in zip(BLOCK, RATIO)], scene.psf.half
    taken: dict[str, float] = {}
    taken["rasterise"], volume = core_seconds(lambda: published.drawn(scene, view))
    taken["attenuation"], _ = core_seconds(lambda: published.dim(scene, view, volume))
    taken["convolution"], blurred = core_seconds(
        lambda: published.stretched(published.blurred(scene, view, volume, block), 0.0, 255.0)
    )
    taken["camera"], _ = core_seconds(
        lambda: published.photographed(published.exposed(published.points(blurred, view, half), camera), camera, 1)
    )
    taken["labels"], _ = core_seconds(lambda: scene.labels(region, 1))
    mvoxel = math.prod(n * r for n, r in zip(shape, RATIO)) / 1e6
    for name, seconds in taken.items():
        table.add("published", f"gigascope {name}", METRIC, seconds / mvoxel, UNIT)
    whole = sum(taken.values()) / mvoxel
    table.add("published", "gigascope", METRIC, whole, UNIT)
    return whole


def place_voxels(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """One prototype after the other at a random place, refused where a voxel is taken; ends after 1000 in a row."""
    radius = [4.75 / v for v in (0.9, 0.1222, 0.1222)]
    at = np.meshgrid(*(np.arange(-math.floor(r), math.floor(r) + 1) / r for r in radius), indexing="ij")
    body = np.argwhere(at[0] ** 2 + at[1] ** 2 + at[2] ** 2 <= 1)
    size = body.max(0) + 1
    image, labels = np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)
    n = failures = 0
    while failures < 1000 and (np.array(shape) > size).all():
        # the reference turns half of its prototypes with splines; that is left out here
        z, y, x = (body + rng.integers(0, np.array(shape) - size)).T
        if labels[z, y, x].any():
            failures += 1
            continue
        n, failures = n + 1, 0
        labels[z, y, x] = n
        image[z, y, x] = rng.integers(120, 255)
    return image, labels


def dim_columns(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(d / L + 1)^-6 of the voxels above, column by column, stretched back to the old maximum."""
    dimmed = np.zeros(image.shape)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            column = image[:, y, x].astype(np.float64)
            depth = np.arange(len(column)) / 1.6663
            dimmed[:, y, x] = column * np.clip((depth / 150 + 1) ** -6, 0, 1)
    return (dimmed * (float(image.max()) / max(dimmed.max(), 1e-9))).astype(np.uint8)


def photograph(blurred: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Linear interpolation to the image's voxels, stretch from 15, shot noise."""
    sampled = scipy.ndimage.zoom(blurred, (0.6, 0.25, 0.25), order=1, prefilter=False)
    stretched = 15 + (sampled - sampled.min()) * ((sampled.max() - 15) / max(sampled.max() - sampled.min(), 1e-9))
    return np.clip(rng.poisson(stretched.astype(np.uint8)), 0, 255).astype(np.uint8)


def measure_peer(table: Table, shape: tuple[int, int, int]) -> float:
    """The published steps on a crop; direct summation costs the same anywhere."""
    rng, psf = np.random.default_rng(1), depth_psf(1, 1.0).kernels[0].astype(np.float64)
    mvoxel = math.prod(shape) / 1e6
    taken: dict[str, float] = {}
    taken["placement"], (image, _) = core_seconds(lambda: place_voxels(shape, rng))
    taken["attenuation"], dimmed = core_seconds(lambda: dim_columns(image))
    taken["convolution"], blurred = core_seconds(
        lambda: scipy.ndimage.convolve(dimmed.astype(np.float32), psf, mode="constant")
    )
    taken["camera"], _ = core_seconds(lambda: photograph(blurred, rng))
    for name, seconds in taken.items():
        table.add("published", f"published steps {name}", METRIC, seconds / mvoxel, UNIT)
    whole = sum(taken.values()) / mvoxel
    table.add("published", "published steps", METRIC, whole, UNIT)
    return whole


def main() -> None:
    """Run all cases."""
    options = arguments(__doc__)
    quiet = Table()
    quiet.add = lambda *_: None  # type: ignore[method-assign]
    measure_own(quiet, (8, 24, 24), 1)
    measure_published(quiet, (8, 24, 24))
    table = Table()
    shape = (32, 128, 128) if options.quick else (64, 256, 256)
    crop = (20, 80, 80) if options.quick else (30, 160, 160)
    peer = measure_peer(table, crop)
    for case in ("published", "K=1", "K=6"):
        own = measure_published(table, shape) if case == "published" else measure_own(table, shape, int(case[2:]))
        table.add(case, "gigascope", "times faster than published steps", peer / own, "")
        table.add(case, "gigascope", f"times faster than the {PUBLISHED:g} of the specification", PUBLISHED / own, "")
    table.write(options.json)


if __name__ == "__main__":
    main()
