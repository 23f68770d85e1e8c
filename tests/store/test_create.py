"""An unfinished store: what is written is what is read, whole or in parts, and a bad disk is explained."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr

from gigascope.errors import ShapeError, UserError
from gigascope.store.checksum import missing_shards
from gigascope.store.commit import finish
from gigascope.store.create import create_image, create_store, open_writer
from gigascope.store.open import open_store
from gigascope.store.plan import ShardPlan

PLAN = ShardPlan((9, 40, 50), 4, (4, 16, 16), (8, 32, 32))


def test_image_written_by_shards_reads_back(tmp_path, rng):
    data = rng.standard_normal((9, 40, 50), dtype=np.float32)
    writer = create_image(tmp_path / "a.zarr", shape=data.shape, dtype=data.dtype, axes=("z", "y", "x"), plan=PLAN)
    assert writer.nbytes == data.nbytes
    for region in writer.shard_regions():
        writer[region] = data[region]
    np.testing.assert_array_equal(writer[:], data)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr" / "0", mode="r")[2:5], data[2:5])


def test_order_and_number_of_writers_do_not_matter(tmp_path, rng):
    data = rng.standard_normal((9, 40, 50), dtype=np.float32)
    digests = set()
    for n_parts in (1, 3, 5):
        path = tmp_path / f"{n_parts}" / "a.zarr"
        regions = list(create_image(path, shape=data.shape, dtype=data.dtype, plan=PLAN).shard_regions())
        rng.shuffle(regions)
        for part in range(n_parts):
            writer = open_writer(path)
            for region in regions[part::n_parts]:
                writer[region] = data[region]
        digests.add(finish(path, {}))
    assert len(digests) == 1


def test_shards_of_zeros_are_files_too(tmp_path):
    writer = create_image(tmp_path / "a.zarr", shape=(9, 40, 50), dtype=np.float32, plan=PLAN)
    assert len(missing_shards(writer.path, writer.array)) == PLAN.n_shards
    for region in writer.shard_regions():
        writer[region] = np.zeros([r.stop - r.start for r in region], np.float32)
    assert missing_shards(writer.path, writer.array) == []
    finish(writer, {})
    assert open_store(writer.path).statistics == {"min": 0.0, "max": 0.0, "mean": 0.0, "not_finite": 0}


def test_earlier_attempt_is_replaced_and_foreign_folder_is_kept(tmp_path):
    path = tmp_path / "a.zarr"
    create_image(path, shape=(9, 40, 50), dtype=np.float32, plan=PLAN)[0:8] = np.ones((8, 40, 50), np.float32)
    assert create_image(path, shape=(9, 40, 50), dtype=np.float32, plan=PLAN)[:].max() == 0
    foreign = tmp_path / "b.zarr"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="in the way"):
        create_image(foreign, shape=(9, 40, 50), dtype=np.float32)
    assert (foreign / "thesis.tex").exists()


def test_values_that_would_be_cut_are_refused(tmp_path):
    writer = create_image(tmp_path / "a.zarr", shape=(4, 5), dtype=np.int16, axes=("y", "x"))
    with pytest.raises(ShapeError, match="holds int16, got float32"):
        writer[:] = np.full((4, 5), 0.5, np.float32)
    writer[:] = np.ones((4, 5), np.int8)
    with pytest.raises(ShapeError, match="integer dtype"):
        writer.create_label("mask", np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": ("y", "x")}, "do not name the axes"),
        ({"axes": ("x", "y", "x")}, "do not name the axes"),
        ({"dtype": np.complex64}, "real numbers"),
        ({"spacing": {"z": 1.0}}, "spacing given for z"),
        ({"spacing": {"y": -1.0}}, "positive length, got -1.0"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(ShapeError, match=message):
        create_image(tmp_path / "a.zarr", **{"shape": (3, 4, 5), "dtype": np.float32, **change})
    assert not (tmp_path / "a.zarr").exists()


def test_store_without_an_image_keeps_tables_and_arrays(tmp_path):
    writer = create_store(tmp_path / "poses.zarr")
    writer.create_array("poses", (4, 3), np.float64)[:] = np.arange(12.0).reshape(4, 3)
    writer.write_table("cameras", {"name": ["a", "b"], "focus": [1.0, 2.0]}, {"focus": "micrometer"})
    finish(writer, {})
    store = open_store(writer.path)
    assert (store.has_image, store.sides, store.tables) == (False, ["poses"], ["cameras"])
    assert store.side("poses")[3, 2] == 11
    assert store.units("cameras") == {"focus": "micrometer"}
    with pytest.raises(UserError, match="no image"):
        store.array()


def test_open_writer_refuses_what_is_no_unfinished_store(tmp_path, finished_store):
    with pytest.raises(UserError, match="no unfinished store"):
        open_writer(tmp_path / "nothing.zarr")
    with pytest.raises(UserError, match="it is finished"):
        open_writer(finished_store(tmp_path / "a.zarr"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"no space is left on the disk \(.* free, 70.3 KiB needed before compression\)"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_error_of_the_disk_while_writing_is_explained(tmp_path, monkeypatch, code, message):
    writer = create_image(tmp_path / "a.zarr", shape=(9, 40, 50), dtype=np.float32, plan=PLAN)

    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("zarr.storage._local._put", fail)
    with pytest.raises(UserError, match=message):
        writer[:] = np.ones((9, 40, 50), np.float32)


FULL_DISK = """
    import subprocess, sys
    from pathlib import Path
    import numpy as np
    from gigascope.errors import UserError
    from gigascope.store.create import create_image
    disk = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
    image = dict(shape=(8, 256, 256), dtype=np.float32)
    try:
        create_image(disk / "a.zarr", **image)[:] = np.random.default_rng(0).random((8, 256, 256), np.float32)
    except UserError as error:
        print("full:", error, [p.name for p in disk.rglob("*.partial")])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        create_image(disk / "b.zarr", **image)
    except UserError as error:
        print("read-only:", error)
"""


def test_real_full_and_read_only_disk_are_explained(tmp_path):
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", textwrap.dedent(FULL_DISK)]
    try:
        done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=300)
    except FileNotFoundError:
        pytest.skip("no unshare(1) here; util-linux brings it")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no private file systems here, user namespaces are needed: {done.stderr.strip()[-200:]}")
    full, read_only = done.stdout.splitlines()
    assert "no space is left on the disk" in full
    assert "2.0 MiB needed before compression" in full
    assert full.endswith("[]"), "a partial file was left"
    assert "the file system is read-only" in read_only
    assert str(tmp_path) in read_only
