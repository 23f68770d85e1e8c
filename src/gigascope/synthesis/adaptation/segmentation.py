"""The built-in quick segmenter: a small network and a watershed; trained on crops, applied in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from gigascope.synthesis.adaptation.loader import Crops
from gigascope.synthesis.adaptation.segmenter import BASE, Segmenter, segmenter_loss
from gigascope.synthesis.adaptation.windows import lattice

LR = 1e-3
# Of a window, voxels (z, y, x); beyond it the network sees what it reaches.
WINDOW = (32, 128, 128)
# Centres: where the smoothed distance is highest and above this, and how far apart they are at least, micrometres.
CENTRE_FROM, SMOOTH_UM, APART_UM = 0.4, 0.5, 4.0
# Smaller objects are specks, cubic micrometres: a tenth of the smallest class of nuclei.
SPECK_UM3 = 8.0


@dataclass(frozen=True)
class Fit:
    """How a segmenter is trained.

    Attributes
    ----------
    lr : rate of Adam, which falls along a line to 0
    steps : in all
    seed : of the first weights
    base : channels of its first level
    """

    steps: int
    seed: int
    lr: float = LR
    base: int = BASE


def fit_segmenter(
    crops: Iterable[Crops], fit: Fit, voxel_um: tuple[float, float, float], device: torch.device
) -> tuple[Segmenter, NDArray[np.float64]]:
    """Train a segmenter on crops with labels.

    Parameters
    ----------
    crops : at least `fit.steps` of them, with targets
    voxel_um : edges (z, y, x) of a voxel: where it is long, the first pooling leaves z as it is

    Returns
    -------
    the segmenter, ready to be applied, and (steps,) its losses
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed % 2**63)
        segmenter = Segmenter(fit.base, flat=voxel_um[0] >= 2 * voxel_um[2]).to(device)
    optimiser = torch.optim.Adam(segmenter.parameters(), lr=fit.lr)
    losses: list[float] = []
    for step, batch in zip(range(fit.steps), crops):
        for group in optimiser.param_groups:
            group["lr"] = fit.lr * (1 - step / fit.steps)
        if batch.targets is None:
            raise ValueError("crops without targets")
        optimiser.zero_grad(set_to_none=True)
        loss = segmenter_loss(segmenter(batch.image.to(device)), batch.targets.to(device))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return segmenter.eval().requires_grad_(False), np.array(losses)


def segment(
    volume: NDArray | Callable[[tuple[slice, ...]], NDArray],
    shape: tuple[int, int, int],
    segmenter: Segmenter,
    voxel_um: tuple[float, float, float],
    device: torch.device,
) -> NDArray[np.int32]:
    """Labels of nuclei.

    Parameters
    ----------
    volume : (z, y, x) in [-1, 1] as :class:`..mapping.Mapping` has it, or what reads slices of it so
    shape : (z, y, x)
    voxel_um : edges (z, y, x)

    Returns
    -------
    (z, y, x) int32, 0 is background, ids 1 to n
    """
    read = volume.__getitem__ if isinstance(volume, np.ndarray) else volume
    foreground, distance = predict(read, shape, segmenter, device)
    return split(foreground, distance, voxel_um)


@torch.no_grad()
def predict(
    read: Callable[[tuple[slice, ...]], NDArray],
    shape: tuple[int, int, int],
    segmenter: Segmenter,
    device: torch.device,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probability of the foreground, and centre distance, (z, y, x) float32 each; the same whatever the windows."""
    grid = (segmenter.stride[0], segmenter.stride[1], segmenter.stride[2])
    windows = lattice(shape, WINDOW, (0.0, 0.0, 0.0), "half_cut", segmenter.reach, grid)
    out = np.zeros((2, *shape), np.float32)
    for window in windows.touching(tuple(slice(0, n) for n in shape)):
        seen, inner = windows.seen(window)
        image = torch.from_numpy(np.ascontiguousarray(read(seen), np.float32)).to(device)
        said: Tensor = segmenter(image[None, None])[0]
        said[0].sigmoid_()
        at = tuple(slice(int(a.starts[k]), int(a.starts[k]) + a.size) for a, k in zip(windows.axes, window))
        out[(slice(None), *at)] = said[(slice(None), *inner)].cpu().numpy()
    return out[0], out[1]


def split(
    foreground: NDArray[np.float32], distance: NDArray[np.float32], voxel_um: tuple[float, float, float]
) -> NDArray[np.int32]:
    """Part the foreground into nuclei: a watershed from where the centre distance is highest.

    Parameters
    ----------
    foreground, distance : of :func:`predict`
    """
    from skimage.segmentation import watershed

    inside = foreground > 0.5
    smooth = ndimage.gaussian_filter(distance, [SMOOTH_UM / edge for edge in voxel_um], truncate=3)
    # as far as half the distance that centres are apart to each side, in an ellipsoid of the voxels' shape
    reach = [max(1, int(APART_UM / 2 / edge)) for edge in voxel_um]
    grid = np.meshgrid(*(np.arange(-r, r + 1) * edge for r, edge in zip(reach, voxel_um)), indexing="ij")
    ball = sum(g**2 for g in grid) <= (APART_UM / 2) ** 2
    highest = ndimage.maximum_filter(smooth, footprint=ball)
    seeds, _ = ndimage.label((smooth == highest) & (smooth > CENTRE_FROM) & inside, np.ones((3, 3, 3)))
    labels = watershed(-smooth, seeds, mask=inside)
    sizes = np.bincount(labels.reshape(-1))
    keep = sizes * float(np.prod(voxel_um)) >= SPECK_UM3
    keep[0] = False
    ids = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return ids[labels]
