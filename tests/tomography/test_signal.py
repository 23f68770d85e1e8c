"""From raw views to prepared ones: identities, robustness, flags and messages."""

from __future__ import annotations

import functools
import json
import math
import secrets
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from gigascope.errors import UserError
from gigascope.tomography import cleaning
from gigascope.tomography.flags import ViewStatistics, flag_views
from gigascope.tomography.frame import rotate_view
from gigascope.tomography.geometry import frame_shape, rotation
from gigascope.tomography.phantom import TiltSeriesSim, object_phantom, section_phantom, simulate
from gigascope.tomography.signal import SignalModel, SignalSettings, prepare_view
from gigascope.tomography.signal_estimate import estimate_signal
from gigascope.tomography.views import prepared_views

PHANTOMS = {"object": object_phantom, "section": section_phantom}
TILT = np.deg2rad(np.linspace(-50.0, 62.0, 21))


@pytest.fixture(scope="module")
def seed(request: pytest.FixtureRequest) -> int:
    """One seed for all series of this module, so that each is simulated once; a new one with `--fresh`."""
    value = secrets.randbits(16) if request.config.getoption("--fresh") else 0
    print(f"phantom seed {value}")
    return value


@functools.cache
def series(kind: str, seed: int, snr: float = 1.0) -> tuple[TiltSeriesSim, np.ndarray]:
    """A short simulated series and its raw stack (tilt, y, x), read-only."""
    sim = simulate(PHANTOMS[kind](seed), seed=seed, tilt=TILT, shape=(112, 120), snr=snr)
    raw = np.ascontiguousarray(sim.views.swapaxes(1, 2))
    raw.setflags(write=False)
    return sim, raw


def linear_model(n_views: int, **changes: object) -> SignalModel:
    """A model that changes nothing but what is given."""
    zero, one = np.zeros(n_views), np.ones(n_views)
    fields: dict[str, object] = {
        "signal": "linear", "invert": False, "dark": 0.0, "spike": math.inf, "i0": 1.0, "floor": 0.0, "scale": 1.0,
        "extent": "object", "extent_views": (), "extent_contrast": (), "background": zero, "gain": one, "noise": zero,
        "spikes": zero, "flags": ("",) * n_views,
    }  # fmt: skip
    return SignalModel(**(fields | changes))  # type: ignore[arg-type]


# --- signal -------------------------------------------------------------------------------------------------------


def test_transmission_is_minus_log_over_i0(rng: np.random.Generator) -> None:
    absorbance = rng.uniform(0.0, 2.0, (12, 9)).astype(np.float32)
    raw = torch.from_numpy(200.0 * np.exp(-absorbance) + 30.0)
    background = np.array([0.25])
    model = linear_model(1, signal="transmission", i0=200.0, floor=0.1, dark=30.0, scale=2.0, background=background)
    view, usable, spikes = prepare_view(raw, model, 0)
    np.testing.assert_allclose(view.numpy(), (absorbance - 0.25) / 2.0, atol=1e-5)
    assert usable.all()
    assert not spikes.any()
    inverted, _, _ = prepare_view(raw, linear_model(1, signal="transmission", i0=200.0, dark=30.0, invert=True), 0)
    np.testing.assert_allclose(inverted.numpy(), -absorbance, atol=1e-5)


def test_dark_offset_is_the_same_as_subtracting_it_before(seed: int) -> None:
    sim, raw = series("object", seed)
    plain = estimate_signal(raw, sim.tilt, SignalSettings())
    offset = estimate_signal(raw + 64.0, sim.tilt, SignalSettings(dark=64.0))
    assert offset.i0 == pytest.approx(plain.i0)
    np.testing.assert_allclose(offset.background, plain.background, atol=1e-5)


