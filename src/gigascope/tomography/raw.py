"""The raw files behind a tilt series, for the workflow: a change in one of them makes `ingest` run again."""

from __future__ import annotations

from pathlib import Path

from gigascope.config.dataset import TomographyDataset


def raw_files(dataset: TomographyDataset) -> tuple[Path, ...]:
    """Every file that reading the tilt series looks into: images, angles, .mdoc; none for a simulated series.

    Raises
    ------
    UserError : the series is missing, broken or inconsistent
    """
    if dataset.inputs.phantom is not None:
        return ()
    from gigascope.tomography.source import open_source

    return tuple(dict.fromkeys(open_source(dataset.inputs, dataset.ingest).files))
