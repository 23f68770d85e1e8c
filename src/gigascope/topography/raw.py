"""The raw files behind a dataset, for the workflow: a change in one of them makes `ingest` run again."""

from __future__ import annotations

from pathlib import Path

from gigascope.config.dataset import TopographyDataset


def raw_files(dataset: TopographyDataset) -> tuple[Path, ...]:
    """Every file that reading the stacks looks into; none for a simulated instrument.

    Raises
    ------
    UserError : files missing, damaged or not alike
    """
    if dataset.inputs.instrument is not None:
        return ()
    from gigascope.topography.source import open_acquisition

    opened = open_acquisition(dataset.inputs, dataset.ingest)
    files = [*opened.sample.files, *(opened.flat.files if opened.flat is not None else [])]
    return tuple(dict.fromkeys(files))