@pytest.mark.parametrize("kind", ["object", "section"])
@pytest.mark.parametrize("snr", [1.0, 20.0])
def test_scale_and_noise_are_those_of_the_clean_view(kind: str, snr: float, seed: int) -> None:
    sim, raw = series(kind, seed, snr=snr)
    model = estimate_signal(raw, sim.tilt, SignalSettings())
    lowest = int(np.argmin(np.abs(sim.tilt)))
    # the logarithm of few counts spreads more than their variance says, 10 % at 20 counts
    assert model.scale == pytest.approx(sim.clean[lowest].std(), rel=0.1)
    ratio = model.noise * model.scale**2 / sim.noise_variance
    assert np.median(ratio) == pytest.approx(1.0, abs=0.2)
    # fine structure counts as noise: in sections of little noise by up to 38 % in one view, over 40 seeds
    np.testing.assert_allclose(ratio, 1.0, atol=0.45 if (kind, snr) == ("section", 20.0) else 0.25)
    assert model.extent == kind
    assert model.good.all()
    assert np.median(model.relative_noise) == pytest.approx(1.0)


def test_background_is_the_frame_of_an_object_and_the_mean_of_a_section(seed: int) -> None:
    sim, raw = series("object", seed, snr=20.0)
    views, _ = prepared_views(raw, estimate_signal(raw, sim.tilt, SignalSettings()), tilt_axis=0.0)
    assert views[:, :4].median().abs() < 0.05
    # mass is kept: an object's mean does not vanish, and varies little with tilt
    mass = views.mean((1, 2))
    assert mass.min() > 0.3
    assert mass.std() / mass.mean() < 0.15
    sim, raw = series("section", seed)
    views, _ = prepared_views(raw, estimate_signal(raw, sim.tilt, SignalSettings()), tilt_axis=0.0, mask_spikes=False)
    assert views.mean((1, 2)).abs().max() < 1e-4


def test_model_survives_json(seed: int) -> None:
    sim, raw = series("section", seed)
    model = estimate_signal(raw, sim.tilt, SignalSettings(exclude=[3]))
    again = SignalModel.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again.to_dict() == model.to_dict()
    assert again.flags[3] == "excluded"
    assert {len(column) for column in model.table().values()} == {len(TILT)}


def test_equalize_takes_planted_gain_steps_out(seed: int) -> None:
    sim, _ = series("object", seed, snr=20.0)
    gains = np.where(np.arange(len(TILT)) % 7 == 3, 1.6, 1.0)
    scaled = (sim.absorbance().swapaxes(1, 2) * gains[:, None, None]).astype(np.float32)
    model = estimate_signal(scaled, sim.tilt, SignalSettings(signal="linear", equalize=True))
    np.testing.assert_allclose(model.gain * gains, 1.0, atol=0.1)
    assert (estimate_signal(scaled, sim.tilt, SignalSettings(signal="linear")).gain == 1.0).all()


def test_only_one_view_is_read_at_a_time(seed: int) -> None:
    sim, raw = series("object", seed)

    class OneByOne:
        def __init__(self) -> None:
            self.shape = raw.shape
            self.read: list[int] = []

        def __getitem__(self, index: int) -> np.ndarray:
            assert isinstance(index, int)
            self.read.append(index)
            return raw[index]

    source = OneByOne()
    model = estimate_signal(source, sim.tilt, SignalSettings())
    assert source.read == [*range(21), *range(21), *model.extent_views]
    lazy, whole = (prepared_views(stack, model, tilt_axis=0.0)[0] for stack in (source, raw))
    assert torch.equal(lazy, whole)


