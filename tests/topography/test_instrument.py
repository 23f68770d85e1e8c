"""The synthetic instrument: what it images is what its truth says, view by view."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.errors import UserError
from gigascope.topography.geometry.poses import gauge_errors, to_mosaic
from gigascope.topography.instrument import heights as bodies
from gigascope.topography.instrument import instrument as module
from gigascope.topography.instrument.cameras import NO_DEVIATIONS, Deviations, Optics
from gigascope.topography.instrument.heights import Window
from gigascope.topography.instrument.instrument import FlatTarget, Instrument
from gigascope.topography.instrument.presets import PRESETS, Preset
from gigascope.topography.instrument.render import visible_share
from gigascope.topography.instrument.sensor import PATTERNS, Sensor
from gigascope.topography.instrument.world import Albedo, World

TINY = Preset("tiny", (1, 2), (2, 2), 7, 64, 3, 32)
SILENT = Sensor(snr=1e5, read_electrons=0.0, vignetting=0.0, gain=0.0, gradient=0.0)
GREEN = replace(SILENT, pattern=None)
LOW = World((bodies.Relief(3, 60.0, shortest_px=40.0, longest_px=150.0),), Albedo(4))


def sharpness(stack: NDArray, sigma: float = 8.0) -> NDArray[np.float64]:
    """Blurred gradient of the locally normalised image, (n_z, R, C); greens of a GBRG mosaic are filled first."""
    image = stack.astype(np.float64)
    box = (0.0, sigma, sigma)
    relative = image / ndimage.gaussian_filter(image, box, truncate=2.0)
    down, right = (
        np.diff(relative, axis=1, append=relative[:, -1:]),
        np.diff(relative, axis=2, append=relative[..., -1:]),
    )
    return ndimage.gaussian_filter(np.hypot(down, right), box, truncate=2.0)


def green_of(stack: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Green image of a GBRG stack, missing sites by the mean of their neighbours."""
    image = stack.astype(np.float64)
    rows, cols = np.indices(image.shape[1:])
    is_green = (rows + cols) % 2 == 0
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    mean = np.stack([ndimage.convolve(slice_ * is_green, cross, mode="mirror") for slice_ in image])
    return np.where(is_green, image, mean)


