"""Mosaic on the CPU: Mpx/s with five views per pixel, bytes moved, peak memory at two sizes; prints a table.

    python benchmarks/topography_mosaic.py [--quick] [--json FILE]

Views of random poses over a grid in which a pixel has five views, maps on disk in the chunks of inference (512 px, all
that is read is decoded). Peer: the same weighted mean of the same views with NumPy and scipy.ndimage.map_coordinates
(cubic: B-spline weights without their prefilter), from the same maps, without gate and spread. Peak memory is that of a
process of its own that blends a mosaic tile by tile; the second mosaic has four times as many views.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from projector import Table, arguments
from scipy import ndimage

from gigascope.store.create import create_store, new_array
from gigascope.store.plan import ShardPlan
from gigascope.topography.calibration.result import Calibration, InstrumentId, from_known_poses
from gigascope.topography.geometry.candidates import find_candidates
from gigascope.topography.geometry.poses import Poses, to_view
from gigascope.topography.mosaic.tile import Blending, blend_tile
from gigascope.topography.mosaic.views import Views

N_Z, CHUNK = 17, 512
# Views that see a pixel in the middle of the mosaic.
COVERED = 5.0


def calibration_of(grid: tuple[int, int], size: int) -> Calibration:
    """Views on a grid so that a pixel has five of them, tilted and turned a little."""
    rng, n = np.random.default_rng(1), grid[0] * grid[1]
    step = size / np.sqrt(COVERED)
    at = np.stack(np.indices(grid), axis=-1).reshape(-1, 2) * step
    poses = Poses(
        size=(size, size),
        focal=1.0,
        height=rng.uniform(0.999, 1.001, n),
        normal=np.concatenate((rng.normal(0, 0.002, (n, 2)), np.full((n, 1), -1.0)), axis=1),
        angle=rng.normal(0, 0.002, n),
        translation=at + rng.normal(0, size / 200, (n, 2)),
        distortion=np.array([0.003]),
        offset=np.zeros(2),
    )
    instrument = InstrumentId(tuple(range(grid[0])), tuple(range(grid[1])), (1, 1), (size, size))
    planes = np.concatenate((np.full((n, 1), 0.3), rng.normal(0, 0.01, (n, 5))), axis=1)
    return from_known_poses(poses, instrument, focus_plane=planes)


def views_on_disk(folder: Path, grid: tuple[int, int], size: int) -> Views:
    """Maps of noise and of a surface, as inference leaves them."""
    calibration = calibration_of(grid, size)
    store = create_store(folder / "views.zarr")
    rng = np.random.default_rng(2)
    one = {
        "index": rng.uniform(6, 9, (size, size)).astype(np.float32),
        "confidence": rng.uniform(0.2, 1, (size, size)).astype(np.float32),
        "aif": rng.integers(0, 255, (size, size, 3)).astype(np.uint8),
    }
    arrays = {}
    for name, values in one.items():
        more, chunk = values.shape[2:], min(CHUNK, size)
        plan = ShardPlan(
            (*grid, *values.shape), values.itemsize, (1, 1, chunk, chunk, *more), (1, 1, size, size, *more)
        )
        arrays[name] = new_array(store.group, name, plan, values.dtype)
        for row, col in np.ndindex(*grid):
            arrays[name][row, col] = np.roll(values, 37 * (row * grid[1] + col), axis=1)
    return views_of(arrays, calibration)


def views_of(arrays: dict[str, zarr.Array], calibration: Calibration) -> Views:
    """Views whose maps are there."""
    n = calibration.instrument.n_views
    candidates = find_candidates(calibration.poses, calibration.mosaic_shape)
    z_mm = np.tile(np.arange(N_Z) * 0.04, (n, 1))
    maps = (arrays["index"], arrays["confidence"], arrays["aif"])
    return Views(*maps, calibration, candidates, z_mm, np.ones(n, bool))


def tiles(shape: tuple[int, int], tile: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and shape of the tiles of a mosaic."""
    for row in range(0, shape[0], tile):
        for col in range(0, shape[1], tile):
            yield (row, col), (min(tile, shape[0] - row), min(tile, shape[1] - col))


