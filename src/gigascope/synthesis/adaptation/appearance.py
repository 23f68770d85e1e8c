"""What all images of a domain have in common: power at each scale, and how often each grey value is.

A discriminator sees a few crops and learns slowly how strong the noise of a domain is, or its contrast; a spectrum and
a histogram say so at once. Spectra are compared as by Durall et al. 2020 (arXiv 2003.01826), distributions of grey
values by their distance after Cramér (Székely and Rizzo, J. Stat. Plan. Inference 143, 1249 (2013)). Both are means of
many crops, followed over the steps: a single one may be as bright, or as full of nuclei, as it likes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

# Of the running means: about as many steps count.
FOLLOWED = 50
# Power of a voxel below which nothing is compared, of values in [-1, 1]: rounding to 8 bits has five times as much.
FLOOR = 1e-6
# Grey values (first, last, number) at which distributions are compared; those beyond count as the outermost.
LEVELS = (-1.2, 1.2, 64)


class Appearance:
    """Running means of one domain, and of what is made for it, and the pull of one towards the other.

    Attributes
    ----------
    means : measure and kind (`power real`, `histogram made`, ...) to its running mean; empty before the first step
    steps : that are in them
    """

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}
        self.steps = 0

    def terms(self, measured: dict[str, Tensor]) -> dict[str, Tensor]:
        """Half the mean squared difference of the means: `spectrum`, of log10 power, and `histogram`, cumulated.

        Its gradient is that by the running mean of what is made, handed to this step's images: they all are to move by
        as much as the mean is off, and need not become alike. Nothing in the first step.

        Parameters
        ----------
        measured : of images in need of a gradient: `power made`, `histogram made`, or one of them
        """
        found = {}
        for name, measure in (("spectrum", "power"), ("histogram", "histogram")):
            made, real = (self.means.get(f"{measure} {kind}") for kind in ("made", "real"))
            if made is None or real is None or f"{measure} made" not in measured:
                continue
            if measure == "power":
                apart = torch.log10(made + FLOOR) - torch.log10(real + FLOOR)
                # means were removed
                apart[0, 0] = 0
                slope = apart / (math.log(10) * (made + FLOOR))
            else:
                apart = (made - real).cumsum(0)
                slope = apart.flip(0).cumsum(0).flip(0)
            pull = (slope * measured[f"{measure} made"]).sum() / apart.numel()
            found[name] = 0.5 * apart.square().mean() + pull - pull.detach()
        return found

    def follow(self, measured: dict[str, Tensor]) -> None:
        """Take in what was measured in one more step, over all its images."""
        self.steps += 1
        keep = min(1 - 1 / self.steps, 1 - 1 / FOLLOWED)
        for name, value in measured.items():
            old = self.means.get(name, value)
            self.means[name] = torch.lerp(value, old, keep)

    def state_dict(self) -> dict[str, Any]:
        """Means and steps."""
        return {"means": dict(self.means), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over a saved state."""
        self.means = {name: value.to(device) for name, value in state["means"].items()}
        self.steps = state["steps"]


def ring_power(images: Tensor) -> Tensor:
    """Power of images, their means removed, under a Hann window.

    Parameters
    ----------
    images : (n, 1, z, y, x)

    Returns
    -------
    (z // 2 + 1, rings) float32, mean over the images: by frequency along z and by that in the plane, per voxel, as
    :func:`gigascope.metrics.spectrum.ring_power`
    """
    values = images[:, 0].float()
    z, y, x = values.shape[1:]
    window, place, counts = _geometry((z, y, x), values.device)
    spectrum = torch.fft.fftn((values - values.mean((1, 2, 3), keepdim=True)) * window, dim=(1, 2, 3))
    power = (spectrum.real.square() + spectrum.imag.square()).mean(0)
    sums = torch.zeros(counts.numel(), device=values.device).index_add(0, place, power.reshape(-1))
    return (sums / (counts * window.square().sum())).reshape(z // 2 + 1, -1)


def histogram(images: Tensor) -> Tensor:
    """Share of the voxels at each of :data:`LEVELS`, as (levels,) float32; one between two counts in part for both."""
    first, last, n = LEVELS
    place = ((images.float().reshape(-1) - first) * ((n - 1) / (last - first))).clamp(0, n - 1)
    # where a training has diverged its losses say so
    lower = place.detach().nan_to_num(0.0).floor().clamp(max=n - 2)
    share, at = place - lower, lower.long()
    counts = torch.zeros(n, device=images.device).index_add(0, at, 1 - share).index_add(0, at + 1, share)
    return counts / place.numel()


@functools.lru_cache(maxsize=8)
def _geometry(shape: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Window (z, y, x); bin of each sample of the spectrum, in one row; samples in each bin."""
    # a window of so few slices would leave next to nothing
    parts = [torch.hann_window(n, periodic=True) if n > 3 else torch.ones(n) for n in shape]
    window = parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :]
    side = min(shape[1:])
    fy, fx = (torch.fft.fftfreq(n) for n in shape[1:])
    ring = (torch.hypot(fy[:, None], fx[None, :]) * side).round().long().clamp(max=side // 2)
    at = torch.arange(shape[0])
    row = torch.minimum(at, shape[0] - at)
    place = (row[:, None, None] * (side // 2 + 1) + ring[None]).reshape(-1)
    counts = torch.bincount(place, minlength=(shape[0] // 2 + 1) * (side // 2 + 1)).float()
    return window.to(device), place.to(device), counts.to(device)
