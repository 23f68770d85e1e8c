"""The raw files behind the real images, for the workflow: a change in one of them makes `ingest` run again."""

from __future__ import annotations

from pathlib import Path

from gigascope.config.synthesis_domain import Ingest, SynthesisInputs


def raw_files(inputs: SynthesisInputs, cfg: Ingest) -> tuple[Path, ...]:
    """Every file or folder that reading the images looks into; none for a planted domain.

    Raises
    ------
    UserError : an image is missing, broken or not clear
    """
    from gigascope.synthesis.domain.source import open_sources

    if inputs.planted is not None:
        return ()
    files = (file for source in open_sources(inputs, cfg) for file in source.files)
    return tuple(dict.fromkeys(files))
