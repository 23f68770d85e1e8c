"""A tomogram slab by slab in rounds is the tomogram done whole, bit for bit, however it is cut, stopped and killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gigascope.check import needs, read_header
from gigascope.config.dataset import load_dataset
from gigascope.errors import Checkpointed
from gigascope.runtime import checkpoint
from gigascope.runtime.records import Unusable
from gigascope.runtime.run import Job
from gigascope.store.open import open_store
from gigascope.store.table import read_tsv
from gigascope.tomography import slabs as cutting
from gigascope.tomography.layout import joint_bytes
from gigascope.tomography.levels import upsample_volume
from gigascope.tomography.plan import SeriesHeader, layout
from gigascope.tomography.primal_dual import PrimalDual
from gigascope.tomography.slab_rounds import SlabRounds

from ..peak import peak_of
from ..stage_runs import StageRuns, chance, lines_in, write_dataset

RUNS = StageRuns(
    "tomography",
    {
        "shifts": "shifts.tsv",
        "history": "history.tsv",
        "xf": "shifts.xf",
        "tlt": "shifts.tlt",
        "aln": "shifts.aln",
        "metrics": "metrics.json",
    },
)
# 48 slices in bands of 3: a slab of 18 makes three, one of 6 makes eight; rounds of 3, 3 and 1 iterations
VALUES: dict[str, Any] = {
    "pipeline": "tomography",
    "name": "slabs",
    "seed": 7,
    "inputs": {"phantom": {"kind": "section", "n_tilts": 11, "size_px": 48, "snr": 4, "shift_sigma_px": 1}},
    "ingest": {"extent": "section"},
    "reconstruct": {
        "thickness_nm": 16,
        "iterations": 7,
        "round": 3,
        "tol": 0,
        "align": {"bins": [2], "outer": 2, "groups": 2},
    },
    "halves": {"bin": 1, "round": 3, "iterations": 6},
}
SLABS = {3: 18, 8: 6}


@pytest.fixture(scope="module", autouse=True)
def sigterm() -> Iterator[None]:
    previous = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, previous)


def config_of(folder: Path, **sections: Any) -> Path:
    return write_dataset(folder, VALUES, sections)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain up to the half tomograms with a single slab."""
    folder = tmp_path_factory.mktemp("whole")
    config = config_of(folder)
    for stage in ("ingest", "prealign", "reconstruct", "halves"):
        RUNS.run(config, folder, stage)
    return folder


def array(folder: Path, store: str) -> np.ndarray:
    return np.asarray(open_store(folder / f"{store}.zarr").array()[:])


def assert_same_tomogram(folder: Path, whole: Path) -> None:
    for store in ("tomogram", "aligned"):
        np.testing.assert_array_equal(array(folder, store), array(whole, store), err_msg=store)
    mine, theirs = read_tsv(folder / "history.tsv")[0], read_tsv(whole / "history.tsv")[0]
    np.testing.assert_equal({k: list(v) for k, v in mine.items()}, {k: list(v) for k, v in theirs.items()})


@pytest.mark.parametrize(("n", "parts"), [(3, 1), (3, 3), (8, 3)])
def test_any_number_of_slabs_and_of_parts_gives_the_same_tomogram(
    whole: Path, tmp_path: Path, n: int, parts: int
) -> None:
    config = config_of(tmp_path, reconstruct={"slab": SLABS[n], "parts": parts})
    if parts == 1:
        RUNS.run(config, tmp_path, "reconstruct", whole)
    else:
        RUNS.run_in_parts(config, tmp_path, "reconstruct", whole, parts)
    assert open_store(tmp_path / "tomogram.zarr").provenance["scatter"]["items"] == [n, n, n, 1]
    assert_same_tomogram(tmp_path, whole)


def test_any_number_of_slabs_gives_the_same_half_tomograms(whole: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, halves={"slab": SLABS[3], "parts": 2})
    RUNS.run_in_parts(config, tmp_path, "halves", whole, 2)
    assert open_store(tmp_path / "halves.zarr").provenance["scatter"]["items"] == [6, 6, 2]
    np.testing.assert_array_equal(array(tmp_path, "halves"), array(whole, "halves"))


@pytest.mark.parametrize("method", ["tv", "wbp"])
def test_slabs_end_where_the_whole_ends(whole: Path, tmp_path: Path, method: str) -> None:
    """A tolerance that is met after the second round: the third has nothing to do, and the result is still there."""
    sections = {"tol": 0.5, "iterations": 15, "method": method, "align": {"enabled": False}}
    one = config_of(tmp_path / "one", reconstruct=sections)
    RUNS.run(one, tmp_path / "one", "reconstruct", whole)
    cut = config_of(tmp_path / "cut", reconstruct={**sections, "slab": SLABS[3]})
    RUNS.run(cut, tmp_path / "cut", "reconstruct", whole)
    n_looks = len(read_tsv(tmp_path / "one" / "history.tsv")[0]["update"])
    assert n_looks == (0 if method == "wbp" else 2)
    assert_same_tomogram(tmp_path / "cut", tmp_path / "one")


