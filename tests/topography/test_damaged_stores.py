"""Stores that were damaged after they were finished: every stage refuses its inputs by the name of the shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gigascope.errors import UserError

from ..damage import DAMAGES, Damage, damaged_copy
from ..stage_runs import chance
from .chain import RUNS

# Stage, the store that it reads, and one of its arrays.
READ = [("calibrate", "raw", "flat_green"), ("mosaic", "views", "index"), ("mesh", "mosaic", "0")]
READ += [("evaluate", "views", "aif")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(("stage", "store", "array"), READ, ids=[stage for stage, _, _ in READ])
def test_damaged_shard_is_refused_by_name(
    stage: str, store: str, array: str, damage: Damage, mosaicked: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shard = damaged_copy(mosaicked.folder, folder, store, array, damage, chance())
    with pytest.raises(UserError, match=str(shard)):
        RUNS.run(mosaicked.config, tmp_path, stage, folder)
    assert not [path for path in tmp_path.iterdir() if path.name not in ("damaged", "scratch")]
