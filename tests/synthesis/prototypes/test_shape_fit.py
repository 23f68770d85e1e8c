"""Shapes of known harmonics are found again from their voxels, in any position and on voxels that are no cubes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gigascope.kernels.cells.harmonics import N_HARMONICS, harmonic_scales, real_harmonics, sphere_rule
from gigascope.kernels.cells.shape import rotation_matrices
from gigascope.synthesis.prototypes.shape_fit import fit_shape, hidden_share, principal_frame, surface_faces

DIRECTIONS = sphere_rule(12)[0]


def random_shape(rng, axes=(5.5, 4.6, 3.8), rms=0.05):
    """Radius in directions of the image, (k, 3) -> (k,), of an ellipsoid with harmonics, turned at random."""
    harmonics = (harmonic_scales(rms, 1.8, 6) * torch.from_numpy(rng.standard_normal(N_HARMONICS))).numpy()
    turn = rotation_matrices(torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((1, 4))), dim=1))[0]

    def radius(u):
        body = torch.from_numpy(u) @ turn.T
        base = (body / torch.tensor(axes)).norm(dim=1).reciprocal()
        return (base * torch.exp(real_harmonics(body) @ torch.from_numpy(harmonics))).numpy()

    return radius


def voxels_of(radius, voxel_um, centre=None, n=None):
    """Mask of voxels whose centre is inside; the centre of the body is in the middle unless it is given."""
    size = np.array(voxel_um)
    n = n or tuple(int(16 / s) for s in size)
    centre = np.array(n) * size / 2 if centre is None else centre
    offset = (np.moveaxis(np.indices(n), 0, -1) + 0.5) * size - centre
    r = np.linalg.norm(offset, axis=-1)
    u = offset.reshape(-1, 3) / np.maximum(r.reshape(-1, 1), 1e-9)
    return (r.ravel() <= radius(u)).reshape(n), centre


# Voxels of a twentieth to an eighth of the radius: their own steps are 0.29 of a voxel.
@pytest.mark.parametrize("voxel_um", [(0.25, 0.25, 0.25), (0.6, 0.2, 0.2)])
def test_known_harmonics_are_found_again(rng, voxel_um):
    radius = random_shape(rng)
    mask, centre = voxels_of(radius, voxel_um)
    fit = fit_shape(mask, voxel_um)
    # the fit is about the centroid, the truth about its own centre: compare surfaces, as points
    body = DIRECTIONS @ torch.from_numpy(fit.frame).T
    r = fit.radius * torch.exp(real_harmonics(body) @ torch.from_numpy(fit.harmonics).double()).numpy()
    surface = fit.centre + r[:, None] * DIRECTIONS.numpy() - centre
    distance = np.linalg.norm(surface, axis=1)
    miss = distance / radius(surface / distance[:, None]) - 1
    assert np.sqrt((miss**2).mean()) < 0.015
    assert fit.residual < 0.05
    assert fit.hidden == pytest.approx(0, abs=0.005)
    assert fit.harmonics[0] == 0
    volume = np.count_nonzero(mask) * np.prod(voxel_um)
    weights = sphere_rule(12)[1].numpy()
    assert (r**3 @ weights) / 3 == pytest.approx(volume, rel=0.02)


def test_frame_has_the_longest_axis_first_and_is_a_rotation(rng):
    radius = random_shape(rng, (6.0, 4.5, 3.0), rms=0.0)
    mask, centre = voxels_of(radius, (0.3, 0.3, 0.3))
    found, frame = principal_frame(mask, (0.3, 0.3, 0.3))
    np.testing.assert_allclose(found, centre, atol=0.02)
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame) == pytest.approx(1)
    for axis, length in enumerate((6.0, 4.5, 3.0)):
        assert radius(frame[axis : axis + 1])[0] == pytest.approx(length, rel=0.01)


def test_shape_does_not_depend_on_where_the_voxels_lie(rng):
    mask, _ = voxels_of(random_shape(rng), (0.5, 0.3, 0.3))
    moved = fit_shape(np.pad(mask, ((3, 1), (0, 4), (2, 2))), (0.5, 0.3, 0.3))
    still = fit_shape(mask, (0.5, 0.3, 0.3))
    np.testing.assert_allclose(moved.harmonics, still.harmonics, atol=1e-6)
    np.testing.assert_allclose(moved.centre - still.centre, [1.5, 0, 0.6], atol=1e-9)


def test_faces_of_a_box_are_its_surface():
    mask = np.zeros((5, 6, 7), bool)
    mask[1:3, 2:5, 1:6] = True
    points, areas = surface_faces(mask, (2.0, 1.0, 0.5))
    np.testing.assert_allclose(areas.sum(axis=0), [2 * 3 * 2.5, 2 * 4 * 2.5, 2 * 4 * 3])
    for axis, (low, high) in enumerate([(2.0, 6.0), (2.0, 5.0), (0.5, 3.0)]):
        assert set(points[areas[:, axis] > 0][:, axis]) == {low, high}


def test_a_hollow_or_bent_body_is_hidden_in_part():
    """A disc beside a ball, seen from inside the ball through a gap, is hidden by its share of the volume."""
    z, y, x = np.indices((40, 40, 60))
    ball = (z - 20) ** 2 + (y - 20) ** 2 + (x - 15) ** 2 <= 100
    far = (np.abs(z - 20) <= 8) & (np.abs(y - 20) <= 8) & (np.abs(x - 38) <= 4)
    size = (0.3, 0.3, 0.3)
    share = np.count_nonzero(far) / np.count_nonzero(ball | far)
    centre = (np.array([20, 20, 15]) + 0.5) * 0.3
    assert hidden_share(ball, size, centre) == pytest.approx(0, abs=1e-3)
    # the solid angle of the box is met to a few percent
    assert hidden_share(ball | far, size, centre) == pytest.approx(share, rel=0.1)
    assert hidden_share(far, size, centre) == 1
    assert math.isclose(hidden_share(np.ones((9, 9, 9), bool), (2.0, 1.0, 1.0), np.array([9, 4.5, 4.5])), 0)