# --- spikes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "section"])
def test_hot_pixels_are_found_and_nothing_else(kind: str, seed: int, rng: np.random.Generator) -> None:
    sim, raw = series(kind, seed)
    clean = estimate_signal(raw, sim.tilt, SignalSettings())
    assert clean.spikes.max() < 1e-3
    hot = rng.random(raw.shape) < 0.02
    spoilt = np.where(hot, 50.0 * sim.i0, raw)
    model = estimate_signal(spoilt, sim.tilt, SignalSettings())
    # three hot pixels within a 3 x 3 neighbourhood are taken for structure: about 1 % of them
    np.testing.assert_allclose(model.spikes, hot.mean((1, 2)), rtol=0.05)
    assert model.scale == pytest.approx(clean.scale, rel=0.05)
    assert model.good.all()
    _, mask = prepared_views(spoilt, model, tilt_axis=0.0)
    found = 1 - mask.numpy().swapaxes(1, 2)
    assert found[hot].mean() > 0.95
    assert found[~hot].mean() < 1e-3
    binned = prepared_views(spoilt, model, tilt_axis=0.0, bin=2)
    reference = prepared_views(raw, clean, tilt_axis=0.0, bin=2)
    assert binned[1].all()
    assert (binned[0] - reference[0]).std() < 0.5 * reference[0].std()


def test_edges_lines_and_corners_are_not_spikes() -> None:
    view = torch.zeros(40, 50)
    view[10:20, 10:30] = 100.0
    view[30, :] = 100.0
    view[:, 45] = 100.0
    view += 0.1 * torch.randn(view.shape, generator=torch.Generator().manual_seed(0))
    assert not cleaning.replace_spikes(view, 8.0)[1].any()
    view[5, 5] = 100.0
    cleaned, spikes = cleaning.replace_spikes(view, 8.0)
    assert spikes.nonzero().tolist() == [[5, 5]]
    assert cleaned[5, 5].abs() < 1.0


def test_ranks_are_those_of_the_sorted_neighbourhood(rng: np.random.Generator) -> None:
    image = rng.normal(size=(150, 11)).astype(np.float32)
    padded = np.pad(image, 1, mode="reflect")
    nine = np.sort([padded[i : i + 150, j : j + 11] for i in range(3) for j in range(3)], axis=0)
    for found, rank in zip(cleaning.ranks(torch.from_numpy(image)), (2, 4, 6)):
        np.testing.assert_array_equal(found.numpy(), nine[rank])


def test_noise_of_an_uneven_image_is_its_root_mean_variance(rng: np.random.Generator) -> None:
    sigma = np.linspace(0.5, 2.0, 256)[None, :]
    image = 20.0 * sigma + sigma * rng.normal(size=(256, 256))
    found = cleaning.noise_sigma(torch.from_numpy(image).float())
    assert found == pytest.approx(math.sqrt(np.mean(sigma**2)), rel=0.05)


# --- flags --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "section"])
def test_dark_and_empty_views_are_flagged_and_no_others(kind: str, seed: int, rng: np.random.Generator) -> None:
    sim, raw = series(kind, seed)
    raw = raw.copy()
    raw[5] = rng.poisson(0.1 * raw[5])
    raw[12] = rng.poisson(np.full(raw[12].shape, sim.i0))
    raw[rng.random(raw.shape) < 0.02] = 50.0 * sim.i0
    model = estimate_signal(raw, sim.tilt, SignalSettings(exclude=[18]))
    assert {i: flag for i, flag in enumerate(model.flags) if flag} == {5: "dark", 12: "empty", 18: "excluded"}
    views, mask = prepared_views(raw, model, tilt_axis=0.0)
    assert not mask[[5, 12, 18]].any()
    assert not views[[5, 12, 18]].any()


