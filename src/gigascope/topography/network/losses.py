"""What a network is trained to: sharpness of the slice it selects, agreement of views in height and in picture.

Every term is a value per view; their weighted mean over all views of a step, on however many processes, is the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gigascope.kernels import filters, ortho
from gigascope.topography.network.batch import Batch, height_slices, nominal_height
from gigascope.topography.network.consensus import canvas, from_others
from gigascope.topography.network.evidence import Evidence
from gigascope.topography.network.model import Focus

# Sharpness of the instrument's noise, and the gain of the weights that count from there.
NOISE_SHARPNESS, GAIN = 0.0375, 4.0
PARITY_SIGMA, PARITY_TRUNCATE = 8.0, 2.0
# A teacher is not believed to better than this, slices squared.
LEAST_VARIANCE = 0.02**2


@dataclass(frozen=True)
class Objective:
    """Weights of the terms and their constants; 0 leaves a term out. The published setting is the default.

    Attributes
    ----------
    height : views agree on height (slices squared; with `huber` beyond that many slices linear)
    sharp : sharpness of the selected slice
    arg : distance to the sharpest slice
    photo : views agree on the picture, counts squared; with `orthorectify` on its contrast
    agreement : likelihood of the fine focus of all other views, see :func:`agreement`
    t1, t2 : of Smax / 0.0375, from where on a pixel counts in `sharp` and in `arg`
    sub_slice : both of them work on the log-parabola through the three slices about the largest, normalised per pixel
    orthorectify : pictures are those of the nearest slice, moved to where the predicted height puts them
    photo_from : share of the steps after which `photo` comes in, over another tenth
    dither : random rotation and shift of the coordinates at every step
    """

    height: float = 0.5
    sharp: float = 5000.0
    arg: float = 1.0
    photo: float = 0.0
    agreement: float = 0.0
    t1: float = 1.0
    t2: float = 1.5
    huber: float = 0.0
    sub_slice: bool = False
    orthorectify: bool = False
    photo_from: float = 0.0
    dither: bool = True


PARITY = Objective()
RECOMMENDED = Objective(
    height=0.5,
    sharp=0.0,
    arg=0.0,
    photo=0.0,
    agreement=1.0,
    huber=0.25,
    sub_slice=True,
    orthorectify=True,
    photo_from=0.3,
)


def terms(
    batch: Batch, focus: Focus, objective: Objective, evidence: Evidence | None = None, progress: float = 1.0
) -> dict[str, Tensor]:
    """Terms of the objective, weighted, per view.

    Parameters
    ----------
    batch : coordinates as they are to be used, see :func:`dithered`
    focus : of the network
    evidence : for `agreement`
    progress : share of the steps that are done

    Returns
    -------
    (n,) float32 each, by name
    """
    o = objective
    found: dict[str, Tensor] = {}
    index = focus.index.float()
    if o.sharp or o.arg:
        volume = sharpness_volume(batch.stacks)
        found |= _sharpness_terms(volume, index, o)
    coords, shape = canvas(batch.coords, batch.group, batch.n_groups)
    batch = replace(batch, coords=coords, foot=batch.foot + (coords - batch.coords)[:, :, 0, 0])
    if o.height:
        height = height_slices(batch, index) if o.sub_slice else nominal_height(batch, index)
        found["height"] = o.height * consistency(height, batch, shape, o.huber)
    if o.agreement and evidence is not None:
        found["agreement"] = o.agreement * agreement(batch, focus, evidence, shape)
    share = o.photo * min(1.0, max(0.0, (progress - o.photo_from) / 0.1)) if o.photo_from else o.photo
    if share:
        found["photo"] = share * photometric(batch, index, shape, o.orthorectify)
    return found


def sharpness_volume(stacks: Tensor) -> Tensor:
    """(n, z, h, w) S of every slice with the reference's window; zeros beyond the borders, as there."""
    return torch.stack([filters.sharpness(s, PARITY_SIGMA, PARITY_TRUNCATE, border="zero") for s in stacks])


