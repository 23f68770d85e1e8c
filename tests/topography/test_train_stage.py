"""The stage that trains: resumed, killed, shared by processes, without partners; what it leaves and what it decides."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gigascope.config.dataset import TopographyDataset, load_dataset
from gigascope.errors import Checkpointed, UserError
from gigascope.learning.live import loss_columns
from gigascope.runtime.checkpoint import Checkpoints
from gigascope.store.commit import finish
from gigascope.store.create import create_store
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.topography.calibration.result import InstrumentId, from_known_poses
from gigascope.topography.calibration.stored import read_calibration, write_calibration
from gigascope.topography.geometry.candidates import find_candidates
from gigascope.topography.geometry.poses import select
from gigascope.topography.network.training import network_of
from gigascope.topography.training import plan
from gigascope.topography.training.course import HELD_SHARE, HeldOut, Shapes
from gigascope.topography.training.stored import Verdict, read_network
from gigascope.topography.training.trial import Trial

from ..stage_runs import chance, lines_in, write_dataset
from .chain import RUNS, SHORT, TINY
from .stores import raw_store


def attributes(folder: Path) -> dict[str, Any]:
    return open_store(folder / "training.zarr").attrs


def losses(folder: Path) -> dict[str, Any]:
    return {name: np.asarray(values) for name, values in read_tsv(folder / "losses.tsv")[0].items()}


def deterministic(folder: Path) -> dict[str, Any]:
    """What a training leaves, but for the times of its loader."""
    store = open_store(folder / "training.zarr")
    state = torch.load(folder / "network.pt", weights_only=True)
    table = store.table("loader")
    found = {name: store.member(name)[:] for name in ("slice", "prior", "in_focus", "network")}
    found |= {name: table[name] for name in ("step", "views", "bytes_read", "bytes_used")}
    found |= {f"state/{name}": value for name, value in state.items() if name not in ("network", "average")}
    for part in ("network", "average"):
        found |= {f"{part}/{name}": value.numpy() for name, value in state[part].items()}
    return found | losses(folder)


def assert_same_training(folder: Path, undisturbed: Path) -> None:
    mine, theirs = deterministic(folder), deterministic(undisturbed)
    assert mine.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_equal(mine[name], theirs[name], err_msg=name)


def test_training_leaves_network_losses_pictures_and_statistics(trained: Path) -> None:
    store, table = open_store(trained / "training.zarr"), losses(trained)
    assert table["step"].tolist() == list(range(8))
    assert {"rate", "gradient", "loss", "height", "agreement"} <= table.keys()
    terms = sum(table[name] for name in table.keys() - {"step", "rate", "gradient", "loss"})
    np.testing.assert_allclose(terms, table["loss"], rtol=1e-5)
    assert store.attrs["moments"] == [0, 4, 8]
    assert store.member("network").shape == (3, 2, 48, 48)
    # before the first step the network is the prior
    np.testing.assert_allclose(store.member("network")[0], store.member("prior")[:], atol=1e-5)
    assert np.abs(store.member("network")[2] - store.member("prior")[:]).max() > 1e-4
    loader = store.table("loader")
    assert loader["step"].tolist() == list(range(8))
    assert (loader["bytes_read"] >= loader["bytes_used"]).all()
    assert store.attrs["loader_read_MB"] == pytest.approx(loader["bytes_read"].sum() / 1e6)
    assert store.attrs["judged_pixels"] > 1000
    network, verdict = read_network(trained / "network.pt", 9)
    assert network is not None
    assert verdict.use == store.attrs["use"]
    better = store.attrs["judged_network_slices"] < store.attrs["judged_prior_slices"]
    assert verdict.use == ("network" if better else "focus")
    assert (verdict.use == "focus") == bool(store.provenance["warnings"])


def stopped(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The next training is asked to stop after a step; those after it are not."""
    seen: list[int] = []

    def out_of_time(self: Checkpoints) -> bool:
        seen.append(1)
        return len(seen) == step

    monkeypatch.setattr(Checkpoints, "out_of_time", property(out_of_time))


