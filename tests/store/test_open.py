"""Only finished stores open, and what is refused says why and what to do."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from gigascope.errors import UserError
from gigascope.store.commit import finish
from gigascope.store.open import is_complete, open_store


def test_finished_store_gives_back_all_that_was_written(tmp_path, write_store, store_views):
    digest = finish(write_store(tmp_path / "a.zarr", seed=3), {"stage": "tomography.ingest", "seed": np.int64(7)})
    for path in (tmp_path / "a.zarr", str(tmp_path / "a.zarr" / "zarr.json")):
        store = open_store(path)
        assert store.path == tmp_path / "a.zarr"
        assert store.digest == digest
    assert (store.axes, store.shape, store.dtype) == (("tilt", "y", "x"), (3, 70, 90), np.float32)
    assert (store.spacing, store.unit, store.name, store.n_levels) == ({"y": 1.5, "x": 1.5}, "nanometer", "a", 2)
    np.testing.assert_array_equal(store.array()[:], store_views(3))
    np.testing.assert_array_equal(store.label("mask")[:], store_views(3) > 0)
    np.testing.assert_array_equal(store.side("history")[:], np.full((7, 2), 3.0))
    assert store.table("shifts")["name"].tolist() == ["a", "b", "c"]
    assert store.units("shifts") == {"f_s": "pixel"}
    assert store.attrs == {"tilt_deg": [-1.5, 0.0, 1.5]}
    assert store.provenance == {"stage": "tomography.ingest", "seed": 7}
    assert store.statistics["mean"] == pytest.approx(store_views(3).mean(dtype=np.float64), rel=1e-12)
    assert is_complete(store.path)


def test_lost_column_of_a_table_is_refused(tmp_path, finished_store):
    store = open_store(finished_store(tmp_path / "a.zarr"))
    (lost,) = (store.path / "tables" / "shifts" / "f_s").glob("c/*")
    lost.unlink()
    with pytest.raises(UserError, match=r"1 shards .* missing, the first is tables/shifts/f_s/c/0"):
        store.table("shifts")
    assert store.units("shifts") == {"f_s": "pixel"}


def test_names_that_are_not_there_are_refused_with_those_that_are(tmp_path, finished_store):
    store = open_store(finished_store(tmp_path / "a.zarr"))
    with pytest.raises(UserError, match="has no angles; its tables: shifts"):
        store.table("angles")
    with pytest.raises(UserError, match="side arrays: arrays/history"):
        store.side("mask")
    with pytest.raises(UserError, match="has no 2; its levels: 0, 1"):
        store.array(2)
    with pytest.raises(UserError, match="label images: labels/mask/0, labels/mask/1"):
        store.label("mask", 5)


def change_record(path, **values):
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["gigascope"].update(values)
    (path / "zarr.json").write_text(json.dumps(root))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "zarr.json").unlink(), "unfinished or no Zarr store"),
        (lambda path: (path / "zarr.json").write_text('{"zarr_f'), "zarr.json is damaged"),
        (lambda path: (path / "zarr.json").write_text("[]"), "zarr.json is damaged"),
        (lambda path: (path / "zarr.json").write_text((path / "0" / "zarr.json").read_text()), "v3 array, a v3 group"),
        (lambda path: change_record(path, complete=False), "is unfinished"),
        (lambda path: change_record(path, digest=None), "is unfinished"),
        (lambda path: change_record(path, version=99), "version 99, this release reads version 1"),
        (lambda path: zarr.open_group(path).attrs.put({}), "not one of gigascope"),
    ],
)
def test_damaged_and_foreign_stores_are_refused(tmp_path, finished_store, damage, message):
    path = finished_store(tmp_path / "a.zarr")
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        open_store(path)
    assert str(path) in str(caught.value)
    assert caught.value.do
    assert not is_complete(path)


def test_missing_unfinished_and_plain_files_are_refused(tmp_path, write_store):
    with pytest.raises(UserError, match="there is no such store"):
        open_store(tmp_path / "nothing.zarr")
    with pytest.raises(UserError, match="there is no such store"):
        open_store(tmp_path / "nothing.zarr" / "zarr.json")
    with pytest.raises(UserError, match="is unfinished"):
        open_store(write_store(tmp_path / "a.zarr").path)
    (tmp_path / "cell.st").write_bytes(b"x")
    with pytest.raises(UserError, match="it is a file"):
        open_store(tmp_path / "cell.st")


def test_opening_a_record_imports_neither_zarr_nor_dask(tmp_path, finished_store):
    path = finished_store(tmp_path / "a.zarr")
    code = (
        "import sys; from gigascope.store.open import open_store; from gigascope.store.create import shard_plan;"
        "print(open_store(sys.argv[1]).digest, [m for m in ('zarr', 'dask', 'ome_zarr', 'torch') if m in sys.modules])"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    print(f"{time.perf_counter() - begun:.2f} s")
    assert done.stdout.split(maxsplit=1)[1].strip() == "[]", done.stderr
