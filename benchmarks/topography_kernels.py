"""Kernels of the topography chain: filters, maps, splat and blend in Mpx/s, filters beside scipy; prints a table.

    python benchmarks/topography_kernels.py [--quick] [--device auto|cpu|cuda] [--json FILE]

Sizes are those of a training step (crops of 576 px, 65 slices, 11 views on 2 canvases of 1152 px) and of a mosaic tile;
--quick takes a quarter of each side. Times are the smallest of several runs; a pixel of the filters is one of one
slice, of the splat one of one view, of the blend one of the mosaic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.ndimage
import torch
from projector import Table, arguments, choose_device, seconds

from gigascope.kernels import filters, ortho
from gigascope.topography.geometry.candidates import crop_of_tile
from gigascope.topography.geometry.packing import pack
from gigascope.topography.geometry.poses import Poses

Work = tuple[str, Callable[[], object], int]


def random_poses(n: int, size: int) -> Poses:
    """Views that all see the middle of the mosaic."""
    rng = np.random.default_rng(1)
    normal = np.concatenate((rng.normal(0, 0.002, (n, 2)), np.full((n, 1), -1.0)), axis=1)
    return Poses(
        size=(size, size),
        focal=1.0,
        height=rng.uniform(0.99, 1.01, n),
        normal=normal,
        angle=rng.normal(0, 0.002, n),
        translation=rng.normal(0, size / 100, (n, 2)),
        distortion=np.array([0.003]),
        offset=np.zeros(2),
    )


def filter_work(device: torch.device, n_z: int, patch: int) -> list[Work]:
    """Both filters of one crop, in uint8."""
    stack = torch.randint(0, 256, (n_z, patch, patch), dtype=torch.uint8, device=device)
    return [
        ("gaussian 33 taps", lambda: filters.gaussian(stack, 8.0, 2.0), stack.numel()),
        ("sharpness", lambda: filters.sharpness(stack), stack.numel()),
    ]


def splat_work(device: torch.device, n_views: int, patch: int) -> list[Work]:
    """Coordinates, prediction, and prediction with its gradient."""
    poses = random_poses(n_views, 2 * patch)
    table, distortion = pack(poses, device=device)
    corners = torch.full((n_views, 2), patch / 2, dtype=torch.float64, device=device)
    coords = ortho.coordinates(table, distortion, poses.size, corners, (patch, patch))
    values = torch.rand(n_views, patch, patch, device=device, requires_grad=True)
    group = torch.arange(n_views, device=device) % 2
    canvas = (2 * patch, 2 * patch)

    def step() -> None:
        predicted = ortho.splat_predict(values, coords, group, canvas, 2, "wrap", True)[0]
        (predicted - values).square().mean().backward()

    n = values.numel()
    return [
        ("coordinates", lambda: ortho.coordinates(table, distortion, poses.size, corners, (patch, patch)), n),
        ("splat_predict", lambda: ortho.splat_predict(values.detach(), coords, group, canvas, 2, "wrap"), n),
        ("splat_predict and exact gradient", step, n),
    ]


def blend_work(device: torch.device, n_views: int, tile: int) -> list[Work]:
    """A tile of three colours that every view sees."""
    poses = random_poses(n_views, 3 * tile)
    table, distortion = pack(poses, device=device)
    start, shape = (tile, tile), (tile, tile)
    crops = [crop_of_tile(poses, k, start, shape) for k in range(n_views)]
    edge = max(s.stop - s.start for crop in crops for s in crop)
    corners = torch.tensor([[s.start for s in crop] for crop in crops], device=device)
    maps = torch.rand(2, n_views, edge, edge, device=device)
    colours = torch.randint(0, 256, (n_views, edge, edge, 3), dtype=torch.uint8, device=device)
    run = lambda: ortho.blend(  # noqa: E731
        table, distortion, poses.size, maps[0], colours, corners, start, shape, 0.1, maps[1]
    )
    return [(f"blend of {n_views} views", run, tile * tile)]


def main() -> None:
    """Measure every op."""
    options = arguments(__doc__)
    device = choose_device(options.device)
    scale = 4 if options.quick else 1
    table = Table()
    n_z, patch, tile = 65 // scale, 576 // scale, (4096 if device.type == "cuda" else 1024) // scale
    work = [*filter_work(device, n_z, patch), *splat_work(device, 11, patch), *blend_work(device, 6, tile)]
    for name, run, n_pixels in work:
        taken = seconds(run, device, 3 if options.quick else 10)
        table.add(name, device.type, "time", taken, "s")
        table.add(name, device.type, "rate", n_pixels / taken / 1e6, "Mpx/s")
    if device.type == "cpu":
        image = np.random.default_rng(1).random((4, patch, patch), dtype=np.float32)
        gaussian = lambda: scipy.ndimage.gaussian_filter(image, (0, 8, 8), mode="nearest", truncate=2)  # noqa: E731
        table.add("gaussian 33 taps", "scipy", "rate", image.size / seconds(gaussian, device, 3) / 1e6, "Mpx/s")
    table.write(options.json)


if __name__ == "__main__":
    main()