def test_stopped_training_goes_on_to_the_same_bits(
    posed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1 through the stage: SIGTERM is what sets `stop_requested`."""
    config = write_dataset(tmp_path, TINY, SHORT)
    stopped(monkeypatch, chance().randrange(1, 7))
    with pytest.raises(Checkpointed):
        RUNS.run(config, tmp_path, "train", posed)
    live = list((tmp_path / "scratch").rglob("losses.tsv"))
    assert len(live) == 1, "losses are to be seen while it runs"
    events = next((tmp_path / "scratch").rglob("events.out.tfevents.00000000")).read_bytes()
    for what in (b"agreement", b"patch 1", b"patch 2", b"\x89PNG"):
        assert what in events
    RUNS.run(config, tmp_path, "train", posed)
    assert_same_training(tmp_path, trained)
    assert not [*(tmp_path / "scratch").rglob("losses.tsv"), *(tmp_path / "scratch").rglob("*tfevents*")]


@pytest.mark.slow
def test_training_killed_and_started_again_is_the_same(posed: Path, trained: Path, tmp_path: Path) -> None:
    """E2: SIGKILL at a random moment, SIGTERM at another one, then to the end."""
    config, random = write_dataset(tmp_path, TINY, SHORT), chance()
    for number in (signal.SIGKILL, signal.SIGTERM):
        # of the attempt before
        for live in (tmp_path / "scratch").rglob("losses.tsv"):
            live.unlink()
        process = RUNS.start(config, tmp_path, "train", posed)
        process.wait_until(lambda: lines_in(tmp_path, "losses.tsv") > 0)
        time.sleep(random.uniform(0, 0.5))
        process.send_signal(number)
        code = process.wait()
        print(number, code)
        assert code in ((-signal.SIGKILL, 0) if number == signal.SIGKILL else (75, 0))
        if code == 0:
            break
        assert not (tmp_path / "training.zarr").exists()
    RUNS.finish(config, tmp_path, "train", posed)
    assert_same_training(tmp_path, trained)


@pytest.mark.slow
def test_two_processes_train_as_one(
    posed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2 through the stage, stopped once and started again."""
    config = write_dataset(tmp_path, TINY, {"train": {**SHORT["train"], "processes": 2}})
    stopped(monkeypatch, chance().randrange(1, 7))
    with pytest.raises(Checkpointed):
        RUNS.run(config, tmp_path, "train", posed)
    assert torch.distributed.is_initialized() is False
    RUNS.run(config, tmp_path, "train", posed)
    mine, theirs = losses(tmp_path), losses(trained)
    assert mine.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-4, atol=1e-7, err_msg=name)
    one, two = (open_store(folder / "training.zarr").table("loader") for folder in (trained, tmp_path))
    for name in ("views", "bytes_read", "bytes_used"):
        np.testing.assert_array_equal(one[name], two[name])
    assert torch.distributed.is_initialized() is False


@pytest.mark.slow
def test_what_another_process_runs_into_is_said(posed: Path, tmp_path: Path) -> None:
    shutil.copytree(posed / "raw.zarr", tmp_path / "raw.zarr", symlinks=False)
    shutil.copytree(posed / "calibration.zarr", tmp_path / "calibration.zarr")
    config = write_dataset(tmp_path, TINY, {"train": {**SHORT["train"], "processes": 2, "evidence_mb": 0}})
    for shard in (tmp_path / "raw.zarr" / "green" / "c").rglob("0"):
        if shard.is_file():
            shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot be read back|cut short|altered"):
        RUNS.run(config, tmp_path, "train")
    assert not (tmp_path / "training.zarr").exists()


def test_focus_alone_is_written_where_it_is_asked_for(posed: Path, tmp_path: Path) -> None:
    RUNS.run(write_dataset(tmp_path, TINY, {"train": {"method": "focus"}}), tmp_path, "train", posed)
    network, verdict = read_network(tmp_path / "network.pt", 9)
    assert network is None
    assert verdict == Verdict("focus", "No network was trained, focus alone is used: train.method is focus.")
    assert attributes(tmp_path)["use"] == "focus"
    assert losses(tmp_path)["step"].size == 0
    assert open_store(tmp_path / "training.zarr").provenance["warnings"] == []


