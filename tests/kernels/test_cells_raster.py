"""Nuclei on grids: against the definition, volumes, the same bits in any blocks, and what the brightness is made of."""

from __future__ import annotations

import itertools
import math

import numba
import numpy as np
import pytest
import torch
from scipy import ndimage

from gigascope.errors import ShapeError
from gigascope.kernels import cells
from gigascope.kernels.cells import reference_raster as reference
from gigascope.kernels.cells.bodies import Grid

from .nuclei import random_nuclei

SIZE_UM = (12.0, 10.0, 16.0)
VOXEL = (0.9, 0.7, 0.55)
ORIGIN, SHAPE = (-2, 1, -3), (14, 13, 35)
# ρ in float32 is off by a few 1e-7; samples that are decided within this may come out otherwise
DOUBT = 3e-6


def _grid(subsample=1, origin=ORIGIN, shape=SHAPE, voxel=VOXEL):
    first, size = (tuple(n * subsample for n in numbers) for numbers in (origin, shape))
    return Grid(first, size, tuple(v / subsample for v in voxel))


def _doubtful(table, grid, gap):
    """Samples whose owner rounding may decide."""
    found = reference.owners(table, grid, gap)
    margin = (found.second - found.rho) * found.radius - gap
    close = ((found.rho - 1).abs() < DOUBT) | ((found.second - found.rho < DOUBT) & (found.rho < 2))
    return (close | ((margin.abs() < 10 * DOUBT) if gap else close)).reshape(grid.shape)


@pytest.mark.parametrize("gap", [0.0, 0.6])
def test_labels_and_fractions_agree_with_the_reference(rng, gap):
    table, grid = random_nuclei(rng, 12, SIZE_UM, plain=True), _grid(2)
    doubtful = reference.by_voxel(_doubtful(table, grid, gap), 2).any(-1) | _doubtful(table, _grid(), gap)
    assert doubtful.double().mean() < 0.01
    expected, found = reference.labels(table, grid, gap, 2), cells.labels(table, ORIGIN, SHAPE, VOXEL, gap)
    assert found.dtype == torch.int32
    assert len(expected.unique()) > 6
    assert torch.equal(found[~doubtful], expected[~doubtful])
    expected, found = reference.fraction(table, grid, gap, 2), cells.fraction(table, ORIGIN, SHAPE, VOXEL, gap, 2)
    assert torch.equal(found[~doubtful], expected[~doubtful])


@pytest.mark.parametrize("gap", [0.0, 0.6])
def test_brightness_agrees_with_the_reference(rng, gap):
    table, grid = random_nuclei(rng, 12, SIZE_UM), _grid()
    sure = ~_doubtful(table, grid, gap)
    expected, found = reference.density(table, grid, gap), cells.density(table, ORIGIN, SHAPE, VOXEL, gap)
    assert torch.equal((found > 0)[sure], (expected > 0)[sure])
    # the slope of a crop of white noise is 1.6 per 0.25 µm, of which places are off by 1e-6
    assert torch.allclose(found[sure], expected[sure], rtol=1e-4, atol=1e-4)


def test_odd_subsamples_vote_as_the_reference(rng):
    table, grid = random_nuclei(rng, 9, SIZE_UM, plain=True, degree=5), _grid(3, shape=(6, 7, 11))
    sure = ~reference.by_voxel(_doubtful(table, grid, 0.0), 3).any(-1)
    found = cells.labels(table, ORIGIN, (6, 7, 11), VOXEL, subsample=3)
    assert torch.equal(found[sure], reference.labels(table, grid, 0.0, 3)[sure])


def test_equal_nuclei_are_the_first_ones(rng):
    table = random_nuclei(rng, 3, SIZE_UM, plain=True).rows(torch.tensor([0, 1, 1, 2, 0]))
    labels = cells.labels(table, ORIGIN, SHAPE, VOXEL)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 4}
    assert (labels == 1).any()


def _blocks(rng, shape, n):
    """Slices that cut each axis into n random parts."""
    cuts = [[0, *sorted(rng.choice(np.arange(1, s), k - 1, replace=False)), s] for s, k in zip(shape, n)]
    return itertools.product(*(itertools.pairwise(int(c) for c in axis) for axis in cuts))


