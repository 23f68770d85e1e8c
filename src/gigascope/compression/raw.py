"""The raw files behind a volume, for the workflow: a change in one of them makes `ingest` run again."""

from __future__ import annotations

from pathlib import Path

from gigascope.config.dataset import CompressionDataset


def raw_files(dataset: CompressionDataset) -> tuple[Path, ...]:
    """Every file or folder that reading the volume looks into; none for a simulated volume.

    Raises
    ------
    UserError : the volume is missing, broken or inconsistent
    """
    if dataset.inputs.phantom is not None:
        return ()
    from gigascope.compression.source import open_volume

    return tuple(dict.fromkeys(open_volume(dataset.inputs, dataset.ingest).files))
