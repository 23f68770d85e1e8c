"""Parts of the calibration on arrays whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage, sparse

from gigascope.errors import UserError
from gigascope.topography.calibration import bundle, initial, unknowns
from gigascope.topography.calibration import flat_focus as focus
from gigascope.topography.calibration.compare import fit_similarity, reprojection_errors
from gigascope.topography.calibration.cubic import cubic
from gigascope.topography.calibration.field import evaluate, whole_field
from gigascope.topography.calibration.illumination import correction, correction_field, fit_illumination
from gigascope.topography.calibration.layout import layout
from gigascope.topography.calibration.phase import peaks, phase_correlation
from gigascope.topography.calibration.system import Priors, Problem
from gigascope.topography.calibration.tie_points import Blocks, TiePoints, blocks_for, join, pair_ties
from gigascope.topography.geometry.poses import Poses, gauge_errors, to_mosaic, to_view

SIZE = (96, 120)


def texture(rng, shape, blur=1.0):
    """Noise (rows, cols) float32 about 100, without contrast above a third of the sampling rate."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), blur, mode="wrap")
    return (100 + 20 * noise / noise.std()).astype(np.float32)


def moved(image, shift):
    """Periodic image whose content lies `shift` further: a factor on its transform."""
    ky, kx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])[None]
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * (ky * shift[0] + kx * shift[1]))).real


def rig(rng, rows=4, cols=4, tilt=2e-3):
    """Poses of a grid of views of SIZE that overlap by 60 %, in their gauge."""
    n = rows * cols
    row, col = np.indices((rows, cols)).reshape(2, -1)
    at = np.stack((row * 0.4 * SIZE[0], col * 0.4 * SIZE[1]), axis=1) + rng.normal(0, 1, (n, 2))
    angle, height = rng.normal(0, 2e-3, n), rng.normal(0, 5e-3, n)
    return Poses(
        SIZE,
        5.0,
        5.0 * np.exp(height - height.mean()),
        np.column_stack((rng.normal(0, tilt, (n, 2)), np.full(n, -1.0))),
        angle - angle.mean(),
        at - at.mean(axis=0),
        [3e-3],
        [0, 0],
    )


def exact_ties(rng, poses, each=40, noise=0.0):
    """Tie points of all pairs that overlap by a fifth, at random places."""
    parts = []
    for a, b in initial.overlapping_pairs(poses.translation, SIZE):
        first = rng.uniform(0, 1, (20 * each, 2)) * (np.array(SIZE) - 1)
        second = to_view(poses, int(b), to_mosaic(poses, int(a), first))
        inside = np.flatnonzero(((second >= 0) & (second <= np.array(SIZE) - 1)).all(axis=1))[:each]
        n = len(inside)
        scattered = second[inside] + rng.normal(0, noise, (n, 2))
        parts.append(TiePoints(np.tile([[a, b]], (n, 1)), first[inside], scattered, np.ones(n), np.ones((n, 2))))
    return join(parts)


