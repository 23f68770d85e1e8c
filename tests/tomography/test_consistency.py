"""What small copies of the views tell: order of the angles, nothing to see, objects that leave the field."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from gigascope.tomography import consistency
from gigascope.tomography.phantom import object_phantom, section_phantom, simulate
from gigascope.tomography.signal import SignalSettings
from gigascope.tomography.signal_estimate import estimate_signal

N = 25
TILT = np.deg2rad(np.linspace(-60, 60, N))
MIDDLE = N // 2


@functools.cache
def series(kind: str) -> np.ndarray:
    """(tilt, y, x) raw views, not aligned, SNR 1."""
    make = object_phantom if kind == "object" else section_phantom
    return np.ascontiguousarray(simulate(make(3), seed=3, snr=1.0, tilt=TILT).views.swapaxes(1, 2))


def doubts(raw: np.ndarray, tilt: np.ndarray, axis: float = 0.0, **settings: object) -> str:
    model = estimate_signal(raw, tilt, SignalSettings(**settings), tilt_axis=axis)
    return "\n".join(consistency.doubts([consistency.thumbnail(view) for view in raw], model, tilt, axis))


def outward(group: int) -> np.ndarray:
    """Ranks by angle, as a dose-symmetric acquisition goes through them."""
    sides = [list(range(MIDDLE + 1, N)), list(range(MIDDLE - 1, -1, -1))]
    order = [MIDDLE]
    while sides[0] or sides[1]:
        for side in sides:
            order += side[:group]
            del side[:group]
    return np.array(order)


ACQUIRED = {"1 at a time": outward(1), "3 at a time": outward(3), "two branches": np.r_[MIDDLE:N, MIDDLE - 1 : -1 : -1]}


@pytest.mark.parametrize("kind", ["object", "section"])
def test_angles_that_go_with_their_views_raise_no_doubt(kind: str) -> None:
    for acquired in (np.arange(N), ACQUIRED["1 at a time"]):
        assert doubts(series(kind)[acquired], TILT[acquired]) == ""


@pytest.mark.parametrize(
    ("kind", "name"), [("object", "1 at a time"), ("section", "3 at a time"), ("section", "two branches")]
)
def test_sorted_angles_of_views_as_acquired_are_seen(kind: str, name: str) -> None:
    message = doubts(series(kind)[ACQUIRED[name]], TILT)
    assert "another order than the views" in message
    assert name in message
    assert "ingest.tilt_deg" in message


def test_angles_as_acquired_of_sorted_views_are_seen() -> None:
    message = doubts(series("section"), TILT[ACQUIRED["3 at a time"]])
    assert "another order" in message
    assert "as they stand in the file" in message


def test_the_other_sign_cannot_be_seen() -> None:
    assert doubts(series("section"), -TILT) == ""


def test_a_flat_specimen_without_contrast_is_said(rng: np.random.Generator) -> None:
    flat = rng.poisson(400.0 * np.cos(TILT)[:, None, None], (N, 96, 96)).astype(np.float32)
    assert "Nothing to align by" in doubts(flat, TILT)
    assert "Nothing to align by" in doubts(flat, TILT, signal="linear")


def test_an_object_that_leaves_the_field_is_said() -> None:
    cut = np.ascontiguousarray(series("object")[:, :, 20:88])
    message = doubts(cut, TILT, extent="object")
    assert "reaches the edge of the field" in message
    assert "ingest.extent" in message
    # along the axis it may: the rays of every slice are whole
    along = np.ascontiguousarray(series("object").swapaxes(1, 2)[:, 20:88])
    assert "edge" not in doubts(along, TILT, extent="object")
    assert "edge" in doubts(along, TILT, np.pi / 2, extent="object")


def test_views_left_out_are_not_asked(rng: np.random.Generator) -> None:
    raw = series("section").copy()
    raw[5:12] = rng.poisson(5.0, raw[5:12].shape)
    assert doubts(raw, TILT, exclude=range(5, 12)) == ""


@pytest.mark.parametrize("shape", [(64, 100), (300, 257), (1, 5), (4, 1000)])
def test_a_small_copy_keeps_the_mean(shape: tuple[int, int], rng: np.random.Generator) -> None:
    view = rng.integers(0, 4000, shape).astype(np.uint16)
    small = consistency.thumbnail(view)
    assert max(small.shape) <= 128
    assert small.mean() == pytest.approx(view.mean(), rel=0.05)


def test_real_series_raise_no_doubt(shared_data) -> None:
    from gigascope.store.readers.tilt_series import open_tilt_series

    source = open_tilt_series(shared_data / "tomo" / "nist_haadf_needle" / "needle.mrc")
    raw = np.stack([source.read(i) for i in range(source.n_views)])
    assert doubts(raw, np.deg2rad(source.tilt_deg), np.pi / 2, signal="linear") == ""