def select(volume: Tensor, index: Tensor) -> Tensor:
    """Value at a fractional slice, linear between two: (1 - l) A[f] + l A[f + 1] with f = floor(index).

    Parameters
    ----------
    volume : (n, z, h, w); receives no gradient
    index : (n, h, w) in 0..z - 1

    Returns
    -------
    (n, h, w)
    """
    low = index.detach().floor().clamp(0, volume.shape[1] - 2)
    at = low.long()[:, None]
    below, above = (volume.detach().gather(1, at + d)[:, 0].to(index.dtype) for d in (0, 1))
    return below + (index - low) * (above - below)


def sharp_term(volume: Tensor, index: Tensor, t1: float) -> Tensor:
    """- mean of w S[index], w = 4 max(Smax / 0.0375 - t1, 0), over the interior; (n,)."""
    weight = GAIN * (volume.amax(dim=1) / NOISE_SHARPNESS - t1).clamp_min(0)
    return -_interior(weight * select(volume, index))


def arg_term(volume: Tensor, index: Tensor, t2: float) -> Tensor:
    """Mean of w (k_max - index)^2, w = 4 max(Smax / 0.0375 - t2, 0), over the interior; (n,)."""
    top, best = volume.max(dim=1)
    weight = GAIN * (top / NOISE_SHARPNESS - t2).clamp_min(0)
    return _interior(weight * (best - index) ** 2)


