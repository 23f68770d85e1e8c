"""Pictures of a whole volume: maxima, means and sums along an axis, and maxima along any line of sight.

Means and sums come from the integrals of the Gaussians; a maximum has no such form, so the volume is decoded block by
block and only the picture is kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.decoding import resolution
from gigascope.compression.decoding.decode import Decoder, to_dtype
from gigascope.compression.decoding.indexing import Box, block_shape, boxes
from gigascope.compression.decoding.line_integrals import add_sums
from gigascope.compression.decoding.resolution import Factor
from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError
from gigascope.kernels import gaussians

AXES = ("z", "y", "x")


def max_projection(
    decoder: Decoder, frame: int, axis: str, factor: Factor = (1, 1, 1), roi: Box | None = None
) -> NDArray:
    """Brightest sample of every line along an axis: exactly the maximum over the decoded samples.

    Parameters
    ----------
    axis : z, y or x
    factor : of the resolution that is decoded
    roi : in samples of it; none: the whole frame

    Returns
    -------
    the two other axes in their order, in the dtype of the volume
    """
    along = _axis(axis)
    box = roi or _whole(decoder.coarse_shape(factor))
    picture = torch.full([b.stop - b.start for b in box], -math.inf).amax(along).to(decoder.device)
    for part in boxes(box, block_shape([b.stop - b.start for b in box], decoder.gmix.header.brick)):
        brightest = decoder.region(frame, part, factor).amax(along)
        place = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box))
        pixels = place[:along] + place[along + 1 :]
        picture[pixels] = torch.maximum(picture[pixels], brightest)
    return to_dtype(picture, decoder.gmix.header.dtype)


def sum_projection(decoder: Decoder, frame: int, axis: str, roi: Box | None = None) -> NDArray[np.float32]:
    """Sum over the voxels of every line along an axis, from the integrals of the Gaussians.

    Parameters
    ----------
    axis : z, y or x
    roi : in voxels; none: the whole frame

    Returns
    -------
    the two other axes in their order, float32 in the unit of the file; of a file that bounds its errors the sum of its
    voxels, decoded block by block
    """
    along = _axis(axis)
    box = roi or _whole(decoder.shape)
    lengths = [b.stop - b.start for b in box]
    pixels = [n for k, n in enumerate(lengths) if k != along]
    if decoder.exact:
        return _sum_of_voxels(decoder, frame, along, box)
    picture = np.zeros(pixels)
    corner = [b.start for k, b in enumerate(box) if k != along]
    limits = box[along].start, box[along].stop
    for index in decoder.touching(frame, box):
        add_sums(picture, *decoder.brick(frame, index), along, limits, (corner[0], corner[1]))
    one_sample = [1 if k == along else n for k, n in enumerate(lengths)]
    factor = tuple(n if k == along else 1 for k, n in enumerate(lengths))
    header = decoder.gmix.header
    first = [b.start for b in box]
    grid = decoder.gmix.background(frame)
    flat = resolution.background_means(grid, header.cell, first, one_sample, factor)  # type: ignore[arg-type]
    picture += flat.select(along, 0).double().numpy() * lengths[along]
    intensity = header.intensity[frame]
    return (picture * intensity.scale + lengths[along] * intensity.offset).astype(np.float32)


@dataclass(frozen=True)
class View:
    """A line of sight: ``x' = matrix x + offset`` takes voxels to (depth, row, column) in pixels of the picture.

    Attributes
    ----------
    matrix : (3, 3) float64
    offset : (3,) float64
    shape : samples along the line of sight, rows, columns: the box around the turned volume
    pixel_um : size of a pixel
    """

    matrix: Tensor
    offset: Tensor
    shape: tuple[int, int, int]
    pixel_um: float

    @staticmethod
    def of(
        shape: Sequence[int], voxel_um: Sequence[float], azimuth_deg: float, elevation_deg: float, factor: Factor
    ) -> View:
        """The volume turned about its y axis by the azimuth, then about the picture's horizontal by the elevation.

        At 0, 0 the view goes along z, row along y, column along x; pixels are as small as the smallest side of a sample
        of the resolution `factor`.
        """
        pixel = min(v * f for v, f in zip(voxel_um, factor))
        a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
        about_y = [[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]]
        about_x = [[math.cos(e), math.sin(e), 0], [-math.sin(e), math.cos(e), 0], [0, 0, 1]]
        turn = torch.tensor(about_x, dtype=torch.float64) @ torch.tensor(about_y, dtype=torch.float64)
        size = torch.tensor(list(shape), dtype=torch.float64)
        matrix = turn @ torch.diag(torch.tensor(list(voxel_um), dtype=torch.float64) / pixel)
        box = torch.ceil(matrix.abs() @ size - 1e-6)
        offset = (box - 1) / 2 - matrix @ ((size - 1) / 2)
        depth, rows, columns = (int(n) for n in box)
        return View(matrix, offset, (depth, rows, columns), pixel)

    def positions(self, box: Box) -> Tensor:
        """(depth, row, column, 3) float64 places of samples in voxels (z, y, x)."""
        lines = [torch.arange(b.start, b.stop, dtype=torch.float64) for b in box]
        inverse = torch.linalg.inv(self.matrix)
        place = -inverse @ self.offset
        for k, line in enumerate(lines):
            column = [1, 1, 1, 1]
            column[k] = -1
            place = place + line.view(column) * inverse[:, k]
        return place


def view_projection(
    decoder: Decoder, frame: int, azimuth_deg: float, elevation_deg: float = 0.0, factor: Factor = (1, 1, 1)
) -> NDArray[np.float32]:
    """Brightest value along the lines of sight of an oblique view, from turned Gaussians; no residual layer.

    Parameters
    ----------
    azimuth_deg : turn about the vertical (y)
    elevation_deg : then turn about the horizontal of the picture
    factor : of the resolution that is shown; all Gaussians of it are held

    Returns
    -------
    (row, column) float32 in the unit of the file, square pixels; where no line meets the volume, its least value
    """
    header = decoder.gmix.header
    view = View.of(decoder.shape, decoder.voxel_size_um, azimuth_deg, elevation_deg, factor)
    turned, cuts = [], []
    for index in sorted(decoder.gmix.bricks(frame)):
        mixture, cut = decoder.brick(frame, index, factor)
        turned.append(resolution.mapped(mixture, view.matrix, view.offset.tolist()))
        cuts.append(cut)
    mixture = Mixture.concatenate(turned).to(decoder.device)
    cut = torch.cat([*cuts, torch.zeros(0)]).to(decoder.device)
    grid = decoder.gmix.background(frame).to(decoder.device)
    background = functools.partial(_turned_background, view, grid, header.cell, decoder.shape)
    picture = gaussians.max_projection(*mixture.tensors, cut, background, view.shape, 0)
    intensity = header.intensity[frame]
    seen = picture.isfinite()
    picture = torch.where(seen, picture, picture[seen].min() if seen.any() else 0.0)
    return (picture.double() * intensity.scale + intensity.offset).float().cpu().numpy()


def _turned_background(view: View, grid: Tensor, cell: Sequence[int], shape: Sequence[int], part: Box) -> Tensor:
    """Background of a part of the turned box, minus infinity outside the volume."""
    field = torch.empty([p.stop - p.start for p in part], device=grid.device)
    size = torch.tensor(list(shape), device=grid.device)
    for z, y, x in boxes(part, (1 << 30, 128, 256)):  # positions take three times the memory of the values
        places = view.positions((z, y, x)).to(grid.device)
        inside = ((places > -0.5) & (places < size - 0.5)).all(-1)
        values = torch.where(inside, resolution.background_at(grid, cell, places), -math.inf)
        field[:, y.start - part[1].start : y.stop - part[1].start, x.start - part[2].start : x.stop - part[2].start] = (
            values
        )
    return field


def _sum_of_voxels(decoder: Decoder, frame: int, along: int, box: Box) -> NDArray[np.float32]:
    lengths = [b.stop - b.start for b in box]
    picture = torch.zeros([n for k, n in enumerate(lengths) if k != along], dtype=torch.float64)
    for part in boxes(box, block_shape(lengths, decoder.gmix.header.brick)):
        place = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box))
        picture[place[:along] + place[along + 1 :]] += decoder.region(frame, part).double().sum(along).cpu()
    return picture.float().numpy()


def _axis(name: str) -> int:
    if name not in AXES:
        raise ShapeError(f"a projection goes along z, y or x, not {name!r}")
    return AXES.index(name)


def _whole(shape: Sequence[int]) -> Box:
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x
