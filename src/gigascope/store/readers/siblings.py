"""Files that belong to a tilt series by their name: angles and SerialEM's notes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gigascope.store.readers.zarr_image import MARKERS, is_zarr

_COMPOUND = (".ome.tif", ".ome.tiff", ".ome.zarr")


def stem_of(path: Path) -> str:
    """Name of a series without its ending."""
    for ending in _COMPOUND:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name if path.is_dir() and path.suffix != ".zarr" else path.stem


@dataclass(frozen=True)
class Siblings:
    """Files that belong to a series by their name; None where there is none."""

    tlt: Path | None
    rawtlt: Path | None
    mdoc: Path | None

    @staticmethod
    def of(path: Path) -> Siblings:
        """What stands beside a file, folder, glob or store."""
        path = path.parent if path.name in MARKERS else path
        names = dict.fromkeys([stem_of(path), path.stem])

        def find(*candidates: str) -> Path | None:
            return next((path.parent / c for c in candidates if (path.parent / c).is_file()), None)

        inside = Siblings._inside(path)
        return Siblings(
            tlt=find(*(f"{name}.tlt" for name in names)) or inside.get(".tlt"),
            rawtlt=find(*(f"{name}.rawtlt" for name in names)) or inside.get(".rawtlt"),
            mdoc=find(f"{path.name}.mdoc", *(f"{name}.mdoc" for name in names)) or inside.get(".mdoc"),
        )

    @staticmethod
    def _inside(path: Path) -> dict[str, Path]:
        """In a folder of views: the only file of its kind there."""
        folder = path if path.is_dir() and not is_zarr(path) else path.parent if "*" in path.name else None
        if folder is None or not folder.is_dir():
            return {}
        found = {ending: list(folder.glob(f"*{ending}")) for ending in (".tlt", ".rawtlt", ".mdoc")}
        return {ending: files[0] for ending, files in found.items() if len(files) == 1}
