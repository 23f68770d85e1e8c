"""The commands that print what a dataset may say; registered in :mod:`gigascope.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigascope.errors import UserError


def schema(
    write: Annotated[Path | None, typer.Option(help="Write it to this file instead of the terminal.")] = None,
) -> None:
    """Print the JSON Schema of a dataset YAML, for editors."""
    from gigascope.config.dataset import schema_text

    if write is None:
        print(schema_text(), end="")
    else:
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(schema_text(), encoding="utf-8")


def keys(
    pipeline: Annotated[str, typer.Argument(help="Which chain, such as tomography.")],
) -> None:
    """Print every config key with its default and meaning, as Markdown."""
    from gigascope.config.dataset import PIPELINES
    from gigascope.config.template import keys_markdown

    if pipeline not in PIPELINES:
        raise UserError(f"there is no pipeline {pipeline!r}.", do=f"Known: {', '.join(PIPELINES)}.")
    print(keys_markdown(PIPELINES[pipeline]), end="")
