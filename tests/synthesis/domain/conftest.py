"""Real images written to files, and the stages that read them, run by themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigascope.config.dataset import parse_dataset
from gigascope.runtime.context import Context
from gigascope.store.open import StoreReader, open_store


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., StoreReader]:
    """`ingest(inputs, **keys)` runs the stage and opens its store; `ingest.warnings` are those of the last run."""
    from gigascope.stage import DECLARED
    from gigascope.synthesis.domain.stages import ingest as stage_function

    def run(inputs: dict[str, Any], **keys: Any) -> StoreReader:
        dataset: Any = parse_dataset({"pipeline": "synthesis", "name": "a", "inputs": inputs, "ingest": keys})
        output = tmp_path / "results" / "real.zarr"
        context = Context(
            DECLARED["synthesis.ingest"],
            dataset="a",
            inputs={},
            outputs={"real": output},
            scratch=tmp_path / "results" / "scratch",
            device="cpu",
            inputs_section=dataset.inputs,
        )
        stage_function(context, dataset.ingest)
        context.finish({"stage": "synthesis.ingest"})
        run.warnings = context.warnings  # type: ignore[attr-defined]
        return open_store(output)

    return run


def balls(shape: tuple[int, int, int] = (12, 30, 34), radius: float = 4.0) -> np.ndarray:
    """(z, y, x) uint16: four balls with the ids 1, 2, 3 and 900, one of them cut by the border."""
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for number, (cz, cy, cx) in {1: (5, 8, 8), 2: (6, 21, 9), 3: (6, 8, 24), 900: (5, 22, 33)}.items():
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


def grey(labels: np.ndarray, rng: np.random.Generator, dtype: Any = np.uint16) -> np.ndarray:
    """An image of labelled nuclei with noise."""
    return (20 + 60 * (labels > 0) + rng.integers(0, 10, labels.shape)).astype(dtype)
