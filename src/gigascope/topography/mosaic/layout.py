"""How a mosaic is kept: its channels, how it is cut, and what of it can be said before it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gigascope.store.ngff import Channel
from gigascope.store.plan import ShardPlan

# Side of a chunk, pixels; a chunk holds all channels, so that a viewer finds the three colours of a pixel together.
CHUNK = 256
COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}
MEASURES = ("height", "height_std", "weight", "n_views")
_SHOWN = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
# Side of the blocks that are read and blended at once, pixels: bounds what is held of the views, twice.
BLOCK = 1024
# Views that are read at the same time.
READERS = 4
# Radius of the low pass of `two_band` in standard deviations.
TRUNCATE = 3.0
# Side of a view over the feather where none is given: 128 pixels of 3072.
FEATHER_SHARE = 24.0
# What is done in the rounds of each way to refine: with all tiles, or (`solve`) in one go.
ROUNDS = {"none": ("blend",), "offset": ("pair", "solve", "blend"), "tilt": ("pair", "solve", "blend")}
# Bits of the sensors that there are.
_BITS = (8, 10, 12, 14, 16)


def channel_names(n_colours: int) -> tuple[str, ...]:
    """Channels of a mosaic of 1 or 3 colours, in their order."""
    return (*COLOURS[n_colours], *MEASURES)


def channels(names: Sequence[str], white: float) -> list[Channel]:
    """What viewers are told of the channels: colours from 0 to the sensor's white, the rest as their values say."""
    return [
        Channel(name, _SHOWN.get(name, "FFFFFF"), None if name in MEASURES else (0.0, white), name not in MEASURES)
        for name in names
    ]


def mosaic_plan(shape: tuple[int, int], n_colours: int, tile: int) -> ShardPlan:
    """Cut of a mosaic (c, y, x) float32: a tile is a shard, and has one writer.

    Parameters
    ----------
    shape : (rows, cols)
    tile : side of a tile, pixels; smaller mosaics are one tile
    """
    n = len(channel_names(n_colours))
    edges = [min(math.gcd(CHUNK, tile), length) for length in shape]
    sides = [-(-min(tile, length) // edge) * edge for length, edge in zip(shape, edges)]
    return ShardPlan((n, *shape), 4, (n, *edges), (n, *sides))


def tile_work(plan: ShardPlan, coverage: NDArray[np.uint8], cell: int) -> list[float]:
    """Cost of each tile, by its number: the views that see its cells, and the tile itself.

    Parameters
    ----------
    coverage : (cell rows, cell cols), views that see each cell
    cell : side of a cell, pixels
    """
    cost = []
    for _, rows, cols in plan.regions():
        cells = coverage[rows.start // cell : -(-rows.stop // cell), cols.start // cell : -(-cols.stop // cell)]
        cost.append(float(cells.sum() + cells.size))
    return cost


def feather_of(size: tuple[int, int]) -> float:
    """Pixels over which views of a size fade toward their borders, where nothing is said."""
    return max(size) / FEATHER_SHARE


def halo_of(band: float) -> int:
    """Pixels around a block that its two bands depend on.

    Parameters
    ----------
    band : standard deviation of the low pass, pixels
    """
    return math.ceil(TRUNCATE * band)


def tile_facts(tile: NDArray[np.float32], n_colours: int) -> dict[str, int]:
    """What is worth knowing of a tile (channels, rows, cols): pixels, those that are seen, and views that count."""
    n_views = tile[n_colours + MEASURES.index("n_views")]
    return {"pixels": n_views.size, "seen": int(np.count_nonzero(n_views)), "views": int(n_views.sum(dtype=np.float64))}


def mosaic_facts(tiles: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """The same of the whole mosaic: share of its pixels that is seen, and views of a pixel that is."""
    pixels, seen, views = (sum(tile[name] for tile in tiles) for name in ("pixels", "seen", "views"))
    return {"covered": seen / pixels, "views_per_pixel": views / max(1, seen)}


def sensor_white(highest: float, dtype: np.dtype) -> float:
    """Largest value of the sensor: that of the stacks' type, or of the least number of bits that holds their values.

    Parameters
    ----------
    highest : largest value that was found
    dtype : of the stacks
    """
    if dtype != np.uint16:
        return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
    return float(next(2**bits - 1 for bits in _BITS if 2**bits > highest))


def choose_level(shapes: Sequence[Sequence[int]], n_vertices: int) -> int:
    """The coarsest of levels (finest first) that has as many pixels as there are to be vertices, or the finest."""
    enough = [level for level, shape in enumerate(shapes) if math.prod(shape) >= n_vertices]
    return enough[-1] if enough else 0
