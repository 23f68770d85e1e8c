"""Phantoms with known truth: ellipsoids and shells clipped to a slab, projected exactly.

A phantom is a list of ellipsoids with additive density (a shell is an outer ellipsoid minus an inner one) and an
embedding medium that fills the slab |z| <= half_thickness. Line integrals are closed-form, shifts move the detector
grid, so no interpolation enters the truth. Used by the tests and as the demo data of the tomography chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numba
import numpy as np
from numpy.typing import NDArray

from gigascope.errors import ShapeError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PEAK_ABSORBANCE = 1.2


@dataclass(frozen=True)
class Phantom:
    """Ellipsoids in voxel units about the origin, clipped by |z| <= half_thickness.

    Parameters
    ----------
    centres : (n, 3) float64, (x, y, z) in voxels
    whitening : (n, 3, 3) float64; the body is |whitening @ (p - centre)| <= 1
    densities : (n,) float64, absorbance per voxel length, negative for the inner ellipsoid of a shell
    medium : density of the embedding medium between the two faces of the slab
    half_thickness : half the thickness of the slab, voxels
    extent : "object" (isolated) or "section" (wider than the field)
    """

    centres: F64
    whitening: F64
    densities: F64
    medium: float = 0.0
    half_thickness: float = 32.0
    extent: str = "object"

    def translated(self, dx: float, dy: float, dz: float) -> Phantom:
        """The same bodies moved by (dx, dy, dz) voxels.

        Raises
        ------
        ValueError : a move along z of bodies or a medium that the faces of the slab cut
        """
        if dz and (self.medium or self._touches_faces()):
            raise ValueError("a phantom cut by the faces of its slab cannot be moved along z")
        return replace(self, centres=self.centres + np.array([dx, dy, dz]))

    def scaled(self, factor: float) -> Phantom:
        """The same phantom with all densities times `factor`."""
        return replace(self, densities=self.densities * factor, medium=self.medium * factor)

    def _touches_faces(self) -> bool:
        covariance = _covariances(self.whitening)
        return bool(np.any(np.abs(self.centres[:, 2]) + np.sqrt(covariance[:, 2, 2]) > self.half_thickness))


@dataclass(frozen=True)
class TiltSeriesSim:
    """A simulated tilt series with its truth.

    Parameters
    ----------
    views : (tilt, s, y) float32, counts of a transmission image (`i0` counts where nothing absorbs)
    clean : (tilt, s, y) float32, noise-free absorbance with the shifts applied
    tilt : (tilt,) float64, radians, ascending
    shifts_true : (tilt, 2) float64, (f_s, f_y) in pixels
    volume : (z, x, y) float32, true density per voxel, at the phantom's place
    i0 : counts per pixel without specimen
    noise_variance : (tilt,) float64, mean variance of -log(views / i0) per view
    extent : "object" or "section"
    """

    views: F32
    clean: F32
    tilt: F64
    shifts_true: F64
    volume: F32
    i0: float
    noise_variance: F64
    extent: str
    signal: str = field(default="transmission")

    def absorbance(self) -> F32:
        """-log(max(views, 0.5) / i0), (tilt, s, y) float32: the prepared signal before scaling."""
        return -np.log(np.maximum(self.views, 0.5) / np.float32(self.i0))


class _Bodies:
    """Collects ellipsoids while a phantom is drawn."""

    def __init__(self) -> None:
        self.centres: list[F64] = []
        self.whitening: list[F64] = []
        self.densities: list[float] = []

    def ellipsoid(self, centre: F64, axes: F64, density: float, rotation: F64 | None = None) -> None:
        rotation = np.eye(3) if rotation is None else rotation
        self.centres.append(np.asarray(centre, dtype=np.float64))
        self.whitening.append(np.diag(1.0 / np.asarray(axes, dtype=np.float64)) @ rotation.T)
        self.densities.append(density)

    def shell(self, centre: F64, axes: F64, wall: float, density: float, rotation: F64 | None = None) -> None:
        axes = np.asarray(axes, dtype=np.float64)
        self.ellipsoid(centre, axes, density, rotation)
        self.ellipsoid(centre, axes - wall, -density, rotation)

    def phantom(self, medium: float, half_thickness: float, extent: str) -> Phantom:
        return Phantom(
            np.stack(self.centres),
            np.stack(self.whitening),
            np.array(self.densities),
            medium,
            half_thickness,
            extent,
        )


def object_phantom(seed: int) -> Phantom:
    """An isolated body: one shell of 50 x 54 x 29 px semi-axes with vesicles, blobs and granules inside."""
    rng = np.random.default_rng([seed, 1])
    axes = np.array([50.0, 54.0, 29.0])
    bodies = _Bodies()
    bodies.shell(np.zeros(3), axes, 3.0, 1.0)
    bodies.ellipsoid(np.zeros(3), axes - 3.0, 0.15)
    for _ in range(14):
        radius = rng.uniform(4.0, 8.0)
        bodies.shell(_inside(rng, axes - 4.0 - radius), np.full(3, radius), 1.8, 1.2)
    for _ in range(10):
        semi = rng.uniform(4.0, 10.0, 3)
        bodies.ellipsoid(_inside(rng, axes - 4.0 - semi.max()), semi, rng.uniform(0.3, 0.9), _rotation(rng))
    for _ in range(60):
        radius = rng.uniform(1.2, 2.6)
        bodies.ellipsoid(_inside(rng, axes - 5.0 - radius), np.full(3, radius), rng.uniform(0.8, 2.0))
    return _normalised(bodies.phantom(0.0, 32.0, "object"))


def section_phantom(seed: int) -> Phantom:
    """A section wider than the field: membranes cut from large shells, 90 vesicles, 300 granules, in a medium of 0.25.

    The bodies fill 400 px across the axis and 168 px along it: more than a shifted 128 px field sees up to 60 degrees.
    """
    rng = np.random.default_rng([seed, 2])
    half = np.array([200.0, 84.0, 32.0])
    bodies = _Bodies()
    for _ in range(10):
        semi = rng.uniform(60.0, 180.0, 3)
        bodies.shell(rng.uniform(-1.0, 1.0, 3) * half * [1.3, 1.3, 3.0], semi, 2.5, 0.7, _rotation(rng))
    for _ in range(90):
        semi = rng.uniform(5.0, 12.0) * rng.uniform(0.85, 1.15, 3)
        bodies.shell(rng.uniform(-1.0, 1.0, 3) * half, semi, 2.0, 1.2, _rotation(rng))
    for _ in range(300):
        radius = rng.uniform(1.2, 3.0)
        bodies.ellipsoid(rng.uniform(-1.0, 1.0, 3) * half, np.full(3, radius), rng.uniform(1.0, 3.0))
    return _normalised(bodies.phantom(0.25, 32.0, "section"))


def true_shifts(n_views: int, rng: np.random.Generator, sigma: float = 3.0) -> F64:
    """Random shifts N(0, sigma) per axis plus a slow drift, zero in the middle view; (n_views, 2), pixels."""
    k = np.linspace(-1.0, 1.0, n_views)
    drift = np.stack([6.0 * np.sin(2.2 * k + 0.3), 5.0 * k + 2.0 * np.cos(3.0 * k)], axis=1)
    shifts = rng.normal(0.0, sigma, (n_views, 2)) + drift
    return shifts - shifts[n_views // 2]


def simulate(
    phantom: Phantom,
    *,
    seed: int,
    snr: float = 1.0,
    tilt: F64 | None = None,
    shape: tuple[int, int] = (128, 128),
    shifts: F64 | None = None,
    n_z: int = 64,
    width: int | None = None,
    tilt_axis: float = 0.0,
) -> TiltSeriesSim:
    """Simulate a transmission tilt series of a phantom with Poisson noise and known shifts.

    Parameters
    ----------
    phantom : the specimen
    seed : of shifts and noise
    snr : variance of the clean view over the noise variance, in the view of lowest tilt
    tilt : (tilt,) radians ascending; default 61 views, -60..60 degrees
    shape : (n_s, n_y) of the detector (of the raw image (x, y) when `tilt_axis` is not 0)
    shifts : (tilt, 2) true shifts in pixels, in the rotated frame; default :func:`true_shifts`
    n_z, width : shape of the truth volume; width defaults to n_s
    tilt_axis : angle of the tilt axis from image up, radians, counter-clockwise

    Returns
    -------
    TiltSeriesSim

    Raises
    ------
    ShapeError : `shifts` has another length than `tilt`
    """
    tilt = np.deg2rad(np.linspace(-60.0, 60.0, 61)) if tilt is None else np.asarray(tilt, dtype=np.float64)
    shifts = true_shifts(len(tilt), np.random.default_rng([seed, 10])) if shifts is None else np.asarray(shifts)
    if shifts.shape != (len(tilt), 2):
        raise ShapeError(f"shifts has shape {shifts.shape}, expected ({len(tilt)}, 2)")
    clean = line_integrals(phantom, tilt, shape, shifts, tilt_axis=tilt_axis)
    lowest = clean[int(np.argmin(np.abs(tilt)))].astype(np.float64)
    # the variance of -log(counts / i0) is 1 / counts = exp(absorbance) / i0
    i0 = float(snr * np.exp(lowest).mean() / lowest.var())
    counts = np.random.default_rng([seed, 11]).poisson(i0 * np.exp(-clean.astype(np.float64)))
    return TiltSeriesSim(
        views=counts.astype(np.float32),
        clean=clean,
        tilt=tilt,
        shifts_true=shifts,
        volume=density_volume(phantom, (n_z, width or shape[0], shape[1])),
        i0=i0,
        noise_variance=np.exp(clean.astype(np.float64)).mean(axis=(1, 2)) / i0,
        extent=phantom.extent,
    )


def line_integrals(
    phantom: Phantom,
    tilt: F64,
    shape: tuple[int, int],
    shifts: F64 | None = None,
    *,
    tilt_axis: float = 0.0,
    samples: int = 2,
) -> F32:
    """Exact line integrals of a phantom, mean of samples x samples rays per pixel.

    Parameters
    ----------
    tilt : (tilt,) radians
    shape : (n_s, n_y)
    shifts : (tilt, 2) pixels: view i shows p_i(s - f_s, y - f_y); none: zero
    tilt_axis : radians; not 0: the image axes (x, y) are turned against (s, y)
    samples : rays per pixel along each axis

    Returns
    -------
    (tilt, n_s, n_y) float32
    """
    tilt = np.asarray(tilt, dtype=np.float64)
    shifts = np.zeros((len(tilt), 2)) if shifts is None else np.asarray(shifts, dtype=np.float64)
    zero, one = np.zeros_like(tilt), np.ones_like(tilt)
    e_s = np.stack([np.cos(tilt), zero, np.sin(tilt)], axis=1)
    e_y = np.stack([zero, one, zero], axis=1)
    ray = np.stack([-np.sin(tilt), zero, np.cos(tilt)], axis=1)
    # raw = R(phi) aligned, so the image axes are these combinations of the rotated frame's axes
    e_0 = math.cos(tilt_axis) * e_s - math.sin(tilt_axis) * e_y
    e_1 = math.sin(tilt_axis) * e_s + math.cos(tilt_axis) * e_y
    origin = -(shifts[:, :1] * e_s + shifts[:, 1:] * e_y)
    # whitened frame of each body: the ray through image point g is offset + g_0 step_0 + g_1 step_1 + r step_r
    offset = np.einsum("bij,vbj->vbi", phantom.whitening, origin[:, None] - phantom.centres)
    steps = np.stack([np.einsum("bij,vj->vbi", phantom.whitening, e) for e in (e_0, e_1, ray)], axis=2)
    covariances = _covariances(phantom.whitening)
    boxes = np.stack(
        [
            np.stack([np.einsum("vbj,vj->vb", phantom.centres - origin[:, None], e) for e in (e_0, e_1)], axis=2),
            np.stack([np.sqrt(np.einsum("vi,bij,vj->vb", e, covariances, e)) for e in (e_0, e_1)], axis=2) + 0.5,
        ],
        axis=3,
    )
    out = np.zeros((len(tilt), *shape), dtype=np.float32)
    heights = np.stack([origin[:, 2], e_0[:, 2], e_1[:, 2], ray[:, 2]], axis=1)
    half = float(phantom.half_thickness)
    _integrate(out, offset, steps, boxes, heights, phantom.densities, float(phantom.medium), half, samples)
    return out


def density_volume(phantom: Phantom, shape: tuple[int, int, int], samples: int = 2) -> F32:
    """Density on a voxel grid of shape (z, x, y), mean of samples^3 points per voxel; float32."""
    out = np.zeros(shape, dtype=np.float32)
    reach = np.sqrt(np.einsum("bii->bi", _covariances(phantom.whitening))) + 0.5
    medium, half = float(phantom.medium), float(phantom.half_thickness)
    _voxelise(out, phantom.centres, phantom.whitening, reach, phantom.densities, medium, half, samples)
    return out


def _covariances(whitening: F64) -> F64:
    """Sigma with support function sqrt(e^T Sigma e) of each body."""
    axes = np.linalg.inv(whitening)
    return axes @ axes.transpose(0, 2, 1)


def _inside(rng: np.random.Generator, axes: F64) -> F64:
    """A point uniformly inside an ellipsoid."""
    direction = rng.normal(size=3)
    return direction / np.linalg.norm(direction) * rng.uniform() ** (1 / 3) * np.maximum(axes, 0.0)


def _rotation(rng: np.random.Generator) -> F64:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def _normalised(phantom: Phantom) -> Phantom:
    """Scale so that the peak absorbance of the untilted 128 x 128 view is PEAK_ABSORBANCE."""
    peak = float(line_integrals(phantom, np.zeros(1), (128, 128)).max())
    return phantom.scaled(PEAK_ABSORBANCE / peak)


@numba.njit(parallel=True, cache=True)
def _integrate(out, offset, steps, boxes, heights, densities, medium, half, samples):  # type: ignore[no-untyped-def]
    """Chord lengths times density, one view per thread; each body visits only its bounding box."""
    n_views, n_0, n_1 = out.shape
    weight = 1.0 / (samples * samples)
    for i in numba.prange(n_views):
        out[i] = medium * 2.0 * half / heights[i, 3]
        for b in range(len(densities)):
            o_x, o_y, o_z = offset[i, b]
            u_x, u_y, u_z = steps[i, b, 0]
            v_x, v_y, v_z = steps[i, b, 1]
            r_x, r_y, r_z = steps[i, b, 2]
            a = r_x * r_x + r_y * r_y + r_z * r_z
            c_0, h_0 = boxes[i, b, 0]
            c_1, h_1 = boxes[i, b, 1]
            c_0 += (n_0 - 1) / 2
            c_1 += (n_1 - 1) / 2
            for j in range(max(0, math.floor(c_0 - h_0)), min(n_0, math.ceil(c_0 + h_0) + 1)):
                for k in range(max(0, math.floor(c_1 - h_1)), min(n_1, math.ceil(c_1 + h_1) + 1)):
                    total = 0.0
                    for v in range(samples * samples):
                        g_0 = j + (v // samples + 0.5) / samples - 0.5 - (n_0 - 1) / 2
                        g_1 = k + (v % samples + 0.5) / samples - 0.5 - (n_1 - 1) / 2
                        w_x = o_x + g_0 * u_x + g_1 * v_x
                        w_y = o_y + g_0 * u_y + g_1 * v_y
                        w_z = o_z + g_0 * u_z + g_1 * v_z
                        beta = w_x * r_x + w_y * r_y + w_z * r_z
                        disc = beta * beta - a * (w_x * w_x + w_y * w_y + w_z * w_z - 1.0)
                        if disc > 0.0:
                            root = math.sqrt(disc)
                            z_0 = heights[i, 0] + g_0 * heights[i, 1] + g_1 * heights[i, 2]
                            low = max((-beta - root) / a, (-half - z_0) / heights[i, 3])
                            high = min((-beta + root) / a, (half - z_0) / heights[i, 3])
                            total += max(high - low, 0.0)
                    out[i, j, k] += densities[b] * weight * total


@numba.njit(parallel=True, cache=True)
def _voxelise(out, centres, whitening, reach, densities, medium, half, samples):  # type: ignore[no-untyped-def]
    """Point samples per voxel, one plane per thread."""
    n_z, n_x, n_y = out.shape
    scale = 1.0 / samples**3
    for iz in numba.prange(n_z):
        for sz in range(samples):
            z = iz + (sz + 0.5) / samples - 0.5 - (n_z - 1) / 2
            if abs(z) > half:
                continue
            out[iz] += medium * samples * samples * scale
            for b in range(len(densities)):
                p_z = z - centres[b, 2]
                if abs(p_z) > reach[b, 2]:
                    continue
                c_x = centres[b, 0] + (n_x - 1) / 2
                c_y = centres[b, 1] + (n_y - 1) / 2
                m = whitening[b]
                for ix in range(max(0, math.floor(c_x - reach[b, 0])), min(n_x, math.ceil(c_x + reach[b, 0]) + 1)):
                    for iy in range(max(0, math.floor(c_y - reach[b, 1])), min(n_y, math.ceil(c_y + reach[b, 1]) + 1)):
                        for v in range(samples * samples):
                            p_x = ix + (v // samples + 0.5) / samples - 0.5 - c_x
                            p_y = iy + (v % samples + 0.5) / samples - 0.5 - c_y
                            q_0 = m[0, 0] * p_x + m[0, 1] * p_y + m[0, 2] * p_z
                            q_1 = m[1, 0] * p_x + m[1, 1] * p_y + m[1, 2] * p_z
                            q_2 = m[2, 0] * p_x + m[2, 1] * p_y + m[2, 2] * p_z
                            if q_0 * q_0 + q_1 * q_1 + q_2 * q_2 <= 1.0:
                                out[iz, ix, iy] += densities[b] * scale
