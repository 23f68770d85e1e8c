"""Encoder-decoder from a z-stack to the fractional slice at which each pixel is in focus.

One image of n_z channels per view. The published form has no skips, no normalisation of its input and none of its
activations (its batch normalisation never left inference mode: an affine map per channel). The recommended form starts
at the focus that classical estimators find and corrects it from what they saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gigascope.errors import ShapeError

SLOPE = 0.3
# y = gamma x / sqrt(1 + eps) + beta: batch normalisation with moving mean 0, variance 1 and the eps of the reference
AFFINE_EPS = 1e-3
GROUP_CHANNELS = 8
# Of the logarithm of the variance of an index, in slices squared: standard deviations of 0.003 to 5 slices.
LOG_VARIANCE = (-12.0, 3.0)


@dataclass(frozen=True)
class Architecture:
    """What a checkpoint must say of its network.

    Attributes
    ----------
    n_z : slices of a stack
    filters : channels of each level
    skips : per level, 0 none, -1 the encoder's output as it is, m > 0 m channels of it; one number for all levels
    norm : affine (per channel) or group, whose statistics depend on the size of the picture: tiles then differ from it
    input : raw (counts), scaled (counts / 128 - 1), local (contrast to a mean over 17 pixels) or none, the evidence
        alone, which makes the network independent of n_z
    prior : none, the index starts mid-stack; focus, it is a correction of up to `r_max` slices of a given index
    r_max : slices
    evidence : channels that come with the prior
    reduce : the network works on means over reduce x reduce pixels; 1, 2 or 4. Its correction is spread bilinearly
    output_scale : of the mean of the last channels; without a prior only
    """

    n_z: int
    filters: tuple[int, ...] = (32, 32, 32, 64, 64, 64)
    skips: tuple[int, ...] = (0,)
    norm: Literal["affine", "group"] = "affine"
    input: Literal["raw", "scaled", "local", "none"] = "raw"
    prior: Literal["none", "focus"] = "none"
    r_max: float = 3.0
    evidence: int = 0
    reduce: int = 1
    output_scale: float = 1e-4

    def __post_init__(self) -> None:
        if self.n_z < 3 or not self.filters or min(self.filters) < 1:
            raise ShapeError(f"network: expected 3 slices or more and filters above 0, got {self.n_z}, {self.filters}")
        if len(self.skips) not in (1, len(self.filters)):
            raise ShapeError(f"network: skips: expected 1 or {len(self.filters)} numbers, got {self.skips}")
        if self.channels < 1:
            raise ShapeError("network: neither an image nor evidence goes in")
        if self.norm == "group" and any(f % GROUP_CHANNELS for f in self.filters):
            raise ShapeError(f"network: filters {self.filters}: groups need multiples of {GROUP_CHANNELS}")

    @property
    def channels(self) -> int:
        """Of the first layer's input."""
        return (0 if self.input == "none" else self.n_z) + self.evidence

    @property
    def levels(self) -> int:
        """Poolings."""
        return len(self.filters)

    @property
    def multiple(self) -> int:
        """Sides are padded to multiples of this."""
        return self.reduce * 2**self.levels

    @property
    def reach(self) -> int:
        """Pixels beyond which nothing changes an output: half the receptive field, rounded up."""
        # two convolutions of 3 x 3 and a pooling per level on the way down, one convolution on the way up
        return self.reduce * math.ceil((5 * 2**self.levels - 4) / 2 + 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Architecture:
        """From :meth:`to_dict`."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Architecture(**plain)


@dataclass(frozen=True, eq=False)
class Focus:
    """What a network says of n views.

    Attributes
    ----------
    index : (n, h, w) float32, fractional slices
    log_variance : (n, h, w) float32, of the index, slices squared; 0 throughout where the network does not tell
    """

    index: Tensor
    log_variance: Tensor


def index_of_phase(phase: Tensor, n_z: int) -> Tensor:
    """sin(phi) (n_z / 2 - 0.51) + n_z / 2 - 0.5: slices 0.01 to n_z - 1.01, mid-stack at 0."""
    return phase.sin() * (0.5 * n_z - 0.51) + (0.5 * n_z - 0.5)


class Affine(nn.Module):
    """gamma x / sqrt(1.001) + beta per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight / math.sqrt(1 + AFFINE_EPS)
        return torch.addcmul(self.bias[:, None, None], x, scale[:, None, None])


class Block(nn.Module):
    """Convolution 3 x 3, norm, LeakyReLU, convolution 1 x 1, norm, LeakyReLU (the last one optional)."""

    def __init__(self, n_in: int, n_out: int, norm: str, active: bool = True) -> None:
        super().__init__()
        self.wide = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.wide_norm = _norm(norm, n_out)
        self.point = nn.Conv2d(n_out, n_out, 1)
        self.point_norm = _norm(norm, n_out)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.wide_norm(self.wide(x)), SLOPE)
        x = self.point_norm(self.point(x))
        return functional.leaky_relu(x, SLOPE) if self.active else x


