"""Colours and heights of a mosaic as TIFF files of any size: tiled, with their pyramid, written tile by tile."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.store.open import StoreReader
from gigascope.store.writers.whole_file import whole_file
from gigascope.topography.mosaic.layout import COLOURS

Picture = Literal["colour", "height"]
Report = Callable[[Sequence[Any]], Iterable[Any]]
Place = tuple[int, int, int]

# Side of the tiles of the file, pixels: two chunks of the store.
TILE = 512
# Tiles that are read ahead of the one that is written.
AHEAD = 8
# Threads that compress, and bytes that they are handed at once.
WORKERS, BUFFER = 2, 2**24


def write_picture(path: Path, mosaic: StoreReader, picture: Picture, report: Report = lambda tiles: tiles) -> None:
    """Write colours or heights of a mosaic as OME-TIFF: BigTIFF, tiles of 512 x 512, coarser levels as sub-images.

    Parameters
    ----------
    path : a file that is there is replaced
    mosaic : finished store of the mosaic
    picture : colour, uint8 or uint16 as the sensor's values are, 0 where unseen; height, float32 in the unit of the
        store (micrometres, or slices where the step is not known), NaN where unseen
    report : wraps the tiles, to show how far the work is

    Raises
    ------
    UserError : the disk is full or may not be written

    Notes
    -----
    Some tiles are held, whatever the size of the mosaic.
    """
    import tifffile

    names = list(mosaic.attrs["channels"])
    n_colours = next(n for n, colours in COLOURS.items() if tuple(names[:n]) == colours)
    if picture == "colour":
        chosen, dtype = slice(0, n_colours), np.dtype(np.uint8 if mosaic.attrs["white"] <= 255 else np.uint16)
    else:
        chosen, dtype = slice(names.index("height"), names.index("height") + 1), np.dtype(np.float32)
    n = chosen.stop - chosen.start
    levels = [mosaic.array(level) for level in range(mosaic.n_levels)]
    places = [place for level, array in enumerate(levels) for place in _places(level, array.shape[-2:])]
    n_bytes = sum(math.prod(array.shape[-2:]) for array in levels) * n * dtype.itemsize
    kind: dict[str, Any] = {
        "dtype": dtype,
        "tile": (TILE, TILE),
        "photometric": "rgb" if n == 3 else "minisblack",
        "compression": "zlib",
        "predictor": 3 if dtype.kind == "f" else 2,
        "maxworkers": WORKERS,
        "buffersize": BUFFER,
        **({"planarconfig": "contig"} if n == 3 else {}),
    }
    read = functools.partial(_read_tile, levels, chosen, dtype)
    with whole_file(path, n_bytes) as partial, tifffile.TiffWriter(partial, bigtiff=True, ome=True) as file:
        tiles = _read_ahead(read, report(places))
        for level, array in enumerate(levels):
            shape = (*array.shape[-2:], *([3] if n == 3 else []))
            these = (next(tiles) for _ in _places(level, shape))
            if level == 0:
                file.write(these, shape=shape, subifds=len(levels) - 1, metadata=_metadata(mosaic, n), **kind)
            else:
                file.write(these, shape=shape, subfiletype=1, **kind)


def _places(level: int, shape: Sequence[int]) -> list[Place]:
    return [(level, row, col) for row in range(0, shape[0], TILE) for col in range(0, shape[1], TILE)]


def _metadata(mosaic: StoreReader, n: int) -> dict[str, Any]:
    found: dict[str, Any] = {"axes": "YXS" if n == 3 else "YX"}
    for axis, step in mosaic.spacing.items():
        found |= {f"PhysicalSize{axis.upper()}": step, f"PhysicalSize{axis.upper()}Unit": "µm"}
    return found


def _read_tile(levels: Sequence[Any], chosen: slice, dtype: np.dtype, place: Place) -> NDArray:
    """A whole tile of the file, filled up with what is unseen beyond the mosaic."""
    level, row, col = place
    block = np.asarray(levels[level][chosen, row : row + TILE, col : col + TILE], dtype=np.float32)
    edge = [(0, 0), (0, TILE - block.shape[1]), (0, TILE - block.shape[2])]
    block = np.pad(block, edge, constant_values=np.nan)
    if dtype.kind == "u":
        block = np.rint(np.nan_to_num(block)).clip(0, np.iinfo(dtype).max)
    tile = block.astype(dtype)
    return np.ascontiguousarray(np.moveaxis(tile, 0, -1)) if len(tile) == 3 else tile[0]


def _read_ahead(read: Callable[[Place], NDArray], places: Iterable[Place]) -> Iterator[NDArray]:
    """What `read` gives for each place, in order, a few being read at once."""
    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[NDArray]] = []
        for place in places:
            waiting.append(pool.submit(read, place))
            if len(waiting) > AHEAD:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
