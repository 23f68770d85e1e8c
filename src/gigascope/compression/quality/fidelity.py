"""One original, and how well a decoded volume stands for it, by every measure of the evaluation.

What depends on the original alone (range, regions, skeletons, objects) is computed once and used for every decoded
volume: ours and the codecs'. Measures that need a whole array look at the box with the most foreground of a larger one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.metrics import image, structure
from gigascope.metrics.image import Above, Box, ResidualCurve, Variance, Voxels
from gigascope.metrics.resolution import crossing, fsc
from gigascope.metrics.ssim import gmsd, ms_ssim, ssim, ssim_image

# Foreground as VolMicro counts it: above this fraction of the range.
FOREGROUND = 0.1
# Voxels of a skeleton and its labels at a time: 64 Mi take 2 GB.
WHOLE_VOXELS = 2**26
# of a Fourier shell correlation: 160^3 say where it falls as well as more do, in 2 s
FOURIER_VOXELS = 2**22
N_SLICES = 16
SMALLEST_OBJECT = 20


@dataclass(frozen=True, eq=False)
class Original:
    """A volume to be decoded, and what is known about it.

    Parameters
    ----------
    volume : (z, y, x), units of the file
    clean : the noise-free volume, where it is known
    gate : voxels that hold signal, where a gate was made
    variance : of the noise at a value, units of the file
    voxel_size_um : (z, y, x)
    known_range : (min, max) of the values; none: they are looked for
    """

    volume: Voxels
    clean: Voxels | None = None
    gate: Voxels | None = None
    variance: Variance | None = None
    voxel_size_um: tuple[float, float, float] = (1.0, 1.0, 1.0)
    known_range: tuple[float, float] | None = None

    @functools.cached_property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value of the original."""
        return self.known_range or image.value_range(self.volume)

    @property
    def scale(self) -> float:
        """Range R = max - min, the peak of every PSNR; 1 for a constant volume."""
        return self.range[1] - self.range[0] or 1.0

    @property
    def threshold(self) -> float:
        """Value above which a voxel is foreground."""
        return self.range[0] + FOREGROUND * self.scale

    @functools.cached_property
    def regions(self) -> dict[str, Voxels | None]:
        """All voxels, the foreground, and the gate where there is one."""
        gates: dict[str, Voxels | None] = {} if self.gate is None else {"gate": self.gate}
        return {"whole": None, "fg": Above(self.volume, self.threshold), **gates}

    def part(self, box: Box) -> Original:
        """A box of it in memory, as an original of its own with the same range."""
        clean, gate = (None if v is None else np.asarray(v[box]) for v in (self.clean, self.gate))
        volume = np.ascontiguousarray(self.volume[box])
        return Original(volume, clean, gate, self.variance, self.voxel_size_um, self.range)

    def box(self, limit: int) -> Box:
        """All of it, or the box of at most `limit` voxels with the most foreground."""
        return busiest_box(Above(self.volume, self.threshold), limit)

    # measures of one decoded volume; names as in LABELS

    def quick(self, decoded: Voxels) -> dict[str, float]:
        """PSNR and the SSIM of projections: what curves show."""
        return self.psnr(decoded) | {"mip_ssim": self.mip_ssim(decoded)}

    def measure(self, decoded: Voxels) -> dict[str, float]:
        """Every measure."""
        return self.quick(decoded) | self.similarity(decoded) | self.resolution(decoded) | self.structure(decoded)

    def psnr(self, decoded: Voxels) -> dict[str, float]:
        """PSNR by region against the original and, where it is known, against the noise-free volume."""
        found = {f"psnr_{k}": v for k, v in image.psnr(self.volume, decoded, self.scale, self.regions).items()}
        if self.clean is not None:
            clean = image.psnr(self.clean, decoded, self.scale, self.regions)
            found |= {f"psnr_{k}_clean": v for k, v in clean.items()}
        return found

    def ceilings(self) -> dict[str, float]:
        """PSNR that the noise alone allows, by region, from the noise model and from the noise-free volume."""
        found: dict[str, float] = {}
        if self.variance is not None:
            noise = image.noise_ceiling(self.volume, self.variance, self.scale, self.regions)
            found |= {f"noise_ceiling_{k}": v for k, v in noise.items()}
        if self.clean is not None:
            true = image.psnr(self.volume, self.clean, self.scale, self.regions)
            found |= {f"true_noise_ceiling_{k}": v for k, v in true.items()}
        return found

    def residual(self, decoded: Voxels) -> ResidualCurve | None:
        """Residual in units of the noise, by tenth of the range; none without a noise model."""
        if self.variance is None:
            return None
        return image.residual_curve(self.volume, decoded, self.variance, self.range)

    def mip_ssim(self, decoded: Voxels) -> float:
        """SSIM of the maximum projections, mean of the three axes."""
        pairs = zip(self._projections, image.maximum_projections(decoded))
        return float(np.mean([ssim_image(a, b, self.range[0], self.scale) for a, b in pairs]))

    def similarity(self, decoded: Voxels) -> dict[str, float]:
        """SSIM in 3-D and on projections, MS-SSIM and GMSD on projections and slices."""
        low, scale = self.range[0], self.scale
        found = {f"ssim_{k}": v for k, v in ssim(self.volume, decoded, low, scale, self.regions).items()}
        mips = list(zip(self._projections, image.maximum_projections(decoded)))
        for axis, pair in zip("zyx", mips):
            found[f"mip_ssim_{axis}"] = ssim_image(*pair, low, scale)
        n_z = self.volume.shape[0]
        places = np.unique(np.linspace(0, n_z - 1, min(n_z, N_SLICES)).round().astype(int))
        slices = [tuple(np.asarray(v[z : z + 1])[0] for v in (self.volume, decoded)) for z in places]
        for name, pairs in (("mip", mips), ("slice", slices)):
            for measure in (ms_ssim, gmsd):
                found[f"{name}_{measure.__name__}"] = _mean([measure(a, b, low, scale) for a, b in pairs])
        return found

    def resolution(self, decoded: Voxels) -> dict[str, float]:
        """Frequency, cycles per voxel of the finest axis, at which the FSC with the original falls below 0.143."""
        box = self._fourier_box
        if min(cut.stop - cut.start for cut in box) < 2:
            return {}
        finest = min(self.voxel_size_um)
        spacing = self.voxel_size_um[0] / finest, self.voxel_size_um[1] / finest, self.voxel_size_um[2] / finest
        test = torch.from_numpy(np.asarray(decoded[box], np.float32))
        found = {}
        for name, volume in (("fsc", self.volume), ("fsc_clean", self.clean)):
            if volume is not None:
                curve = fsc(torch.from_numpy(np.asarray(volume[box], np.float32)), test, spacing=spacing)
                found[name] = crossing(curve, 0.143)
        return found

    def structure(self, decoded: Voxels) -> dict[str, float]:
        """Skeletons, connected parts, and light and place of the objects, against the noise-free volume if known."""
        whole = self._structure
        mask, skeleton, n_parts = _tubes(np.asarray(decoded[whole.box]), self.threshold)
        dice = structure.centreline_dice(whole.mask, whole.skeleton, mask, skeleton)
        objects = structure.measure(whole.labels, whole.n_objects, np.asarray(decoded[whole.box]), whole.background)
        errors = structure.object_errors(whole.objects, objects, self.voxel_size_um)
        return {
            "cl_dice": dice.value,
            "skeleton_recall": dice.recall,
            "n_parts": float(n_parts),
            "n_parts_reference": float(whole.n_parts),
            "n_objects": float(whole.n_objects),
            "object_light_median": errors.light_median,
            "object_light_p95": errors.light_p95,
            "object_light_total": errors.light_total,
            "object_place_median": errors.place_median,
            "object_place_p95": errors.place_p95,
        }

    @functools.cached_property
    def _projections(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        return image.maximum_projections(self.volume)

    @functools.cached_property
    def _structure(self) -> _Structure:
        box = self.box(WHOLE_VOXELS)
        truth = np.asarray((self.clean if self.clean is not None else self.volume)[box])
        mask, skeleton, n_parts = _tubes(truth, self.threshold)
        signal = mask if self.gate is None else np.asarray(self.gate[box], bool)
        labels, n_objects = structure.components(signal, SMALLEST_OBJECT)
        dark = truth[~signal]
        background = float(np.median(dark)) if dark.size else self.range[0]
        objects = structure.measure(labels, n_objects, truth, background)
        return _Structure(box, mask, skeleton, n_parts, labels, n_objects, background, objects)

    @functools.cached_property
    def _fourier_box(self) -> Box:
        return self.box(FOURIER_VOXELS)


@dataclass(frozen=True)
class _Structure:
    """What the structure measures compare with, in one box."""

    box: Box
    mask: structure.Mask
    skeleton: structure.Mask
    n_parts: int
    labels: structure.Labels
    n_objects: int
    background: float
    objects: structure.Objects


def busiest_box(region: Voxels, limit: int, cell: int = 32) -> Box:
    """The box of at most `limit` voxels with the most voxels of a mask, on a grid of cells; all where that is enough.

    The longest axis is halved until the box is small enough, so that it keeps a round shape.
    """
    shape = list(region.shape)
    size = shape.copy()
    while math.prod(size) > limit:
        longest = size.index(max(size))
        size[longest] = -(-size[longest] // 2)
    if size == shape:
        return slice(0, size[0]), slice(0, size[1]), slice(0, size[2])
    counts = np.zeros([-(-n // cell) for n in shape])
    for box in image.boxes(tuple(shape)):
        values = np.asarray(region[box], np.float64)
        for axis, cut in enumerate(box):
            edges = np.arange(cut.start // cell, -(-cut.stop // cell)) * cell - cut.start
            values = np.add.reduceat(values, np.maximum(edges, 0), axis=axis)
        counts[tuple(slice(cut.start // cell, -(-cut.stop // cell)) for cut in box)] += values
    windows = np.lib.stride_tricks.sliding_window_view(counts, [max(1, n // cell) for n in size])
    first = np.unravel_index(np.argmax(windows.sum((-3, -2, -1))), windows.shape[:3])
    starts = [min(cell * int(i), n - s) for i, n, s in zip(first, shape, size)]
    z, y, x = (slice(a, a + s) for a, s in zip(starts, size))
    return z, y, x


def _tubes(volume: NDArray[np.generic], threshold: float) -> tuple[structure.Mask, structure.Mask, int]:
    """Mask, skeleton and number of connected parts above a threshold, after a blur of one voxel against the noise."""
    from skimage.morphology import skeletonize

    mask = ndimage.gaussian_filter(np.asarray(volume, np.float32), 1.0) > threshold
    labels, n = structure.components(mask, SMALLEST_OBJECT)
    kept = labels > 0
    return kept, np.asarray(skeletonize(kept), bool), n


def _mean(values: list[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


_REGION = {"whole": "all voxels", "fg": "foreground (above 10 % of the range)", "gate": "gate"}

# name to (label, unit)
LABELS: dict[str, tuple[str, str]] = {
    **{f"psnr_{r}": (f"PSNR, {words}", "dB") for r, words in _REGION.items()},
    **{f"psnr_{r}_clean": (f"PSNR against the noise-free volume, {words}", "dB") for r, words in _REGION.items()},
    **{f"noise_ceiling_{r}": (f"PSNR of the noise alone, {words}", "dB") for r, words in _REGION.items()},
    **{
        f"true_noise_ceiling_{r}": (f"PSNR of the noise alone, from the noise-free volume, {words}", "dB")
        for r, words in _REGION.items()
    },
    **{f"ssim_{r}": (f"SSIM in 3-D, {words}", "") for r, words in _REGION.items()},
    **{f"mip_ssim_{axis}": (f"SSIM of the maximum projection along {axis}", "") for axis in "zyx"},
    "mip_ssim": ("SSIM of the maximum projections, mean of three axes", ""),
    "mip_ms_ssim": ("MS-SSIM of the maximum projections, mean of three axes", ""),
    "mip_gmsd": ("GMSD of the maximum projections (0 is equal), mean of three axes", ""),
    "slice_ms_ssim": ("MS-SSIM of slices, mean", ""),
    "slice_gmsd": ("GMSD of slices (0 is equal), mean", ""),
    "fsc": ("Fourier shell correlation with the original falls below 0.143 at", "cycles/voxel"),
    "fsc_clean": ("Fourier shell correlation with the noise-free volume falls below 0.143 at", "cycles/voxel"),
    "cl_dice": ("clDice of the skeletons", ""),
    "skeleton_recall": ("Skeleton recall", ""),
    "n_parts": ("Connected parts above the threshold, decoded", ""),
    "n_parts_reference": ("Connected parts above the threshold, reference", ""),
    "n_objects": ("Objects whose light is compared", ""),
    "object_light_median": ("Error of the objects' integrated intensity, median", "fraction"),
    "object_light_p95": ("Error of the objects' integrated intensity, 95th percentile", "fraction"),
    "object_light_total": ("Error of the integrated intensity of all objects, signed", "fraction"),
    "object_place_median": ("Error of the objects' centroids, median", "um"),
    "object_place_p95": ("Error of the objects' centroids, 95th percentile", "um"),
}


def entries(values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Measures as {"value", "unit", "label"}; not finite (no such region, nothing differs) becomes the value none."""
    found = {}
    for name, value in values.items():
        label, unit = LABELS[name]
        found[name] = {"value": value if math.isfinite(value) else None, "unit": unit, "label": label}
    return found
