"""Registration of slices: known scale, shift, rotation and brightness come back, blurred or not; order of focus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage import io

from gigascope.errors import ShapeError
from gigascope.topography.focus.order import detours, focus_order
from gigascope.topography.focus.peak import estimate_peak
from gigascope.topography.focus.registration import (
    LEAST_AGREEMENT,
    StackRegistration,
    apply_registration,
    register_stack,
)
from gigascope.topography.focus.stream import focus_peak, settle

SHAPE = (240, 320)


def texture(rng: np.random.Generator, shape: tuple[int, int], power: float = 1.2) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * frequency**-power, s=shape)
    return values / values.std()


def true_matrices(rng: np.random.Generator, n_z: int, turn: float = 0.004) -> np.ndarray:
    """Breathing of 0.4 % per slice, drift of some pixels, a little rotation; slice 0 is the reference."""
    matrices = np.empty((n_z, 2, 3))
    shift = np.cumsum(rng.uniform(-2.0, 2.0, (n_z, 2)), axis=0)
    shift -= shift[0]
    centre = (np.array(SHAPE) - 1) / 2
    for k in range(n_z):
        scale, angle = 1.0 - 0.004 * k, turn * k * rng.uniform(0.5, 1.0) * (k > 0)
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        matrices[k, :, :2] = [[c, -s], [s, c]]
        matrices[k, :, 2] = shift[k] + centre - matrices[k, :, :2] @ centre
    return matrices


def moved_stack(rng: np.random.Generator, matrices: np.ndarray, blur_px: float, colours: int = 0) -> np.ndarray:
    """Slices of a tilted textured plane: sharp along a line that wanders, seen through the true maps; 8 bits, noisy."""
    n_z, margin = len(matrices), 48
    size = (SHAPE[0] + 2 * margin, SHAPE[1] + 2 * margin)
    # a lens leaves nothing that interpolation could not carry
    albedo = ndimage.gaussian_filter(110.0 * np.exp(0.3 * texture(rng, size)), 1.0, mode="wrap")
    index = np.linspace(0.0, n_z - 1.0, size[1])[None]
    widths = np.arange(0.0, blur_px * n_z + 1.5, 0.75)
    blurred = np.stack([ndimage.gaussian_filter(albedo, w, mode="wrap") for w in widths])
    rows, columns = np.indices(size)
    stack = np.empty((n_z, *SHAPE, *((colours,) if colours else ())), np.uint8)
    for k in range(n_z):
        level = np.broadcast_to(np.abs(index - k) * blur_px / 0.75, size)
        low = level.astype(int)
        image = blurred[low, rows, columns] * (1 - level + low) + blurred[low + 1, rows, columns] * (level - low)
        inverse = np.linalg.inv(matrices[k, :, :2])
        # slice index x_k = M x_0: the slice shows at x_k what the world has at x_0
        offset = margin - inverse @ matrices[k, :, 2]
        seen = ndimage.affine_transform(image, inverse, offset, output_shape=SHAPE, order=3)
        gain = 1.0 + 0.02 * k
        values = np.clip(seen * gain + rng.normal(0, 1.5, SHAPE), 0, 255).round()
        stack[k] = values[..., None] if colours else values
    return stack


def corner_error(found: StackRegistration, true: np.ndarray) -> float:
    """Largest distance of where the corners lie, relative to the reference of `found`."""
    corners = np.array([[0, 0], [0, SHAPE[1] - 1], [SHAPE[0] - 1, 0], [SHAPE[0] - 1, SHAPE[1] - 1]], float).T
    full = np.concatenate((true, np.tile([[[0.0, 0.0, 1.0]]], (len(true), 1, 1))), axis=1)
    relative = (full @ np.linalg.inv(full[found.reference]))[:, :2]
    ours, theirs = (m[:, :, :2] @ corners + m[:, :, 2:] for m in (found.matrices, relative))
    return float(np.hypot(*np.moveaxis(ours - theirs, 1, 0)).max())


def test_known_maps_come_back(rng: np.random.Generator) -> None:
    true = true_matrices(rng, 5)
    found = register_stack(moved_stack(rng, true, 0.0))
    print(found.summary(SHAPE))
    assert not found.identity
    assert corner_error(found, true) < 0.1
    np.testing.assert_allclose(found.gain[:, 0] / found.gain[0, 0], 1.0 + 0.02 * np.arange(5), rtol=0.01)


def test_known_maps_come_back_through_defocus(rng: np.random.Generator) -> None:
    true = true_matrices(rng, 6)
    found = register_stack(moved_stack(rng, true, 0.8))
    assert corner_error(found, true) < 0.25


def test_a_shift_of_a_tenth_of_the_picture_is_found(rng: np.random.Generator) -> None:
    true = np.tile(np.eye(2, 3), (3, 1, 1))
    true[1, :, 2], true[2, :, 2] = (24.0, -31.0), (11.5, -40.0)
    found = register_stack(moved_stack(rng, true, 0.0), model="shift")
    assert corner_error(found, true) < 0.1


def test_a_steady_stack_is_left_as_it_is(rng: np.random.Generator) -> None:
    true = np.tile(np.eye(2, 3), (6, 1, 1))
    stack = moved_stack(rng, true, 0.8)
    found = register_stack(stack)
    assert found.identity, found.summary(SHAPE)
    same, valid = apply_registration(stack, found, brightness=False)
    np.testing.assert_array_equal(same, stack)
    assert valid.all()


@pytest.mark.parametrize("colours", [0, 3])
def test_registered_slices_lie_on_each_other(colours: int, rng: np.random.Generator) -> None:
    true = true_matrices(rng, 4)
    stack = moved_stack(rng, true, 0.0, colours)
    found = register_stack(stack)
    registered, valid = apply_registration(stack, found)
    assert registered.shape == stack.shape
    assert registered.dtype == stack.dtype
    # noise of 1.5 counts and rounding in both make 2.2; texture of 30 counts misplaced by 0.1 px would add 1 and more
    for k in range(4):
        difference = registered[k].astype(float) - registered[found.reference]
        assert difference[valid].std() < 2.5
        assert abs(difference[valid].mean()) < 1.0


def test_reference_is_kept_and_the_widest_overlap_is_the_default(rng: np.random.Generator) -> None:
    true = true_matrices(rng, 4, turn=0.0)
    stack = moved_stack(rng, true, 0.0)
    found = register_stack(stack, reference=2)
    assert found.reference == 2
    np.testing.assert_allclose(found.matrices[2], np.eye(2, 3), atol=1e-12)
    # magnification falls with k here: slice 0 shows the least of the world
    assert register_stack(stack, model="scale").reference == 0


def test_blank_and_dark_stacks_register_to_themselves() -> None:
    for level in (0, 100, 255):
        found = register_stack(np.full((4, 90, 120), level, np.uint8))
        assert found.identity
        assert np.isfinite(found.gain).all()


def test_wrong_input_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ShapeError):
        register_stack(np.zeros((1, 90, 120), np.uint8))
    with pytest.raises(ValueError, match="slices 0 to 3"):
        register_stack(np.zeros((4, 90, 120), np.uint8), reference=4)
    found = register_stack(np.zeros((4, 90, 120), np.uint8))
    with pytest.raises(ShapeError):
        apply_registration(np.zeros((5, 90, 120), np.uint8), found)


def tilted(rng: np.random.Generator, n_z: int) -> np.ndarray:
    return moved_stack(rng, np.tile(np.eye(2, 3), (n_z, 1, 1)), 0.8)


def test_slices_in_order_are_left_in_order(rng: np.random.Generator) -> None:
    stack = tilted(rng, 9)
    for given in (stack, stack[::-1]):
        found = focus_order(given)
        assert found.in_order, found.sentence
        assert found.judged
        np.testing.assert_array_equal(found.order, np.arange(9))
        assert "cannot be seen" in found.sentence


def test_shuffled_slices_are_put_back(rng: np.random.Generator) -> None:
    stack = tilted(rng, 9)
    for shuffle in (rng.permutation(9), np.array([0, 1, 2, 4, 3, 5, 6, 7, 8])):
        found = focus_order(stack[shuffle])
        restored = shuffle[found.order]
        print(shuffle, found.sentence)
        assert np.array_equal(restored, np.arange(9)) or np.array_equal(restored, np.arange(9)[::-1])
        assert found.in_order == bool((np.abs(np.diff(shuffle)) == 1).all())
        assert found.detours[1] <= found.detours[0]


def test_order_by_the_text_of_the_numbers_is_put_right(rng: np.random.Generator) -> None:
    names = sorted(range(12), key=str)
    found = focus_order(tilted(rng, 12)[names])
    np.testing.assert_array_equal(np.array(names)[found.order], np.arange(12))
    assert "not the order of focus" in found.sentence


def test_order_of_noise_and_of_a_level_specimen_is_kept(rng: np.random.Generator) -> None:
    noise = rng.integers(90, 110, (8, *SHAPE), dtype=np.uint8)
    assert not focus_order(noise).judged
    level = 110.0 * np.exp(0.3 * texture(rng, SHAPE))
    stack = np.stack([ndimage.gaussian_filter(level, 0.7 * abs(k - 4) + 0.5) for k in range(9)]).astype(np.uint8)
    for found in (focus_order(stack[rng.permutation(9)]), focus_order(stack[:3])):
        assert not found.judged
        np.testing.assert_array_equal(found.order, np.arange(len(found.order)))
        assert "kept" in found.sentence


@pytest.mark.parametrize("contrast", [0.0, 0.3])
def test_order_of_slices_that_are_equally_sharp_is_kept(rng: np.random.Generator, contrast: float) -> None:
    image = 110.0 * np.exp(contrast * texture(rng, SHAPE))
    found = focus_order(np.stack([image.astype(np.uint8)] * 5))
    assert found.order.tolist() == [0, 1, 2, 3, 4]
    assert not found.judged
    assert "too little texture that grows sharper or blurs" in found.sentence


def test_detours_are_zero_for_one_rise_and_fall_only() -> None:
    curve = np.array([0.1, 0.3, 1.0, 0.5, 0.2])[:, None]
    assert detours(np.repeat(curve, 3, axis=1)) == pytest.approx(0.0, abs=1e-12)
    assert detours(np.repeat(curve[[0, 1, 2, 4, 3]], 3, axis=1)) > 0.02
    assert detours(np.repeat(curve[[1, 0, 2, 3, 4]], 3, axis=1)) > 0.02
    assert detours(np.repeat(curve[[2, 0, 1, 4, 3]], 3, axis=1)) > 0.1


def real_stack(folder: Path) -> np.ndarray:
    if not folder.is_dir():
        pytest.skip(f"no focus stack at {folder}")
    files = sorted(p for p in folder.iterdir() if p.suffix in {".png", ".jpg"} and p.stem != "expected")
    return np.stack([io.imread(p) for p in files])


def test_heatsink_is_measured_as_its_description_says(shared_data: Path) -> None:
    stack = real_stack(shared_data / "focus" / "heatsink")
    assert focus_order(stack).in_order
    found = register_stack(stack)
    assert not found.identity
    registered, _ = apply_registration(stack, found)
    index = settle(focus_peak(registered)).numpy()
    # every second frame from 15 on: board 23, groove floors 25 to 27, rib tops 31
    assert np.median(15 + 2 * index[:, 450:]) == pytest.approx(23.0, abs=1.0)
    assert 25.0 <= np.median(15 + 2 * index[:, 100:180]) <= 27.0
    assert np.median(15 + 2 * index[:, 55:75]) == pytest.approx(31.0, abs=1.0)
    # the board is level: hardly a pixel far from it
    assert np.mean(np.abs(index[:, 450:] - np.median(index[:, 450:])) > 1.0) < 0.005


def test_shuffled_real_stacks_are_put_back(shared_data: Path, rng: np.random.Generator) -> None:
    for name in ("heatsink", "pcb_edge"):
        stack = real_stack(shared_data / "focus" / name)
        stack = stack[:, ::2, ::2] if stack.shape[2] > 1000 else stack
        shuffle = rng.permutation(len(stack))
        restored = shuffle[focus_order(stack[shuffle]).order]
        turns = np.diff(restored)
        assert (turns == 1).all() or (turns == -1).all(), (name, restored)


def test_sharpness_volume_and_stream_agree(rng: np.random.Generator) -> None:
    """The estimator on the kernel's volume is what the stream computes."""
    import torch

    from gigascope.kernels.filters import sharpness

    stack = tilted(rng, 7)
    volume = sharpness(torch.from_numpy(stack), 6.0, 2.0)
    whole = estimate_peak(volume, "parabola", sigma=6.0)
    streamed = focus_peak(stack, method="parabola", sigmas=(6.0,), working_bytes=1)
    torch.testing.assert_close(streamed.index, whole.index, atol=1e-3, rtol=0)


def test_slice_of_something_else_is_no_reference_and_no_way_to_others(rng: np.random.Generator) -> None:
    truth = true_matrices(rng, 7)
    stack = moved_stack(rng, truth, 0.8)
    plain = register_stack(stack)
    # the slice that would be the reference
    stack[plain.reference] = rng.integers(0, 4, stack.shape[1:]) + 100
    found = register_stack(stack)
    assert found.agreement[plain.reference] < LEAST_AGREEMENT
    assert found.reference != plain.reference
    others = [k for k in range(7) if k != plain.reference]
    relative = register_stack(stack, reference=others[0]), register_stack(stack[others], reference=0)
    np.testing.assert_allclose(relative[0].shift(stack.shape[1:])[others], relative[1].shift(stack.shape[1:]), atol=0.5)
