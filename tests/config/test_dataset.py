"""Dataset YAMLs: what is accepted, and what a wrong one is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigascope.config.dataset import TomographyDataset, dataset_schema, load_dataset, parse_dataset, schema_text
from gigascope.config.section import canonical_json, dump
from gigascope.config.template import dataset_yaml, key_table
from gigascope.errors import UserError

SMALL = {"pipeline": "tomography", "name": "x", "inputs": {"phantom": {}}}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_unknown_key_is_refused_with_file_line_and_nearest_key(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml",
        "pipeline: tomography\nname: a\ninputs:\n  phantom: {}\nprealign:\n  passes: 1\n  max_shift_mn: 3\n",
    )
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    assert str(caught.value) == f"{path}:7: prealign.max_shift_mn: unknown key. Did you mean max_shift_nm?"


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("ingest", "pixel_size_nm", -1.0, "greater than 0, found -1.0"),
        ("reconstruct", "lambda", -0.1, "greater than or equal to 0"),
        ("ingest", "extent", "slab", "'auto', 'section', 'object' or 'crop', found 'slab'"),
        ("reconstruct", "align", {"bins": [2, 4]}, "coarse to fine"),
        ("reconstruct", "align", {"bins": [3]}, "powers of two"),
        ("prealign", "high_pass", 0.3, "below low_pass"),
        ("ingest", "tilt_deg", [0, 95], "ingest.tilt_deg"),
    ],
)
def test_wrong_value_is_refused_with_key_and_expectation(section: str, key: str, value: object, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_dataset({**SMALL, section: {key: value}})
    assert words in str(caught.value)
    assert section in str(caught.value)


def test_both_or_no_source_is_refused() -> None:
    for inputs in ({}, {"phantom": {}, "tilt_series": "a.mrc"}):
        with pytest.raises(UserError, match="either tilt_series"):
            parse_dataset({**SMALL, "inputs": inputs})


def test_unknown_pipeline_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="tomography"):
        parse_dataset({**SMALL, "pipeline": "tomografy"})


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "pipeline: tomography\nname: [a\n")
    with pytest.raises(UserError, match=r"a\.yaml:\d+: not valid YAML"):
        load_dataset(path)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_dataset(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="holds no keys"):
        load_dataset(write(tmp_path / "empty.yaml", "# nothing\n"))


def test_section_of_which_all_keys_are_commented_out_means_the_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml",
        "pipeline: tomography\nname: x\ninputs:\n  phantom: {}\nprealign:\n  # passes: 1\nreconstruct:\n  align:\n",
    )
    assert load_dataset(path) == parse_dataset(SMALL)


def test_template_loads_as_the_values_it_was_made_from(tmp_path: Path) -> None:
    values = {**SMALL, "name": "cell-4_2", "ingest": {"tilt_axis_deg": 85.3}, "reconstruct": {"align": {"groups": 2}}}
    text = dataset_yaml(TomographyDataset, values, {"ingest.tilt_axis_deg": "from the header"})
    assert "tilt_axis_deg: 85.3  # from the header" in text
    assert load_dataset(write(tmp_path / "a.yaml", text)) == parse_dataset(values)


def test_template_shows_every_key_of_every_section() -> None:
    text = dataset_yaml(TomographyDataset, SMALL, {})
    for section in ("ingest", "prealign", "reconstruct", "halves", "evaluate", "report"):
        for key, _, _ in key_table(type(TomographyDataset.model_fields[section].default)):
            assert f"{key.split('.')[-1]}:" in text


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    one = parse_dataset({**SMALL, "reconstruct": {"lambda": 0.2, "iterations": 5}})
    two = parse_dataset({"reconstruct": {"iterations": 5, "lambda": 0.2}, **SMALL})
    assert canonical_json(dump(one)) == canonical_json(dump(two))


def test_checked_in_schema_is_the_models_schema(repository: Path) -> None:
    path = repository / "config" / "schema" / "dataset.json"
    assert path.read_text(encoding="utf-8") == schema_text(), f"run: gigascope schema --write {path}"


def test_schema_validates_a_dataset_and_refuses_an_unknown_key() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(dataset_schema())
    assert validator.is_valid(SMALL)
    assert not validator.is_valid({**SMALL, "prealing": {}})