def test_no_more_than_two_states_are_on_disk(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    advance = SlabRounds._advance

    def watched(self: SlabRounds, *arguments: Any) -> None:
        advance(self, *arguments)
        arrays = next(tmp_path.rglob("shared.zarr")) / "arrays"
        seen.append({path.parent.name for path in arrays.glob("*/c") if "state" in path.parent.name})

    monkeypatch.setattr(SlabRounds, "_advance", watched)
    config = config_of(tmp_path, reconstruct={"slab": SLABS[3], "iterations": 12})
    RUNS.run(config, tmp_path, "reconstruct", whole)
    assert {"tomogram-state-1", "tomogram-state-2"} in seen
    assert max(map(len, seen)) == 2


def test_stopped_between_slabs_and_within_rounds_it_goes_on_to_the_same(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments, stops = chance(), 0
    monkeypatch.setattr(checkpoint.Checkpoints, "out_of_time", property(lambda self: moments.random() < 0.25))
    config = config_of(tmp_path, reconstruct={"slab": SLABS[3]})
    for _ in range(200):
        try:
            RUNS.run(config, tmp_path, "reconstruct", whole)
            break
        except Checkpointed:
            stops += 1
    assert stops
    assert_same_tomogram(tmp_path, whole)


def test_killed_between_two_slabs_it_goes_on_to_the_same(whole: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, reconstruct={"slab": SLABS[8]})
    process = RUNS.start(config, tmp_path, "reconstruct", whole)
    enough = chance().randint(1, 20)
    assert process.wait_until(lambda: lines_in(tmp_path / "scratch", "items.jsonl") >= enough)
    process.kill()
    assert "going on" in RUNS.finish(config, tmp_path, "reconstruct", whole)
    assert_same_tomogram(tmp_path, whole)


def test_a_state_that_is_lost_when_its_source_is_gone_makes_the_stage_begin_anew(whole: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, reconstruct={"slab": SLABS[3], "parts": 2})
    records = tmp_path / "records"

    def run(job: Job) -> None:
        RUNS.run(config, tmp_path, "reconstruct", whole, job)

    run(Job("open", records))
    for round_, part in ((0, 0), (0, 1), (1, 0), (1, 1)):
        run(Job("part", records, round_, part))
    # the last band of slab 0, which part 0 has; part 1 with slab 1 needs it too
    next(tmp_path.rglob("tomogram-state-1/c/0/0/0/5")).unlink()
    with pytest.raises(Unusable, match="is missing"):
        run(Job("part", records, 2, 1))
    # which has the one that wrote it done again; but that one has nothing left to start from
    assert not (records / "round-1.part-0.json").is_file()
    with pytest.raises(Unusable, match="was released since"):
        run(Job("part", records, 1, 0))
    assert not (records / "open.json").is_file()
    RUNS.run_in_parts(config, tmp_path, "reconstruct", whole, 2)
    assert_same_tomogram(tmp_path, whole)


# the arithmetic


@pytest.mark.parametrize("seed", range(5))
def test_slabs_are_whole_bands_that_cover_everything_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, step, size = int(rng.integers(1, 400)), int(rng.integers(1, 20)), int(rng.integers(1, 400))
    sizes = _layout(n)
    found = cutting.cut(sizes, 1, 10, round=step, slab=size, parts=1, gib=1.0)
    rows = [found.rows(k) for k in range(len(found))]
    assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])]
    assert rows[-1].stop == n
    assert all(r.start % step == 0 for r in rows)
    assert max(r.stop - r.start for r in rows) < size + step
    for k, r in enumerate(rows):
        window = found.window(k)
        assert window.start == max(0, r.start - step)
        assert window.stop == min(n, r.stop + step + 1)


def test_slabs_fit_into_the_memory_that_is_given() -> None:
    sizes = _layout(4096, n_z=512, width=9080, n_s=4096)
    for gib in (8.0, 16.0, 64.0):
        found = cutting.cut(sizes, 1, 120, round=10, slab=None, parts=1, gib=gib)
        window = max(found.window(k).stop - found.window(k).start for k in range(len(found)))
        assert 0.7 * gib < window * cutting.row_bytes(sizes, 1, 120) / 2**30 <= gib
    assert len(cutting.cut(_layout(128), 1, 61, round=10, slab=None, parts=1, gib=32.0)) == 1
    assert len(cutting.cut(_layout(128), 1, 61, round=10, slab=None, parts=4, gib=32.0)) == 4


def _layout(n_y: int, *, n_z: int = 16, width: int = 64, n_s: int = 48) -> Any:
    from gigascope.tomography.layout import Layout

    return Layout((n_s, n_y), n_z, width, (2,), 2, 1.0, "section", 1.0, False)


