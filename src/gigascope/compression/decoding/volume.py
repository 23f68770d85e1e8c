"""A compressed volume that slices like an array: only what is asked for is read and decoded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from gigascope.compression.decoding import resolution
from gigascope.compression.decoding.decode import Decoder, to_dtype
from gigascope.compression.decoding.indexing import Box, Selection, block_shape, pieces
from gigascope.compression.decoding.resolution import Factor
from gigascope.errors import ShapeError

if TYPE_CHECKING:
    import dask.array

    from gigascope.compression.mixture import Mixture

SPATIAL = ("z", "y", "x")


class GaussianVolume:
    """A compressed file as an array of the original's axes, shape and dtype.

    ``volume[2, 100:164, ::2]`` decodes what it names, by integers, slices and ellipsis, as numpy does;
    ``np.asarray(volume)`` decodes all of it. Safe from several threads.

    Parameters
    ----------
    path : the compressed file, or its directory form
    device : where the sums are done

    Raises
    ------
    UserError : no such file, one that is cut or altered, or of a version that this release does not know
    """

    def __init__(self, path: Path | str, device: torch.device | str = "cpu") -> None:
        from gigascope.compression.gmix.container import Gmix

        self._set(Decoder(Gmix(path), device), (1, 1, 1))

    @staticmethod
    def of(decoder: Decoder, factor: Factor = (1, 1, 1)) -> GaussianVolume:
        """The array of an open file."""
        volume = object.__new__(GaussianVolume)
        volume._set(decoder, factor)
        return volume

    def _set(self, decoder: Decoder, factor: Factor) -> None:
        self.decoder = decoder
        self.factor = factor
        self.header = decoder.gmix.header

    def __repr__(self) -> str:
        size = " x ".join(f"{s:g}" for s in self.voxel_size_um)
        return f"<GaussianVolume {''.join(self.axes)} {self.shape} {self.dtype}, voxels of {size} um>"

    # what numpy, dask and viewers ask

    @property
    def axes(self) -> tuple[str, ...]:
        """Name of each axis, of t, c, z, y, x."""
        return tuple(self.header.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples along each axis."""
        return *self._leading, *self.decoder.coarse_shape(self.factor)

    @property
    def dtype(self) -> np.dtype:
        """Of the original."""
        return np.dtype(self.header.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def size(self) -> int:
        """Number of samples."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes decoded."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Samples along each axis that are decoded together: one brick."""
        bricks = (max(1, b // f) for b, f in zip(self.header.brick, self.factor))
        return *(1 for _ in self._leading), *(min(b, n) for b, n in zip(bricks, self.shape[-3:]))

    @property
    def voxel_size_um(self) -> tuple[float, float, float]:
        """(z, y, x), micrometres; voxels of 1 where the file does not know it."""
        z, y, x = (s * f for s, f in zip(self.decoder.voxel_size_um, self.factor))
        return z, y, x

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray | np.generic:
        selection = Selection.of(key, self.shape)
        out = np.empty(selection.counts, self.dtype)
        n_leading = len(self._leading)
        for place in np.ndindex(selection.counts[:n_leading]):
            index = [r[i] for r, i in zip(selection.ranges, place)]
            frame = int(np.ravel_multi_index(index, self._leading)) if index else 0
            self._fill(out[place], frame, selection.ranges[n_leading:])
        values = out.squeeze(selection.squeezed) if selection.squeezed else out
        return values[()] if values.ndim == 0 else values

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        if copy is False:
            raise ValueError("a compressed volume has to be decoded: it has no array without a copy")
        values = np.asarray(self[...])
        return values if dtype is None else values.astype(dtype, copy=False)

    def dask(self) -> dask.array.Array:
        """A Dask array of it, one chunk per brick, decoded where it is computed."""
        import dask.array

        name = f"gaussians-{id(self.decoder):x}-{'-'.join(map(str, self.factor))}"
        return dask.array.from_array(self, chunks=self.chunks, name=name, asarray=False, meta=np.empty(0, self.dtype))

    # other resolutions, and parts of the mixture

    def at_level(self, factor: int | Sequence[int]) -> GaussianVolume:
        """The volume at a coarser resolution, straight from the Gaussians, which are wider there.

        Parameters
        ----------
        factor : voxels of this volume per sample, one number or (z, y, x); a sample is the mean over its box
        """
        steps = (factor,) * 3 if isinstance(factor, int) else factor
        z, y, x = (a * b for a, b in zip(self.factor, resolution.checked_factor(steps)))
        return GaussianVolume.of(self.decoder, (z, y, x))

    def prefix(self, fraction: float) -> GaussianVolume:
        """The best approximation by a fraction of the Gaussians: those of the largest energy ``a^2 S``, per frame.

        Reads the whole file once, to rank them.

        Raises
        ------
        ShapeError : a fraction that is not between 0 and 1
        """
        if not 0 <= fraction <= 1:
            raise ShapeError(f"the fraction of the Gaussians lies between 0 and 1, got {fraction}")
        least = []
        for frame in range(math.prod(self._leading)):
            energies = torch.sort(self.decoder.energies(frame), descending=True).values
            kept = round(fraction * len(energies))
            least.append(float(energies[kept - 1]) if kept else math.inf)
        gmix, device = self.decoder.gmix, self.decoder.device
        return GaussianVolume.of(Decoder(gmix, device, least_energy=least), self.factor)

    def gaussians(self, roi: Box | None = None, *, time: int = 0, channel: int = 0) -> Mixture:
        """The Gaussians that reach into a region (none: all), in voxels of the original, whatever the level.

        Amplitudes are in units of ``header.intensity[frame].scale``.
        """
        frame = self.frame(time, channel)
        if roi is None:
            return self.decoder.whole(frame)
        z, y, x = (slice(*s.indices(n)[:2]) for s, n in zip(roi, self.decoder.shape))
        mixture, cuts = self.decoder.mixture(frame, (z, y, x))
        low = mixture.means.new_tensor([b.start for b in (z, y, x)])
        high = mixture.means.new_tensor([b.stop - 1 for b in (z, y, x)])
        gap = torch.maximum(low - mixture.means, mixture.means - high)
        return mixture[(gap <= mixture.extents(cuts)).all(1) & (cuts > 0)]

    def points(self, coordinates: NDArray, *, time: int = 0, channel: int = 0) -> NDArray[np.float32]:
        """Values at positions between voxels, not rounded.

        Parameters
        ----------
        coordinates : (P, 3) voxels (z, y, x) of the original, the centre of voxel i at i

        Returns
        -------
        (P,) float32
        """
        if self.factor != (1, 1, 1):
            raise ShapeError("points are taken at full resolution, not at a coarser level")
        places = torch.from_numpy(np.array(coordinates, np.float32))
        return self.decoder.points(self.frame(time, channel), places).cpu().numpy()

    # projections

    def max_projection(self, axis: str = "z") -> NDArray:
        """Brightest sample along an axis, in the dtype of the volume; that axis is gone, t and c stay."""
        from gigascope.compression.decoding.projections import max_projection

        return self._projected(lambda frame: max_projection(self.decoder, frame, axis, self.factor))

    def mean_projection(self, axis: str = "z") -> NDArray[np.float32]:
        """Mean along an axis from the integrals of the Gaussians, without decoding voxels; float32."""
        n = self.decoder.shape[SPATIAL.index(axis)]
        return self.sum_projection(axis) / np.float32(n)

    def sum_projection(self, axis: str = "z") -> NDArray[np.float32]:
        """Sum along an axis over voxels, from the integrals of the Gaussians; float32, before rounding and clipping."""
        from gigascope.compression.decoding.projections import sum_projection

        if self.factor != (1, 1, 1):
            raise ShapeError("mean and sum projections are made at full resolution, not at a coarser level")
        return self._projected(lambda frame: sum_projection(self.decoder, frame, axis))

    def view_projection(
        self, azimuth_deg: float, elevation_deg: float = 0.0, *, time: int = 0, channel: int = 0
    ) -> NDArray[np.float32]:
        """Brightest value along the lines of sight of an oblique view; see :func:`.projections.view_projection`."""
        from gigascope.compression.decoding.projections import view_projection

        return view_projection(self.decoder, self.frame(time, channel), azimuth_deg, elevation_deg, self.factor)

    # frames and blocks

    def frame(self, time: int = 0, channel: int = 0) -> int:
        """Number of a frame.

        Raises
        ------
        ShapeError : no such time or channel
        """
        lengths = dict(zip(self.axes, self._leading))
        for name, index, n in (("time", time, lengths.get("t", 1)), ("channel", channel, lengths.get("c", 1))):
            if not 0 <= index < n:
                raise ShapeError(f"{name} {index} of {n}")
        return time * lengths.get("c", 1) + channel

    @property
    def _leading(self) -> tuple[int, ...]:
        return tuple(self.header.shape[:-3])

    def _fill(self, out: NDArray, frame: int, places: Sequence[range]) -> None:
        """Decode one frame's samples at these places along z, y and x into `out`, block by block."""
        if 0 in out.shape:
            return
        out = out[tuple(slice(None, None, -1 if r.step < 0 else 1) for r in places)]
        ascending = [r[::-1] if r.step < 0 else r for r in places]
        lengths = [r[-1] + 1 - r[0] for r in ascending]
        block = block_shape(lengths, self.chunks[-3:])
        for z, y, x in itertools.product(*(pieces(r, b) for r, b in zip(ascending, block))):
            values = self.decoder.region(frame, (z.stretch, y.stretch, x.stretch), self.factor)
            out[z.target, y.target, x.target] = to_dtype(values[z.source, y.source, x.source], self.dtype)

    def _projected(self, project: Callable[[int], NDArray]) -> NDArray:
        """Every frame's projection, with the axes of the frames in front."""
        images = [project(frame) for frame in range(math.prod(self._leading))]
        return np.stack(images).reshape(*self._leading, *images[0].shape)
