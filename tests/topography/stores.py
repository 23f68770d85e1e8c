"""Raw stores of random stacks with random poses, in the layout of ingest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import StoreReader, open_store
from gigascope.store.plain_shard import is_plain, write_shard
from gigascope.topography.capture.capture import FileCapture
from gigascope.topography.capture.grid import ViewGrid
from gigascope.topography.geometry.candidates import find_candidates, fit_mosaic
from gigascope.topography.geometry.poses import Poses
from gigascope.topography.ingest import arrays_of, lay_out
from gigascope.topography.streaming.scene import Scene, cameras_of


@dataclass(frozen=True)
class Raw:
    """A finished raw store, its scene, and the stacks that went in."""

    store: StoreReader
    scene: Scene
    stacks: NDArray
    pattern: str | None

    def shard(self, view: int) -> Path:
        """File of the green of a view."""
        row, col = divmod(view, self.scene.grid[1])
        return self.store.path / "green" / "c" / str(row) / str(col) / "0" / "0" / "0"


def raster(
    rng: np.random.Generator, grid: tuple[int, int], size: tuple[int, int], overlap: float = 0.55
) -> tuple[Poses, tuple[int, int]]:
    """Overlapping views, tilted and turned a little, and the shape of their mosaic."""
    n = grid[0] * grid[1]
    at = np.stack(np.indices(grid), axis=-1).reshape(-1, 2)
    poses = Poses(
        size=size,
        focal=1.0,
        height=rng.uniform(0.99, 1.01, n),
        normal=np.concatenate((rng.normal(0, 0.01, (n, 2)), np.full((n, 1), -1.0)), axis=1),
        angle=rng.normal(0, 0.02, n),
        translation=at * np.array(size) * (1 - overlap) + rng.normal(0, 2, (n, 2)),
        distortion=np.array([0.004]),
        offset=np.zeros(2),
    )
    return fit_mosaic(poses, margin=3)


def scene_of(
    rng: np.random.Generator,
    cameras: tuple[int, int],
    scan: tuple[int, int],
    size: tuple[int, int],
    n_z: int,
    missing: tuple[int, ...] = (),
) -> Scene:
    """Everything but the pixels."""
    grid = cameras[0] * scan[0], cameras[1] * scan[1]
    n = grid[0] * grid[1]
    poses, shape = raster(rng, grid, size)
    return Scene(
        grid=grid,
        poses=poses,
        candidates=find_candidates(poses, shape),
        camera=cameras_of(grid, scan),
        present=~np.isin(np.arange(n), missing),
        distance_mm=rng.uniform(50, 60, n),
        datum_mm=rng.normal(0, 0.05, (n, 6)) + np.array([12.0, 0, 0, 0, 0, 0]),
        nominal=rng.uniform(1, n_z - 2, n),
        z_mm=12.0 + 0.04 * (np.arange(n_z) - n_z / 2) + rng.normal(0, 1e-3, (n, 1)),
        dz_mm=0.04,
        stage_up=True,
    )


def raw_store(
    rng: np.random.Generator,
    folder: Path,
    *,
    cameras: tuple[int, int] = (1, 2),
    scan: tuple[int, int] = (2, 2),
    size: tuple[int, int] = (192, 192),
    n_z: int = 5,
    chunk: int = 32,
    pattern: str | None = "GBRG",
    codec: str = "plain",
    dtype: type = np.uint8,
    missing: tuple[int, ...] = (),
) -> Raw:
    """A store of noise, in which every pixel tells where it is from."""
    scene = scene_of(rng, cameras, scan, size, n_z, missing)
    stacks = rng.integers(0, np.iinfo(dtype).max, (*scene.grid, n_z, *size), dtype=dtype, endpoint=True)
    capture = FileCapture(
        path=folder,
        format="noise",
        grid=ViewGrid(tuple(range(cameras[0])), tuple(range(cameras[1])), scan),
        shape=stacks.shape,
        dtype=np.dtype(dtype),
        pattern=pattern,
        colours=1,
        z_stage_mm=scene.z_mm.reshape(*scene.grid, n_z),
        read_view=lambda row, col: stacks[row, col],
        present=scene.present.reshape(scene.grid),
    )
    store = create_store(folder / "raw.zarr")
    lay_out(store, capture, chunk, codec)
    for row, col in np.ndindex(*scene.grid):
        for name, block in arrays_of(capture.read(row, col), capture).items():
            array = store.group[name]
            if is_plain(array):
                write_shard(store.path, array, (row, col, 0, 0, 0), block[None, None])
            else:
                array[row : row + 1, col : col + 1] = block[None, None]
    store.attrs |= {"dz_mm": scene.dz_mm, "stage_up": scene.stage_up, "bayer": pattern, "colours": 1}
    finish(store, {})
    return Raw(open_store(store.path), scene, stacks, pattern)