@pytest.mark.parametrize("which", ["first half", "every other", "random"])
@pytest.mark.parametrize("kind", ["object", "section"])
def test_half_of_the_views_may_be_dark(which: str, kind: str, seed: int, rng: np.random.Generator) -> None:
    """Then most of a view's neighbours are dark as well, and no median tells."""
    sim, raw = series(kind, seed)
    n = len(raw)
    dark = {"first half": np.arange(n) < n // 2, "every other": np.arange(n) % 2 == 1, "random": rng.random(n) < 0.5}
    raw = raw.copy()
    raw[dark[which]] = rng.poisson(0.02 * sim.i0, raw[dark[which]].shape)
    model = estimate_signal(raw, sim.tilt, SignalSettings())
    assert [flag == "dark" for flag in model.flags] == dark[which].tolist()
    assert model.i0 == pytest.approx(estimate_signal(series(kind, seed)[1], sim.tilt, SignalSettings()).i0, rel=0.05)


def test_a_series_that_darkens_slowly_has_no_dark_views() -> None:
    n = 61
    fading = ViewStatistics(
        means=1000.0 * 0.9 ** np.arange(n), band=np.ones(n), tilt=np.deg2rad(np.linspace(-60, 60, n)),
        excluded=np.zeros(n, dtype=bool), transmission=False, i0=1.0,
    )  # fmt: skip
    assert set(flag_views(fading, 0.5)) == {""}


def test_views_of_noise_alone_are_not_called_empty(rng: np.random.Generator) -> None:
    """Next to each other they all are; which of them falls below its neighbours is chance."""
    raw = rng.poisson(500.0, (61, 64, 64)).astype(np.float32)
    assert estimate_signal(raw, np.deg2rad(np.linspace(-45, 45, 61)), SignalSettings()).good.all()


def test_too_few_usable_views_are_refused(seed: int) -> None:
    sim, raw = series("section", seed)
    with pytest.raises(UserError, match="at least 7 are needed"):
        estimate_signal(raw, sim.tilt, SignalSettings(exclude=range(6, len(raw))))


def test_dark_view_of_a_dark_field_series_is_flagged(seed: int) -> None:
    sim, _ = series("section", seed, snr=20.0)
    raw = 1000.0 * sim.absorbance().swapaxes(1, 2)
    raw[0] *= 0.2
    model = estimate_signal(raw, sim.tilt, SignalSettings(signal="linear"))
    assert [i for i, flag in enumerate(model.flags) if flag] == [0]


def test_order_of_the_stack_does_not_matter(seed: int, rng: np.random.Generator) -> None:
    sim, raw = series("section", seed)
    raw = raw.copy()
    raw[7] *= 0.1
    order = rng.permutation(len(TILT))
    straight = estimate_signal(raw, sim.tilt, SignalSettings())
    shuffled = estimate_signal(raw[order], sim.tilt[order], SignalSettings())
    assert shuffled.flags == tuple(straight.flags[i] for i in order)
    assert shuffled.scale == pytest.approx(straight.scale)
    sorted_views = prepared_views(raw[order], shuffled, tilt_axis=0.0, order=np.argsort(sim.tilt[order]).tolist())
    assert torch.equal(sorted_views[0], prepared_views(raw, straight, tilt_axis=0.0)[0])


def test_real_needle_series_is_an_object_without_flags(shared_data: Path) -> None:
    folder = shared_data / "tomo" / "nist_haadf_needle"
    with mrcfile.mmap(folder / "needle.mrc", permissive=True) as file:
        model = estimate_signal(
            file.data, np.deg2rad(np.loadtxt(folder / "needle.rawtlt")), SignalSettings("linear"), tilt_axis=math.pi / 2
        )
    assert model.good.all()
    assert model.extent == "object"
    assert min(model.extent_contrast) > 18.0
    assert model.spikes.max() < 1e-3


@pytest.mark.parametrize("phi_deg", [12.5, 85.3])
def test_extent_is_judged_across_the_tilt_axis(phi_deg: float) -> None:
    # a bar along the axis that leaves the field at both ends is complete across it, and so an object
    y, x = np.mgrid[:96, :128] - np.array([47.5, 63.5])[:, None, None]
    across = (np.stack([x, y], -1) @ rotation(math.radians(phi_deg)))[..., 0]
    bar = 100.0 * (np.abs(across) < 14) + np.random.default_rng(0).normal(10.0, 1.0, (9, 96, 128))
    tilt = np.deg2rad(np.linspace(-40, 40, 9))
    for axis, expected in [(phi_deg, "object"), (phi_deg + 90.0, "section")]:
        model = estimate_signal(bar, tilt, SignalSettings("linear"), tilt_axis=math.radians(axis))
        assert model.extent == expected


# --- messages -----------------------------------------------------------------------------------------------------


def test_nan_and_constant_views_are_named(seed: int) -> None:
    sim, raw = series("object", seed)
    raw = raw.copy()
    raw[4, 7, 7] = np.nan
    raw[11] = 17.0
    raw[13, 0, 0] = np.inf
    said = r"NaN or infinite pixels in views 4, 13; the same value .* in view 11 .*exclude: \[4, 11, 13\]"
    with pytest.raises(UserError, match=said):
        estimate_signal(raw, sim.tilt, SignalSettings())
    with pytest.raises(UserError, match=r"in view 4 \(.*exclude: \[4\]"):
        estimate_signal(raw[:9], sim.tilt[:9], SignalSettings())
    model = estimate_signal(raw, sim.tilt, SignalSettings(exclude=[4, 11, 13]))
    assert [i for i, flag in enumerate(model.flags) if flag] == [4, 11, 13]
    valid = np.isfinite(raw)
    masked = estimate_signal(raw, sim.tilt, SignalSettings(exclude=[11]), valid=valid)
    assert [i for i, flag in enumerate(masked.flags) if flag] == [11]
    views, mask = prepared_views(raw, masked, tilt_axis=0.0, valid=valid)
    assert torch.isfinite(views).all()
    assert mask[4, 7, 7] == 0


def test_wrong_exclusion_and_missing_light_are_explained(seed: int) -> None:
    sim, raw = series("object", seed)
    with pytest.raises(UserError, match=r"view 21 does not exist.*21 views \(0 to 20\)"):
        estimate_signal(raw, sim.tilt, SignalSettings(exclude=[21]))
    with pytest.raises(UserError, match=r"ingest\.signal: linear"):
        estimate_signal(-raw - 1.0, sim.tilt, SignalSettings())


# --- the rotated frame --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi_deg", [0.0, 12.5, -90.0, 85.3, 175.0])
@pytest.mark.parametrize("bin", [1, 2])
def test_bright_corner_lands_where_the_geometry_says(phi_deg: float, bin: int, rng: np.random.Generator) -> None:
    height, width = 90, 103
    phi, spot, shift = math.radians(phi_deg), np.array([27.3, 24.6]), rng.uniform(-4.0, 4.0, 2)
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    raw = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 3.0**2))[None].astype(np.float32)
    views, mask = prepared_views(raw, linear_model(1), tilt_axis=phi, bin=bin, largest_bin=4, shifts=shift[None])
    n_s, n_y = frame_shape((height, width), phi, 4)
    assert views.shape == mask.shape == (1, n_s // bin, n_y // bin)
    weight = views[0].double().numpy()
    axes = [(np.arange(n) - (n - 1) / 2) * bin for n in weight.shape]
    found = np.array([(weight.sum(1) * axes[0]).sum(), (weight.sum(0) * axes[1]).sum()]) / weight.sum()
    # a = R(-phi) r - f; linear interpolation and binning keep the centroid of a smooth spot
    np.testing.assert_allclose(found, rotation(-phi) @ spot - shift, atol=0.02)


def test_outside_of_the_raw_view_is_masked_and_zero() -> None:
    view = torch.full((60, 60), 5.0)
    out, mask = rotate_view(view, torch.ones(60, 60, dtype=torch.bool), math.radians(45.0), (60, 60), 1)
    assert mask[0, 0] == 0
    assert mask[30, 30] == 1
    # the octagon that a turned square shares with itself
    assert mask.float().mean().item() == pytest.approx(2 * math.sqrt(2) - 2, abs=0.04)
    assert torch.equal(out > 0, mask > 0)
    assert out[mask > 0].std() < 1e-5