class HeightNetwork(nn.Module):
    """The network; `recompute` trades time for memory in training: activations are computed again on the way back."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.recompute = False
        filters, norm = architecture.filters, architecture.norm
        inputs = (architecture.channels, *filters[:-1])
        self.encoder = nn.ModuleList(Block(a, b, norm) for a, b in zip(inputs, filters))
        skips = architecture.skips * (len(filters) if len(architecture.skips) == 1 else 1)
        decoder, bridges, n_in = [], [], filters[-1]
        for level in reversed(range(len(filters))):
            width, skip = filters[level], skips[level]
            bridges.append(_Bridge(width, skip, norm) if skip > 0 else nn.Identity() if skip else None)
            active = level > 0 or architecture.prior == "focus"
            decoder.append(Block(n_in + (width if skip < 0 else skip), width, norm, active))
            n_in = width
        self.decoder = nn.ModuleList(decoder)
        self.bridges = nn.ModuleDict({str(i): b for i, b in enumerate(bridges) if b is not None})
        self.head = nn.Conv2d(filters[0], 2, 1) if architecture.prior == "focus" else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if self.head is not None:
            # the correction is 0 before the first step
            nn.init.zeros_(self.head.weight)

    @property
    def n_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def forward(
        self,
        stacks: Tensor,
        prior: Tensor | None = None,
        evidence: Tensor | None = None,
        log_variance: Tensor | None = None,
    ) -> Focus:
        """Index of every pixel.

        Parameters
        ----------
        stacks : (n, z, h, w), any size; counts
        prior : (n, h, w) float32 slices, with prior focus
        evidence : (n, architecture.evidence, h, w) float32, with prior focus
        log_variance : (n, h, w) float32 expected of the prior, which the network corrects too; none: 0

        Raises
        ------
        ShapeError : another number of slices or channels, or a prior that is missing or not wanted
        """
        a = self.architecture
        self._check(stacks, prior, evidence)
        h, w = stacks.shape[2:]
        padding = (0, -w % a.multiple, 0, -h % a.multiple)
        # zeros as in the reference; what is known beside the image is continued instead
        parts = [] if a.input == "none" else [functional.pad(_image(stacks, a.input), padding)]
        if evidence is not None:
            parts.append(_continued(evidence, padding))
        x = torch.cat(parts, dim=1)
        if a.reduce > 1:
            x = functional.avg_pool2d(x, a.reduce)
        with _bf16(x.device):
            x = self._layers(x)
        if self.head is None:
            phase = x.float().mean(dim=1)[:, :h, :w] * a.output_scale
            return Focus(index_of_phase(phase, a.n_z), torch.zeros_like(phase))
        assert prior is not None
        # float32 from here on: a hundredth of a slice of 64 is beyond bfloat16
        x = functional.conv2d(x.float(), self.head.weight, self.head.bias)
        if a.reduce > 1:
            x = functional.interpolate(x, scale_factor=a.reduce, mode="bilinear", align_corners=False)
        x = x[:, :, :h, :w]
        index = (prior + a.r_max * torch.tanh(x[:, 0])).clamp(0.01, a.n_z - 1.01)
        spread = x[:, 1] if log_variance is None else x[:, 1] + log_variance
        return Focus(index, spread.clamp(*LOG_VARIANCE))

    def _layers(self, x: Tensor) -> Tensor:
        kept = []
        for block in self.encoder:
            x = self._run(block, x)
            kept.append(x)
            x = functional.max_pool2d(x, 2)
        for i, block in enumerate(self.decoder):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            if str(i) in self.bridges:
                x = torch.cat([x, self.bridges[str(i)](kept[-1 - i])], dim=1)
            x = self._run(block, x)
        return x

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def _check(self, stacks: Tensor, prior: Tensor | None, evidence: Tensor | None) -> None:
        a = self.architecture
        if stacks.ndim != 4 or (a.input != "none" and stacks.shape[1] != a.n_z):
            raise ShapeError(f"network: expected stacks (n, {a.n_z}, h, w), got {tuple(stacks.shape)}")
        if (a.prior == "focus") != (prior is not None):
            raise ShapeError(f"network: prior is {a.prior}, {'no' if prior is None else 'an'} index was given")
        found = 0 if evidence is None else int(evidence.shape[1])
        if found != a.evidence:
            raise ShapeError(f"network: expected {a.evidence} channels of evidence, got {found}")


def new_network(architecture: Architecture, seed: int) -> HeightNetwork:
    """An untrained network on the CPU, its weights drawn from a seed (Glorot uniform)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HeightNetwork(architecture)


