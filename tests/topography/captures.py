"""Writes acquisitions in the layouts that are read, from arrays whose every value says where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

COLOURS = {"R": 60, "G": 120, "B": 200}


@dataclass
class Acquisition:
    """z-stacks of a small camera array.

    Attributes
    ----------
    images : (stage y, stage x, camera rows, camera columns, z, rows, columns), stage positions ascending
    y_mm, x_mm, z_mm : stage positions
    """

    images: NDArray
    y_mm: list[float]
    x_mm: list[float]
    z_mm: NDArray[np.float64]
    pattern: str = "GBRG"
    edit: Callable[[h5py.File, str], None] | None = None
    storage: dict[str, Any] = field(default_factory=dict)

    def view(self, view_row: int, view_col: int, *, mirrored: tuple[bool, bool] = (False, True)) -> NDArray:
        """Stack of a view, by the formula of the layout written out again."""
        n_y, n_x = self.images.shape[:2]
        camera_row, scan_y = view_row // n_y, view_row % n_y
        camera_col, scan_x = view_col // n_x, view_col % n_x
        stage_y = n_y - 1 - scan_y if mirrored[0] else scan_y
        stage_x = n_x - 1 - scan_x if mirrored[1] else scan_x
        return self.images[stage_y, stage_x, camera_row, camera_col]

    @property
    def views(self) -> tuple[int, int]:
        n_y, n_x, n_rows, n_cols = self.images.shape[:4]
        return n_rows * n_y, n_cols * n_x

    def folder(self, root: Path, y: int, x: int) -> Path:
        return root / f"y_{self.y_mm[y]:.3f}_x_{self.x_mm[x]:.3f}"

    def write_captures(self, root: Path, variable: str = "mcam_data", best: bool = True) -> Path:
        """In the layout of the released instrument."""
        for y, x in np.ndindex(*self.images.shape[:2]):
            folder = self.folder(root, y, x)
            folder.mkdir(parents=True)
            stacks = np.moveaxis(self.images[y, x], 2, 0)
            with h5py.File(folder / "z_stack_0001.nc", "w") as file:
                file.create_dataset(variable, data=stacks, **self.storage)
                file["z_stage"] = self.z_mm / 1000
                if self.edit is not None:
                    self.edit(file, folder.name)
            if best:
                cameras = self.images.shape[2:4]
                with h5py.File(folder / "best_images_0001.nc", "w") as file:
                    file[variable] = stacks[1]
                    file["z_stage"] = np.full(cameras, self.z_mm[1] / 1000)
                    file.create_dataset("bayer_pattern", data=np.full(cameras, self.pattern.encode(), "S4"))
        return root

    def write_stacks(self, root: Path) -> str:
        """As TIFF stacks; the numbers in the names are those of the cameras and stage positions."""
        root.mkdir()
        for y, x, row, col in np.ndindex(*self.images.shape[:4]):
            stack = self.images[y, x, row, col]
            tifffile.imwrite(root / f"cam{row}_{col}_y{y}_x{x}.tif", stack, photometric="minisblack")
        return f"{root}/cam{{camera_row}}_{{camera_col}}_y{{scan_y}}_x{{scan_x}}.tif"


def acquisition(
    rng: np.random.Generator,
    scan: tuple[int, int] = (2, 3),
    cameras: tuple[int, int] = (2, 2),
    n_z: int = 5,
    size: tuple[int, int] = (40, 56),
    pattern: str = "GBRG",
    dtype: Any = np.uint8,
) -> Acquisition:
    """Coloured light through a mosaic, with noise that tells every pixel of every view from all others."""
    shape = (*scan, *cameras, n_z, *size)
    light = np.empty(size)
    for site, letter in enumerate(pattern):
        light[site // 2 :: 2, site % 2 :: 2] = COLOURS[letter]
    images = (light + rng.integers(0, 41, shape) - 20).astype(dtype)
    y_mm, x_mm = (list(2.2 * np.arange(n) + o) for n, o in zip(scan, (1.0, -3.0)))
    return Acquisition(images, y_mm, x_mm, 10.0 + 0.04 * np.arange(n_z), pattern)


def dataset(folder: Path, inputs: str, **sections: str) -> Path:
    """A dataset YAML."""
    path = folder / "data.yaml"
    lines = ["pipeline: topography", "name: data", f"inputs: {{{inputs}}}"]
    path.write_text("\n".join([*lines, *(f"{name}: {{{text}}}" for name, text in sections.items())]) + "\n")
    return path
