"""The raw files behind a dataset, for the workflow: a change in one of them makes `ingest` run again."""

from __future__ import annotations

from pathlib import Path

from gigascope.config.dataset import SynthesisDataset
from gigascope.synthesis.domain import raw


def raw_files(dataset: SynthesisDataset) -> tuple[Path, ...]:
    """Every file or folder that reading the real images looks into; none where there are no real images.

    Raises
    ------
    UserError : an image is missing, broken or not clear
    """
    return raw.raw_files(dataset.inputs, dataset.ingest)
