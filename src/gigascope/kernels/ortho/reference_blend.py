"""Definition of the blended gather in plain torch, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gigascope.kernels.ortho.reference import pixels

# standard deviation of a normal distribution over its median absolute deviation
MAD = 1.4826
# pixels by which rounding may put a sample beyond the outermost pixel centres: it is on them
SNAP = 1e-6


def blend(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    heights: Tensor,
    colours: Tensor,
    confidence: Tensor | None,
    clarity: Tensor | None,
    photometric: Tensor,
    corners: Tensor,
    start: Sequence[int],
    shape: Sequence[int],
    least_gate: float,
    gate: float,
    feather: float,
    epsilon: float,
    mode: str,
    sampling: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Weighted mean of the views of every pixel whose heights agree."""
    rc = pixels(table, distortion, size, start, shape, torch.float64)
    last = torch.tensor([[size[0] - 1], [size[1] - 1]], dtype=torch.float64, device=rc.device)[:, :, None]
    on = rc.clamp(min=0).minimum(last)
    rc = torch.where((rc - on).abs() <= SNAP, on, rc)
    edge = torch.minimum(rc, last - rc).amin(1)
    local = rc - corners[:, :, None, None]
    height, on_crop = _sampled(heights[..., None], local)
    trust = torch.zeros_like(height) if confidence is None else _sampled(confidence[..., None], local)[0]
    weight = ((edge + 0.5) / feather).clamp(max=1).square() * (epsilon + trust[..., 0])
    clear = torch.ones_like(weight) if clarity is None else _sampled(clarity[..., None], local)[0][..., 0]
    h = height[..., 0]
    seen = (edge >= 0) & on_crop & ~h.isnan() & (weight > 0)
    sampled = _sampled_cubic if sampling == "cubic" else lambda maps, at: _sampled(maps, at)[0]
    colour = sampled(colours, local) if colours.shape[3] else rc.new_zeros(*h.shape, 0)
    colour = _corrected(colour, photometric, rc, size)

    middle = _median(h, seen)
    spread = _median((h - middle).abs(), seen)
    limit = gate * (MAD * spread).clamp(min=least_gate)
    counts = seen & ((h - middle).abs() <= limit)
    w, of_colour = torch.where(counts, weight, 0.0), torch.where(counts, weight * clear, 0.0)
    total = w.sum(0)
    h, colour = torch.where(counts, h, 0.0), torch.where(counts[..., None], colour, 0.0)
    mean = (w * h).sum(0) / total
    variance = (w * (h - mean).square()).sum(0) / total
    n = counts.sum(0)
    if mode == "best":
        out_height = torch.where(total > 0, h.gather(0, w.argmax(0)[None])[0], torch.nan)
        chosen = of_colour.argmax(0)[None]
        out_colour = colour.gather(0, chosen[..., None].expand(-1, -1, -1, colour.shape[3]))[0]
        out_colour = torch.where((total > 0)[..., None], out_colour, torch.nan)
    else:
        out_height, out_colour = mean, (of_colour[..., None] * colour).sum(0) / of_colour.sum(0)[..., None]
    std = torch.where(n > 1, variance.sqrt(), torch.nan)
    out = (out_colour.permute(2, 0, 1), out_height, total, n, std)
    return tuple(t.float() for t in out)  # type: ignore[return-value]


def _sampled(maps: Tensor, rc: Tensor) -> tuple[Tensor, Tensor]:
    """(n, rows, cols, channels) bilinear samples of maps (n, h, w, channels), and whether they are on them."""
    n, h, w, _ = maps.shape
    on = (rc[:, 0] >= 0) & (rc[:, 0] <= h - 1) & (rc[:, 1] >= 0) & (rc[:, 1] <= w - 1)
    at = torch.where(on[:, None], rc, 0.0)
    i, j = at[:, 0].floor().long(), at[:, 1].floor().long()
    f, g = (at[:, 0] - i)[..., None], (at[:, 1] - j)[..., None]
    k = torch.arange(n, device=maps.device)[:, None, None]
    below, right = (i + 1).clamp(max=h - 1), (j + 1).clamp(max=w - 1)
    # uint16 has no indexing in torch
    values = maps.to(torch.float64)
    upper = values[k, i, j] * (1 - g) + values[k, i, right] * g
    lower = values[k, below, j] * (1 - g) + values[k, below, right] * g
    return upper * (1 - f) + lower * f, on


def _sampled_cubic(maps: Tensor, rc: Tensor) -> Tensor:
    """(n, rows, cols, channels) samples by cubic convolution of maps (n, h, w, channels), borders repeated."""
    n, h, w, _ = maps.shape
    on = (rc[:, 0] >= 0) & (rc[:, 0] <= h - 1) & (rc[:, 1] >= 0) & (rc[:, 1] <= w - 1)
    at = torch.where(on[:, None], rc, 0.0)
    i, j = at[:, 0].floor(), at[:, 1].floor()
    down, across = _cubic(at[:, 0] - i), _cubic(at[:, 1] - j)
    k = torch.arange(n, device=maps.device)[:, None, None]
    values = maps.to(torch.float64)
    total = values.new_zeros(*i.shape, maps.shape[3])
    for a in range(4):
        row = (i.long() + a - 1).clamp(0, h - 1)
        for b in range(4):
            weight = down[a] * across[b]
            total += weight[..., None] * values[k, row, (j.long() + b - 1).clamp(0, w - 1)]
    return total


def _cubic(f: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the samples at -1, 0, 1, 2 for a place f of 0 to 1 (Keys, IEEE Trans. ASSP 29, 1153 (1981), -1/2)."""
    return (
        ((-0.5 * f + 1.0) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1.0,
        ((-1.5 * f + 2.0) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )


def _corrected(colour: Tensor, photometric: Tensor, rc: Tensor, size: Sequence[int]) -> Tensor:
    """Colours after gain, bias and the illumination polynomial."""
    y, x = (rc[:, 0] - size[0] / 2) / max(size), (rc[:, 1] - size[1] / 2) / max(size)
    gain, bias, a0, a1, a2, a3, a4, a5 = photometric[:, :, None, None].unbind(1)
    light = 1 + a0 + a1 * x + a2 * y + a3 * x * x + a4 * y * y + a5 * x * y
    return (colour * gain[..., None] + bias[..., None]) * light[..., None]


def _median(values: Tensor, used: Tensor) -> Tensor:
    """Median over the first axis of the values in use, the mean of the middle two of an even number."""
    ordered = torch.where(used, values, torch.inf).sort(dim=0).values
    n = used.sum(0, keepdim=True)
    return (ordered.gather(0, (n - 1).clamp(min=0) // 2) + ordered.gather(0, (n // 2).clamp(max=len(values) - 1)))[
        0
    ] / 2