def log_parabola(sharp: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sub-slice index (R, C) of the peak."""
    k = np.clip(sharp.argmax(axis=0), 1, len(sharp) - 2)[None]
    left, middle, right = (np.log(np.take_along_axis(sharp, k + d, 0)[0]) for d in (-1, 0, 1))
    return np.asarray(k[0] + np.clip(0.5 * (left - right) / (left - 2 * middle + right), -1, 1))


def test_presets_have_the_sizes_of_the_table() -> None:
    table = {"XS": (8, 2.7e6), "S": (64, 160e6), "M": (384, 7.5e9), "L": (3456, 120e9), "XL": (3456, 2.12e12)}
    assert set(PRESETS) == set(table)
    for name, (views, size) in table.items():
        assert PRESETS[name].n_views == views
        assert PRESETS[name].raw_bytes == pytest.approx(size, rel=0.02)
    capture = Instrument("XS").capture
    assert capture.shape == (2, 4, 9, 192, 192)
    assert int(np.prod(capture.shape)) == PRESETS["XS"].raw_bytes
    assert capture.z_stage_mm.shape == (2, 4, 9)


def test_small_presets_keep_the_field_angle() -> None:
    optics = Optics()
    assert optics.pixel_um == pytest.approx(1.302, abs=1e-3)
    assert optics.object_distance_um(3072) == pytest.approx(54712.7, abs=0.1)
    for size in PRESETS.values():
        per_slice = size.size / 2 * optics.dz_um / optics.object_distance_um(size.size)
        assert per_slice == pytest.approx(1.12, abs=0.005)


def test_any_view_alone_and_in_any_order_has_the_same_bytes(rng: np.random.Generator) -> None:
    seed = int(rng.integers(2**31))
    views = list(np.ndindex(TINY.views))
    first = {view: Instrument(TINY, seed).simulate(*view) for view in views}
    again = Instrument(TINY, seed)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        for index in rng.permutation(len(views)):
            np.testing.assert_array_equal(again.simulate(*views[index]), first[views[index]])
            again.flat(*views[index])
    finally:
        numba.set_num_threads(threads)
    assert len({stack.tobytes() for stack in first.values()}) == len(views)
    assert not np.array_equal(Instrument(TINY, seed + 1).simulate(0, 0), first[0, 0])


def test_blocks_of_a_view_have_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Instrument(TINY, 2, sensor=GREEN).simulate(1, 2).astype(int)
    monkeypatch.setattr(module, "BLOCK", 24)
    parts = Instrument(TINY, 2, sensor=GREEN).simulate(1, 2).astype(int)
    # coarse levels of the albedo are sampled from each block's own corner
    assert np.abs(parts - whole).max() <= 2
    assert np.mean(parts != whole) < 0.1


def test_sharpest_slice_of_a_flat_patch_is_its_true_index() -> None:
    stairs = World((bodies.Staircase((60.0, 45.0), 70.0, edge_px=0.0),), Albedo(8))
    instrument = Instrument("XS", 5, specimen=stairs)
    found = log_parabola(sharpness(green_of(instrument.simulate(0, 1))))
    wanted = instrument.truth.index(0, 1)
    inside = ~instrument.truth.view_near_step(0, 1, 24.0)
    inside[:17], inside[-17:], inside[:, :17], inside[:, -17:] = False, False, False, False
    assert np.ptp(wanted[inside]) > 2.0  # the three levels
    assert inside.sum() > 2000
    error = (found - wanted)[inside]
    assert abs(error.mean()) < 0.05
    assert np.sqrt(np.mean(error**2)) < 0.12


def test_a_slice_moves_the_field_edge_by_its_parallax() -> None:
    pinhole = replace(Optics(), na=1e-4)
    flat = World((), Albedo(3))
    stack = Instrument("XS", 1, specimen=flat, optics=pinhole, deviations=NO_DEVIATIONS, sensor=GREEN).simulate(0, 0)
    rows, cols = np.indices((192, 192)) - 96.0
    inner = (slice(12, -12), slice(12, -12))

    def misfit(stretch: float) -> float:
        """Slice 6 read where the points of slice 2 have gone, against slice 2."""
        moved = ndimage.map_coordinates(stack[6].astype(float), [96 + stretch * rows, 96 + stretch * cols], order=3)
        return float(np.mean((moved - stack[2])[inner] ** 2))

    # the stage rises: the specimen comes nearer and its image grows, by 1.12 px per slice at 96 px
    per_slice = np.linspace(0.9, 1.35, 46)
    best = per_slice[np.argmin([misfit(1 + 4 * shift / 96) for shift in per_slice])]
    # less the second order: 4 slices of 1.17 % are 4.79 % in a ratio
    assert best == pytest.approx(1.123 / (1 - 2 * 1.123 / 96), abs=0.015)


def test_fast_renderer_agrees_with_the_ray_tracer() -> None:
    size = replace(TINY, size=96, n_z=8)
    fast, traced = (Instrument(size, 6, specimen=LOW, renderer=name) for name in ("fast", "reference"))
    a, b = (green_of(i.simulate(1, 1)) for i in (fast, traced))
    wanted = fast.truth.index(1, 1)
    inner = (slice(16, -16), slice(16, -16))
    found = [log_parabola(sharpness(stack))[inner] for stack in (a, b)]
    errors = [40.0 * float(np.sqrt(np.mean((f - wanted[inner]) ** 2))) for f in found]
    print("focus-peak RMSE, fast and traced, um:", errors)
    assert max(errors) < 6.0
    assert 40.0 * np.sqrt(np.mean((found[0] - found[1]) ** 2)) < 3.5
    assert np.sqrt(np.mean((a - b) ** 2)) < 3.0  # counts; noise alone is 1.7 in each


def test_single_view_accuracy_is_that_of_the_literature_of_focus() -> None:
    instrument = Instrument("S", 7)
    view = (3, 3)
    found = log_parabola(sharpness(green_of(instrument.simulate(*view))))
    keep = ndimage.minimum_filter(instrument.truth.view_texture(*view), 33) > 0.99
    keep &= ~instrument.truth.view_near_step(*view, 12.0)
    keep[:16], keep[-16:], keep[:, :16], keep[:, -16:] = False, False, False, False
    error = 40.0 * (found - instrument.truth.index(*view))[keep]
    print("log-parabola, one view: RMSE", np.sqrt(np.mean(error**2)), "um, mean", error.mean())
    # 3.5 um over smooth blocks, 2.8 without them
    assert 2.0 < np.sqrt(np.mean(error**2)) < 4.0


def test_noise_has_its_signal_to_noise_ratio() -> None:
    grey = World((), Albedo(1, contrast=0.0))
    sensor = Sensor(vignetting=0.0, gain=0.0, gradient=0.0)
    stack = Instrument("XS", 3, specimen=grey, sensor=sensor).simulate(0, 0).astype(np.float64)
    assert stack.mean() == pytest.approx(0.4 * sensor.white, rel=1e-3)
    noise = np.sqrt(stack.var() - 1 / 12)
    assert stack.mean() / noise == pytest.approx(55.0, rel=0.01)  # 3e5 pixels: 0.13 %
    # no two pixels, slices or views share noise
    pairs = [(stack[0], stack[1]), (stack[0, 1:], stack[0, :-1]), (stack[:, :, 1:], stack[:, :, :-1])]
    for first, second in pairs:
        n = first.size
        shared = np.mean((first - first.mean()) * (second - second.mean())) / stack.var()
        assert abs(shared) < 5 / np.sqrt(n)


def test_shading_falls_to_the_corner_and_tilts_by_camera() -> None:
    grey = World((), Albedo(1, contrast=0.0))
    plain = replace(GREEN, vignetting=0.15)
    stack = Instrument("XS", 3, specimen=grey, sensor=plain).simulate(0, 0).astype(np.float64).mean(axis=0)
    assert stack[:3, :3].mean() / stack[94:98, 94:98].mean() == pytest.approx(0.85, abs=0.01)
    instrument = Instrument("XS", 3, specimen=grey, sensor=replace(GREEN, gain=0.03, gradient=0.05))
    means = [instrument.simulate(0, col).mean() for col in range(4)]
    assert means[0] == pytest.approx(means[1], rel=1e-3)  # the same camera
    assert means[0] != pytest.approx(means[2], rel=1e-3)


class Painted(World):
    """Red 0.2, green 0.4, blue 0.6."""

    def albedo(self, window: Window) -> NDArray[np.float32]:
        return np.broadcast_to(np.array([0.2, 0.4, 0.6], np.float32)[:, None, None], (3, *window.shape)).copy()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bayer_sites_see_their_colour(pattern: str) -> None:
    stack = Instrument(TINY, specimen=Painted((), Albedo(1)), sensor=replace(SILENT, pattern=pattern)).simulate(0, 0)
    level = {"R": 0.2, "G": 0.4, "B": 0.6}
    for site, letter in enumerate(pattern):
        assert np.all(stack[:, site // 2 :: 2, site % 2 :: 2] == round(level[letter] * SILENT.white))


def test_cameras_without_a_mosaic_have_one_or_three_colours() -> None:
    painted = Painted((), Albedo(1))
    grey = Instrument(TINY, specimen=painted, sensor=GREEN)
    assert (grey.capture.pattern, grey.capture.colours) == (None, 1)
    assert np.all(grey.simulate(0, 0) == round(0.4 * SILENT.white))
    colour = Instrument(TINY, specimen=painted, sensor=replace(GREEN, colours=3))
    stack = colour.simulate(0, 0)
    assert stack.shape == (7, 64, 64, 3)
    np.testing.assert_array_equal(stack[0, 0, 0], np.round(np.array([0.2, 0.4, 0.6]) * SILENT.white))


def test_raster_is_mirrored_along_x_only() -> None:
    size = replace(TINY, scan=(3, 4))
    for signs in ((1, -1), (1, 1), (-1, -1)):
        rig = Instrument(size, deviations=NO_DEVIATIONS, signs=signs).truth.rig
        at = rig.poses.translation.reshape(*size.views, 2)[:3, :4]  # the first camera's scan
        x, y = (
            rig.stage_xy_mm[..., 0] * 1000 / rig.optics.pixel_um,
            rig.stage_xy_mm[..., 1] * 1000 / rig.optics.pixel_um,
        )
        np.testing.assert_allclose(at[..., 1] - signs[1] * x, at[0, 0, 1] - signs[1] * x[0, 0], atol=1e-9)
        np.testing.assert_allclose(at[..., 0] - signs[0] * y, at[0, 0, 0] - signs[0] * y[0, 0], atol=1e-9)
        assert min(x.min(), y.min()) == 0.0
    # the scan runs fastest inside a camera, and cameras follow without a gap
    columns = rig.poses.translation.reshape(*size.views, 2)[0, :, 1]
    np.testing.assert_allclose(np.diff(columns), 0.42 * 64)


def test_stage_down_visits_the_same_positions_in_reverse() -> None:
    up, down = (Instrument(TINY, 4, specimen=LOW, sensor=GREEN, stage_up=rising) for rising in (True, False))
    for capture in (up.capture, down.capture):
        assert np.all(np.diff(capture.z_stage_mm, axis=-1) > 0.03)
    np.testing.assert_allclose(up.truth.rig.stage_lift_um, down.truth.rig.stage_lift_um[:, ::-1])
    np.testing.assert_allclose(down.truth.index(1, 1), 6 - up.truth.index(1, 1), atol=1e-9)
    assert np.abs(up.simulate(1, 1)[::-1].astype(int) - down.simulate(1, 1)).max() <= 1


@pytest.mark.parametrize("rising", [True, False])
def test_height_is_the_signed_difference_of_stage_positions(rising: bool) -> None:
    instrument = Instrument(TINY, 9, stage_up=rising)
    capture, truth = instrument.capture, instrument.truth
    for view in ((0, 0), (1, 3)):
        index, stage = truth.index(*view), capture.z_stage_mm[view]
        k = np.clip(index.astype(int), 0, len(stage) - 2)
        at = stage[k] + (index - k) * (stage[k + 1] - stage[k])
        height = capture.stage_sign * (capture.z_flat_mm(*view) - at)
        inside = (index >= 0) & (index <= len(stage) - 1)
        assert inside.mean() > 0.9
        np.testing.assert_allclose(height[inside] * 1000, truth.view_height_um(*view)[inside], atol=1e-6)
        flow = truth.flow(*view)
        near = np.round(flow).astype(int)
        around = truth.height_um(Window(0, 0, *truth.mosaic_shape))[near[..., 0], near[..., 1]]
        assert np.abs(around - truth.view_height_um(*view)).max() < 40.0
        assert np.median(np.abs(around - truth.view_height_um(*view))) < 1.0


def test_index_is_nominal_minus_height_where_the_stage_steps_evenly() -> None:
    instrument = Instrument(TINY, 3, deviations=replace(Deviations(), stage_z_um=0.0))
    truth = instrument.truth
    np.testing.assert_allclose(
        truth.index(0, 2), truth.nominal(0, 2) - truth.view_height_um(0, 2) / 40.0, rtol=0, atol=1e-9
    )


def test_flat_target_shows_curvature_tilt_and_offset() -> None:
    instrument = Instrument("XS", 2, flat_target=FlatTarget(dz_um=25.0, n_z=9))
    capture = instrument.flat_capture
    assert capture.shape[2] == 9
    assert np.diff(capture.z_stage_mm).mean() == pytest.approx(0.025, abs=1e-3)
    view = (1, 2)
    np.testing.assert_allclose(capture.z_flat_mm(*view), instrument.capture.z_flat_mm(*view))
    index = capture.truth.index(*view)
    rows, cols = np.indices(index.shape) / 192 - 0.5
    basis = np.stack([np.ones_like(rows), rows, cols, rows**2, rows * cols, cols**2], axis=-1).reshape(-1, 6)
    fit, *_ = np.linalg.lstsq(basis, capture.z_flat_mm(*view).ravel(), rcond=None)
    # 20 um at the corner: 40 um (x^2 + y^2) of the field
    np.testing.assert_allclose(fit[[3, 5]], 0.040, rtol=0.02)
    found = log_parabola(sharpness(green_of(instrument.flat(*view))))[16:-16, 16:-16]
    error = found - index[16:-16, 16:-16]
    assert abs(error.mean()) < 0.06
    assert error.std() < 0.15


def test_wedge_of_the_target_is_in_its_truth_and_not_in_the_datum() -> None:
    level = Instrument("XS", 2)
    wedge = Instrument("XS", 2, flat_target=FlatTarget(wedge_deg=0.1))
    heights = wedge.flat_capture.truth.height_um(Window(0, 0, 5, 400))
    np.testing.assert_allclose(np.diff(heights), np.tan(np.radians(0.1)) * Optics().pixel_um, atol=1e-4)
    assert heights.mean() == pytest.approx(0.0, abs=0.2)
    np.testing.assert_array_equal(wedge.capture.z_flat_mm(0, 0), level.capture.z_flat_mm(0, 0))


def test_poses_are_in_the_gauge_and_cover_the_mosaic() -> None:
    instrument = Instrument("S", 11)
    truth = instrument.truth
    assert max(gauge_errors(truth.poses).values()) < 1e-9
    flow = truth.flow(7, 7)
    assert flow[..., 0].max() < truth.mosaic_shape[0] - 1 > 0 < truth.flow(0, 0).min()
    np.testing.assert_allclose(
        flow[[0, 383], [5, 17]], to_mosaic(truth.poses, 63, np.array([[0.0, 5.0], [383.0, 17.0]])), atol=1e-9
    )
    count = truth.coverage(Window(0, 0, *truth.mosaic_shape))
    middle = count[400:-400, 400:-400]
    assert middle.min() >= 4
    assert middle.mean() == pytest.approx(1 / 0.42**2, rel=0.05)
    part = Window(300, 700, 100, 150)
    np.testing.assert_array_equal(truth.coverage(part), count[300:400, 700:850])


def test_a_wall_hides_the_ground_beside_it_from_a_part_of_the_pupil() -> None:
    stairs = World((bodies.Staircase((100.0,), 130.0),), Albedo(1))
    instrument = Instrument("XS", 5, specimen=stairs, deviations=NO_DEVIATIONS)
    share = instrument.truth.visible_share(0, 0)
    heights = instrument.truth.view_height_um(0, 0)
    assert share[heights == heights.max()].min() == 1.0
    row = 96
    low = np.flatnonzero(heights[row] < 0)
    wall = int(np.flatnonzero(heights[row] > 0)[0])
    reach = 0.1 * 100.0 / Optics().pixel_um  # the cone of the aperture over the wall
    # the field angle leans the cone by up to 3.5 px over this height
    left = low[low < wall]
    assert share[row, left[wall - left > reach + 4]].min() == 1.0
    assert share[row, wall - 2] < 0.75
    # an upright wall hides half a pupil at most
    assert instrument.truth.visible(0, 0, 0.3).all()
    assert 0.9 < instrument.truth.visible(0, 0, 0.8).mean() < 1.0


def test_rays_away_from_slopes_need_no_tracing() -> None:
    parts = (
        bodies.Relief(2, 60.0),
        bodies.Blocks(3, 80.0, pitch_px=140.0),
        bodies.Pins(4, 60.0, 60.0, probability=0.1),
    )
    instrument = Instrument("XS", 5, specimen=World(parts, Albedo(1)))
    rays = instrument.truth.rays(1, 1)
    full, short = (visible_share(instrument.truth.world, rays, shortcut=quick) for quick in (False, True))
    assert 0.3 < np.mean(full == 1.0) < 0.99
    np.testing.assert_array_equal(short, full)


def test_missing_cameras_and_views_are_refused() -> None:
    instrument = Instrument(TINY, missing=((0, 1),))
    assert instrument.capture.camera_mask.tolist() == [[True, False]]
    with pytest.raises(UserError, match=r"camera \(0, 1\), which is missing"):
        instrument.simulate(0, 2)
    with pytest.raises(UserError, match="2 x 4"):
        instrument.simulate(0, 4)
    instrument.simulate(0, 1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "XXL"}, "XS, S, M"),
        ({"specimen": "moon"}, "relief"),
        ({"renderer": "gpu"}, "fast, reference"),
        ({"optics": Optics(overlap=1.2)}, "overlap"),
        ({"specimen": World((bodies.Staircase(),), Albedo(1))}, "380 um high"),
        ({"missing": ((5, 5),)}, "5, 5"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Instrument(**wrong)


BASE = Instrument(TINY, 1)


@pytest.mark.parametrize(
    "changed",
    [
        *({"deviations": replace(BASE.deviations, **{name: 2 * getattr(BASE.deviations, name) + 1e-3})} for name in (
            "xy_um", "angle_rad", "height_um", "distortion", "curvature_um", "backlash_um", "stage_z_um",
            "magnification",
        )),
        *({"optics": replace(BASE.optics, **{name: 1.2 * getattr(BASE.optics, name)})} for name in (
            "na", "diffraction_px", "sensor_pitch_um", "magnification", "f_eff_mm", "dz_um", "overlap"
        )),
        *({"sensor": replace(BASE.sensor, **{name: 1.5 * getattr(BASE.sensor, name)})} for name in (
            "snr", "read_electrons", "vignetting", "gain", "gradient"
        )),
        {"sensor": replace(BASE.sensor, white=200.0)},
        {"specimen": "caps"},
        {"renderer": "reference"},
        {"stage_up": False},
        {"seed": 2},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_changes_the_image(changed: dict) -> None:
    # the second row of a scan runs against the backlash
    options = {"preset": TINY, "seed": 1} | changed
    assert not np.array_equal(Instrument(**options).simulate(1, 1), BASE.simulate(1, 1))


def test_attributes_describe_the_acquisition() -> None:
    facts = Instrument(TINY, missing=((0, 0),)).capture.attributes()
    assert facts["dz_mm"] == 0.04
    assert facts["bayer"] == "GBRG"
    assert facts["camera_mask"] == [[False, True]]
    assert (facts["sign_y"], facts["sign_x"]) == (1, -1)
    assert facts["scan_step_x_mm"] == pytest.approx(0.42 * 64 * 1.1e-3 / 0.8448)
    assert facts["f_eff_mm"] == pytest.approx(25.05486 / 48)
