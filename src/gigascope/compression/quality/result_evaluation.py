"""Evaluation of a finished compression: what its stores hold and what the file decodes to, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.compression.noise import NoiseModel
from gigascope.compression.quality.evaluate import evaluate
from gigascope.compression.quality.fidelity import Original
from gigascope.compression.quality.frame_accounts import frame_accounts
from gigascope.compression.quality.frame_evaluation import Frame, codec_frames
from gigascope.compression.quality.frame_view import FrameOf
from gigascope.compression.quality.seed_numbers import PointValues, nearest_values
from gigascope.errors import UserError
from gigascope.metrics.image import Box, Voxels

if TYPE_CHECKING:
    from gigascope.store.create import StoreWriter

# Beyond so many Gaussians in a frame VolMicro's evaluator is left out: it holds all of them, and the tree of their
# centres (200 bytes each).
NEAREST_GAUSSIANS = 1 << 22


class ResultEvaluation:
    """Measures the frames of one result.

    Parameters
    ----------
    volume, gate : finished stores of the original and of its gate
    compressed : the compressed file, open as an array
    decoded : finished store of the decoded volume; none, or one of another resolution: decoded from the file here
    codecs, rates, max_voxels : of the comparison; see :func:`gigascope.compression.quality.evaluate.evaluate`

    Raises
    ------
    UserError : the file is not one of this volume
    """

    def __init__(
        self,
        volume: Any,
        gate: Any,
        compressed: GaussianVolume,
        decoded: Any = None,
        *,
        codecs: Sequence[str] = (),
        rates: int = 4,
        max_voxels: int = 2**26,
    ) -> None:
        if compressed.shape != volume.shape or compressed.dtype != volume.dtype:
            raise UserError(
                f"holds a volume of {compressed.shape} {compressed.dtype}, the original is {volume.shape} "
                f"{volume.dtype}.",
                where=compressed.decoder.gmix.path,
                do="Run snakemake again: it runs the stage that makes this file.",
            )
        self._volume, self._gate, self._compressed = volume, gate, compressed
        usable = decoded is not None and tuple(decoded.shape) == tuple(volume.shape)
        self._decoded = decoded.array() if usable else compressed
        self._options: dict[str, Any] = {"rates": rates, "max_voxels": max_voxels}
        self._codecs = tuple(codecs)
        self._leading = dict(zip(volume.axes, volume.shape[:-3]))
        self._accounts = frame_accounts(compressed.decoder.gmix)
        n_times, n_channels = (self._leading.get(axis, 1) for axis in "tc")
        self._with_codecs = codec_frames(n_times, n_channels, math.prod(volume.shape[-3:]), max_voxels)
        self.pictures = CodecPictures(max_voxels)

    @property
    def n_frames(self) -> int:
        """Volumes (z, y, x)."""
        return len(self._accounts)

    def frame(self, number: int) -> Frame:
        """Measure one frame, beside the codecs if it is one of those that they are run on."""
        place = np.unravel_index(number, tuple(self._leading.values())) if self._leading else ()
        index = {axis: int(i) for axis, i in zip(self._leading, place)}
        original, decoded = self._original(number, tuple(index.values())), FrameOf(self._decoded, tuple(index.values()))
        compare = number in self._with_codecs
        if compare:
            self.pictures.begin(number, original, decoded)
        found = evaluate(
            original,
            decoded,
            self._accounts[number],
            codecs=self._codecs if compare else (),
            lossless=compare,
            nearest=self._nearest(number, original),
            keep=self.pictures.keep,
            **self._options,
        )
        return Frame(number, index, found)

    def _original(self, number: int, index: tuple[int, ...]) -> Original:
        volume = self._volume
        clean = FrameOf(volume.side("clean"), index) if "clean" in volume.sides else None
        low, high = volume.attrs["range"][number]
        depth, height, width = volume.attrs["voxel_size_um"]
        return Original(
            FrameOf(volume.array(), index),
            clean,
            FrameOf(self._gate.array(), index),
            NoiseModel(**volume.attrs["noise"][number]).variance,
            (float(depth), float(height), float(width)),
            (float(low), float(high)),
        )

    def _nearest(self, number: int, original: Original) -> PointValues | None:
        """VolMicro's evaluator on the Gaussians of a frame."""
        n_gaussians = self._accounts[number].n_gaussians
        if not 0 < n_gaussians <= NEAREST_GAUSSIANS:
            return None
        gmix = self._compressed.decoder.gmix
        intensity, (z, y, x) = gmix.header.intensity[number], original.volume.shape
        window = intensity.offset, intensity.scale
        mixture = self._compressed.decoder.whole(number)
        return nearest_values(mixture, gmix.background(number), gmix.header.cell, (z, y, x), window)


class CodecPictures:
    """A slice and a projection of what every codec makes of the first frame they are run on, at our bytes.

    Parameters
    ----------
    max_voxels : of the box that codecs are run on
    """

    def __init__(self, max_voxels: int) -> None:
        self._max_voxels = max_voxels
        self._images: dict[str, NDArray[Any]] = {}
        self._frame: int | None = None
        self._current: int | None = None
        self._box: Box | None = None
        self._slice = 0

    def begin(self, frame: int, original: Original, decoded: Voxels) -> None:
        """A frame is about to be compared; the first one is looked at."""
        self._current = frame
        if self._frame is not None:
            return
        self._frame, self._box = frame, original.box(self._max_voxels)
        foreground = np.asarray(original.volume[self._box]) > original.threshold
        self._slice = int(foreground.sum((1, 2)).argmax())
        self._add("original", original.volume[self._box])
        self._add("ours", decoded[self._box])

    def keep(self, method: str, decoded: Voxels) -> None:
        """A codec's volume at equal bytes."""
        if self._current == self._frame:
            self._add(method, np.asarray(decoded[:, :, :]))

    def write(self, store: StoreWriter) -> None:
        """All pictures as side arrays `slice_<method>` and `projection_<method>`, and where they were taken."""
        for name, image in self._images.items():
            store.create_array(name, image.shape, image.dtype)[:] = image
        if self._box is not None:
            place = {"frame": self._frame, "slice": self._slice, "box": [[c.start, c.stop] for c in self._box]}
            store.attrs |= place

    def _add(self, method: str, part: NDArray[Any]) -> None:
        self._images[f"slice_{method}"] = part[self._slice]
        self._images[f"projection_{method}"] = part.max(0)
