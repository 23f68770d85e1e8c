"""Optical depth, haze and distance to the surface of a whole phantom, on the coarse grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.kernels import cells
from gigascope.synthesis.simulation.attenuation import Attenuating, haze, optical_depth
from gigascope.synthesis.simulation.cells import CellGrid, cell_grid, region_fraction
from gigascope.synthesis.simulation.scene import Light

F64 = NDArray[np.float64]

# cells of a slab that are evaluated at once
SLAB_CELLS = 1 << 20
# samples of a cell along each axis: for the share that nuclei take, and for their mean brightness
FRACTION_SAMPLES, EMISSION_SAMPLES = 4, 2


def light_grid(
    nuclei: cells.NucleiTable, field_um: Sequence[float], low_um: Sequence[float], high_um: Sequence[float], um: float
) -> CellGrid:
    """Cells that cover the field, the region and all nuclei: what shades and what shines.

    Parameters
    ----------
    nuclei : of the phantom
    field_um : (z, y, x) size of the field, which starts at 0
    low_um, high_um : corners of the region
    um : edge of a cell
    """
    low, high = np.minimum(0.0, np.asarray(low_um)), np.maximum(np.asarray(field_um), np.asarray(high_um))
    if nuclei.n:
        centre, reach = nuclei.centre.cpu().numpy(), nuclei.reach.cpu().numpy()[:, None]
        low, high = np.minimum(low, (centre - reach).min(0)), np.maximum(high, (centre + reach).max(0))
    return cell_grid(low.tolist(), high.tolist(), um)


def light_of(
    nuclei: cells.NucleiTable, distance: Callable[[F64], F64], grid: CellGrid, how: Attenuating, gap_um: float = 0.0
) -> Light:
    """What a block of the image reads of the light; see :class:`gigascope.synthesis.simulation.scene.Light`.

    Parameters
    ----------
    nuclei : of the phantom
    distance : (n,) signed distance to the region's surface, µm, of points (n, 3) µm
    grid : of :func:`light_grid`
    how : attenuation and haze
    gap_um : distance that nuclei keep
    """
    device = nuclei.centre.device
    far = torch.from_numpy(_distances(distance, grid))
    region = torch.from_numpy(region_fraction(far.numpy(), grid.spacing)).to(device)
    far = far.to(device)
    share = torch.empty(grid.shape, device=device)
    for first, stop in _slabs(grid):
        part = _part(grid, first, stop)
        share[first:stop] = cells.fraction(nuclei, *part, (grid.spacing,) * 3, gap_um, FRACTION_SAMPLES)
    tau = optical_depth(region, share, how, grid.spacing, far)
    del region
    # shares are no longer needed: their place is that of the emission
    emission = share
    for first, stop in _slabs(grid) if how.haze_fraction > 0 else ():
        emission[first:stop] = _mean_density(nuclei, *_part(grid, first, stop), grid.spacing, gap_um)
    return Light(grid, tau, haze(emission, tau, how, grid.spacing), far)


def _part(grid: CellGrid, first: int, stop: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First cell and shape of a slab."""
    z, y, x = grid.first
    return (z + first, y, x), (stop - first, *grid.shape[1:])


def _mean_density(
    nuclei: cells.NucleiTable, origin: Sequence[int], shape: Sequence[int], spacing: float, gap_um: float
) -> Tensor:
    n = EMISSION_SAMPLES
    fine = cells.density(nuclei, [o * n for o in origin], [s * n for s in shape], (spacing / n,) * 3, gap_um)
    return torch.nn.functional.avg_pool3d(fine[None, None], n)[0, 0]


def _distances(distance: Callable[[F64], F64], grid: CellGrid) -> NDArray[np.float32]:
    """Signed distance of every cell centre."""
    z, y, x = grid.centres()
    found = np.empty(grid.shape, np.float32)
    for first, stop in _slabs(grid):
        points = np.stack(np.meshgrid(z[first:stop], y, x, indexing="ij"), axis=-1).reshape(-1, 3)
        found[first:stop] = distance(points).reshape(stop - first, *grid.shape[1:])
    return found


def _slabs(grid: CellGrid) -> list[tuple[int, int]]:
    step = max(1, SLAB_CELLS // (grid.shape[1] * grid.shape[2]))
    return [(first, min(first + step, grid.shape[0])) for first in range(0, grid.shape[0], step)]
