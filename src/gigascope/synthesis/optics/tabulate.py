"""PSFs at depths a few micrometres apart, on the voxels of a grid, composed of as few kernels as will do."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gigascope.synthesis.optics import gaussian, measured
from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.optics.eigen import compose
from gigascope.synthesis.optics.microscope import Microscope, energy_reach
from gigascope.synthesis.optics.radial import multiplicity, quadrant_matrix, unfold
from gigascope.synthesis.optics.settings import Settings

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Three = tuple[float, float, float]

# Eigen-PSFs that do for 200 µm of dry NA 0.5 into cleared tissue, or of water NA 1.0 into tissue, within 2 %.
SENSIBLE = 8


def depth_psf(settings: Settings, voxel_um: Three, depth_um: float) -> DepthPsf:
    """The PSF at depths from 0 to `depth_um`.

    Parameters
    ----------
    settings : keys of the section `optics`, constants only
    voxel_um : (z, y, x) of the grid that is blurred
    depth_um : largest depth of an emitter, from the cover glass

    Raises
    ------
    UserError : measured stacks that cannot be used
    """
    if settings.model == "none":
        one = np.ones(1)
        kernel = np.ones((1, 1, 1, 1), np.float32)
        return DepthPsf(kernel, one[:, None], 0 * one, one, 0 * one, method="none")
    # all lengths of the PSF grow by a factor when it is computed on voxels that are smaller by it
    voxel = tuple(v / settings.widen for v in voxel_um)
    cap = tuple(c / settings.widen for c in settings.cap_um)
    limits = tuple(max(1, math.floor(c / v)) for c, v in zip(cap, voxel))
    if settings.model == "measured":
        return _measured(settings, voxel, limits)  # type: ignore[arg-type]
    depths = settings.depth_step_um * np.arange(math.ceil(max(depth_um, 0.0) / settings.depth_step_um) + 1)
    if settings.model == "gaussian":
        return _gaussian(settings, voxel, limits, depths)  # type: ignore[arg-type]
    return _gibson_lanni(settings, voxel, limits, depths)  # type: ignore[arg-type]


def composed(
    settings: Settings, psfs: F32, counts: F64, depths: F64, efficiency: F64, focus: F64, stretch: float = 1.0
) -> DepthPsf:
    """Eigen-PSFs where few enough do, else the PSFs themselves.

    Parameters
    ----------
    psfs : (depth, z, y, x) float32 of sum 1 with `counts`; a quadrant y, x >= 0 where `counts` says so
    counts : (y, x) how many voxels each stands for, all 1 for whole PSFs
    """
    flat = psfs.reshape(len(psfs), -1)
    every = np.broadcast_to(counts, psfs.shape[1:]).ravel()
    eigen = compose(flat, every, settings.eig_tol, settings.eig_max)
    if eigen is None:
        kernels, shares, method, error = psfs, np.eye(len(psfs)), "blended", 0.0
    else:
        kernels, shares, method, error = eigen.kernels.reshape(-1, *psfs.shape[1:]), eigen.shares, "eigen", eigen.error
    if (counts != 1).any():
        kernels = unfold(kernels)
    kernels = np.ascontiguousarray(kernels, np.float32)
    warnings = ill_chosen(settings, float(depths[-1]), None if eigen is None else len(kernels))
    return DepthPsf(kernels, shares, depths, efficiency, focus, stretch, method, error, warnings)


def ill_chosen(settings: Settings, depth_um: float, n_kernels: int | None) -> tuple[str, ...]:
    """A warning for the person who has such an objective, where there is reason for one.

    Parameters
    ----------
    depth_um : of the sample
    n_kernels : eigen-PSFs; None: too many
    """
    if settings.model != "gibson_lanni" or (n_kernels is not None and n_kernels <= SENSIBLE):
        return ()
    takes = f"takes {n_kernels} eigen-PSFs" if n_kernels else f"takes more than {settings.eig_max} eigen-PSFs"
    return (
        f"Over {depth_um:g} µm of depth the PSF changes so much that it {takes}, where {SENSIBLE} do for sensible "
        f"microscopes: an objective of NA {settings.na:g} in an immersion of index {settings.n_immersion:g} is "
        f"ill-chosen for a sample of index {settings.n_sample:g} as thick as this. Take an immersion nearer to the "
        "sample, or a lower NA.",
    )


def _gibson_lanni(settings: Settings, voxel: Three, limits: tuple[int, int, int], depths: F64) -> DepthPsf:
    deepest = float(depths[-1])
    survey = Microscope(
        settings, limits[0], voxel[0], max(n * v for n, v in zip(limits[1:], voxel[1:])), deepest, fine=False
    )
    focus = np.array([survey.focus(d) for d in depths])
    stretch, middles = 1.0, focus
    if not settings.recentre and len(depths) > 1:
        shifted = focus - focus[0]
        stretch = float(shifted @ depths / (depths @ depths))
        # what is not linear stays in the PSFs
        middles = focus[0] + stretch * depths
    reaches = [energy_reach(survey.profile(d, m), survey.step, settings.psf_energy) for d, m in zip(depths, middles)]
    half_z, radius = (max(r[i] for r in reaches) for i in (0, 1))
    y, x = (min(limit, max(1, math.ceil(radius / v - 0.5))) for limit, v in zip(limits[1:], voxel[1:]))
    half, corner = (int(half_z), y, x), math.hypot((y + 0.5) * voxel[1], (x + 0.5) * voxel[2])
    scope = Microscope(settings, half[0], voxel[0], corner, deepest)
    to_voxels = quadrant_matrix((y, x), (voxel[1], voxel[2]), scope.step, scope.n_radii)
    counts = multiplicity((y, x))
    psfs = np.empty((len(depths), 2 * half[0] + 1, *counts.shape), np.float32)
    light = np.empty(len(depths))
    for i, (depth, middle) in enumerate(zip(depths, middles)):
        psf = (to_voxels @ scope.profile(depth, middle).T).T.reshape(psfs.shape[1:])
        light[i] = (psf * counts).sum()
        psfs[i] = psf / light[i]
    # of wide-field and light-sheet PSFs all light is kept, and what leaves the support is a matter of the cut
    efficiency = light / light[0] if settings.modality == "confocal" else np.ones(len(depths))
    return composed(settings, psfs, counts, depths, efficiency, focus - focus[0], stretch)


def _gaussian(settings: Settings, voxel: Three, limits: tuple[int, int, int], depths: F64) -> DepthPsf:
    sigmas = [gaussian.widths(settings.sigma_um, settings.sigma_depth_um, d) for d in depths]
    reach = gaussian.reach(sigmas[-1], settings.psf_energy)
    z, y, x = (min(n, max(1, math.ceil(r / v - 0.5))) for r, v, n in zip(reach, voxel, limits))
    counts = multiplicity((y, x))
    psfs = [gaussian.octant(s, (z, y, x), voxel) for s in sigmas]
    stack = np.array([p / (p * counts).sum() for p in psfs], np.float32)
    return composed(settings, stack, counts, depths, np.ones(len(depths)), depths.copy())


def _measured(settings: Settings, voxel: Three, limits: tuple[int, int, int]) -> DepthPsf:
    psfs = measured.load(settings, voxel, limits)
    depths = np.array(settings.path_depths_um or (0.0,))
    return composed(settings, psfs, np.ones(psfs.shape[2:]), depths, np.ones(len(psfs)), depths.copy())
