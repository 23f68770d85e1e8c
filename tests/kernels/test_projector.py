"""Properties of the projector and its adjoint on a CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels.projector import backproject, column_sums, project, reference, row_sums

# rounding of sums of a few hundred products in float32 and float64
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = list(TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_y", [1, 5, 64, 77, 131])
def test_cpu_agrees_with_the_reference(geometries, draw, distance, dtype, n_y):
    for angles, n_s, shape_zx, hz in geometries:
        volume, sinogram = draw(*shape_zx, n_y, dtype=dtype), draw(len(angles), n_s, n_y, dtype=dtype)
        assert distance(project(volume, angles, n_s, hz), reference.project(volume, angles, n_s, hz)) < TOLERANCE[dtype]
        expected = reference.backproject(sinogram, angles, shape_zx, hz)
        assert distance(backproject(sinogram, angles, shape_zx, hz), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_backproject_is_adjoint_of_project(geometries, draw, dtype):
    for angles, n_s, shape_zx, hz in geometries:
        u, q = draw(*shape_zx, 19, dtype=dtype), draw(len(angles), n_s, 19, dtype=dtype)
        au, atq = project(u, angles, n_s, hz), backproject(q, angles, shape_zx, hz)
        gap = (au.double() * q.double()).sum() - (u.double() * atq.double()).sum()
        assert abs(gap) <= TOLERANCE[dtype] * au.double().norm() * q.double().norm()


def test_gradients_are_those_of_finite_differences(geometries, draw):
    angles, n_s, shape_zx, hz = geometries[2]
    angles = angles[:3]
    u = draw(*shape_zx, 2, dtype=torch.float64).requires_grad_()
    q = draw(3, n_s, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: project(v, angles, n_s, hz), u, fast_mode=True)
    assert torch.autograd.gradcheck(lambda v: backproject(v, angles, shape_zx, hz), q, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda v: project(v, angles, n_s, hz).square(), u, fast_mode=True)


def test_ops_keep_the_rules_of_torch_library(geometries, draw):
    angles, n_s, shape_zx, hz = geometries[0]
    volume = draw(*shape_zx, 3).requires_grad_()
    sinogram = draw(len(angles), n_s, 3).requires_grad_()
    torch.library.opcheck(torch.ops.gigascope.project, (volume, angles, n_s, hz))
    torch.library.opcheck(torch.ops.gigascope.backproject, (sinogram, angles, list(shape_zx), hz))
    torch.library.opcheck(torch.ops.gigascope.project_, (sinogram.detach().clone(), volume.detach(), angles, hz))
    torch.library.opcheck(torch.ops.gigascope.backproject_, (volume.detach().clone(), sinogram.detach(), angles, hz))


def test_out_receives_the_same_numbers(geometries, draw):
    for angles, n_s, shape_zx, hz in geometries:
        volume, sinogram = draw(*shape_zx, 9), draw(len(angles), n_s, 9)
        out = torch.full_like(sinogram, math.nan)
        assert project(volume, angles, n_s, hz, out=out) is out
        assert torch.equal(out, project(volume, angles, n_s, hz))
        out = torch.full_like(volume, math.nan)
        assert backproject(sinogram, angles, shape_zx, hz, out=out) is out
        assert torch.equal(out, backproject(sinogram, angles, shape_zx, hz))


def test_angles_changed_in_place_count(draw):
    angles, volume = torch.tensor([-0.4, 0.9], dtype=torch.float64), draw(3, 8, 4)
    project(volume, angles, 8)
    angles += 0.1
    assert torch.equal(project(volume, angles, 8), project(volume, angles.clone(), 8))
    with torch.inference_mode():
        assert torch.equal(project(volume, angles, 8), project(volume, angles.clone(), 8))


def test_strided_inputs_give_the_numbers_of_contiguous_ones(draw):
    angles = torch.tensor([-0.4, 0.9], dtype=torch.float64)
    volume, sinogram = draw(11, 7, 9).permute(1, 2, 0), draw(11, 2, 8).permute(1, 2, 0)
    assert torch.equal(project(volume, angles, 8), project(volume.contiguous(), angles, 8))
    assert torch.equal(backproject(sinogram, angles, (5, 6)), backproject(sinogram.contiguous(), angles, (5, 6)))


def test_agrees_with_the_linear_projector_of_astra(draw, distance):
    astra = pytest.importorskip("astra", reason="astra-toolbox, of the extra dev, is the independent projector")
    n = 64
    # absorbance is positive; on noise of both signs the rounding of its float32 coordinates is 1e-4 of the maximum
    image = draw(n, n).abs()
    degrees = np.linspace(-60, 60, 61)
    # the angle sense is the opposite one: rows of an ASTRA image run against its vertical axis
    projections = astra.create_proj_geom("parallel", 1.0, n, -np.deg2rad(degrees))
    projector = astra.create_projector("linear", projections, astra.create_vol_geom(n, n))
    handle, expected = astra.create_sino(image.numpy(), projector)
    astra.data2d.delete(handle)
    astra.projector.delete(projector)
    found = project(image[:, :, None], torch.deg2rad(torch.from_numpy(degrees)), n)[:, :, 0]
    assert distance(found, torch.from_numpy(expected)) < 1e-4


def test_projection_of_ones_is_the_length_inside_the_slab():
    n_z, n_x, n_s = 16, 400, 32
    for hz in (0.5, 1.0, 2.0, 4.0):
        angles = torch.deg2rad(torch.linspace(-65, 65, 27, dtype=torch.float64))
        planes = angles.cos() >= angles.sin().abs() * hz
        length = (n_z * hz / angles.cos())[:, None].expand(-1, n_s)
        error = (row_sums(angles, n_s, (n_z, n_x), hz) / length - 1).abs()
        assert error[planes].max() < 1e-5
        # the other branch meets the faces of the slab between two columns: up to 0.7 % seen at 16 planes
        assert not (~planes).any() or error[~planes].max() < 1e-2


def test_sums_of_coefficients_agree_with_the_dense_matrix(geometries, distance):
    for angles, n_s, shape_zx, hz in geometries:
        rows, columns = row_sums(angles, n_s, shape_zx, hz), column_sums(angles, n_s, shape_zx, hz)
        assert distance(rows, reference.row_sums(angles, n_s, shape_zx, hz)) < 1e-5
        assert distance(columns, reference.column_sums(angles, n_s, shape_zx, hz)) < 1e-5


def test_sample_with_one_neighbour_inside_is_kept():
    angles = torch.zeros(1, dtype=torch.float64)
    # an even detector over an odd volume: every ray lies between two columns, the outermost beside one only
    assert project(torch.ones(1, 3, 1), angles, 4).flatten().tolist() == [0.5, 1.0, 1.0, 0.5]


def test_results_do_not_depend_on_the_number_of_threads(geometries, draw, thread_counts):
    for angles, n_s, shape_zx, hz in geometries:
        volume, sinogram = draw(*shape_zx, 150), draw(len(angles), n_s, 150)
        results = []
        for n_threads in thread_counts:
            numba.set_num_threads(n_threads)
            results.append((project(volume, angles, n_s, hz), backproject(sinogram, angles, shape_zx, hz)))
        assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_slices_do_not_depend_on_their_neighbours(geometries, draw):
    for angles, n_s, shape_zx, hz in geometries[:4]:
        volume, sinogram = draw(*shape_zx, 100), draw(len(angles), n_s, 100)
        part = slice(37, 58)
        assert torch.equal(project(volume, angles, n_s, hz)[..., part], project(volume[..., part], angles, n_s, hz))
        whole = backproject(sinogram, angles, shape_zx, hz)
        assert torch.equal(whole[..., part], backproject(sinogram[..., part], angles, shape_zx, hz))


def test_wrong_arguments_name_what_was_expected_and_found():
    angles = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"project: volume: expected \(z, x, y\), got \(4, 5\)"):
        project(torch.ones(4, 5), angles, 4)
    with pytest.raises(ShapeError, match=r"volume: expected torch.float32 or torch.float64 .* got torch.float16"):
        project(torch.ones(2, 4, 5, dtype=torch.float16), angles, 4)
    with pytest.raises(ShapeError, match=r"angles: expected .* torch.float64, got .* torch.float32"):
        project(torch.ones(2, 4, 5), angles.float(), 4)
    with pytest.raises(ShapeError, match="expected 2 angles, one per view, got 3"):
        backproject(torch.ones(2, 4, 5), angles, (4, 4))
    with pytest.raises(ShapeError, match=r"out: expected \(3, s, 5\), got \(2, 4, 5\)"):
        project(torch.ones(2, 4, 5), angles, 4, out=torch.ones(2, 4, 5))
    with pytest.raises(ShapeError, match="hz: expected a number above 0, got 0"):
        project(torch.ones(2, 4, 5), angles, 4, 0.0)
