"""Tables come back as they were, from a store and from TSV."""

from __future__ import annotations

import errno
import os
import warnings

import numpy as np
import pyarrow.parquet
import pytest
import zarr

from gigascope.errors import ShapeError, UserError
from gigascope.store.table import read_table, read_tsv, write_parquet, write_table, write_tsv


@pytest.fixture
def columns(rng):
    return {
        "view": np.arange(5),
        "f_s": rng.standard_normal(5) * 10.0 ** rng.integers(-300, 300, 5),
        "weight": rng.standard_normal(5).astype(np.float32),
        "dark": np.array([True, False, False, True, True]),
        "name": ["a b", "", "1.5", 'quo"ted', "Ångström\tnm"],
    }


def assert_tables_equal(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        values = np.asarray(values)
        np.testing.assert_array_equal(found[name].astype(values.dtype), values, err_msg=name)


def test_table_in_a_store_keeps_values_dtypes_and_units(tmp_path, columns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "a.zarr", mode="w")
        write_table(group, "shifts", columns, {"f_s": "pixel"})
        found = read_table(group["shifts"])
    assert_tables_equal(found, columns)
    assert [found[name].dtype.kind for name in found] == ["i", "f", "f", "b", "T"]
    assert found["weight"].dtype == np.float32
    assert group["shifts"].attrs["units"] == {"f_s": "pixel"}
    assert group["shifts"]["f_s"].metadata.fill_value == 0


def test_tsv_round_trip_is_exact(tmp_path, columns):
    write_tsv(tmp_path / "a.tsv", columns, {"f_s": "pixel", "weight": "1/nm^2"})
    found, units = read_tsv(tmp_path / "a.tsv")
    assert_tables_equal(found, columns)
    assert units == {"f_s": "pixel", "weight": "1/nm^2"}
    assert [found[name].dtype.kind for name in found] == ["i", "f", "f", "b", "T"]
    assert (
        (tmp_path / "a.tsv").read_text(encoding="utf-8").startswith("view\tf_s [pixel]\tweight [1/nm^2]\tdark\tname\n")
    )


def test_parquet_keeps_values_types_and_units(tmp_path, columns):
    write_parquet(tmp_path / "a.parquet", columns, {"f_s": "pixel"})
    found = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert [str(found.field(name).type) for name in columns] == ["int64", "double", "float", "bool", "string"]
    assert {name: found.field(name).metadata for name in columns if found.field(name).metadata} == {
        "f_s": {b"unit": b"pixel"}
    }
    assert_tables_equal({name: found[name].to_numpy() for name in found.column_names}, columns)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(
    "texts",
    [["1", "2"], ["nan", "inf"], ["true"], ["1", "x"], ["true", "x"], [""], ['"'], [" 7"], ["a\nb", "a\r"], ["1_000"]],
)
def test_texts_stay_texts(tmp_path, texts):
    write_tsv(tmp_path / "a.tsv", {"a": texts})
    found, _ = read_tsv(tmp_path / "a.tsv")
    assert found["a"].dtype.kind == "T"
    assert found["a"].tolist() == texts


def test_special_numbers_survive(tmp_path):
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308])
    write_tsv(tmp_path / "a.tsv", {"a": values, "b": np.array([2**63 - 1, -(2**63), 0, 1, 2, 3])})
    found, _ = read_tsv(tmp_path / "a.tsv")
    np.testing.assert_array_equal(found["a"].view(np.int64)[1:], values.view(np.int64)[1:])
    assert np.isnan(found["a"][0])
    assert found["b"][:2].tolist() == [2**63 - 1, -(2**63)]


def test_tables_without_rows(tmp_path):
    write_tsv(tmp_path / "a.tsv", {"a": np.zeros(0), "b": np.zeros(0)}, {"a": "nm"})
    found, units = read_tsv(tmp_path / "a.tsv")
    assert {name: values.size for name, values in found.items()} == {"a": 0, "b": 0}
    assert units == {"a": "nm"}
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    write_table(group, "t", {"a": np.zeros(0), "b": np.zeros(0, dtype="T")})
    assert read_table(group["t"])["a"].shape == (0,)


def test_tables_of_other_programs(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbfid\tangle [deg]\r\n1\t-60\r\nx2\t-57.5\r\n")
    found, units = read_tsv(tmp_path / "a.tsv")
    assert found["id"].tolist() == ["1", "x2"]
    assert found["angle"].tolist() == [-60.0, -57.5]
    assert units == {"angle": "deg"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a\tb\n1\t2\n3\n", "line 3: has 1 cells, the header names 2"),
        ("a\ta\n", "name each column once"),
    ],
)
def test_broken_tsv_is_explained(tmp_path, text, message):
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_tsv(tmp_path / "a.tsv")
    with pytest.raises(UserError, match="no such table"):
        read_tsv(tmp_path / "b.tsv")


@pytest.mark.parametrize(
    ("columns", "units", "message"),
    [
        ({"a": [1, 2], "b": [1]}, {}, "of one length"),
        ({"a": [[1, 2]]}, {}, "1-D"),
        ({"a": [object()]}, {}, "numbers, bools and strings"),
        ({"a": [1]}, {"b": "nm"}, "unit given for column b"),
        ({"a\tb": [1]}, {}, "cannot stand"),
    ],
)
def test_tables_that_cannot_be_kept_are_refused(tmp_path, columns, units, message):
    with pytest.raises(ShapeError, match=message):
        write_tsv(tmp_path / "a.tsv", columns, units)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_half_table(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="no space is left"):
        write_tsv(tmp_path / "a.tsv", {"a": [1]})
    assert list(tmp_path.iterdir()) == []
