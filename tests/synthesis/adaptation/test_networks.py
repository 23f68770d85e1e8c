"""Networks of the adaptation: sizes as published, tiles, anisotropy, the published layer order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.synthesis.adaptation.architecture import Architecture, paper, small
from gigascope.synthesis.adaptation.discriminator import Discriminator, patch_shape
from gigascope.synthesis.adaptation.generator import Generator, depth_of
from gigascope.synthesis.adaptation.norms import instance_norms

from .untrained import untrained

TINY = Architecture(width=4, blocks=1)


def noise(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))


def depths(n: int, z: int) -> torch.Tensor:
    return depth_of(0, z, z).view(1, 1, z, 1, 1).expand(n, 1, z, 1, 1)


@pytest.mark.parametrize(
    ("kind", "generator", "discriminator"),
    [("cyclegan3d", 34_111_489, 11_047_873), ("cyclegan2d", 11_365_633, 2_762_689)],
)
def test_paper_preset_has_the_published_numbers_of_parameters(kind: str, generator: int, discriminator: int) -> None:
    """G1."""
    with torch.device("meta"):
        assert Generator(paper(kind)).n_parameters == generator
        assert Discriminator(paper(kind)).n_parameters == discriminator


def test_discriminator_judges_12_30_30_patches_of_a_published_crop() -> None:
    """G2."""
    with torch.device("meta"):
        judged = Discriminator(paper())(torch.empty(1, 1, 32, 256, 256))
    assert judged.shape == (1, 1, 12, 30, 30)
    assert patch_shape((32, 256, 256), paper()) == (12, 30, 30)
    with torch.device("meta"):
        flat = Discriminator(paper("cyclegan2d"))(torch.empty(2, 1, 3, 256, 256))
    assert flat.shape == (6, 1, 30, 30)
    with pytest.raises(ShapeError, match="too small to be judged"):
        patch_shape((8, 64, 64), paper())


def test_pixel_discriminator_sees_one_voxel(rng: np.random.Generator) -> None:
    for kind in ("cyclegan3d", "cyclegan2d"):
        judge = Discriminator(replace(paper(kind), width=4, discriminator="pixel")).eval()
        image = noise(rng, 1, 1, 3, 6, 6)
        other = image.clone()
        other[0, 0, 1, 2, 3] += 1
        changed = (judge(image) - judge(other)).abs().reshape(3, 6, 6) > 0
        assert changed.sum() == 1
        assert changed[1, 2, 3]
        # three convolutions, the middle one with batch normalisation
        assert [p.numel() for p in judge.parameters()] == [4, 4, 32, 8, 8, 8, 8, 1]


@pytest.mark.parametrize("kind", ["cyclegan3d", "cyclegan2d"])
@pytest.mark.parametrize("norm", ["channel", "instance"])
def test_output_has_the_shape_of_the_input_whatever_that_is(rng: np.random.Generator, kind: str, norm: str) -> None:
    a = replace(small(kind), width=4, blocks=1, norm=norm)
    image = noise(rng, 2, 1, 7, 22, 17)
    made = untrained(a)(image, depths(2, 7))
    assert made.shape == image.shape
    bounded = untrained(replace(a, skip=False))(image, depths(2, 7))
    assert bounded.shape == image.shape
    assert bounded.abs().max() <= 1
    with pytest.raises(ShapeError, match="depth is needed"):
        untrained(a)(image)


def test_first_downsampling_keeps_z_where_voxels_are_long() -> None:
    assert small(voxel_um=(1.5, 0.5, 0.5)).strides == ((1, 2, 2), (2, 2, 2))
    assert small(voxel_um=(0.9, 0.5, 0.5)).strides == ((2, 2, 2), (2, 2, 2))
    # the kernels of the first and last layer are then as long as they are wide, in micrometres
    assert (small().ends, small(voxel_um=(0.9, 0.5, 0.5)).ends, paper().ends) == ((3, 7, 7), (7, 7, 7), (7, 7, 7))
    assert small().reduction == (2, 4, 4)
    assert small("cyclegan2d").reduction == (1, 4, 4)
    assert small("cyclegan2d").channels == 6


def test_each_voxel_is_made_of_as_many_others_where_kernels_fit_the_stride(rng: np.random.Generator) -> None:
    """Of a constant image with equal weights: what differs then between voxels is a chequered pattern."""
    for even in (True, False):
        network = Generator(replace(small(), width=4, blocks=0, even=even))
        (layer,) = (m for m in network.decode if isinstance(m, torch.nn.ConvTranspose3d) and m.out_channels == 4)
        torch.nn.init.ones_(layer.weight)
        made = layer(torch.ones(1, 8, 6, 8, 8)).detach()[0, 0, 2:-2, 2:-2, 2:-2]
        assert made.shape == (2, 12, 12)
        assert (float(made.std()) < 1e-4) == even


def test_slices_see_two_neighbours_on_either_side_in_2d(rng: np.random.Generator) -> None:
    network = untrained(replace(small("cyclegan2d"), width=4, blocks=1)).eval()
    image = noise(rng, 1, 1, 9, 16, 16)
    other = image.clone()
    other[0, 0, 4] += 0.5
    changed = (network(image, depths(1, 9)) - network(other, depths(1, 9))).abs().amax((0, 1, 3, 4)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_depth_makes_a_difference(rng: np.random.Generator) -> None:
    network, image = untrained(TINY).eval(), noise(rng, 1, 1, 4, 16, 16)
    shallow, deep = (depth_of(k, k + 4, 100).view(1, 1, 4, 1, 1) for k in (0, 96))
    assert not torch.allclose(network(image, shallow), network(image, deep), atol=1e-5)
    assert depth_of(0, 4, 4).tolist() == [-0.75, -0.25, 0.25, 0.75]


def tiled(network: Generator, image: torch.Tensor, halo: tuple[int, int, int], tile: int) -> torch.Tensor:
    """Rows and columns in tiles with a halo; z whole."""
    size, out = image.shape[-1], torch.empty_like(image)
    depth = depths(1, image.shape[2])
    step = network.architecture.reduction[1]
    for y in range(0, size, tile):
        for x in range(0, size, tile):
            lows = [max(0, (k - h) // step * step) for k, h in zip((y, x), halo[1:])]
            highs = [min(size, k + tile + h) for k, h in zip((y, x), halo[1:])]
            part = network(image[..., lows[0] : highs[0], lows[1] : highs[1]], depth)
            out[..., y : y + tile, x : x + tile] = part[
                ..., y - lows[0] : y - lows[0] + tile, x - lows[1] : x - lows[1] + tile
            ]
    return out


def test_tiles_with_a_halo_of_the_reach_give_the_whole_with_channel_norm(rng: np.random.Generator) -> None:
    """G5: norm channel knows nothing of the rest of the image; norm instance does."""
    image = noise(rng, 1, 1, 4, 96, 96)
    # one half bright: statistics of tiles are those of no image
    image[..., :48] = image[..., :48] * 0.2 + 0.7
    with torch.no_grad():
        for norm, same in (("channel", True), ("instance", False)):
            network = untrained(replace(TINY, norm=norm)).eval()
            whole = network(image, depths(1, 4))
            error = float((tiled(network, image, network.architecture.reach, 32) - whole).abs().max())
            print(norm, "largest difference", error, "standard deviation", float(whole.std()))
            assert (error <= 1e-4) == same


def test_frozen_statistics_make_instance_norm_independent_of_tiles(rng: np.random.Generator) -> None:
    image = noise(rng, 1, 1, 6, 96, 96)
    image[..., :48] = image[..., :48] * 0.2 + 0.7
    network = untrained(replace(TINY, norm="instance")).eval()
    norms = instance_norms(network)
    with torch.no_grad():
        own = network(image, depths(1, 6))
        for norm in norms:
            norm.statistics = "measure"
        torch.testing.assert_close(network(image, depths(1, 6)), own)
        for norm in norms:
            norm.statistics = "frozen"
        # of one measured image the frozen statistics are its own
        torch.testing.assert_close(network(image, depths(1, 6)), own, atol=1e-4, rtol=1e-4)
        halves = tiled(network, image, network.architecture.reach, 48)
    torch.testing.assert_close(halves, own, atol=1e-3, rtol=1e-3)


def test_recomputed_activations_give_the_same_gradients(rng: np.random.Generator) -> None:
    image, found = noise(rng, 1, 1, 4, 16, 16), []
    network = untrained(TINY)
    for recompute in (False, True):
        network.recompute = recompute
        network.zero_grad()
        network(image, depths(1, 4)).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_training_begins_with_images_as_they_are(rng: np.random.Generator) -> None:
    for a in (TINY, replace(small("cyclegan2d"), width=4, blocks=1, depth=False)):
        image = noise(rng, 1, 1, 5, 18, 21)
        depth = depths(1, 5) if a.depth else None
        torch.testing.assert_close(Generator(a)(image, depth), image, rtol=0, atol=0)
        assert not torch.allclose(Generator(replace(a, skip=False))(image, depth), image, atol=0.1)
    assert not paper().skip


def test_reach_covers_what_a_voxel_depends_on(rng: np.random.Generator) -> None:
    for a in (TINY, replace(TINY, strides=((2, 2, 2), (2, 2, 2)), blocks=0, ends=(3, 7, 5))):
        network = untrained(a).eval()
        image = noise(rng, 1, 1, 25, 61, 61).requires_grad_()
        network(image, depths(1, 25))[0, 0, 12, 30, 30].backward()
        assert image.grad is not None
        for axis, middle in ((2, 12), (3, 30), (4, 30)):
            others = tuple(k for k in range(5) if k != axis)
            at = image.grad.abs().amax(others).nonzero().flatten()
            reach = int(max(middle - at.min(), at.max() - middle))
            bound = a.reach[axis - 2]
            assert reach <= bound
            assert reach >= min(middle, bound) - 2 * a.reduction[axis - 2]