def test_cubic_gives_quadratics_and_samples_back(rng):
    """Keys' convolution is of third order: it has no error on quadratics."""
    y, x = np.mgrid[:20, :30].astype(np.float64)
    q = rng.normal(0, 1, 6)

    def value(r, c):
        return q[0] + q[1] * r + q[2] * c + q[3] * r * r + q[4] * r * c + q[5] * c * c

    image = torch.from_numpy(value(y, x))
    at = rng.uniform(2, 17, (50, 2))
    np.testing.assert_allclose(cubic(image, torch.from_numpy(at)), value(*at.T), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(cubic(image, torch.from_numpy(np.stack((y, x), -1))), image)


def test_phase_correlation_finds_displacements(rng):
    n, far = 8, rng.uniform(-5, 5, (8, 2))
    large = [texture(rng, (128, 128)) for _ in range(n)]
    cut = (slice(32, 96), slice(32, 96))
    fixed = torch.from_numpy(np.stack([a[cut] for a in large]))
    moving = torch.from_numpy(np.stack([moved(a, d)[cut] for a, d in zip(large, far)])).float()
    found, height, _ = peaks(phase_correlation(fixed, moving), torch.from_numpy(far.round()), (2, 2))
    # five pixels of 64 leave the window: a tenth of the content is new
    assert np.sqrt(np.mean((found.numpy() - far) ** 2)) < 0.1
    small = rng.uniform(-0.5, 0.5, (n, 2))
    moving = torch.from_numpy(np.stack([moved(a, d)[cut] for a, d in zip(large, small)])).float()
    found, height, _ = peaks(phase_correlation(fixed, moving), torch.zeros(n, 2), (2, 2))
    assert np.sqrt(np.mean((found.numpy() - small) ** 2)) < 0.03
    assert (height > 0.5).all()


def test_stage_and_camera_ids_place_views():
    stage = np.zeros((2, 3, 2))
    stage[..., 0], stage[..., 1] = np.array([2.0, 1.0, 0.0]), np.array([[0.0], [0.5]])
    at = initial.stage_translations(stage, (1, 2), (9.0, 3.0), 0.01, (1, -1), ((0,), (1, 4)))
    grid = at.reshape(2, 6, 2)
    np.testing.assert_allclose(np.diff(grid[..., 0], axis=0), 50)
    # -1 on a stage that falls: views advance by 100 px; cameras 1 and 4 are three pitches of 300 px apart
    np.testing.assert_allclose(grid[0, :, 1] - grid[0, 0, 1], [0, 100, 200, 900, 1000, 1100])
    np.testing.assert_allclose(at.mean(axis=0), 0, atol=1e-9)


def test_overlapping_pairs_are_all_that_overlap(rng):
    at = rng.uniform(0, 400, (40, 2))
    there = rng.random(40) < 0.8
    share = np.prod(np.clip(1 - np.abs(at[:, None] - at[None]) / SIZE, 0, None), axis=-1)
    wanted = {(a, b) for a in range(40) for b in range(a + 1, 40) if share[a, b] >= 0.2 and there[a] and there[b]}
    assert {tuple(p) for p in initial.overlapping_pairs(at, SIZE, 0.2, there).tolist()} == wanted


def test_false_pairs_do_not_move_views(rng):
    at = rig(rng).translation
    pairs = initial.overlapping_pairs(at, SIZE)
    shift = np.diff(at[pairs], axis=1)[:, 0] + rng.normal(0, 0.1, (len(pairs), 2))
    # at most one for each view: of the three pairs of a corner, two false ones could agree
    false, used = np.zeros(len(pairs), np.bool_), set()
    for n in rng.permutation(len(pairs))[:20]:
        if not used & set(pairs[n]):
            false[n] = True
            used |= set(pairs[n])
    shift[false] += rng.uniform(20, 60, (false.sum(), 2)) * rng.choice([-1, 1], (false.sum(), 2))
    found, residual = initial.solve_translations(initial.PairShifts(pairs, shift, np.full(len(pairs), 20.0)), 16, SIZE)
    assert np.abs(found - at).max() < 0.5
    assert residual[false].min(initial=20) > 10


def test_uncertain_pairs_leave_views_apart(rng):
    at = rig(rng).translation
    pairs = initial.overlapping_pairs(at, SIZE)
    contrast = np.where((pairs == 3).any(axis=1) | (pairs == 12).any(axis=1), 2.0, 20.0)
    found = initial.PairShifts(pairs, np.diff(at[pairs], axis=1)[:, 0], contrast)
    with pytest.raises(UserError, match=r"3 groups.*: 3, 12 of 16 are apart"):
        initial.solve_translations(found, 16, SIZE)
    # views that are not there are not missed
    there = np.ones(16, np.bool_)
    there[[3, 12]] = False
    placed, _ = initial.solve_translations(found, 16, SIZE, there)
    np.testing.assert_allclose(placed[there] - placed[0], at[there] - at[0], atol=1e-6)


def stack_of(rng, plane, z, noise=0.0):
    """(n_z, 128, 128) of a texture blurred by the distance of a stage position from a surface."""
    sharp = texture(rng, (128, 128), 0.7).astype(np.float64)
    levels = np.linspace(0, 6, 25)
    pyramid = np.stack([ndimage.gaussian_filter(sharp, s, mode="nearest") for s in levels])
    surface = whole_field(plane, (128, 128))
    images = []
    for at in z:
        blur = np.clip(np.hypot(0.9, 40 * (at - surface)), 0, 5.99)
        index = blur / 0.25
        low = index.astype(int)
        pair = [np.take_along_axis(pyramid, (low + d)[None], 0)[0] for d in (0, 1)]
        images.append(pair[0] + (index - low) * (pair[1] - pair[0]) + noise * rng.standard_normal(surface.shape))
    return np.clip(images, 0, None).astype(np.float32)


def test_surface_of_focus_is_found_between_uneven_slices(rng):
    z = 12 + np.arange(9) * 0.03 + rng.normal(0, 0.003, 9)
    plane = np.array([z[4] + rng.uniform(-0.015, 0.015), *rng.normal(0, 0.02, 2), *rng.normal(0, 0.03, 3)])
    stack = stack_of(rng, plane, z, noise=1.0)
    true = whole_field(plane, (128, 128))
    for method in ("lens", "log_parabola"):
        assert focus.plane_error(focus.flat_focus(stack, z, method=method).plane, true) < 0.1 * 0.03
    down = focus.flat_focus(stack[::-1].copy(), z[::-1])
    np.testing.assert_allclose(down.plane, focus.flat_focus(stack, z).plane, rtol=1e-6, atol=1e-6)


def test_blank_corner_does_not_tilt_the_surface(rng):
    z = 12 + np.arange(9) * 0.03
    plane = np.array([z[4] + 0.01, 0.02, -0.01, 0, 0, 0.02])
    stack = stack_of(rng, plane, z, noise=1.0)
    stack[:, :64, :64] = 100 + rng.standard_normal((9, 64, 64))
    found = focus.flat_focus(stack, z)
    # a quarter less what the window of the sharpness carries into it
    assert found.n_blocks < 0.95 * found.n_total
    assert focus.plane_error(found.plane, whole_field(plane, (128, 128))) < 0.1 * 0.03


def test_blank_and_unfocused_targets_are_refused(rng):
    z = np.arange(9) * 0.03
    blank = np.clip(100 + rng.standard_normal((9, 128, 128)), 0, None).astype(np.float32)
    with pytest.raises(UserError, match=r"view \(2, 3\): the flat target has too little texture: 0 of 64"):
        focus.flat_focus(blank, z, name="view (2, 3)")
    for level in (0, 255):
        with pytest.raises(UserError, match="too little texture"):
            focus.flat_focus(np.full((9, 128, 128), level, np.uint8), z)
    far = stack_of(rng, np.array([-0.06, 0, 0, 0, 0, 0]), z)
    with pytest.raises(UserError, match="not in focus within its stack of 9 slices: the sharpest one is the first in"):
        focus.flat_focus(far, z)


def test_image_in_focus_is_the_slice_in_focus(rng):
    stack = rng.integers(0, 255, (5, 40, 50)).astype(np.uint8)
    z = np.arange(5) * 0.03
    image = focus.all_in_focus(stack, z, [z[2], 0, 0, 0, 0, 0], rows_at_once=16)
    np.testing.assert_array_equal(image, stack[2])
    np.testing.assert_allclose(focus.all_in_focus(stack, z, [z[2] + 0.015, 0, 0, 0, 0, 0]), stack[2:4].mean(axis=0))
    # at the scale in focus, a slice that is half a step off is resampled, about a foot that stays where it is
    scaled = focus.all_in_focus(stack, z, [z[2] + 0.015, 0, 0, 0, 0, 0], distance_mm=5.0, foot=(20, 20))
    assert scaled[20, 20] == pytest.approx(stack[2:4, 20, 20].mean(), abs=1e-3)


def test_slices_of_stage_positions(rng):
    z = np.sort(rng.uniform(0, 1, 6))
    k = rng.uniform(0, 5, 30)
    at = np.interp(k, np.arange(6), z)
    np.testing.assert_allclose(focus.slice_at(at, z), k)
    np.testing.assert_allclose(focus.slice_at(at, z[::-1]), 5 - k)
    np.testing.assert_array_equal(focus.slice_at([-1, 2], z), [0, 5])


def test_tie_points_lie_where_the_poses_say(rng):
    """Two views of one texture, from poses that are 1 px and 2e-3 rad off."""
    poses = rig(rng, 1, 2)
    world = texture(rng, (256, 256), 1.2)
    spline = ndimage.spline_filter(world.astype(np.float64), order=3, mode="grid-wrap")
    pixels = np.stack(np.meshgrid(*(np.arange(n) for n in SIZE), indexing="ij"), axis=-1)
    images = []
    for v in (0, 1):
        at = np.moveaxis(to_mosaic(poses, v, pixels), -1, 0) + 100
        seen = ndimage.map_coordinates(spline, at, order=3, mode="grid-wrap", prefilter=False)
        images.append(torch.from_numpy((seen + rng.standard_normal(SIZE)).astype(np.float32)))
    off = replace(poses, translation=poses.translation + rng.uniform(-1, 1, (2, 2)), angle=poses.angle + [1e-3, -1e-3])
    # an error of a pixel leaves content at the edges of a block that the other does not have; none is left of it once
    # the poses are right: seeds scatter by 0.02 to 0.06 and 0.01 to 0.02 px
    for known, largest in ((off, 0.12), (poses, 0.04)):
        ties = pair_ties(*images, known, (0, 1), Blocks(32, 4))
        assert len(ties) >= 2
        apart = to_mosaic(poses, 0, ties.first) - to_mosaic(poses, 1, ties.second)
        assert np.sqrt(np.mean(apart**2)) < largest
        assert (ties.quality > 0.3).all()


def test_unrelated_views_have_few_tie_points(rng):
    poses = rig(rng, 1, 2)
    images = [torch.from_numpy(texture(rng, SIZE)) for _ in range(2)]
    few = pair_ties(*images, poses, (0, 1), Blocks(32, 4))
    assert len(few) <= 1
    apart = replace(poses, translation=[[0, 0], [500, 0]])
    assert len(pair_ties(*images, apart, (0, 1), Blocks(32, 4))) == 0


def test_full_size_has_the_blocks_of_the_specification():
    assert blocks_for((3072, 3072)) == Blocks(128, 12)
    assert blocks_for((192, 192)).side == 32


@pytest.mark.parametrize("hierarchical", [True, False])
def test_exact_ties_give_exact_poses(rng, hierarchical):
    truth = rig(rng)
    ties = exact_ties(rng, truth)
    start = replace(
        truth,
        normal=np.tile([0, 0, -1.0], (16, 1)),
        angle=np.zeros(16),
        height=np.full(16, truth.focal),
        translation=truth.translation + rng.normal(0, 2, (16, 2)),
        distortion=[0.0],
    )
    # priors that let everything go: these views have nothing to do with cameras and stage positions
    loose = Priors(50.0, 0.1, 0.1) if hierarchical else Priors(np.inf, np.inf, np.inf)
    result = bundle.adjust(ties, start, layout((2, 2), (2, 2)), loose, rounds=30)
    assert reprojection_errors(result.poses, truth).max() < 0.01
    assert max(gauge_errors(result.poses).values()) < 1e-9
    assert result.poses.focal == truth.focal


def test_false_ties_do_not_move_poses(rng):
    truth, loose = rig(rng), Priors(50.0, 0.1, 0.1)
    ties = exact_ties(rng, truth, noise=0.05)
    clean = bundle.adjust(ties, truth, layout((2, 2), (2, 2)), loose)
    second = ties.second.copy()
    false = rng.random(len(ties)) < 0.05
    # all the same way: without weights, a twentieth of 2 px on every difference, several times that on a view
    second[false] += rng.uniform(1, 3, (false.sum(), 2))
    dirty = bundle.adjust(replace(ties, second=second), truth, layout((2, 2), (2, 2)), loose)
    assert dirty.weight[false].max() < 0.1
    assert reprojection_errors(dirty.poses, clean.poses).max() < 0.15


def test_views_that_leave_their_cameras_are_said(rng, caplog):
    """Angles of 2e-3 rad that no camera and stage position share, with a prior of 2e-4."""
    truth = rig(rng)
    ties = exact_ties(rng, truth, noise=0.02)
    assert bundle.adjust(ties, truth, layout((2, 2), (2, 2))).departure > 2
    assert "Make them wider" in caplog.text
    caplog.clear()
    assert bundle.adjust(ties, truth, layout((2, 2), (2, 2)), Priors(50.0, 0.1, 0.1)).departure < 1
    assert bundle.adjust(ties, truth, layout((2, 2), (2, 2)), Priors(np.inf, np.inf, np.inf)).departure == 0
    assert not caplog.text


def test_order_of_ties_does_not_matter(rng):
    truth = rig(rng)
    ties = exact_ties(rng, truth, each=10, noise=0.05)
    order = rng.permutation(len(ties))
    mixed = TiePoints(*(getattr(ties, f)[order] for f in ("view", "first", "second", "quality", "light")))
    results = [bundle.adjust(t, truth, layout((2, 2), (2, 2))).poses for t in (ties, mixed)]
    np.testing.assert_allclose(results[0].translation, results[1].translation, atol=1e-6)


def test_ties_in_pieces_are_the_ties_at_once(rng, monkeypatch):
    truth = rig(rng)
    ties = exact_ties(rng, truth, each=7, noise=0.05)
    whole = bundle.adjust(ties, truth, layout((2, 2), (2, 2)), rounds=2).poses
    monkeypatch.setattr("gigascope.topography.calibration.system.PIECE", 13)
    pieces = bundle.adjust(ties, truth, layout((2, 2), (2, 2)), rounds=2).poses
    np.testing.assert_allclose(pieces.translation, whole.translation, atol=1e-7)


def test_views_without_ties_are_refused(rng):
    truth = rig(rng)
    ties = exact_ties(rng, truth)
    kept = ~(ties.view == 5).any(axis=1)
    fewer = TiePoints(*(getattr(ties, f)[kept] for f in ("view", "first", "second", "quality", "light")))
    with pytest.raises(UserError, match="5 of 16 are apart"):
        bundle.adjust(fewer, truth, layout((2, 2), (2, 2)))


def test_derivatives_are_those_of_the_exact_map(rng):
    poses = rig(rng)
    view, rc = rng.integers(0, 16, 30), rng.uniform(0, 90, (30, 2))
    by_pose, by_distortion = unknowns.derivatives(poses, view, rc)
    step = rng.normal(0, 1, (16, 6)) * np.array([1e-6, 1e-5, 1e-5, 1e-6, 1e-3, 1e-3])
    lens = np.array([1e-6])
    changed = unknowns.with_parameters(poses, unknowns.parameters(poses) + step, poses.distortion + lens)
    wanted = to_mosaic(changed, view, rc) - to_mosaic(poses, view, rc)
    linear = np.einsum("nik,nk->ni", by_pose, step[view]) + by_distortion @ lens
    np.testing.assert_allclose(linear, wanted, atol=1e-6)


def test_banded_solution_is_the_dense_one(rng):
    poses = rig(rng)
    problem = Problem(poses, layout((2, 2), (2, 2)), Priors())
    rows = sparse.random(4 * problem.n, problem.n, density=4 / problem.n, random_state=rng)
    matrix = sparse.csr_matrix(rows.T @ rows + sparse.identity(problem.n))
    gradient, off = rng.standard_normal(problem.n), rng.standard_normal(4)
    gauge = np.zeros((4, problem.n))
    gauge[:, : 6 * 16] = problem.gauge.toarray()
    dense = np.block([[matrix.toarray(), gauge.T], [gauge, np.zeros((4, 4))]])
    wanted = np.linalg.solve(dense, np.concatenate((-gradient, -off)))[:-4]
    np.testing.assert_allclose(problem._solve(matrix, gradient, off), wanted, rtol=1e-7, atol=1e-9)


def test_light_becomes_even(rng):
    """Three cameras with linear and quadratic falls of light over a target of any albedo."""
    poses, where = rig(rng, 4, 6), layout((1, 3), (4, 2))
    ties = exact_ties(rng, poses, each=20)
    fall = np.column_stack((np.ones(3), rng.uniform(-0.1, 0.1, (3, 2)), rng.uniform(-0.4, -0.1, (3, 3))))
    gain = rng.uniform(0.9, 1.1, 3)
    albedo = rng.uniform(20, 200, len(ties))
    camera = where.camera[ties.view]
    light = [
        albedo * gain[camera[:, i]] * evaluate(fall[camera[:, i]], p, SIZE)
        for i, p in enumerate((ties.first, ties.second))
    ]
    noise = 1 + rng.normal(0, 1e-3, (len(ties), 2))
    found = fit_illumination(replace(ties, light=np.stack(light, axis=1) * noise), where, SIZE)
    even = [
        g * whole_field(f, SIZE) * correction_field(found.coefficients, found.gain, c, SIZE)
        for c, (g, f) in enumerate(zip(gain, fall))
    ]
    assert np.std(even) / np.mean(even) < 0.01
    assert np.exp(np.log(found.gain).mean()) == pytest.approx(1)


def test_correction_has_the_order_of_its_coefficients():
    """1 + (a0 - mean a0) + a1 x + a2 y + a3 x^2 + a4 y^2 + a5 x y, times the gain over its mean."""
    a = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.3, 0, 0, 0, 0, 0]])
    y, x = (10 - 48) / 120, (90 - 60) / 120
    wanted = 2 / 1.5 * (1 - 0.1 + 0.2 * x + 0.3 * y + 0.4 * x * x + 0.5 * y * y + 0.6 * x * y)
    assert correction(a, [2.0, 1.0], 0, [10, 90], SIZE) == pytest.approx(wanted)
    assert correction_field(a, [2.0, 1.0], 0, SIZE)[10, 90] == pytest.approx(wanted)
    assert correction(a, [2.0, 1.0], 1, [10, 90], SIZE) == pytest.approx(1.1 / 1.5)


def test_similarity_is_recovered(rng):
    points = rng.normal(0, 100, (20, 2))
    angle, scale, shift = rng.uniform(-3, 3), rng.uniform(0.5, 2), rng.normal(0, 50, 2)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = fit_similarity(points, points @ turn.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack((turn, shift)), atol=1e-9)
