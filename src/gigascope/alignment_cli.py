"""The command `gigascope alignment`: only wiring, as in :mod:`gigascope.cli`, which it is registered in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gigascope.errors import UserError


def alignment(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="IMOD's .xf, AreTomo's .aln or the portal's .json.")],
    out: Annotated[Path, typer.Argument(metavar="TO", help="The file to write; its ending says the format.")],
    angles: Annotated[Path | None, typer.Option(help="Tilt angles, one per line, where FROM has not all.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTH,HEIGHT of the raw views in pixels: .xf has none.")] = None,
    pixel_nm: Annotated[float | None, typer.Option(min=0, help="Pixel size, for the volume's size in .json.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Convert the alignment of a tilt series between IMOD, AreTomo and the CryoET data portal."""
    from gigascope.store.readers.alignment import read_alignment
    from gigascope.store.readers.tilt_angles import read_tilt_angles
    from gigascope.store.writers.convert import write_alignment

    by_hand = None if angles is None else read_tilt_angles(angles)
    written, lost = write_alignment(
        out,
        read_alignment(source, None if by_hand is None else len(by_hand)),
        tilt_deg=by_hand,
        raw_shape=None if size is None else _shape(size),
        pixel_nm=pixel_nm,
        force=force,
    )
    print(f"wrote {', '.join(map(str, written))}", *lost, sep="\n")


def _shape(text: str) -> tuple[int, int]:
    """(y, x) of WIDTH,HEIGHT."""
    words = text.split(",")
    if len(words) != 2 or not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise UserError(f"{text!r} is not WIDTH,HEIGHT.", where="--size", do="Write for example --size 4096,4096.")
    return int(words[1]), int(words[0])