def test_band_objectives_add_up_and_do_not_depend_on_what_lies_around() -> None:
    rng = np.random.default_rng(chance().randrange(2**32))
    views = torch.from_numpy(rng.normal(size=(7, 20, 23)).astype(np.float32))
    angles = torch.linspace(-1, 1, 7, dtype=torch.float64)

    def problem(rows: slice) -> PrimalDual:
        made = PrimalDual(angles, [7], (8, 24, rows.stop - rows.start), 20, lam=0.3, constants=False)
        made.set_data(views[:, :, rows].contiguous(), torch.ones_like(views[:, :, rows]))
        return made

    all_ = problem(slice(0, 23))
    all_.iterate(4)
    found = all_.band_objectives([slice(a, min(a + 5, 23)) for a in range(0, 23, 5)])
    assert found.sum() == pytest.approx(float(all_.objective()), rel=1e-12)
    part = problem(slice(3, 17))
    part.u.copy_(all_.u[..., 3:17])
    np.testing.assert_array_equal(part.band_objectives([slice(2, 7), slice(7, 12)]), found[1:3])


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_rows_of_the_start_are_those_of_the_whole_start(factor: int) -> None:
    coarse = torch.randn(3, 4, 24)
    fine = upsample_volume(coarse, factor)
    for rows in (slice(0, 7), slice(5, 19), slice(16, 24 * factor)):
        read, place = cutting.coarse_rows(rows, factor, 24)
        assert torch.equal(upsample_volume(coarse[:, :, read].contiguous(), factor)[:, :, place], fine[:, :, rows])


# what it takes


def large_series(folder: Path, **reconstruct: Any) -> dict[str, Any]:
    """Needs of 120 views of 4096 x 4096 pixels with 512 planes, by stage and job."""
    values = {**VALUES, "ingest": {}, "halves": {"parts": 4}}
    values["reconstruct"] = {"thickness_nm": 512, "parts": 8, **reconstruct}
    dataset = load_dataset(write_dataset(folder, values))
    tilt = tuple(np.linspace(-60, 60, 120))
    found = needs(dataset, SeriesHeader((120, 4096, 4096), 2, 1.0, tilt, 0.0))
    return {f"{need.stage} {need.job}".strip(): need for need in found}


def test_a_large_series_is_planned_in_parts_that_fit(tmp_path: Path) -> None:
    found = large_series(tmp_path)
    part = found["tomography.reconstruct part"]
    assert part.jobs == 8 * cutting.reconstruct_rounds(load_dataset(tmp_path / "data.yaml").reconstruct)
    assert all(need.each.memory < 34 * 2**30 for need in found.values())
    whole = large_series(tmp_path / "whole", parts=1, memory_gib=4096)["tomography.reconstruct"]
    # 24 bytes for each of 512 x 9080 x 4096 voxels
    assert whole.each.memory > 400 * 2**30
    # state before and after a round, tomogram, views: under a terabyte of what 10 rounds write
    disk = sum(need.jobs * need.each.disk for name, need in found.items() if "reconstruct" in name)
    assert 0.8e12 < disk < 1.1e12


@pytest.mark.parametrize(
    ("gib", "groups", "bins"), [(64, 4, (32, 16, 8, 4)), (25, 2, (32, 16, 8, 4)), (16, 4, (32, 16, 8)), (0.1, 2, (32,))]
)
def test_alignment_takes_fewer_groups_or_levels_where_memory_is_short(
    tmp_path: Path, gib: float, groups: int, bins: tuple[int, ...]
) -> None:
    values = {**VALUES, "reconstruct": {"thickness_nm": 512, "memory_gib": gib}}
    dataset = load_dataset(write_dataset(tmp_path, values))
    header = SeriesHeader((120, 4096, 4096), 2, 1.0, tuple(np.linspace(-60, 60, 120)), 0.0)
    sizes = layout(dataset, header)
    assert (sizes.groups, sizes.bins, sizes.reduced) == (groups, bins, gib < 64)
    if gib > 1:
        assert joint_bytes(sizes, 120) < gib * 2**30


@pytest.mark.slow
def test_a_slab_takes_what_check_says_and_the_whole_is_never_held(tmp_path: Path) -> None:
    """96 x 512 x 512 voxels: 100 MB for each of the six volumes of a reconstruction that is done whole."""
    values = {
        **VALUES,
        "inputs": {"phantom": {"kind": "section", "n_tilts": 7, "size_px": 512, "snr": 4, "shift_sigma_px": 1}},
        "ingest": {"extent": "crop"},
        "prealign": {"width": 128, "passes": 1},
        "reconstruct": {"thickness_nm": 96, "iterations": 4, "round": 4, "align": {"enabled": False}},
    }
    config = write_dataset(tmp_path, values)
    for stage in ("ingest", "prealign"):
        RUNS.finish(config, tmp_path, stage)
    peaks = {}
    for slab in (512, 64):
        config = write_dataset(tmp_path / str(slab), values, {"reconstruct": {"slab": slab}})
        dataset = load_dataset(config)
        (said,) = [n.each.memory for n in needs(dataset, read_header(dataset)) if n.stage == "tomography.reconstruct"]
        peaks[slab] = peak_of(RUNS.arguments(config, tmp_path / str(slab), "reconstruct", tmp_path))
        print(f"slabs of {slab}: {peaks[slab] / 2**20:.0f} MiB, said {said / 2**20:.0f}")
        assert 0.8 * said < peaks[slab] < 1.2 * said
    # what is left beside the slab are shards on their way into the store
    assert peaks[64] < peaks[512] - 200 * 2**20
