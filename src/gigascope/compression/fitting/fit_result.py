"""The file at the end of a fit: all bricks gathered, trimmed to the bytes asked for, written, read back, compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gigascope.compression.correction.residual import ResidualSettings
from gigascope.compression.fitting.frame_fit import FrameFit
from gigascope.compression.fitting.volume_fit import VolumeFit, in_file_order, symbols_of
from gigascope.compression.gmix.container import Gmix, write_compact, write_group
from gigascope.compression.gmix.header import Header
from gigascope.compression.gmix.quantise import Symbols, dequantise
from gigascope.compression.mixture import Mixture
from gigascope.store.create import StoreWriter

Key = tuple[int, int, int, int]
# Rounds of taking away the least useful Gaussians until the file is small enough.
TRIMS = 8
# A PSNR or ratio that is missed by less is met: decibels, and a fraction.
PSNR_TOLERANCE = 0.3
RATIO_TOLERANCE = 0.02


@dataclass(frozen=True)
class Asked:
    """Targets of the user, for the words at the end; None: not asked."""

    ratio: float | None = None
    bytes: int | None = None
    psnr: float | None = None


class FitResult:
    """What the rounds have come to.

    Parameters
    ----------
    fit, fits : the volume and its frames
    work : everything that was saved, see :class:`gigascope.runtime.shared_work.GatherWork`
    residual : settings of the residual layer; None: there is none
    version : of the encoder, for the file
    """

    def __init__(
        self, fit: VolumeFit, fits: Sequence[FrameFit], work: Any, residual: Mapping[str, Any] | None, version: str
    ) -> None:
        self.fit = fit
        self.fits = fits
        self.work = work
        self.residual = residual
        self.version = version
        self._signal: list[int] = work.opened["signal"].tolist()
        self._least = -math.inf
        self.filled = in_file_order([i for i, n in enumerate(self._signal) if n > 0], fit)

    @property
    def count(self) -> int:
        """Gaussians in the file."""
        return sum(len(symbols) for _, symbols in self._bricks())

    def write(self, path: Path) -> int:
        """Write the compact file and return its bytes."""
        target = self.work.facts["target_bytes"]
        size = self._write(path)
        for _ in range(TRIMS if target is not None and self.residual is None else 0):
            if size <= target or not self._trim(size, target):
                break
            size = self._write(path)
        self._compare(path)
        return size

    def brick_table(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Columns and units of a table with one row per brick that was fitted."""
        rows = [self._row(item) for item in self.filled]
        names = ("frame", "z", "y", "x", "signal_voxels", "gaussians", "psnr")
        return {name: np.array([row[name] for row in rows]) for name in names}, {"psnr": "dB"}

    def check(self, path: Path, asked: Asked) -> list[str]:
        """Sentences about targets that were missed, and about an empty file."""
        messages, size = [], path.stat().st_size
        if not self.filled:
            messages.append("The gate is empty: the file holds the background only.")
        goal = asked.bytes if asked.bytes is not None else self.fit.raw_bytes / asked.ratio if asked.ratio else None
        if goal is not None and size > goal:
            messages.append(
                f"The target of {goal:.0f} bytes cannot be reached: the smallest file is {size} bytes "
                f"(1 : {self.fit.raw_bytes / size:.1f})."
            )
        elif goal is not None and size < (1 - 5 * RATIO_TOLERANCE) * goal:
            messages.append(
                f"The file is smaller than asked for: {size} of {goal:.0f} bytes. More Gaussians would code noise."
            )
        psnr = self.psnr()
        if asked.psnr is not None and self.residual is None and psnr < asked.psnr - PSNR_TOLERANCE:
            messages.append(f"The target of {asked.psnr:g} dB in the gate was not reached: {psnr:.2f} dB.")
        return messages

    def psnr(self) -> float:
        """PSNR in the gate over all frames, decibels, each with its own range as peak."""
        found = [self.work.metrics_of(item, self._round(item)) for item in self.filled]
        error, voxels = (sum(f[name] for f in found) for name in ("error", "voxels"))
        return -10 * math.log10(max(error / max(voxels, 1), 1e-20))

    def _row(self, item: int) -> dict[str, float]:
        frame, (z, y, x) = self.fit.place(item)
        found = self.work.metrics_of(item, self._round(item))
        place = {"frame": frame, "z": z, "y": y, "x": x}
        return {**place, "signal_voxels": self._signal[item], "gaussians": found["count"], "psnr": found["psnr"]}

    def _round(self, item: int) -> int:
        """The round in which a brick was finished."""
        index = self.fit.place(item)[1]
        return max(n for n, r in enumerate(self.fit.rounds) if r.finish and r.includes(index))

    def _bricks(self) -> Iterator[tuple[Key, Symbols]]:
        for item in self.filled:
            arrays = self.work.read(item, self._round(item))
            yield self.fit.key_of(item), symbols_of(arrays, arrays["costs"] >= self._least)

    def _trim(self, size: int, target: float) -> bool:
        """Raise the bar so far that the file should fit; False: nothing is left to be taken away."""
        costs = [self.work.read(item, self._round(item))["costs"] for item in self.filled]
        sorted_costs = np.sort(np.concatenate(costs)) if costs else np.zeros(0, np.float32)
        left = sorted_costs[sorted_costs >= self._least]
        if len(left) == 0:
            return False
        per_gaussian = max(size / len(left), 1.0)
        n_out = min(len(left), max(1, math.ceil((size - target) / per_gaussian)))
        self._least = float(left[n_out]) if n_out < len(left) else math.inf
        return True

    def write_group(self, store: StoreWriter) -> None:
        """Write the same content as a Zarr group with plain tables, after :meth:`write`."""
        write_group(store, self._header(), self._bricks(), self.fit.backgrounds(), self._residuals())

    def _write(self, path: Path) -> int:
        write_compact(path, self._header(), self._bricks(), self.fit.backgrounds(), self._residuals())
        return path.stat().st_size

    def _header(self) -> Header:
        header = self.fit.header(self.fits, self.work.facts["lambda"], self.version)
        if self.residual is None:
            return header
        law = ResidualSettings(header.dtype, self.fits[0].model.noise, **self.residual)
        return replace(header, residual=law.to_attributes())

    def _residuals(self) -> Iterator[tuple[Key, bytes]] | None:
        if self.residual is None:
            return None
        return ((self.fit.key_of(item), self.work.read(item)["residual"].tobytes()) for item in self.fit.ordered())

    def _compare(self, path: Path) -> None:
        """Read every brick back: what the file gives is what was put into it, to the bit."""
        with Gmix(path) as gmix:
            header = gmix.header
            for key, symbols in self._bricks():
                frame, index = key[0], key[1:]
                expected = dequantise(symbols, header.brick, header.quantiser, header.amplitude_scale)
                found = gmix.read_brick(frame, index) if len(symbols) else Mixture.empty()
                corner = [float(i * b) for i, b in zip(index, header.brick)]
                if not all(torch.equal(a, b) for a, b in zip(expected.moved(corner).tensors, found.tensors)):
                    raise RuntimeError(f"{path.name}: brick {key} is not read back as it was written")
