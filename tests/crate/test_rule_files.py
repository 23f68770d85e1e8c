"""What the rules say of the files of every stage, read without Snakemake."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigascope.crate.rule_files import rule_files
from gigascope.errors import UserError
from gigascope.registry import get_stage, stages
from gigascope.stage import Kind, Stage

STAGES = stages()


@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_every_input_and_output_has_a_file(stage: Stage, repository: Path) -> None:
    found = rule_files(stage, repository)
    assert set(found.outputs) == set(stage.outputs)
    # the calibration that a config may name lies elsewhere
    assert set(found.inputs) | {"known"} == {*stage.inputs, *stage.optional_inputs, "known"}
    for names, kinds in ((found.outputs, stage.outputs), (found.inputs, {**stage.inputs, **stage.optional_inputs})):
        for name, file in names.items():
            assert file.endswith(".zarr") == (kinds[name] is Kind.STORE)
            assert file.endswith(kinds[name].value)


@pytest.mark.parametrize("pipeline", ["tomography", "compression", "topography", "synthesis"])
def test_inputs_are_files_that_stages_before_made(pipeline: str, repository: Path) -> None:
    made: set[str] = set()
    for stage in stages(pipeline):
        found = rule_files(stage, repository)
        assert set(found.inputs.values()) <= made, stage.name
        assert not set(found.outputs.values()) & made, stage.name
        made |= set(found.outputs.values())


def test_folder_without_rules_and_rule_without_output_are_named(repository: Path, tmp_path: Path) -> None:
    stage = get_stage("tomography.prealign")
    with pytest.raises(UserError, match=r"tomography.smk: cannot be read"):
        rule_files(stage, tmp_path)
    rules = tmp_path / "workflow" / "rules" / "tomography.smk"
    rules.parent.mkdir(parents=True)
    text = (repository / "workflow" / "rules" / "tomography.smk").read_text()
    rules.write_text(text.replace("xf=result(", "yf=result("))
    with pytest.raises(UserError, match="names no output xf"):
        rule_files(stage, tmp_path)
    rules.write_text("rule other:\n    shell:\n        'true'\n")
    with pytest.raises(UserError, match=r"has no rule for tomography\.prealign"):
        rule_files(stage, tmp_path)
