"""Where rays meet the grid: one line of five numbers per view, from which every kernel computes its weights.

In both branches of Joseph's method a ray visits an outer index m one by one (plane k or column j) and sits at a real
position on the inner axis (x or z) that is linear in the detector sample i and in m:

    position(i, m) = alpha i + beta m + gamma,     weight  g (1 - |position - n|) at the inner index n
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

MakeTable = Callable[[Tensor, int, tuple[int, int], float], Tensor]

# a solver asks for the tables of a few levels and groups of views again and again; some 10 KB each
_KEPT = 64
_cache: OrderedDict[Hashable, tuple[weakref.ref[Tensor] | None, Tensor]] = OrderedDict()
_lock = threading.Lock()


def remembered(
    make: MakeTable, angles: Tensor, device: torch.device, n_s: int, shape_zx: tuple[int, int], hz: float
) -> Tensor:
    """Table of `make` for these angles on `device`, computed once: it takes 80 us, more than a small projection.

    Angles on the CPU are compared by value; on another device by identity and version, since their values would have to
    come to the host.
    """
    if angles.is_inference():
        return make(angles.to(device), n_s, shape_zx, hz)
    owner: weakref.ref[Tensor] | None = None
    if angles.device.type == "cpu":
        same: Hashable = angles.detach().contiguous().numpy().tobytes()
    else:
        same, owner = (id(angles), angles._version), weakref.ref(angles)
    key = (make, same, device, n_s, shape_zx, hz)
    with _lock:
        found = _cache.get(key)
        if found is not None and (found[0] is None or found[0]() is angles):
            _cache.move_to_end(key)
            return found[1]
    table = make(angles.detach().to(device), n_s, shape_zx, hz)
    with _lock:
        _cache[key] = (owner, table)
        while len(_cache) > _KEPT:
            _cache.popitem(last=False)
    return table


def ray_table(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """Coefficients of all rays of all views, in float64 because positions reach thousands of voxels.

    Parameters
    ----------
    angles : (tilt,) float64, radians
    n_s : detector samples across the tilt axis
    shape_zx : (z, x) of the volume
    hz : voxel size in z over voxel size in x

    Returns
    -------
    (tilt, 5) float64: branch (0: planes, inner axis x; 1: columns, inner axis z), alpha, beta, gamma, g
    """
    n_z, n_x = shape_zx
    cos, sin = torch.cos(angles), torch.sin(angles)
    planes = cos.abs() >= sin.abs() * hz
    one = torch.ones_like(cos)
    # the unused branch may divide by zero: give it a harmless divisor first
    c, s = torch.where(planes, cos, one), torch.where(planes, one, sin)
    alpha = torch.where(planes, 1 / c, 1 / (s * hz))
    beta = torch.where(planes, -hz * sin / c, -cos / (s * hz))
    inner_centre = torch.where(planes, (n_x - 1) / 2 * one, (n_z - 1) / 2 * one)
    outer_centre = torch.where(planes, (n_z - 1) / 2 * one, (n_x - 1) / 2 * one)
    gamma = inner_centre - alpha * ((n_s - 1) / 2) - beta * outer_centre
    weight = torch.where(planes, hz / c.abs(), 1 / s.abs())
    return torch.stack(((~planes).to(torch.float64), alpha, beta, gamma, weight), dim=1)


def sample_table(angles: Tensor, n_s: int, shape_zx: tuple[int, int], hz: float) -> Tensor:
    """Coefficients of the gather form of the adjoint: which detector samples see a voxel, and with what weight.

    In both branches voxel (z, x) projects to the sample position cos x + hz sin z + centre, and a sample i within the
    reach of it has weight g (1 - |i - position| / reach). A line holds two neighbouring samples; where the reach is
    above 1 (columns with hz > 1) a view has several lines.

    Parameters
    ----------
    angles, n_s, shape_zx, hz : as in :func:`ray_table`

    Returns
    -------
    (line, 7) float64: view, factor of x, factor of z, centre, reach, g, offset of the line's first sample
    """
    n_z, n_x = shape_zx
    cos, sin = torch.cos(angles), torch.sin(angles)
    planes = cos.abs() >= sin.abs() * hz
    reach = torch.where(planes, cos.abs(), sin.abs() * hz)
    centre = (n_s - 1) / 2 - cos * ((n_x - 1) / 2) - hz * sin * ((n_z - 1) / 2)
    view = torch.arange(angles.shape[0], dtype=torch.float64, device=angles.device)
    # hz over the reach is the weight of both branches: hz / |cos| and 1 / |sin|
    columns = (view, cos, hz * sin, centre, reach, hz / reach, torch.zeros_like(cos))
    lines = torch.stack(columns, dim=1)
    # an open interval of length 2 reach holds at most ceil(2 reach) samples; the margin is rounding at reach 1
    n_lines = torch.ceil(reach - 1e-9).clamp(min=1).long()
    lines = lines.repeat_interleave(n_lines, dim=0)
    number = torch.arange(lines.shape[0], device=angles.device)
    first = (n_lines.cumsum(0) - n_lines).repeat_interleave(n_lines)
    lines[:, 6] = 2 * (number - first)
    return lines
