"""What classical depth from focus finds in a stack, as the start of a network and as its input and its teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gigascope.kernels import filters
from gigascope.topography.focus.peak import FocusPeak, estimate_peak
from gigascope.topography.focus.stream import combine
from gigascope.topography.network.model import tiles

# Windows of the sharpness, pixels. The larger two make the prior, all of them evidence.
SIGMAS = (8.0, 4.0, 2.0)
TRUNCATE = 2.0
# Window of the teacher: what one view finds at a step or on a slope is blurred by it, its noise the views average.
FINE_SIGMA = 2.0
# Slices on either side of the prior whose sharpness goes in.
AROUND = 2
# A fine peak farther than this from the prior is another peak, slices.
SAME_PEAK = 2.0
# Standard deviation that no index falls below, slices: texture within the window and shape of the curve.
SYSTEMATIC = 0.03
# The sharpness that a channel of the evidence counts in, and that channel; it ends at a hundredth of it.
UNIT_SHARPNESS, SHARPNESS_CHANNEL = 0.0375, -2


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of n views.

    Attributes
    ----------
    prior : (n, h, w) float32, slice of best focus by the classical estimator
    log_variance : (n, h, w) float32, of the prior, slices squared
    channels : (n, CHANNELS, h, w) float32, of order 1
    fine : (n, h, w) float32, slice of best focus with a small window
    fine_variance : (n, h, w) float32, of that, slices squared; infinite where it found nothing
    """

    prior: Tensor
    log_variance: Tensor
    channels: Tensor
    fine: Tensor
    fine_variance: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter(getattr(self, f.name) for f in fields(self))

    @property
    def sharpness(self) -> Tensor:
        """(n, h, w) float32, largest sharpness in the widest window."""
        return UNIT_SHARPNESS * (2 * self.channels[:, SHARPNESS_CHANNEL].float()).exp()


CHANNELS = len(SIGMAS) * (2 * AROUND + 3) + 3
# Slices that the channels take.
LEAST_SLICES = 2 * AROUND + 1


@torch.no_grad()
def find_evidence(stacks: Tensor) -> Evidence:
    """Evidence of every view of a batch.

    Parameters
    ----------
    stacks : (n, z, h, w) uint8, uint16 or float32 counts, z >= LEAST_SLICES

    Notes
    -----
    Nothing depends on more than `REACH` pixels around it, so that a tile with that margin has what the whole has.
    Slices count relative to the prior: a network that is given this finds the same correction at every height, and
    does not depend on the number of slices.
    """
    found = [_of_view(stack) for stack in stacks]
    return Evidence(*(torch.stack(parts) for parts in zip(*found)))


# The prior is also given relative to its mean over this window, pixels.
MEAN_SIGMA = 10.0
# Two passes of the widest window and its difference, and the mean.
REACH = 2 * math.ceil(TRUNCATE * SIGMAS[0]) + 1 + math.ceil(TRUNCATE * MEAN_SIGMA)


def evidence_in_tiles(read: Callable[[slice, slice], Tensor], shape: tuple[int, int], tile: int) -> Evidence:
    """Evidence of one view, a tile after another.

    Parameters
    ----------
    read : (rows, columns) -> stack (z, h, w)
    shape : (rows, columns) of the view
    tile : side, pixels

    Returns
    -------
    Evidence of n = 1; what :func:`find_evidence` finds in the whole, but for rounding
    """
    whole: list[Tensor] = []
    for seen, own, place in tiles(shape, 1, tile, REACH):
        found = find_evidence(read(*seen)[None])
        whole = whole or [part.new_empty((*part.shape[:-2], *shape)) for part in found]
        for part, to in zip(found, whole):
            to[(..., *place)] = part[(..., *own)]
    return Evidence(*whole)


def _of_view(stack: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    volumes = [filters.sharpness(stack, sigma, TRUNCATE) for sigma in SIGMAS]
    peaks = [estimate_peak(volume, "lens", sigma=sigma) for volume, sigma in zip(volumes, SIGMAS)]
    best = combine(peaks[:2])
    channels = _channels(volumes, peaks, best)
    fine = peaks[SIGMAS.index(FINE_SIGMA)]
    variance = _variance(fine.confidence) + SYSTEMATIC**2
    variance = torch.where((fine.index - best.index).abs() > SAME_PEAK, torch.inf, variance)
    return best.index, (_variance(best.confidence) + SYSTEMATIC**2).log(), channels, fine.index, variance


def _channels(volumes: Sequence[Tensor], peaks: Sequence[FocusPeak], best: FocusPeak) -> Tensor:
    n_z = volumes[0].shape[0]
    middle = best.index.round().clamp(AROUND, n_z - 1 - AROUND)
    around = middle.long() + torch.arange(-AROUND, AROUND + 1, device=middle.device)[:, None, None]
    channels = [2 * (best.index - middle)]
    for volume, peak in zip(volumes, peaks):
        curve = volume.gather(0, around).clamp_min(1e-4).log()
        channels += [*(curve - peak.sharpness.clamp_min(1e-4).log()).clamp_min(-4.0)]
        channels += [
            2 * (peak.index - best.index).clamp(-SAME_PEAK, SAME_PEAK),
            0.25 * (_variance(peak.confidence) + SYSTEMATIC**2).log() + 1,
        ]
    channels += [0.5 * (peaks[0].sharpness / UNIT_SHARPNESS).clamp_min(0.01).log()]
    mean = filters.gaussian(best.index[None], MEAN_SIGMA, TRUNCATE)[0]
    channels += [(best.index - mean).clamp(-4.0, 4.0)]
    return torch.stack(channels)


def _variance(confidence: Tensor) -> Tensor:
    """Squared error in slices that a confidence stands for, c = 1 / (1 + (e / 0.25)^2)."""
    return 0.0625 * (1.0 / confidence.clamp_min(1e-3) - 1.0)