def log_parabola(volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vertex (slices), curvature (per slice squared, > 0) and validity of the parabola through ln S about the largest.

    A flat top or an end of the stack has none: there the vertex is the largest sample, the curvature that of a stack
    that loses half of its sharpness in two slices.
    """
    last = volume.shape[1] - 1
    best = volume.argmax(dim=1)
    middle = best.clamp(1, last - 1)
    before, at, after = (volume.gather(1, (middle + d)[:, None])[:, 0].clamp_min(1e-6).log() for d in (-1, 0, 1))
    curvature = 2 * at - before - after
    valid = (curvature > 1e-3) & (best == middle)
    offset = 0.5 * (after - before) / curvature.clamp_min(1e-3)
    vertex = torch.where(valid, middle + offset.clamp(-1, 1), best.to(volume.dtype))
    return vertex, torch.where(valid, curvature, 0.5 * math.log(2.0)), valid


def smooth_sharp_term(volume: Tensor, index: Tensor, t1: float) -> Tensor:
    """- mean of w exp(-c (index - vertex)^2 / 2): the log-parabola's own S over its largest value; (n,).

    Smooth in the index with its maximum at the sub-slice vertex, where the linear S has it at a whole slice.
    """
    vertex, curvature, _ = log_parabola(volume)
    weight = (volume.amax(dim=1) / NOISE_SHARPNESS - t1).clamp(0, 1)
    return -_interior(weight * torch.exp(-0.5 * curvature * (index - vertex) ** 2))


def smooth_arg_term(volume: Tensor, index: Tensor, t2: float) -> Tensor:
    """Mean of w |vertex - index|, quadratic below a quarter slice; (n,)."""
    vertex, _, _ = log_parabola(volume)
    weight = (volume.amax(dim=1) / NOISE_SHARPNESS - t2).clamp(0, 1)
    return _interior(weight * functional.huber_loss(index, vertex, reduction="none", delta=0.25))


def consistency(height: Tensor, batch: Batch, shape: tuple[int, int], huber: float = 0.0) -> Tensor:
    """Mean of (splat-and-predict(height) - height)^2, the mosaic held constant, 0 at pixels that are held out; (n,).

    Parameters
    ----------
    height : (n, h, w)
    batch : its coordinates on a canvas of `shape`
    huber : beyond this difference linear; 0: never
    """
    predicted, _, _ = ortho.splat_predict(height, batch.coords, batch.group, shape, batch.n_groups)
    if huber:
        # twice torch's, so that small differences count as without
        values = 2 * functional.huber_loss(predicted.detach(), height, reduction="none", delta=huber)
    else:
        values = (predicted.detach() - height) ** 2
    return _taught(values, batch).mean(dim=(1, 2))


def _taught(values: Tensor, batch: Batch) -> Tensor:
    """The values, 0 at pixels that are held out: other views say nothing to them in any term."""
    return values if batch.held is None else torch.where(batch.held, 0.0, values)


def agreement(batch: Batch, focus: Focus, evidence: Evidence, shape: tuple[int, int]) -> Tensor:
    """Negative log-likelihood of what the other views found, each with a small window, given the index; (n,).

    The teacher of a pixel is the mean of the fine peaks of all other views there, weighted by their inverse variances.
    Its own noise is not in it, so that only what can be known from its stack is learned; windows of 2 pixels follow
    steps that the prior's 8 blur. Residuals count against the variance of teacher and network together and, beyond two
    standard deviations, linearly.
    """
    teacher = height_slices(batch, evidence.fine)
    # an index far off in one view must not outvote the rest
    weight = 1.0 / evidence.fine_variance.clamp_min(LEAST_VARIANCE) * batch.weight[:, None, None]
    mean, total = from_others(teacher, weight, batch.coords, batch.group, batch.n_groups, shape)
    variance = focus.log_variance.exp() + 1.0 / total.clamp_min(1.0)
    residual = (height_slices(batch, focus.index) - mean) / variance.sqrt()
    tail = 2 * functional.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=2.0)
    # one that is known to less than half a slice
    valid = (total > 4.0).float()
    return _taught(0.5 * valid * (tail + variance.log()), batch).mean(dim=(1, 2))


def photometric(batch: Batch, index: Tensor, shape: tuple[int, int], orthorectify: bool) -> Tensor:
    """Mean of (splat-and-predict(I[index]) - I[index])^2, 0 at pixels that are held out; (n,).

    Without `orthorectify` counts squared of the linear mix at the coordinates of height 0. With it contrast, I over its
    Gaussian mean, of the nearest slice, each pixel moved to V + (q - V)(1 - z / H) by the height z that the index lies
    off its slice: there is a gradient through where a pixel lands, and none through its value.
    """
    stacks = batch.stacks if batch.stacks.is_floating_point() else batch.stacks.to(torch.int32)
    if not orthorectify:
        values, coords = select(stacks.float(), index), batch.coords
    else:
        near = index.detach().round().clamp(0, batch.n_z - 1)
        values = stacks.gather(1, near.long()[:, None])[:, 0].float()
        values = values / filters.gaussian(values, PARITY_SIGMA, PARITY_TRUNCATE).clamp_min(1.0)
        z_mm = (height_slices(batch, index) - height_slices(batch, near)) * batch.dz_mm
        foot = batch.foot[:, :, None, None]
        coords = foot + (batch.coords - foot) * (1 - z_mm / batch.distance_mm[:, None, None])[:, None]
    predicted, _, _ = ortho.splat_predict(values, coords, batch.group, shape, batch.n_groups)
    # beyond the canvas by half a slice of parallax
    difference = torch.where(predicted.isnan(), 0.0, predicted - values)
    return _taught(difference**2, batch).mean(dim=(1, 2))


def dithered(batch: Batch, random: np.random.Generator) -> Batch:
    """The batch turned about the origin by any angle and shifted by up to a pixel, all its views alike."""
    angle = random.uniform(0, 2 * math.pi)
    shift = batch.coords.new_tensor(random.uniform(-1, 1, 2))
    turn = batch.coords.new_tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    coords = torch.einsum("ij,njhw->nihw", turn, batch.coords) + shift[:, None, None]
    return replace(batch, coords=coords, foot=batch.foot @ turn.T + shift)


def _sharpness_terms(volume: Tensor, index: Tensor, o: Objective) -> dict[str, Tensor]:
    sharp, arg = (smooth_sharp_term, smooth_arg_term) if o.sub_slice else (sharp_term, arg_term)
    found = {}
    if o.sharp:
        found["sharp"] = o.sharp * sharp(volume, index, o.t1)
    if o.arg:
        found["arg"] = o.arg * arg(volume, index, o.t2)
    return found


def _interior(values: Tensor) -> Tensor:
    """(n,) mean over all but a border of two sigma, where the window reaches outside."""
    edge = math.ceil(PARITY_TRUNCATE * PARITY_SIGMA)
    if min(values.shape[1:]) <= 2 * edge:
        return values.mean(dim=(1, 2))
    return values[:, edge:-edge, edge:-edge].mean(dim=(1, 2))