@pytest.mark.parametrize("n", [(2, 3, 3), (3, 1, 4)])
def test_any_blocks_give_the_same_bits(rng, n):
    """L4: one block against random ones."""
    table, shape = random_nuclei(rng, 25, (20, 16, 22)), (22, 20, 37)
    ops = [
        lambda origin, size: cells.labels(table, origin, size, VOXEL),
        lambda origin, size: cells.labels(table, origin, size, VOXEL, 0.5),
        lambda origin, size: cells.density(table, origin, size, VOXEL),
        lambda origin, size: cells.fraction(table, origin, size, VOXEL, subsample=2),
    ]
    for op in ops:
        whole = op(ORIGIN, shape)
        for block in _blocks(rng, shape, n):
            origin = [o + begin for o, (begin, _) in zip(ORIGIN, block)]
            part = op(origin, [end - begin for begin, end in block])
            assert torch.equal(part, whole[tuple(slice(*pair) for pair in block)])


def test_threads_give_the_same_bits(rng, thread_counts):
    """L4: 1 against 2 threads."""
    table = random_nuclei(rng, 25, (20, 16, 22))
    found = []
    for n in thread_counts:
        numba.set_num_threads(n)
        found.append((cells.labels(table, ORIGIN, (22, 40, 150), VOXEL), cells.density(table, ORIGIN, SHAPE, VOXEL)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def _isolated(rng, n, radius_um):
    """Nuclei far from each other, of the volume of a ball."""
    axes = torch.from_numpy(np.stack([np.ones(n), rng.uniform(0.75, 1, n), rng.uniform(0.6, 1, n)], 1))
    waves = torch.from_numpy(rng.standard_normal((n, 81))) * cells.harmonic_scales(0.06, 1.8)
    axes *= radius_um
    exponent = torch.full((n,), 2.0, dtype=torch.float64)
    wanted = torch.full((n,), 4 / 3 * math.pi * radius_um**3, dtype=torch.float64)
    waves = cells.volume_factor(axes, exponent, waves, wanted)
    centre = torch.from_numpy(rng.uniform(0, 1, (n, 3)))
    centre[:, 2] += 4 * radius_um * torch.arange(n)
    return cells.nuclei_table(centre, torch.from_numpy(rng.standard_normal((n, 4))), axes, exponent, waves), wanted


@pytest.mark.parametrize(("radius", "most"), [(5, 0.015), (8, 0.005), (12, 0.0025)])
def test_volumes_of_isolated_nuclei(rng, radius, most):
    """L2: RMS error of the volume at an equivalent radius of 5, 8 and 12 voxels."""
    table, wanted = _isolated(rng, 200, radius * 0.5)
    found = cells.owned(table, (0.5, 0.5, 0.5))
    error = found.voxels * 0.125 / wanted - 1
    assert error.square().mean().sqrt() <= most
    assert torch.equal(found.alone, found.voxels)
    assert (found.fragments == 1).all()
    # no bias beyond its standard error
    assert error.mean().abs() < 5 * most / math.sqrt(200)


def test_owned_counts_what_the_labels_hold(rng):
    """L1, L3: counts, centroids and boxes are those of the label image; its labels add up to what is not 0."""
    table = random_nuclei(rng, 15, SIZE_UM, plain=True)
    origin, shape = (-12, -14, -18), (40, 46, 70)
    for gap in (0.0, 0.5):
        labels = cells.labels(table, origin, shape, VOXEL, gap).numpy()
        found = cells.owned(table, VOXEL, gap=gap)
        counts = np.bincount(labels.ravel(), minlength=16)[1:]
        assert found.voxels.tolist() == counts.tolist()
        assert int(found.voxels.sum()) == int((labels > 0).sum())
        for i in range(15):
            mine = labels == i + 1
            if not mine.any():
                continue
            assert ndimage.label(mine, np.ones((3, 3, 3)))[1] == int(found.fragments[i])
            index = np.argwhere(mine) + origin
            assert np.allclose((index + 0.5).mean(0) * VOXEL, found.centroid[i])
            assert found.box[i].tolist() == np.stack((index.min(0), index.max(0) + 1), 1).ravel().tolist()
    rows = torch.tensor([7, 2])
    some = cells.owned(table, VOXEL, rows, gap=0.5)
    assert torch.equal(some.voxels, found.voxels[rows])
    assert torch.equal(some.alone, found.alone[rows])
    alone = cells.owned(table.rows(rows[:1]), VOXEL, gap=0.5)
    assert torch.equal(alone.voxels, found.alone[rows[:1]])


def test_a_culture_of_touching_nuclei_has_whole_labels(rng):
    """L1: each label is one 26-connected component."""
    table = random_nuclei(rng, 8**3, (64.0, 64.0, 64.0), plain=True)
    lattice = torch.cartesian_prod(*[torch.arange(8.0) * 8 + 4] * 3)
    table = table._replace(centre=(lattice + torch.from_numpy(rng.uniform(-1, 1, lattice.shape))).double())
    found = cells.owned(table, (1.0, 0.5, 0.5))
    assert (found.voxels < found.alone).sum() > 50
    assert (found.fragments == 1).double().mean() >= 0.999


def test_fractions_add_up_to_the_volume(rng):
    table, wanted = _isolated(rng, 3, 4.0)
    share = cells.fraction(table, (-4, -4, -4), (8, 8, 30), (2.0, 2.0, 2.0))
    assert float(share.sum()) * 8 == pytest.approx(float(wanted.sum()), rel=0.01)
    assert 0 <= float(share.min()) < float(share.max()) <= 1.0


def _one(**look):
    return cells.nuclei_table(torch.full((1, 3), 6.0), semi_axes=5.0, **look)


def _inside(table, step=0.25):
    n = round(12 / step)
    return cells.density(table, (0, 0, 0), (n, n, n), (step, step, step))


def test_texture_has_the_wanted_mean_and_deviation(rng):
    means, variances = [], []
    for seed in rng.integers(-(2**63), 2**63 - 1, 24):
        values = _inside(_one(texture_sigma=0.2, seed=torch.tensor([int(seed)])))
        values = values[values > 0]
        means.append(float(values.mean()))
        variances.append(float((values - 1).square().mean()))
    # a nucleus has some 150 cells of the first octave, so its mean has a deviation of about 0.2 / 12
    assert np.mean(means) == pytest.approx(1, abs=0.02)
    assert np.mean(variances) == pytest.approx(0.04, rel=0.15)
    assert np.std(means) > 1e-3


def test_texture_turns_with_the_body_and_moves_with_it(rng):
    table = random_nuclei(rng, 1, (10, 10, 10), degree=6)._replace(centre=torch.full((1, 3), 6.0, dtype=torch.float64))
    table = table._replace(texture=torch.full((1,), -1, dtype=torch.int32))
    moved = table._replace(centre=table.centre + torch.tensor([0.0, 0.5, -0.25]))
    before = cells.density(table, (0, 0, 0), (48, 48, 48), (0.25,) * 3)
    after = cells.density(moved, (0, 2, -1), (48, 48, 48), (0.25,) * 3)
    assert torch.equal(before, after)
    # a half turn about z, (w, z, y, x) = (0, 1, 0, 0) after the body's own
    w, z, y, x = table.rotation[0].tolist()
    turned = table._replace(rotation=torch.tensor([[-z, w, x, -y]], dtype=torch.float64))
    after = cells.density(turned, (0, 0, 0), (48, 48, 48), (0.25,) * 3).flip(1, 2)
    both = (before > 0) & (after > 0)
    assert both.sum() > 0.99 * (before > 0).sum()
    assert torch.allclose(before[both], after[both], rtol=1e-3, atol=1e-4)


def test_rim_brightens_the_surface():
    values = _inside(_one(rim=0.15))
    line = values[24, 24]  # x from the centre: 0.125 µm beside it
    radii = (torch.arange(48) + 0.5) * 0.25 - 6
    away = (radii**2 + 2 * 0.125**2).sqrt()
    expected = torch.where(away <= 5, 1 + 0.15 * torch.exp(-(5 - away) / 0.5), 0)
    assert torch.allclose(line, expected.float(), atol=1e-5)


def test_nucleoli_are_dark_balls_with_a_soft_edge():
    spots = torch.zeros(1, 4, 4)
    spots[0, 0] = torch.tensor([1.0, -0.5, 2.0, 1.2])
    values = _inside(_one(nucleoli=spots))
    places = (torch.stack(torch.meshgrid(*[torch.arange(48)] * 3, indexing="ij"), -1) + 0.5) * 0.25 - 6
    away = (places - spots[0, 0, :3]).norm(dim=-1)
    inside = values > 0
    assert torch.allclose(values[away < 1.04], torch.tensor(0.5))
    assert torch.allclose(values[inside & (away > 1.36)], torch.tensor(1.0))
    edge = values[inside & (away > 1.06) & (away < 1.34)]
    assert ((edge > 0.5) & (edge < 1)).all()


def test_library_crops_take_the_place_of_the_noise(rng):
    crops = torch.ones(2, 48, 48, 48)
    crops[1] += torch.linspace(-0.5, 0.5, 48)[:, None, None]  # along the body's z
    look = {"crops": crops, "texture_sigma": 0.5, "intensity": 2.0}
    plain = _inside(_one(texture=torch.tensor([0]), **look))
    assert torch.allclose(plain[plain > 0], torch.tensor(2.0))
    for gamma in (1.0, 1.3):
        ramp = _inside(_one(texture=torch.tensor([1]), gamma=gamma, **look))
        z = (torch.arange(48) + 0.5) * 0.25 - 6
        expected = 2 * (1 + z / (0.25 * 47)) ** gamma
        inside = ramp[:, 24, 24] > 0
        # steps of float16 at 1.5
        assert torch.allclose(ramp[inside, 24, 24], expected[inside].float(), rtol=2e-3)


def test_what_does_not_fit_is_refused(rng):
    table = random_nuclei(rng, 2, SIZE_UM)
    with pytest.raises(ShapeError, match=r"labels: shape: expected \(z, y, x\) above 0"):
        cells.labels(table, ORIGIN, (3, 0, 3), VOXEL)
    with pytest.raises(ShapeError, match=r"density: voxel: expected three sizes above 0"):
        cells.density(table, ORIGIN, SHAPE, (1.0, 0.0, 1.0))
    with pytest.raises(ShapeError, match=r"fraction: subsample"):
        cells.fraction(table, ORIGIN, SHAPE, VOXEL, subsample=0)
    with pytest.raises(ShapeError, match=r"labels: gap"):
        cells.labels(table, ORIGIN, SHAPE, VOXEL, -1.0)
    with pytest.raises(ShapeError, match=r"labels: centre: expected \(2, 3\) torch.float64"):
        cells.labels(table._replace(centre=table.centre.float()), ORIGIN, SHAPE, VOXEL)
    with pytest.raises(ShapeError, match=r"owned: rows"):
        cells.owned(table, VOXEL, torch.tensor([2]))


def test_meta_tensors_tell_shapes(rng):
    table = random_nuclei(rng, 2, SIZE_UM)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = cells.NucleiTable(*[mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for v in table])
        assert cells.labels(fake, ORIGIN, SHAPE, VOXEL).shape == SHAPE
        assert cells.density(fake, ORIGIN, SHAPE, VOXEL).dtype == torch.float32
        assert cells.fraction(fake, ORIGIN, SHAPE, VOXEL).shape == SHAPE


def test_no_nuclei_are_no_labels():
    nothing = cells.nuclei_table(torch.zeros(0, 3))
    assert not cells.labels(nothing, ORIGIN, SHAPE, VOXEL).any()
    assert not cells.density(nothing, ORIGIN, SHAPE, VOXEL).any()
    far = cells.nuclei_table(torch.full((2, 3), 500.0))
    assert not cells.labels(far, ORIGIN, SHAPE, VOXEL, 0.5).any()
    assert cells.owned(nothing, VOXEL).voxels.shape == (0,)
