"""A store of many images written by the items of a scattered stage: in any order, killed and again, the same."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from gigascope.runtime.opened import Opened, OpenedStore, output_name, restore, store_as_opened
from gigascope.runtime.parts import WorkPlan
from gigascope.runtime.records import Unusable
from gigascope.runtime.shared_work import History, ItemWork
from gigascope.store import commit
from gigascope.store.commit import finish
from gigascope.store.ensemble import EnsembleWriter, create_ensemble, ensemble_plan
from gigascope.store.open import is_complete, open_store

SHAPES = {"s0000": (20, 40, 30), "s0001": (9, 70, 33)}
ARRAYS = ("0", "labels/nuclei/0", "interim/expected")
STORE = output_name("cultures")


def content(name: str, array: str) -> np.ndarray:
    values = np.random.default_rng(len(array) + int(name[1:])).integers(0, 200, SHAPES[name])
    return values.astype({"0": np.uint16, "labels/nuclei/0": np.uint32, "interim/expected": np.float32}[array])


def create(folder: Path) -> EnsembleWriter:
    """What the open job makes: all arrays, a table, attributes."""
    ensemble = create_ensemble(folder / STORE)
    for name, shape in SHAPES.items():
        plan = {size: ensemble_plan(shape, f"u{size}", (8, 16, 16), (8, 32, 32)) for size in (2, 4)}
        image = ensemble.create_image(name, shape=shape, dtype=np.uint16, plan=plan[2])
        image.create_label("nuclei", np.uint32)
        image.create_array("expected", shape, np.float32, plan=plan[4])
        image.write_table("nuclei", {"label_id": np.arange(4)})
        image.attrs["seed"] = int(name[1:])
    ensemble.attrs["opened"] = True
    return ensemble


def complete(ensemble: EnsembleWriter) -> str:
    """What the gather does."""
    ensemble.image("s0001").attrs["rejected"] = False
    ensemble.image("s0001").describe_labels("nuclei", {"label-value": [1], "class": ["ghost"]})
    return finish(ensemble, {"stage": "synthesis.simulate"})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the store that is written by one process in one go."""
    ensemble = create(tmp_path_factory.mktemp("undisturbed"))
    for name in SHAPES:
        image = ensemble.image(name)
        for array in ARRAYS:
            image.group[array][:] = content(name, array)
    return complete(ensemble)


def opened(folder: Path) -> tuple[History, OpenedStore, list[tuple[str, int]]]:
    """The work folder after the open job, and the items: each a shard of an image, of all its arrays."""
    ensemble = create(folder)
    items = [(name, shard) for name in SHAPES for shard in range(ensemble.image(name).plan.n_shards)]
    store = store_as_opened(folder, STORE, ensemble.attrs)
    plan = Opened(WorkPlan([range(len(items))]), stores={STORE: store})
    return History(folder, plan, plan.write(folder)), store, items


def write_item(history: History, number: int, name: str, shard: int, arrays: tuple[str, ...] = ARRAYS) -> ItemWork:
    work = ItemWork(history, 0, number, f"saved-{number}.bin")
    for array in arrays:
        written = work.array("cultures", f"{name}/{array}")
        region = written.region(shard)
        written[region] = content(name, array)[region]
    return work


def test_items_in_any_order_and_half_written_ones_give_the_same_store(tmp_path: Path, undisturbed: str) -> None:
    """Z2: a part that was killed within an item, and one that left a torn shard, are done again."""
    history, store, items = opened(tmp_path)
    order = list(enumerate(items))
    random.Random(4).shuffle(order)
    (first, killed), *_ = order
    write_item(history, first, *killed, arrays=("0",))  # killed after the first of three arrays
    torn = next(path for path in (tmp_path / STORE / killed[0] / "0" / "c").rglob("*") if path.is_file())
    torn.write_bytes(torn.read_bytes()[:40])
    records = [write_item(history, number, *item).record([], 0.0) for number, item in order]
    history.add(records)
    assert sum(len(record.shards) for record in records) == len(ARRAYS) * len(items)
    ensemble = restore(tmp_path, STORE, store)
    assert isinstance(ensemble, EnsembleWriter)
    assert ensemble.attrs["opened"] is True
    assert complete(ensemble) == undisturbed


@pytest.mark.parametrize(("victim", "call"), [("_write_ome", 2), ("write_checksums", 1)])
def test_gather_killed_within_is_done_again(
    tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch, victim: str, call: int
) -> None:
    """Z2: killed when the first image is complete and the second is not, and when only the record is missing."""
    history, store, items = opened(tmp_path)
    for number, item in enumerate(items):
        write_item(history, number, *item)
    calls: list[int] = []
    original = getattr(commit, victim)

    def die(*arguments: object, **named: object) -> None:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        original(*arguments, **named)

    killed, again = (restore(tmp_path, STORE, store), lambda: restore(tmp_path, STORE, store))
    assert isinstance(killed, EnsembleWriter)
    with monkeypatch.context() as patch:
        patch.setattr(commit, victim, die)
        with pytest.raises(KeyboardInterrupt):
            complete(killed)
    assert not is_complete(tmp_path / STORE)
    assert complete(again()) == undisturbed  # type: ignore[arg-type]
    assert open_store(tmp_path / STORE).image("s0001").attrs == {"seed": 1, "rejected": False}


def test_an_item_may_not_write_the_shard_of_another(tmp_path: Path) -> None:
    history, _, items = opened(tmp_path)
    history.add([write_item(history, number, *item).record([], 0.0) for number, item in enumerate(items)])
    with pytest.raises(RuntimeError, match="written in an earlier round"):
        write_item(history, 0, *items[0])


def test_metadata_of_an_image_that_was_altered_are_refused(tmp_path: Path) -> None:
    history, _, items = opened(tmp_path)
    metadata = tmp_path / STORE / "s0000" / "0" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"fill_value": 0', '"fill_value": 1'))
    with pytest.raises(Unusable, match="removed or altered"):
        write_item(history, 0, *items[0])
