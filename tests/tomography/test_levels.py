"""Levels and masks: binning keeps the centre, masks follow the geometry, resampled views match their shift."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import projector
from gigascope.tomography import masks
from gigascope.tomography.geometry import alignment_bins, volume_width
from gigascope.tomography.levels import BinnedViews, LevelViews, bin_views, bin_volume, upsample_volume
from gigascope.tomography.phantom import line_integrals, object_phantom

TILT = np.deg2rad(np.linspace(-60, 60, 13))


def test_bins_of_known_shapes():
    assert alignment_bins(128, 128, 64) == (4, 2)
    assert alignment_bins(1024, 1024, 128) == (8, 4, 2)
    assert alignment_bins(4096, 4096, 512) == (32, 16, 8, 4)
    assert alignment_bins(64, 64, 64) == (2,)
    assert alignment_bins(48, 48, 20) == (2,)


def test_binned_volume_projects_to_binned_views(rng):
    volume = torch.from_numpy(rng.normal(size=(16, 32, 8)).astype(np.float32))
    volume = torch.nn.functional.avg_pool3d(volume[None, None], 5, 1, 2)[0, 0]
    angles = torch.zeros(1, dtype=torch.float64)
    views = projector.project(volume, angles, 32)
    binned, _ = bin_views(views, torch.ones_like(views), 2)
    assert torch.allclose(projector.project(bin_volume(volume, 2), angles, 16), binned, atol=1e-5)


def test_upsampled_volume_keeps_centre_and_projection():
    volume = torch.zeros(8, 16, 8)
    volume[3:5, 6:10, 2:6] = 1.0
    fine = upsample_volume(volume, 2)
    assert fine.shape == (16, 32, 16)
    for axis in range(3):
        assert torch.allclose(fine, fine.flip(axis), atol=1e-6)
    assert fine.sum(dim=0).max() == pytest.approx(float(volume.sum(dim=0).max()), rel=1e-5)


def test_block_counts_when_half_of_it_is_known():
    views, valid = torch.ones(1, 4, 4), torch.ones(1, 4, 4)
    valid[0, 0, 0] = 0
    valid[0, 2, :2] = valid[0, 3, 0] = 0
    views[0, 0, 0] = 100.0
    binned, mask = bin_views(views, valid, 2)
    assert mask[0].tolist() == [[1, 1], [0, 1]]
    assert binned[0, 0, 0] == 1.0


def test_views_of_a_level_follow_their_shift():
    shifts = np.stack([np.linspace(-5, 5, 13), np.linspace(3, -4, 13)], axis=1)
    moved = torch.from_numpy(line_integrals(object_phantom(0), TILT, (128, 128), shifts))
    still = torch.from_numpy(line_integrals(object_phantom(0), TILT, (128, 128)))
    level = LevelViews(moved, torch.ones_like(moved), 2, 0.5, 3)
    data, blurred, valid = level.at(torch.from_numpy(shifts / 2))
    expected, _ = bin_views(still, torch.ones_like(still), 2)
    inside = valid > 0
    assert 0.85 < inside.float().mean() < 1
    unmoved, _, _ = level.at(torch.zeros(13, 2, dtype=torch.float64))
    # what is left is the aliasing of sharp edges, a fiftieth of the picture's deviation
    assert (data - expected)[inside].abs().mean() < 0.1 * (unmoved - expected)[inside].abs().mean()
    assert blurred.std() < data.std()


def test_full_rays_are_those_that_stay_inside():
    angles = torch.from_numpy(TILT)
    full = masks.full_rays(angles, 64, (32, volume_width(64, 32, TILT, "section")), 1.0, "section")
    assert full.min() == 1
    cropped = masks.full_rays(angles, 64, (32, 64), 1.0, "crop")
    assert cropped[6].min() == 1
    assert 0 < cropped[0].mean() < 0.8
    assert masks.full_rays(angles, 64, (32, 64), 1.0, "object").min() == 1


def test_weights_are_the_product_of_their_parts(rng):
    valid = torch.from_numpy((rng.uniform(size=(3, 5, 4)) > 0.3).astype(np.float32))
    full = torch.ones(3, 5)
    full[:, 0] = 0
    w = masks.weights(valid, full, torch.tensor([1.0, 0.5, 0.0]))
    assert torch.equal(w[1], 0.5 * valid[1] * full[1][:, None])
    assert w[2].max() == 0


def test_level_of_a_shape_that_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match="multiple of the bin 4"):
        bin_views(torch.ones(1, 8, 6), torch.ones(1, 8, 6), 4)


def test_views_that_came_one_by_one_have_the_bins_of_all_together() -> None:
    views, valid = torch.randn(5, 16, 24), (torch.rand(5, 16, 24) > 0.3).to(torch.uint8)
    binned = BinnedViews((5, 16, 24), (4, 2), torch.device("cpu"))
    for k in torch.randperm(5).tolist():
        binned.put(k, views[k], valid[k])
    order, again = torch.tensor([4, 0, 3]), torch.tensor([2, 0])
    for factor in (4, 2):
        for found, expected in zip(
            bin_views(binned[order][again], binned, factor),
            bin_views(views[[3, 4]], valid[[3, 4]], factor),
            strict=True,
        ):
            assert torch.equal(found, expected)
    assert binned[order].shape == (3, 16, 24)