def tiles(
    shape: tuple[int, int], multiple: int, tile: int = 512, halo: int = 192
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
    """Tiles of a picture whose results, put together, are those of the whole.

    Parameters
    ----------
    shape : (rows, columns)
    multiple : of the network, see :attr:`Architecture.multiple`; tiles and halos are rounded up to multiples of it, so
        that every pooling has the same four pixels in a tile as in the whole
    tile, halo : pixels

    Yields
    ------
    read : rows and columns to give to the network
    own : of its result, those that count
    place : where they belong
    """
    step, margin = (-(-max(1, n) // multiple) * multiple for n in (tile, halo))
    for row in range(0, shape[0], step):
        for col in range(0, shape[1], step):
            corner = (row, col)
            end = [min(n, c + step) for n, c in zip(shape, corner)]
            first = [max(0, c - margin) for c in corner]
            last = [min(n, e + margin) for n, e in zip(shape, end)]
            read = slice(first[0], last[0]), slice(first[1], last[1])
            own = slice(row - first[0], end[0] - first[0]), slice(col - first[1], end[1] - first[1])
            yield read, own, (slice(row, end[0]), slice(col, end[1]))


class _Bridge(nn.Module):
    """A skip of fewer channels."""

    def __init__(self, n_in: int, n_out: int, norm: str) -> None:
        super().__init__()
        self.point = nn.Conv2d(n_in, n_out, 1)
        self.norm = _norm(norm if n_out % GROUP_CHANNELS == 0 else "affine", n_out)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.norm(self.point(x)), SLOPE)


def _norm(kind: str, channels: int) -> nn.Module:
    return Affine(channels) if kind == "affine" else nn.GroupNorm(channels // GROUP_CHANNELS, channels)


def _image(stacks: Tensor, kind: str) -> Tensor:
    """(n, z, h, w) float32."""
    x = stacks.float() if stacks.dtype != torch.uint16 else stacks.to(torch.int32).float()
    if kind == "raw":
        return x
    if kind == "scaled":
        return x / 128.0 - 1.0
    mean = functional.avg_pool2d(x, 17, stride=1, padding=8, count_include_pad=False)
    return x / mean.clamp_min(1.0) - 1.0


def _continued(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Padded at the right and below with the last column and row; also by more than the size, unlike torch's own."""
    right, below = padding[1], padding[3]
    if right:
        x = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], right)], dim=-1)
    if below:
        x = torch.cat([x, x[..., -1:, :].expand(*x.shape[:-2], below, x.shape[-1])], dim=-2)
    return x


def _bf16(device: torch.device) -> torch.autocast:
    """Convolutions in bfloat16 on CUDA with weights in float32; float32 on the CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
