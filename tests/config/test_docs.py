"""The documentation's tables of keys are those of the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigascope.config.dataset import PIPELINES
from gigascope.config.template import keys_markdown


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_guide_lists_every_key_as_the_model_has_it(pipeline: str, repository: Path) -> None:
    text = (repository / "docs" / f"{pipeline}.md").read_text(encoding="utf-8")
    mark = f"<!-- keys: gigascope keys {pipeline} -->\n"
    assert text.split(mark)[1] == keys_markdown(PIPELINES[pipeline]), f"run: gigascope keys {pipeline}"
