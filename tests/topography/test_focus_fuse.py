"""The all-in-focus picture: exact picks, mixes, seams, halos, and real stacks against their slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import io

from gigascope.errors import ShapeError
from gigascope.topography.focus.fuse import fuse, fuse_pyramid
from gigascope.topography.focus.stream import focus_peak, settle

SHAPE = (72, 90)


def random_stack(rng: np.random.Generator, dtype: type, colours: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 250, (5, *SHAPE, *colours)).astype(dtype)


@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_whole_indices_give_the_slices_themselves(dtype: type, colours: tuple[int, ...], rng) -> None:
    stack = random_stack(rng, dtype, colours)
    index = rng.integers(0, 5, SHAPE)
    expected = np.take_along_axis(stack, index.reshape(1, *SHAPE, *(1,) * len(colours)), axis=0)[0]
    for mix in ("nearest", "linear"):
        fused = fuse(stack, torch.from_numpy(index.astype(np.float32)), mix=mix)
        assert fused.dtype == dtype
        np.testing.assert_array_equal(fused, expected)


def test_linear_mix_is_between_the_neighbours(rng: np.random.Generator) -> None:
    stack = random_stack(rng, np.float32, ())
    fused = fuse(stack, torch.full(SHAPE, 2.25))
    np.testing.assert_allclose(fused, 0.75 * stack[2] + 0.25 * stack[3], rtol=1e-6, atol=1e-4)
    np.testing.assert_array_equal(fuse(stack, torch.full(SHAPE, 9.0)), stack[4])
    np.testing.assert_array_equal(fuse(stack, torch.full(SHAPE, -1.0)), stack[0])


@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
def test_pyramid_of_one_slice_is_that_slice(colours: tuple[int, ...], rng: np.random.Generator) -> None:
    stack = random_stack(rng, np.uint8, colours)
    fused = fuse_pyramid(stack, torch.full(SHAPE, 3.0), reach=0.9)
    # a pyramid is put together again to rounding, and that is half a count at most
    assert np.abs(fused.astype(int) - stack[3]).max() <= 1


def test_constant_stacks_stay_constant() -> None:
    stack = np.full((4, *SHAPE), 93, np.uint8)
    index = torch.linspace(0, 3, SHAPE[1]).expand(SHAPE).contiguous()
    for fused in (fuse(stack, index), fuse_pyramid(stack, index)):
        np.testing.assert_array_equal(fused, np.full(SHAPE, 93, np.uint8))


def test_both_sides_of_a_step_are_sharp_in_the_picture(rng: np.random.Generator) -> None:
    albedo = ndimage.gaussian_filter(rng.normal(size=(128, 160)), 1.0)
    albedo = 100.0 + 20.0 * albedo / albedo.std()
    near, far = albedo, ndimage.gaussian_filter(albedo, 3.0)
    stack = np.stack([albedo] * 5).astype(np.float32)
    for k in range(5):
        stack[k, :, :80] = (near if k == 1 else far)[:, :80]
        stack[k, :, 80:] = (near if k == 3 else far)[:, 80:]
    index = settle(focus_peak(stack))
    assert float((index[:, :60] - 1.0).abs().max()) < 0.3
    assert float((index[:, 100:] - 3.0).abs().max()) < 0.3
    inside = np.r_[10:68, 92:150]
    for fused in (fuse(stack, index, mix="nearest"), fuse_pyramid(stack, index)):
        error = (fused - albedo)[10:-10, inside]
        assert error.std() < 0.1 * (far - albedo).std()


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="do not go together"):
        fuse(np.zeros((3, 8, 8), np.uint8), torch.zeros(8, 9))
    with pytest.raises(ShapeError):
        fuse_pyramid(np.zeros((3, 8, 8), np.uint8), torch.zeros(9, 8))


def test_real_stack_is_sharper_than_every_slice(shared_data: Path) -> None:
    folder = shared_data / "focus" / "heatsink"
    if not folder.is_dir():
        pytest.skip(f"no focus stack at {folder}")
    stack = np.stack([io.imread(p) for p in sorted(folder.glob("*.png"))])

    def energy(image: np.ndarray) -> float:
        green = image[..., 1].astype(float)
        return float(np.mean(ndimage.sobel(green, 0) ** 2 + ndimage.sobel(green, 1) ** 2))

    index = settle(focus_peak(stack))
    best = max(energy(s) for s in stack)
    for fused in (fuse(stack, index), fuse_pyramid(stack, index)):
        assert energy(fused) > 1.15 * best
