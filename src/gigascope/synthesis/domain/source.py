"""The images a dataset names, opened: readers called with what the config says. No voxels are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store.readers.volume import Keys, VolumeSource, open_volume_file
from gigascope.synthesis.domain.folders import Domain, Use, find_images

if TYPE_CHECKING:
    from gigascope.config.synthesis_domain import Ingest, SynthesisInputs

_KEYS = Keys("inputs.real", "axes of this image under inputs.real", wide=True)
_FOLDER_KEYS = Keys("inputs.folders", "the axes in the file", wide=True)

Size3 = tuple[float, float, float]


@dataclass(frozen=True)
class DomainSource:
    """An image of one channel and time, opened but not read, with its labels.

    Attributes
    ----------
    image : as opened
    channel, time : of it
    labels, centres : of the same shape, or None
    voxel_um : (z, y, x), micrometres
    voxel_from : where that comes from
    domain : A is real, B naive
    use : "train" or "inference"
    """

    image: VolumeSource
    channel: int
    time: int
    labels: VolumeSource | None
    centres: VolumeSource | None
    voxel_um: Size3
    voxel_from: str
    domain: Domain
    use: Use

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        return self.image.shape[2:]

    @property
    def name(self) -> str:
        """Of the file, and of the dataset in it."""
        path = self.image.path
        return f"{path.parent.name}/{path.name}" if path.parent.is_file() else path.name

    @property
    def files(self) -> list[Path]:
        """All that reading it looks into."""
        return [file for source in (self.image, self.labels, self.centres) if source for file in source.files]

    def read(self) -> NDArray:
        """The image, (z, y, x)."""
        return self.image.read(self.time, self.channel, 0, self.shape[0])


def open_sources(inputs: SynthesisInputs, cfg: Ingest) -> list[DomainSource]:
    """Open all images of a dataset, those of domain A first.

    Raises
    ------
    UserError : a file is missing or broken, is not clear, has no voxel size, or labels of another shape
    """
    if inputs.folders is not None:
        images = find_images(Path(inputs.folders))
        if inputs.gives_naive and all(found.domain == "A" for found in images):
            do = "Put naive images (.tif, .h5 or .zarr) there, or leave it empty: they are simulated then."
            raise UserError("has files in trainB, none of which is an image.", where=inputs.folders, do=do)
        return [
            _source(_opened(found.image, None, found.labels, None, _FOLDER_KEYS), _Wanted(found.domain, found.use), cfg)
            for found in images
        ]
    return [
        _source(
            _opened(entry.image, entry.axes, entry.labels, entry.centres, _KEYS),
            _Wanted("A", entry.use, entry.time, entry.channel, entry.voxel_size_um),
            cfg,
        )
        for entry in inputs.real
    ]


def read_whole(source: VolumeSource) -> NDArray:
    """A label image or mask of one channel and time, (z, y, x)."""
    return source.read(0, 0, 0, source.shape[2])


@dataclass(frozen=True)
class _Wanted:
    """What is said about an image beside its files."""

    domain: Domain
    use: Use
    time: int | None = None
    channel: int | None = None
    voxel_um: Size3 | None = None


_Opened = tuple[VolumeSource, VolumeSource | None, VolumeSource | None]


def _opened(
    image: str | Path, axes: str | None, labels: str | Path | None, centres: str | Path | None, keys: Keys
) -> _Opened:
    others = [None if path is None else open_volume_file(path, None, keys) for path in (labels, centres)]
    return open_volume_file(image, axes, keys), others[0], others[1]


def _source(opened: _Opened, wanted: _Wanted, cfg: Ingest) -> DomainSource:
    image, *others = opened
    time = _one_of("time points", "time", wanted.time, image.shape[0], image.path)
    channel = _one_of("channels", "channel", wanted.channel, image.shape[1], image.path)
    for other in others:
        if other is not None and other.shape != (1, 1, *image.shape[2:]):
            _refuse_shape(other, image)
    size, origin = _voxel_size(image, wanted.voxel_um, cfg.voxel_size_um)
    return DomainSource(image, channel, time, others[0], others[1], size, origin, wanted.domain, wanted.use)


def _one_of(what: str, key: str, wanted: int | None, n: int, path: Path) -> int:
    if wanted is None and n > 1:
        do = f"Set {key} of this image under inputs.real to the one that is wanted (0 to {n - 1})."
        raise UserError(f"has {n} {what}.", where=path, do=do)
    if wanted is not None and wanted >= n:
        there = f"0 to {n - 1}" if n > 1 else "only 0"
        raise UserError(f"has {what} {there}, not {wanted}.", where=path, do=f"Correct {key} under inputs.real.")
    return wanted or 0


def _refuse_shape(other: VolumeSource, image: VolumeSource) -> None:
    def words(shape: tuple[int, ...]) -> str:
        return " x ".join(str(n) for i, n in enumerate(shape) if i > 1 or n > 1)

    raise UserError(
        f"has the shape {words(other.shape)} (z, y, x), its image {image.path.name} has {words(image.shape[2:])}."
        if other.shape[:2] == (1, 1) else f"has several times or channels ({words(other.shape)}).",
        where=other.path,
        do="Name labels of the same image, one whole number for each of its voxels.",
    )  # fmt: skip


def _voxel_size(image: VolumeSource, own: Size3 | None, common: Size3 | None) -> tuple[Size3, str]:
    for given, where in ((own, "inputs.real"), (common, "ingest.voxel_size_um")):
        if given is not None:
            return given, where
    z, y, x = image.voxel_size_um
    if z is None or y is None or x is None:
        lost = [axis for axis, size in zip("zyx", image.voxel_size_um) if size is None]
        what = f"has no voxel size along {', '.join(lost)} ({image.origin})."
        do = "Set voxel_size_um of this image under inputs.real, or ingest.voxel_size_um for all, to (z, y, x) in um."
        raise UserError(what, where=image.path, do=do)
    return (z, y, x), image.origin
