"""The fit of a whole volume: its frames and bricks as numbered items, models of the frames, header of the file."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.correction.residual import settings_for
from gigascope.compression.fitting.bricks import BrickGrid, Index, Span, morton
from gigascope.compression.fitting.frame_fit import (
    NEAR,
    FitPlan,
    FrameData,
    FrameFit,
    FrameModel,
    Round,
    local_mean,
    rounds,
)
from gigascope.compression.fitting.region import bounds
from gigascope.compression.gmix import background_code
from gigascope.compression.gmix.encoding import default_background_step
from gigascope.compression.gmix.header import Header, Intensity
from gigascope.compression.gmix.quantise import Symbols
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.mixture import Mixture
from gigascope.compression.noise import NoiseModel

COLUMNS = ("means", "log_scales", "quaternions", "amplitudes")
SYMBOLS = ("cell", "place", "scales", "rotation", "amplitude")
# Below this standard deviation (grey values) integers carry no more information: rounding alone makes 0.29.
ROUNDING_VARIANCE = 1 / 12
# Standard deviation of an error that nobody sees, of the range: two grey values of a screen. Smaller noise, of volumes
# that were deconvolved or denoised, is no measure of what a bit is worth.
VISIBLE = 2 / 256
# Without a target, a bit is spent where it saves so many variances of the noise, or of this share of the mean signal.
# A few bright voxels may set the range, so that what is faint beside it is most of the specimen.
DEFAULT_RATE, FAINT = 4.0, 1 / 20
# Contribution at which Gaussians end, in noise standard deviations of the background, and at least (of the range).
EPS_SD = 0.25
MIN_EPS = 1e-4
# A mixture comes this near to the PSNR of the noise at most, decibels, before it codes the noise itself.
CEILING_MARGIN = 0.3
# The best fit to white noise alone saves 20 to 30 variances, and one Gaussian costs some 60 bits.
LEAST_RATE = 0.25


@dataclass(frozen=True)
class Options:
    """How a volume is fitted; see :class:`gigascope.config.compression.Fit`."""

    brick: Index
    sweeps: int
    frame: dict[str, Any]
    quantiser: Quantiser
    adaptive: bool


class VolumeFit:
    """Frames and bricks of a volume as items ``frame * n_bricks + raster number of the brick``.

    Parameters
    ----------
    volume, gate : finished stores, as :mod:`gigascope.store.open` reads them
    options : how it is fitted
    device : to compute on
    """

    def __init__(self, volume: Any, gate: Any, options: Options, device: torch.device | str = "cpu") -> None:
        self.volume = volume
        self.options = options
        self.device = device
        self._values, self._gate = volume.array(), gate.array()
        self._leading = tuple(volume.shape[:-3])
        z, y, x = volume.shape[-3:]
        self.grid = BrickGrid((z, y, x), options.brick)
        self.n_frames = math.prod(self._leading)
        self.n_bricks = math.prod(self.grid.counts)

    @property
    def n_items(self) -> int:
        """Bricks of all frames."""
        return self.n_frames * self.n_bricks

    @property
    def raw_bytes(self) -> int:
        """Of the volume as it is."""
        return math.prod(self.volume.shape) * int(self.volume.dtype.itemsize)

    def target_bytes(self, ratio: float | None, bytes: int | None) -> float | None:
        """Bytes of the file that are asked for, if any."""
        return float(bytes) if bytes is not None else None if ratio is None else self.raw_bytes / ratio

    def mean_signal(self, surveyed: Sequence[tuple[int, float]]) -> list[float | None]:
        """Mean value in the gate of each frame, from the survey of all items; None where the gate is empty."""
        found: list[float | None] = []
        for frame in range(self.n_frames):
            part = surveyed[frame * self.n_bricks : (frame + 1) * self.n_bricks]
            n, total = sum(n for n, _ in part), sum(t for _, t in part)
            found.append(total / n if n and total else None)
        return found

    def step(self, means: Sequence[float | None], psnr: float | None, signal: Sequence[int]) -> int | None:
        """Step (grey values) of a residual layer for a PSNR that the noise keeps Gaussians from; None: not needed.

        Found on the brick with most signal, with local means in place of Gaussians: both leave the noise.
        """
        if psnr is None or not any(signal):
            return None
        models = [self.model(f, mean) for f, mean in enumerate(means)]
        if psnr < -10 * math.log10(max(m.noise_variance for m in models)) - CEILING_MARGIN:
            return None
        frame, index = self.place(int(np.argmax(signal)))
        box = self.grid.span(index)
        values = np.asarray(self._values[self.key(frame, box)])
        expected = local_mean(torch.from_numpy(values.astype(np.float32))).round().to(torch.int32).numpy()
        squared = 10 ** (-psnr / 10) * min(m.scale for m in models) ** 2
        return settings_for(values, expected, models[frame].noise, squared).step

    # items

    def place(self, item: int) -> tuple[int, Index]:
        """Frame and brick of an item."""
        frame, brick = divmod(item, self.n_bricks)
        z, y, x = (int(i) for i in np.unravel_index(brick, self.grid.counts))
        return frame, (z, y, x)

    def item(self, frame: int, index: Index) -> int:
        """Item of a brick."""
        return frame * self.n_bricks + int(np.ravel_multi_index(index, self.grid.counts))

    def ordered(self) -> list[int]:
        """All items in the order of the file: by frame, then along the Morton curve."""
        return [self.item(f, i) for f in range(self.n_frames) for i in self.grid.indices()]

    def items_of(self, signal: Sequence[int]) -> list[list[int]]:
        """Items of each round; bricks without signal have no turn."""
        filled = [i for i in self.ordered() if signal[i] > 0]
        return [[i for i in filled if r.includes(self.place(i)[1])] for r in self.rounds]

    @functools.cached_property
    def rounds(self) -> list[Round]:
        """What each round does."""
        return rounds(self.options.sweeps)

    # access

    def key(self, frame: int, spans: Span) -> tuple[Any, ...]:
        """Index of a box of a frame in the stores' arrays."""
        return (*self.leading(frame), *(slice(a, b) for a, b in spans))

    def leading(self, frame: int) -> tuple[int, ...]:
        """Index of a frame in the axes of time and channel."""
        return tuple(int(i) for i in np.unravel_index(frame, self._leading)) if self._leading else ()

    def values(self, frame: int, spans: Span) -> Tensor:
        """(z, y, x) float32 values of the file."""
        return torch.from_numpy(np.asarray(self._values[self.key(frame, spans)]).astype(np.float32))

    def gate(self, frame: int, spans: Span) -> Tensor:
        """(z, y, x) bool."""
        return torch.from_numpy(np.asarray(self._gate[self.key(frame, spans)]) != 0)

    def survey(self, item: int) -> tuple[int, float]:
        """Voxels of signal in a brick and right around it, and the sum of their values in the brick itself."""
        frame, index = self.place(item)
        span = self.grid.span(index)
        inside = self.gate(frame, span)
        total = float(self.values(frame, span)[inside].sum(dtype=torch.float64)) if inside.any() else 0.0
        n = int(inside.sum())
        if n == 0:
            # signal right beside the brick may reach into it
            z, y, x = bounds(span, NEAR, self.grid.shape)
            n = int(self.gate(frame, (z, y, x)).any())
        return n, total

    # models

    def model(self, frame: int, mean_signal: float | None) -> FrameModel:
        """What is known of a frame as a whole.

        Parameters
        ----------
        mean_signal : mean value in the gate; None: the upper tenth of the range
        """
        attrs = self.volume.attrs
        low, high = attrs["range"][frame]
        scale = float(high - low) or 1.0
        noise = NoiseModel(**attrs["noise"][frame])
        cells = np.asarray(self.volume.side("background")[self.leading(frame)], np.float32)
        grid = torch.from_numpy(cells)
        signal = low + 0.1 * scale if mean_signal is None else mean_signal
        floor = ROUNDING_VARIANCE if self.volume.dtype.kind in "iu" else 1e-12 * scale**2
        background_sd = math.sqrt(max(float(noise.variance(float(grid.median()))), floor))
        variance = max(float(noise.variance(signal)), floor) / scale**2
        z, y, x = self.grid.shape
        spacing = self.volume.spacing
        depth, height, width = (spacing.get(axis, 1.0) / spacing.get("x", 1.0) for axis in "zyx")
        return FrameModel(
            (z, y, x),
            float(low),
            scale,
            noise,
            (grid - low) / scale,
            (32, 32, 32),
            variance,
            max(variance, VISIBLE**2),
            float(f"{max(MIN_EPS, EPS_SD * background_sd / scale):.4g}"),
            (depth, height, width),
        )

    def default_rate(self, means: Sequence[float | None]) -> float:
        """Lambda where no target is given: what is lost is noise, or faint beside the signal of every frame."""

        def unit(frame: int, mean: float | None) -> float:
            model = self.model(frame, mean)
            signal = 0.1 if mean is None else (mean - model.offset) / model.scale
            contrast = signal - float(model.background.median())
            return max(model.noise_variance, (FAINT * contrast) ** 2) / model.signal_variance

        return DEFAULT_RATE * min(1.0, *(unit(f, mean) for f, mean in enumerate(means)))

    def least_rate(self, means: Sequence[float | None]) -> float:
        """Lambda below which Gaussians would be fitted to the noise of a frame."""
        models = [self.model(f, mean) for f, mean in enumerate(means)]
        return LEAST_RATE * min(m.noise_variance / m.signal_variance for m in models)

    def fits(self, means: Sequence[float | None], lam: float) -> list[FrameFit]:
        """The fits of all frames at a lambda, given the mean value of each in its gate.

        One law of rounding serves all frames: with the mean of their noise variances.
        """
        models = [self.model(f, mean) for f, mean in enumerate(means)]
        law = self.quantiser(lam, sum(m.signal_variance for m in models) / len(models))
        fits = [self._fit(f, model, law, lam) for f, model in enumerate(models)]
        # the fit sees the background that the file gives back
        header = self.header(fits, lam)
        for frame, found in enumerate(fits):
            scale, integers = background_code.quantise(
                found.model.background.numpy(), default_background_step(header, frame)
            )
            found.model = dataclasses.replace(found.model, background=background_code.dequantise(integers, scale))
        return fits

    def backgrounds(self) -> Tensor:
        """(frames, nz, ny, nx) as measured, units of the scale, for the file."""
        return torch.stack([self.model(frame, None).background for frame in range(self.n_frames)])

    def _fit(self, frame: int, model: FrameModel, law: Quantiser, lam: float) -> FrameFit:
        plan = FitPlan(rate=lam, quantiser=law, **self.options.frame)
        data = FrameData(lambda s: self.values(frame, s), lambda s: self.gate(frame, s))
        return FrameFit(model, plan, self.grid, data, self.device)

    def quantiser(self, lam: float, signal_variance: float) -> Quantiser:
        """The law of rounding: at the rate where a bit of a parameter is worth as much as one of a Gaussian.

        At high rate a bit takes ``2 ln 2 D`` off the distortion D of a parameter.
        """
        if not self.options.adaptive:
            return self.options.quantiser
        # few digits, because it stands in the file
        theta = float(f"{lam * signal_variance / (2 * math.log(2)):.4g}")
        return dataclasses.replace(self.options.quantiser, adaptive=True, theta=theta)

    # the file

    def header(self, fits: Sequence[FrameFit], lam: float, version: str | None = None) -> Header:
        """Attributes of the compressed file."""
        volume = self.volume
        known = volume.spacing if all(a in volume.spacing for a in "zyx") else None
        return Header(
            axes=tuple(volume.axes),
            shape=tuple(volume.shape),
            dtype=volume.dtype.name,
            intensity=tuple(Intensity(f.model.offset, f.model.scale) for f in fits),
            eps=tuple(f.model.eps for f in fits),
            quantiser=fits[0].plan.quantiser,
            voxel_size_um=None if known is None else (known["z"], known["y"], known["x"]),
            noise=tuple(f.model.noise for f in fits),
            c_max=fits[0].plan.c_max,
            brick=self.grid.brick,
            halo=fits[0].plan.halo,
            amplitude_scale=fits[0].plan.amplitude_scale,
            source_hash=str(volume.attrs["source_hash"])[:16],
            encoder_version=version,
            lam=float(f"{lam:.4g}"),
        )

    def key_of(self, item: int) -> tuple[int, int, int, int]:
        """Of a brick in the compressed file."""
        frame, index = self.place(item)
        return frame, *index


