"""Terms of the objective against plain formulas and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gigascope.topography.network import losses
from gigascope.topography.network.batch import Batch, height_slices, index_of_height, nominal_height
from gigascope.topography.network.consensus import canvas, from_others
from gigascope.topography.network.evidence import find_evidence
from gigascope.topography.network.model import Focus

from .network_batches import DZ_MM, make_batch


def random_index(rng: np.random.Generator, batch: Batch) -> Tensor:
    n, z, h, w = batch.stacks.shape
    return torch.from_numpy(rng.uniform(0.2, z - 1.2, (n, h, w)).astype(np.float32))


def test_selected_value_is_linear_between_slices(rng: np.random.Generator) -> None:
    volume = torch.from_numpy(rng.random((2, 6, 5, 7)))
    index = torch.from_numpy(rng.uniform(0.01, 4.99, (2, 5, 7))).requires_grad_()
    found = losses.select(volume, index)
    for n, r, c in np.ndindex(2, 5, 7):
        expected = np.interp(index[n, r, c].item(), np.arange(6), volume[n, :, r, c].numpy())
        assert abs(found[n, r, c].item() - expected) < 1e-12
    found.sum().backward()
    low = index.detach().floor().long()[:, None]
    slope = (volume.gather(1, low + 1) - volume.gather(1, low))[:, 0]
    torch.testing.assert_close(index.grad, slope)


def test_published_sharpness_terms(rng: np.random.Generator) -> None:
    batch, _ = make_batch(int(rng.integers(1 << 30)), n_groups=1)
    volume = losses.sharpness_volume(batch.stacks)
    index = random_index(rng, batch)
    edge = 16
    for n in range(batch.n_views):
        sharp, arg = [], []
        for r in range(edge, 48 - edge):
            for c in range(edge, 48 - edge):
                curve, i = volume[n, :, r, c].double().numpy(), float(index[n, r, c])
                top = curve.max() / 0.0375
                sharp.append(4 * max(top - 1.0, 0) * np.interp(i, np.arange(9), curve))
                arg.append(4 * max(top - 1.5, 0) * (curve.argmax() - i) ** 2)
        assert abs(losses.sharp_term(volume, index, 1.0)[n].item() + np.mean(sharp)) < 1e-4 * np.mean(sharp)
        assert abs(losses.arg_term(volume, index, 1.5)[n].item() - np.mean(arg)) < 1e-4 * np.mean(arg)


def test_log_parabola_finds_the_vertex_of_a_gaussian(rng: np.random.Generator) -> None:
    vertex = torch.from_numpy(rng.uniform(1.0, 7.0, (1, 4, 5)))
    curvature = torch.from_numpy(rng.uniform(0.2, 1.5, (1, 4, 5)))
    k = torch.arange(9.0)[None, :, None, None]
    volume = 0.1 * torch.exp(-0.5 * curvature[:, None] * (k - vertex[:, None]) ** 2)
    found = losses.log_parabola(volume)
    torch.testing.assert_close(found[0], vertex)
    torch.testing.assert_close(found[1], curvature)
    index = vertex.clone().requires_grad_()
    losses.smooth_sharp_term(volume, index, 0.0).sum().backward()
    assert index.grad is not None
    assert index.grad.abs().max() < 1e-9, "its maximum is at the vertex, not at a whole slice"


def test_heights_and_their_index_are_inverse(rng: np.random.Generator) -> None:
    batch, _ = make_batch(int(rng.integers(1 << 30)), n_groups=1)
    index = random_index(rng, batch)
    for up in (True, False):
        case = replace(batch, stage_up=up)
        torch.testing.assert_close(index_of_height(case, height_slices(case, index)), index, atol=1e-4, rtol=0)
    # stage up: high points focus at small k, one slice a step
    torch.testing.assert_close(
        height_slices(batch, index + 0.01) - height_slices(batch, index),
        torch.full_like(index, -0.01),
        atol=1e-4,
        rtol=0,
    )
    shift = batch.nominal[:, None, None] - 4.5
    assert torch.equal(nominal_height(batch, index), index - shift)
    assert torch.equal(nominal_height(replace(batch, stage_up=False), index), index + shift)


def test_true_heights_agree_between_views() -> None:
    batch, truth = make_batch(11)
    coords, shape = canvas(batch.coords, batch.group, batch.n_groups)
    placed = replace(batch, coords=coords)
    # whole-pixel shifts: the splat's Gaussian still reaches the neighbours, 6 % each
    assert losses.consistency(height_slices(batch, truth), placed, shape).max() < 1e-3
    wrong = height_slices(batch, truth) + torch.arange(batch.n_views)[:, None, None]
    assert losses.consistency(wrong, placed, shape).min() > 0.1


def test_consistency_pulls_each_pixel_to_the_mosaic(rng: np.random.Generator) -> None:
    batch, _ = make_batch(int(rng.integers(1 << 30)))
    coords, shape = canvas(batch.coords, batch.group, batch.n_groups)
    placed = replace(batch, coords=coords)
    height = random_index(rng, batch).requires_grad_()
    value = losses.consistency(height, placed, shape)
    value.sum().backward()
    mosaic = splatted(height.detach(), coords, batch.group, shape)
    predicted = reread(mosaic, coords, batch.group)
    torch.testing.assert_close(value, ((predicted - height.detach()) ** 2).mean(dim=(1, 2)), rtol=1e-4, atol=1e-6)
    expected = 2 * (height.detach() - predicted) / (48 * 48)
    torch.testing.assert_close(height.grad, expected, rtol=1e-3, atol=1e-6)


def splatted(values: Tensor, coords: Tensor, group: Tensor, shape: tuple[int, int]) -> Tensor:
    """Section 4.5 in plain loops over the four neighbours."""
    n_groups = int(group.max()) + 1
    sums, total = torch.zeros(n_groups, *shape), torch.zeros(n_groups, *shape)
    for place, weight in neighbours(coords):
        at = (group[:, None, None].expand_as(place[0]), *place)
        sums.index_put_(at, weight * values, accumulate=True)
        total.index_put_(at, weight, accumulate=True)
    return sums / total.clamp_min(1e-12)


def reread(mosaic: Tensor, coords: Tensor, group: Tensor) -> Tensor:
    sums, total = torch.zeros_like(coords[:, 0]), torch.zeros_like(coords[:, 0])
    for place, weight in neighbours(coords):
        sums += weight * mosaic[(group[:, None, None].expand_as(place[0]), *place)]
        total += weight
    return sums / total


def neighbours(coords: Tensor) -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
    low = coords.floor()
    part = coords - low

    def g(d: Tensor) -> Tensor:
        return torch.exp(-(d**2) / (2 * 0.42465**2))

    return [
        ((low[:, 0].long() + i, low[:, 1].long() + j), g((part[:, 0] - i).abs()) * g((part[:, 1] - j).abs()))
        for i in (0, 1)
        for j in (0, 1)
    ]


def test_what_the_others_say_leaves_ones_own_out(rng: np.random.Generator) -> None:
    batch, _ = make_batch(int(rng.integers(1 << 30)), n_groups=2, views=3)
    coords, shape = canvas(batch.coords, batch.group, batch.n_groups)
    # the same everywhere in a view: the mean over the others is known
    values = torch.arange(6.0)[:, None, None].expand(6, 48, 48).contiguous()
    weight = torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0, 1.0])[:, None, None].expand(6, 48, 48).contiguous()
    mean, total = from_others(values, weight, coords, batch.group, 2, shape)
    inner = slice(14, 34), slice(14, 34)
    for n, others in enumerate([(1, 2), (0, 2), (0, 1), (4, 5), (3, 5), (3, 4)]):
        w = weight[list(others), 0, 0]
        v = values[list(others), 0, 0]
        torch.testing.assert_close(total[n][inner], torch.full((20, 20), float(w.sum())), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            mean[n][inner], torch.full((20, 20), float((w * v).sum() / w.sum())), rtol=1e-3, atol=1e-3
        )
    changed = values.clone()
    changed[0] = 1e3
    again, _ = from_others(changed, weight, coords, batch.group, 2, shape)
    torch.testing.assert_close(again[0], mean[0], rtol=1e-3, atol=1e-3)


def test_agreement_is_least_at_the_truth() -> None:
    batch, truth = make_batch(17)
    coords, shape = canvas(batch.coords, batch.group, batch.n_groups)
    placed = replace(batch, coords=coords)
    evidence = find_evidence(batch.stacks)
    known = torch.full_like(truth, np.log(0.1**2))
    shift = torch.zeros((), requires_grad=True)
    values = []
    for offset in (-0.4, 0.0, 0.4):
        value = losses.agreement(placed, Focus(truth + offset + shift, known), evidence, shape).mean()
        values.append(value.item())
        slope = torch.autograd.grad(value, shift)[0]
        assert offset == 0.0 or slope.item() * offset > 0
    assert values[1] < min(values[0], values[2])


def test_agreement_gradients_match_finite_differences(rng: np.random.Generator) -> None:
    batch, truth = make_batch(19, n_groups=1, side=24)
    coords, shape = canvas(batch.coords, batch.group, batch.n_groups)
    placed = replace(batch, coords=coords)
    evidence = find_evidence(batch.stacks)
    direction = torch.from_numpy(rng.standard_normal(tuple(truth.shape)).astype(np.float32))

    def value(t: Tensor) -> Tensor:
        focus = Focus(truth + 0.1 + t * direction, torch.full_like(truth, -3.0) + t)
        return losses.agreement(placed, focus, evidence, shape).sum()

    t = torch.zeros((), requires_grad=True)
    value(t).backward()
    step = 1e-2
    estimate = (value(torch.tensor(step)) - value(torch.tensor(-step))) / (2 * step)
    assert t.grad is not None
    assert abs(t.grad.item() - estimate.item()) < 0.02 * max(1.0, abs(estimate.item()))


@pytest.mark.parametrize("huber", [0.0, 0.25])
def test_pixels_that_are_held_out_learn_nothing_from_other_views(rng: np.random.Generator, huber: float) -> None:
    batch, truth = make_batch(23)
    held = torch.zeros(truth.shape, dtype=torch.bool)
    held[:, 8:32, 8:24] = True
    objective = replace(losses.RECOMMENDED, photo=1.0, photo_from=0.0, huber=huber)
    evidence = find_evidence(batch.stacks)
    for name in ("height", "agreement"):
        gradients = {}
        for what, masked in (("all", None), ("taught", held)):
            index = (truth + torch.from_numpy(rng.normal(0, 0.3, truth.shape).astype(np.float32))).requires_grad_()
            focus = Focus(index, torch.full_like(truth, -3.0))
            losses.terms(replace(batch, held=masked), focus, objective, evidence)[name].sum().backward()
            assert index.grad is not None
            gradients[what] = index.grad
        assert (gradients["all"][held] != 0).float().mean() > 0.5, name
        assert (gradients["taught"][held] == 0).all(), name
        assert (gradients["taught"][~held] != 0).float().mean() > 0.5, name
    focus = Focus(truth + 0.3, torch.full_like(truth, -3.0))
    everything = replace(batch, held=torch.ones_like(held))
    for name, value in losses.terms(everything, focus, objective, evidence).items():
        assert (value == 0).all(), name


def test_picture_tells_the_height_by_parallax() -> None:
    # one flat surface, two views whose feet lie on opposite sides: only the true index makes their pictures agree
    batch, _ = make_batch(23, n_groups=1, n_z=9, side=48)
    texture, _ = make_batch(29, n_groups=1, views=1, side=60)
    rng = np.random.default_rng(3)
    from scipy import ndimage

    wide = ndimage.gaussian_filter(np.exp(0.35 * rng.standard_normal((120, 120))), 1.5) * 90
    height_mm = 0.4 * DZ_MM
    stacks, coords = [], []
    foot = torch.tensor([[24.0, -400.0], [24.0, 450.0]])
    rows, cols = np.mgrid[:48, :48].astype(float)
    for f in foot.numpy():
        # a pixel at q sees the surface at f + (q - f)(1 - z / H)
        shrink = 1 - height_mm / 3.4
        at = [f[0] + (rows - f[0]) * shrink + 30, f[1] + (cols - f[1]) * shrink + 30]
        stacks.append(np.repeat(ndimage.map_coordinates(wide, at, order=3)[None], 9, axis=0))
        coords.append(np.stack([rows, cols]))
    case = replace(
        batch,
        stacks=torch.from_numpy(np.array(stacks, np.float32)),
        coords=torch.from_numpy(np.array(coords, np.float32)) + 10,
        foot=foot + 10,
        datum_mm=torch.full((2, 48, 48), 4 * DZ_MM),
    )
    values = {}
    for index in (3.7, 4.3, 3.6, 3.5):
        coords_, shape = canvas(case.coords, case.group, 1)
        placed = replace(case, coords=coords_, foot=case.foot + (coords_ - case.coords)[:, :, 0, 0])
        map_ = torch.full((2, 48, 48), index, requires_grad=True)
        value = losses.photometric(placed, map_, shape, orthorectify=True).sum()
        values[index] = value.item()
        if index == 3.7:
            (slope,) = torch.autograd.grad(value, map_)
            assert slope.sum() > 0, "a smaller index, which is higher, fits better"
    assert values[3.6] < values[3.7] < values[4.3]
    assert texture.n_z == 9


def test_dithering_keeps_the_batch_rigid(rng: np.random.Generator) -> None:
    batch, truth = make_batch(31)
    moved = losses.dithered(batch, rng)
    for n in range(batch.n_views):
        before = torch.cdist(batch.coords[n].reshape(2, -1).T[::97], batch.foot[n : n + 1])
        after = torch.cdist(moved.coords[n].reshape(2, -1).T[::97], moved.foot[n : n + 1])
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    coords, shape = canvas(moved.coords, moved.group, moved.n_groups)
    assert coords.min() >= 0
    assert coords[:, 0].max() <= shape[0] - 1
    assert coords[:, 1].max() <= shape[1] - 1
    assert losses.consistency(height_slices(batch, truth), replace(moved, coords=coords), shape).max() < 0.01


def test_batches_are_shared_out_by_groups() -> None:
    batch, _ = make_batch(37, n_groups=3)
    batch = replace(batch, evidence=find_evidence(batch.stacks))
    part = batch.part(1, 3)
    assert part.n_groups == 2
    assert part.group.tolist() == [0, 0, 1, 1]
    assert torch.equal(part.stacks, batch.stacks[2:])
    assert part.evidence is not None
    assert torch.equal(part.evidence.prior, batch.evidence.prior[2:])
