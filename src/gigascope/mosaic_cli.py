"""`gigascope export` of a mosaic: its colours and heights as TIFF, its surface as a mesh."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gigascope.errors import UserError

PICTURES = ("colour", "height")
SUFFIXES = (".tif", ".tiff", ".ply")


def mosaic_in(path: Path) -> Path | None:
    """The store of a mosaic that a path names: its results folder, the store or its root; none: something else."""
    path = path.parent if path.name == "zarr.json" else path
    found = path if path.suffix == ".zarr" else path / "mosaic.zarr"
    return found if (found / "zarr.json").is_file() else None


def export_mosaic(
    store: Path, out: Path, *, picture: str = "colour", vertices: int = 500_000, force: bool = False,
    idle: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write a finished mosaic in another format.

    Parameters
    ----------
    store : of the mosaic
    out : .tif, the picture; .ply, the surface
    picture : colour or height
    vertices : most vertices of the surface
    idle : options that were given and are for other files

    Raises
    ------
    UserError : a store that is no mosaic, another ending, options that do not fit, a file that is in the way
    """
    from gigascope.decode_cli import check_output
    from gigascope.store.open import open_store
    from gigascope.topography.mosaic import mesh, tiff

    if idle:
        raise UserError("is for compressed volumes, not for a mosaic.", where=f"--{idle[0]}", do="Leave it out.")
    if picture not in PICTURES:
        raise UserError(f"{picture!r} is none of {', '.join(PICTURES)}.", where="--picture")
    check_output(out, SUFFIXES, "a mosaic", force)
    mosaic = open_store(store)
    if "height" not in mosaic.attrs.get("channels", ()):
        raise UserError("is no mosaic of heights.", where=store, do="Give the results folder of a topography dataset.")
    begun = time.monotonic()
    if out.suffix == ".ply":
        if vertices < 3:
            raise UserError("a surface has at least 3 vertices.", where="--vertices")
        found = mesh.surface_of(mosaic, vertices)
        mesh.write_ply(out, found, mesh.comments_of(mosaic))
        text = f"{len(found.vertices)} vertices, {len(found.faces)} triangles"
    else:
        tiff.write_picture(out, mosaic, "colour" if picture == "colour" else "height", _report(picture))
        text = f"{picture}, {mosaic.shape[2]} x {mosaic.shape[1]} pixels"
    print(f"wrote {out}: {text}, {out.stat().st_size / 1e6:.1f} MB, {time.monotonic() - begun:.1f} s")


def _report(picture: str) -> Any:
    from gigascope.runtime.progress import Progress

    def wrapped(tiles: Sequence[Any]) -> Iterable[Any]:
        return Progress()(tiles, what=picture, unit="tile")

    return wrapped
