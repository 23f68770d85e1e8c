"""The command `gigascope crate`: only wiring, as in :mod:`gigascope.cli`, which it is registered in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def crate(
    result: Annotated[Path, typer.Argument(help="Results folder of a finished dataset, such as results/cell42.")],
    out: Annotated[
        Path | None,
        typer.Argument(help="….zip or a new folder: a light crate, without stores. Default: the result becomes one."),
    ] = None,
    config: Annotated[Path, typer.Option(help="Snakemake's config file.")] = Path("config/config.yaml"),
    dataset: Annotated[Path | None, typer.Option(help="Its YAML, where the config does not lead to it.")] = None,
    licence: Annotated[
        str, typer.Option("--license", help="Of the data: an address, such as that of a Creative Commons licence.")
    ] = "None was stated: ask those who made these data before you use them.",
    agent: Annotated[str | None, typer.Option(help="Who ran it: 'Name <https://orcid.org/...>'.")] = None,
) -> None:
    """Describe a finished result for others, and for other programs: a Workflow Run RO-Crate."""
    from gigascope.crate.write import write_crate

    print("\n".join(write_crate(result, out, config=config, yaml=dataset, licence=licence, agent=agent)))