def peer(views: Views, start: tuple[int, int], shape: tuple[int, int], order: int) -> NDArray[np.float32]:
    """Weighted mean of colours and heights with NumPy and scipy."""
    points = np.stack(np.meshgrid(*[s + np.arange(n) for s, n in zip(start, shape)], indexing="ij"), axis=-1)
    total, weight = np.zeros((4, *shape), np.float32), np.zeros(shape, np.float32)
    size = views.calibration.instrument.size
    for view in views.of_tile(start, shape):
        row, col = divmod(int(view), views.calibration.instrument.view_shape[1])
        rc = to_view(views.calibration.poses, int(view), points.astype(np.float64))
        edge = np.minimum(rc, np.array(size) - 1 - rc).min(axis=-1)
        at = np.moveaxis(rc, -1, 0)
        sample = lambda values, k: ndimage.map_coordinates(values, at, np.float32, k, prefilter=False)  # noqa: B023, E731
        w = np.where(
            edge >= 0, np.clip((edge + 0.5) / 128, 0, 1) ** 2 * (0.01 + sample(views.confidence[row, col], 1)), 0
        )
        heights = np.empty(size, np.float32)
        everything = slice(0, size[0]), slice(0, size[1])
        views.fill_heights(int(view), np.asarray(views.index[row, col]), *everything, heights)
        h = sample(heights, 1)
        weight += w
        total[3] += w * h
        for c in range(3):
            total[c] += w * sample(views.aif[row, col, ..., c].astype(np.float32), order)
    return total / weight


def counted(views: Views) -> tuple[Views, list[int]]:
    """The same views, which count the bytes that are asked of them."""
    moved = [0]

    class Counting:
        def __init__(self, array: zarr.Array) -> None:
            self.array, self.shape, self.dtype = array, array.shape, array.dtype

        def __getitem__(self, key: tuple) -> NDArray:
            found = np.asarray(self.array[key])
            moved[0] += found.nbytes
            return found

    maps = {name: Counting(getattr(views, name)) for name in ("index", "confidence", "aif")}
    return replace(views, **maps), moved  # type: ignore[arg-type]


PEAK = """
import json, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import zarr
from topography_mosaic import calibration_of, tiles, views_of
from gigascope.topography.mosaic.tile import Blending, blend_tile
group = zarr.open_group({store!r}, mode="r")
views = views_of({{n: group[n] for n in ("index", "confidence", "aif")}}, calibration_of({grid!r}, {size!r}))
def peak():
    # not that of getrusage, which a process takes over from the one that started it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
blend_tile(views, (0, 0), (64, 64), Blending())
start = peak()
for at, shape in tiles(views.shape, {tile!r}):
    blend_tile(views, at, shape, Blending())
print(json.dumps([start, peak()]))
"""


def peaks(folder: Path, grid: tuple[int, int], size: int, tile: int) -> tuple[float, float]:
    """Peak memory, MB, of a process before the mosaic and after."""
    code = PEAK.format(
        here=str(Path(__file__).parent), store=str(folder / "views.zarr"), grid=grid, size=size, tile=tile
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = json.loads(found.stdout.splitlines()[-1])
    return before / 1024, after / 1024


def main() -> None:
    """Measure ours beside the peer, then memory at two sizes."""
    options = arguments(__doc__)
    table = Table()
    size, tile = (1024, 1024) if options.quick else (2048, 2048)
    grids = ((4, 4), (7, 7)) if options.quick else ((5, 5), (10, 10))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n, grid in enumerate(grids):
            (folder / str(n)).mkdir()
            views, moved = counted(views_on_disk(folder / str(n), grid, size))
            case = f"{views.shape[1] * views.shape[0] / 1e6:.0f} Mpx of {grid[0] * grid[1]} views"
            if n == 0:
                middle = tuple(max(0, (m - tile) // 2) for m in views.shape)
                shape = tuple(min(tile, m) for m in views.shape)
                n_pixels = shape[0] * shape[1]
                blend_tile(views, middle, (64, 64), Blending())  # type: ignore[arg-type]
                for mode, sampling in (("mean", "cubic"), ("mean", "linear"), ("best", "cubic"), ("two_band", "cubic")):
                    moved[0], begun = 0, time.perf_counter()
                    found = blend_tile(views, middle, shape, Blending(mode=mode, sampling=sampling))  # type: ignore[arg-type]
                    taken = time.perf_counter() - begun
                    method = f"{mode}, {sampling}"
                    table.add(case, method, "rate", n_pixels / taken / 1e6, "Mpx/s")
                    table.add(case, method, "views per pixel", float(found[-1].mean()), "")
                    table.add(case, method, "bytes read", moved[0] / n_pixels, "B/px")
                    table.add(case, method, "bytes moved", (moved[0] + found.nbytes) / taken / 1e9, "GB/s")
                small = (shape[0] // 4, shape[1] // 4)
                for order, method in ((3, "scipy, cubic"), (1, "scipy, linear")):
                    begun = time.perf_counter()
                    peer(views, middle, small, order)  # type: ignore[arg-type]
                    taken = time.perf_counter() - begun
                    table.add(case, method, "rate", small[0] * small[1] / taken / 1e6, "Mpx/s")
            before, after = peaks(folder / str(n), grid, size, tile)
            table.add(case, "mean, cubic", "peak memory", after, "MB")
            table.add(case, "mean, cubic", "of it before", before, "MB")
    table.write(options.json)


if __name__ == "__main__":
    main()
