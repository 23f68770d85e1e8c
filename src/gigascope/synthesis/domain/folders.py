"""The published layout of a training set: trainA, trainB, inferenceA and inferenceB in one folder.

A is real, B is naive, as simulated elsewhere: it takes the place of cultures of our own. trainB is trained on; what is
adapted and compared is inferenceB, or trainB where that is empty. Each is searched for images at any depth.
`<name>_label.tif` beside an image, or in a folder `labels` beside that of the image, is its label image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gigascope.errors import UserError
from gigascope.store.readers.tiff_file import SUFFIXES as TIFF
from gigascope.store.readers.tiff_file import natural_key
from gigascope.store.readers.volume_hdf5 import SUFFIXES as HDF5

Domain = Literal["A", "B"]
Use = Literal["train", "inference"]
FOLDERS: dict[str, tuple[Domain, Use]] = {
    "trainA": ("A", "train"),
    "inferenceA": ("A", "inference"),
    "trainB": ("B", "train"),
    "inferenceB": ("B", "inference"),
}
_LABEL = "_label"


@dataclass(frozen=True)
class FoundImage:
    """An image file, its labels where there are any, and what it is for."""

    image: Path
    labels: Path | None
    domain: Domain
    use: Use


def find_images(root: Path) -> list[FoundImage]:
    """Images of the four folders, trainA first, in natural order of their paths.

    Raises
    ------
    UserError : no such folder, no image in trainA, or naive images of which none is in trainB
    """
    if not root.is_dir():
        raise UserError("there is no such folder.", where=root, do="Check inputs.folders.")
    found = []
    for name, (domain, use) in FOLDERS.items():
        files = _files(root / name)
        labels = {_key(file): file for file in files if file.stem.endswith(_LABEL)}
        images = [file for file in files if file not in labels.values()]
        found += [FoundImage(file, labels.get(_key(file)), domain, use) for file in images]
    if not any((image.domain, image.use) == ("A", "train") for image in found):
        do = "Put real images (.tif, .h5 or .zarr) into trainA, or check inputs.folders."
        raise UserError("has no image in trainA.", where=root, do=do)
    if any(image.domain == "B" for image in found) and not any(
        (image.domain, image.use) == ("B", "train") for image in found
    ):
        do = "Put naive images into trainB too, or leave inferenceB empty: they are simulated then."
        raise UserError("has naive images in inferenceB, and none in trainB to learn from.", where=root, do=do)
    return found


def _files(folder: Path) -> list[Path]:
    """Image files and OME-Zarr folders below a folder; what is inside an OME-Zarr is no file of its own."""
    stores = sorted(folder.rglob("*.zarr")) if folder.is_dir() else []
    stores = [store for store in stores if not any(other in store.parents for other in stores)]
    files = [
        file
        for file in (folder.rglob("*") if folder.is_dir() else ())
        if file.is_file()
        and file.suffix.lower() in (*TIFF, *HDF5)
        and not any(store in file.parents for store in stores)
    ]
    return sorted([*stores, *files], key=lambda path: [natural_key(Path(part)) for part in path.parts])


def _key(file: Path) -> tuple[Path, str]:
    """Equal for an image and its labels."""
    folder = file.parent.parent if file.parent.name in ("labels", "images") else file.parent
    return folder, file.stem.removesuffix(_LABEL)