def alone(rng: np.random.Generator, folder: Path, n_z: int, spread: float | None) -> None:
    """Raw store and calibration of one view, or of several that are too far apart."""
    scan = (1, 1) if spread is None else (2, 2)
    raw = raw_store(rng, folder, cameras=(1, 1), scan=scan, size=(64, 64), n_z=n_z)
    identity = InstrumentId((0,), (0,), scan, (64, 64))
    poses = raw.scene.poses
    if spread is not None:
        at = np.stack(np.indices(raw.scene.grid), axis=-1).reshape(-1, 2) * spread
        poses = type(poses)(**{**vars(poses), "translation": at.astype(float)})
    calibration = from_known_poses(select(poses, np.arange(poses.n_views)), identity)
    store = create_store(folder / "calibration.zarr")
    write_calibration(store, calibration, find_candidates(calibration.poses, calibration.mosaic_shape))
    finish(store, {})


@pytest.mark.parametrize(
    ("n_z", "spread", "words"),
    [(7, None, "there is one view"), (7, 80.0, "no two views overlap"), (4, 30.0, "stacks of 4 slices")],
)
def test_stacks_that_cannot_teach_are_said(
    n_z: int, spread: float | None, words: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    alone(rng, tmp_path, n_z, spread)
    RUNS.run(write_dataset(tmp_path, TINY), tmp_path, "train")
    attrs = attributes(tmp_path)
    assert attrs["use"] == "focus"
    assert words in attrs["why"]
    warnings = open_store(tmp_path / "training.zarr").provenance["warnings"]
    # one camera at one place is a microscope with a motorised focus: nothing is amiss with it
    assert [words in w for w in warnings] == ([] if spread is None else [True])


def test_published_training_goes_without_a_second_view(rng: np.random.Generator, tmp_path: Path) -> None:
    """Its sharpness terms need no other view; whether it is good cannot be judged then, and focus is used."""
    alone(rng, tmp_path, 7, None)
    short = {"train": {"mode": "parity", "steps": 2, "patch_px": 32, "levels": 2}}
    RUNS.run(write_dataset(tmp_path, TINY, short), tmp_path, "train")
    assert attributes(tmp_path)["use"] == "focus"
    assert "nowhere do two views" in attributes(tmp_path)["why"]
    assert read_network(tmp_path / "network.pt", 7)[0] is not None


def test_published_network_through_the_stage(posed: Path, tmp_path: Path) -> None:
    short = {"train": {"mode": "parity", "steps": 2, "patch_px": 48}}
    RUNS.run(write_dataset(tmp_path, TINY, short), tmp_path, "train", posed)
    state = torch.load(tmp_path / "network.pt", weights_only=True)
    assert network_of(state, 9).architecture.filters == (32, 32, 32)
    assert "optimiser" not in state
    # it has not left mid-stack after two steps
    assert attributes(tmp_path)["use"] == "focus"
    assert {"sharp", "arg", "height"} <= losses(tmp_path).keys()


def test_settings_follow_from_sizes() -> None:
    dataset = load_dataset_of({})
    sizes = {
        "XS": (Shapes((192, 192), 9, 32, (280, 440)), 96, 300),
        "S": (Shapes((384, 384), 17, 64, (1600, 1600)), 192, 556),
        "XL": (Shapes((3072, 3072), 65, 192, (67000, 99000)), 576, 2000),
        "chunk wider than the view": (Shapes((101, 140), 9, 192, (101, 140)), 100, 300),
    }
    for name, (shapes, patch, steps) in sizes.items():
        course = plan.course_of(dataset.train, shapes, 0)
        assert (course.loading.patch, course.schedule.steps) == (patch, steps), name
    parity = load_dataset_of({"train": {"mode": "parity"}}).train
    course = plan.course_of(parity, sizes["XL"][0], 0)
    assert course.architecture.filters == (32, 32, 32, 64, 64, 64)
    assert (course.schedule.steps, course.schedule.lr, course.objective.sharp) == (100_001, 1e-4, 5000)
    assert [plan.processes_of(dataset.train, n) for n in (0, 1, 2, 3, 8)] == [1, 1, 2, 2, 2]


def load_dataset_of(changes: dict[str, Any]) -> TopographyDataset:
    from gigascope.config.dataset import merge, parse_dataset

    found = parse_dataset(merge(TINY, changes))
    assert isinstance(found, TopographyDataset)
    return found


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"method": "focus", "steps": 10}, "steps has no effect on method focus"),
        ({"mode": "parity", "weights": {"agreement": 1.0}}, "agreement needs the focus"),
        ({"thresholds": [1.5, 2.0]}, "thresholds have no effect"),
        ({"positions": 3, "processes": 2}, "positions 3 cannot be shared equally by 2 processes"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(section: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        load_dataset(write_dataset(tmp_path, TINY, {"train": section}))


def test_patch_larger_than_the_views_is_refused(posed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="patch of 200 pixels does not fit"):
        RUNS.run(write_dataset(tmp_path, TINY, {"train": {"steps": 2, "patch_px": 200}}), tmp_path, "train", posed)


def test_the_better_one_is_used_and_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    assert Verdict.of(Trial(0.1, 0.2, 100)).use == "network"
    for trial in (Trial(0.2, 0.1, 100), Trial(0.1, 0.1, 100), Trial(0.0, 0.0, 0)):
        assert Verdict.of(trial).use == "focus"
    path = tmp_path / "network.pt"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="is no network of a training"):
        read_network(path, 9)


def test_held_out_cells_are_a_share_of_the_mosaic_and_follow_from_the_seed(rng: np.random.Generator) -> None:
    mosaic = (3200, 3200)
    held, again, other = HeldOut(mosaic, 7), HeldOut(mosaic, 7), HeldOut(mosaic, 8)
    assert torch.equal(held.cells, again.cells)
    assert not torch.equal(held.cells, other.cells)
    assert float(held.cells.float().mean()) == pytest.approx(HELD_SHARE, abs=0.02)
    point = rng.uniform(100, 3000, (3, 2))
    coords = torch.from_numpy(rng.uniform(-60, 60, (3, 2, 5, 6)).astype(np.float32))
    at = ((coords.numpy() + point[:, :, None, None].astype(np.float32)) // 32).astype(int)
    np.testing.assert_array_equal(held.mask(coords, point).numpy(), held.cells.numpy()[at[:, 0], at[:, 1]])


def test_losses_of_terms_that_come_in_later_begin_with_nothing() -> None:
    columns = loss_columns([{"step": 0, "rate": 1.0, "loss": 2.0}, {"step": 1, "rate": 1.0, "loss": 3.0, "photo": 0.5}])
    assert list(columns) == ["step", "rate", "gradient", "loss", "photo"]
    assert columns["photo"].tolist() == [0.0, 0.5]


def test_calibration_of_other_views_is_refused(posed: Path, rng: np.random.Generator, tmp_path: Path) -> None:
    raw_store(rng, tmp_path, cameras=(1, 1))
    (tmp_path / "calibration.zarr").symlink_to(posed / "calibration.zarr")
    read_calibration(open_store(posed / "calibration.zarr"))
    with pytest.raises(UserError, match="the calibration is of"):
        RUNS.run(write_dataset(tmp_path, TINY, SHORT), tmp_path, "train")


def test_same_bits_in_two_runs(posed: Path, trained: Path, tmp_path: Path) -> None:
    RUNS.run(write_dataset(tmp_path, TINY, SHORT), tmp_path, "train", posed)
    assert_same_training(tmp_path, trained)
    # the file too
    assert (tmp_path / "network.pt").read_bytes() == (trained / "network.pt").read_bytes()
