"""The height map as a surface of triangles with the sample's colours, for viewers and for printing: PLY."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import UserError
from gigascope.store.open import StoreReader
from gigascope.store.writers.whole_file import whole_file
from gigascope.topography.mosaic.layout import COLOURS, choose_level

F32 = NDArray[np.float32]
_KINDS = ("scale", "translation")
_VERTEX = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
_FACE = [("n", "u1"), ("vertex", "<i4", (3,))]


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles.

    Attributes
    ----------
    vertices : (n, 3) float32 (x, y, z): x along the columns, y against the rows, z toward the cameras, right-handed
    colours : (n, 3) uint8
    faces : (m, 3) int32, counter-clockwise as the cameras see them
    """

    vertices: F32
    colours: NDArray[np.uint8]
    faces: NDArray[np.int32]


def surface_of(mosaic: StoreReader, n_vertices: int) -> Surface:
    """Surface of a mosaic, sampled evenly.

    Parameters
    ----------
    mosaic : finished store of the mosaic
    n_vertices : at most; fewer where parts of the mosaic are unseen

    Raises
    ------
    UserError : nothing was seen

    Notes
    -----
    Samples are taken from the level of the pyramid that has at most four times as many pixels. x and y are micrometres
    (pixels where the optics are unknown), z is in the unit of the heights. What is unseen stays open.
    """
    names = list(mosaic.attrs["channels"])
    level = choose_level([mosaic.array(k).shape[-2:] for k in range(mosaic.n_levels)], n_vertices)
    values = np.asarray(mosaic.array(level)[...])
    n_colours = next(n for n, colours in COLOURS.items() if tuple(names[:n]) == colours)
    transforms = mosaic.attributes["ome"]["multiscales"][0]["datasets"][level]["coordinateTransformations"]
    scale, first = (np.array(next(t[kind] for t in transforms if t["type"] == kind)[-2:]) for kind in _KINDS)
    colour = np.broadcast_to(values[:n_colours] * (255.0 / mosaic.attrs["white"]), (3, *values.shape[1:]))
    return triangles(values[names.index("height")], colour, first, scale, n_vertices)


def triangles(
    height: F32, colour: NDArray, first: NDArray[np.float64], step: NDArray[np.float64], n_vertices: int
) -> Surface:
    """Triangles over a grid of samples of a height map.

    Parameters
    ----------
    height : (r, c), NaN where unseen
    colour : (3, r, c), 0 to 255
    first, step : (y, x) of the first pixel, and from pixel to pixel
    n_vertices : at most

    Raises
    ------
    UserError : no height is known
    """
    stride = max(1.0, math.sqrt(height.size / n_vertices))
    while math.prod(counts := [math.floor((n - 1) / stride) + 1 for n in height.shape]) > n_vertices:
        stride *= 1.01
    rows, cols = (np.linspace(0, n - 1, count) for n, count in zip(height.shape, counts))
    place = np.stack(np.meshgrid(rows, cols, indexing="ij"))
    seen = np.isfinite(height) & np.isfinite(colour).all(axis=0)
    known = _sampled(seen.astype(np.float32), place) > 1.0 - 1e-5
    z, *shades = (_sampled(np.where(seen, values, 0), place) for values in (height, *colour))
    if not known.any():
        raise UserError("nothing was seen: there is no surface.")
    number = np.where(known, np.cumsum(known.ravel()).reshape(known.shape) - 1, -1)
    y, x = (place[axis] * step[axis] + first[axis] for axis in (0, 1))
    vertices = np.stack((x, -y, z), axis=-1)[known].astype(np.float32)
    colours = np.rint(np.clip(np.stack(shades, axis=-1), 0, 255)).astype(np.uint8)
    return Surface(vertices, colours[known], _faces(number))


def _sampled(values: NDArray, place: NDArray[np.float64]) -> NDArray:
    """Bilinear samples at (2, r, c) pixels."""
    found: NDArray = ndimage.map_coordinates(values, place, order=1, mode="nearest")
    return found


def write_ply(path: Path, surface: Surface, comments: Sequence[str]) -> None:
    """Write a surface as binary little-endian PLY.

    Parameters
    ----------
    comments : lines of the header

    Raises
    ------
    UserError : the disk is full or may not be written
    """
    vertices, faces = np.empty(len(surface.vertices), _VERTEX), np.empty(len(surface.faces), _FACE)
    for k, name in enumerate("xyz"):
        vertices[name] = surface.vertices[:, k]
    for k, name in enumerate(("red", "green", "blue")):
        vertices[name] = surface.colours[:, k]
    faces["n"], faces["vertex"] = 3, surface.faces
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {' '.join(text.split())}" for text in comments)]
    lines += [f"element vertex {len(vertices)}", *(f"property float {name}" for name in "xyz")]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    with whole_file(path, vertices.nbytes + faces.nbytes) as partial, partial.open("wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("ascii", "replace"))
        file.write(vertices.tobytes())
        file.write(faces.tobytes())


def comments_of(mosaic: StoreReader) -> list[str]:
    """What a mesh of a mosaic says of itself: units and axes."""
    flat = mosaic.unit if mosaic.spacing else "pixel"
    high = mosaic.attrs["height_unit"]
    units = f"units {flat}" if flat == high else f"units of x and y {flat}, of z {high}"
    datum = f"z 0 is that of the {mosaic.attrs['height_datum']}"
    return ["gigascope topography", units, "x along columns, y against rows, z toward the cameras", datum]


def _faces(number: NDArray[np.int64]) -> NDArray[np.int32]:
    """Two triangles for every cell whose four corners are known, one where three are, none elsewhere."""
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    lacking = [(corner < 0) for corner in (a, b, c, d)]
    n_lacking = np.sum(lacking, axis=0)
    # the corners of each triangle, and which one corner may be missing
    candidates = [((a, c, b), 3), ((b, c, d), 0), ((a, c, d), 1), ((a, d, b), 2)]
    found = []
    for corners, missing in candidates:
        here = (n_lacking == 1) & lacking[missing]
        if missing in (0, 3):
            here |= n_lacking == 0
        found.append(np.stack([corner[here] for corner in corners], axis=-1))
    return np.concatenate(found).astype(np.int32)