def saved(mixture: Mixture) -> dict[str, NDArray]:
    """Columns of a mixture as arrays to be kept."""
    return {name: column.detach().cpu().numpy() for name, column in zip(COLUMNS, mixture.tensors)}


def mixture_of(arrays: Mapping[str, NDArray]) -> Mixture:
    """What :func:`saved` kept; nothing was kept of an empty brick."""
    if not arrays:
        return Mixture.empty()
    return Mixture(*(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in COLUMNS))


def symbols_of(arrays: Mapping[str, NDArray], keep: NDArray[np.bool_] | None = None) -> Symbols:
    """The integers that a finished brick kept, of the rows `keep`."""
    columns = (np.asarray(arrays[f"symbol_{name}"], np.int32) for name in SYMBOLS)
    return Symbols(*(c if keep is None else c[keep] for c in columns))


def saved_symbols(symbols: Symbols) -> dict[str, NDArray]:
    """Integers of a brick as arrays to be kept."""
    return {f"symbol_{name}": column for name, column in zip(SYMBOLS, symbols.columns)}


def in_file_order(items: Iterator[int] | Sequence[int], fit: VolumeFit) -> list[int]:
    """Items as the file holds them."""
    return sorted(items, key=lambda i: (fit.place(i)[0], morton(fit.place(i)[1])))
