"""From an image of one domain to the other: a residual network at a quarter of the resolution.

Johnson et al. 2016 (arXiv 1603.08155), as CycleGAN has it (Zhu et al. 2017, arXiv 1703.10593). All images are
(n, 1, z, y, x), values in [-1, 1]; in two dimensions every slice goes through by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gigascope.errors import ShapeError
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.norms import ChannelNorm, InstanceNorm

# With a skip, what differs from the mean over so many voxels (z, y, x) is a further channel of the last layer, so much
# stronger: Adam moves a weight by its rate at most, which would take a short training longer than it has to make noise
# twice as strong.
DETAIL, NEAR = 8.0, (3, 5, 5)


class ResidualBlock(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, channels: int, a: Architecture) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [_pad((1, 1, 1), a), _conv(channels, channels, 3, a), _norm(channels, a)]
            if not last:
                layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) to the same."""
        return x + self.layers(x)


class Generator(nn.Module):
    """See the head of this module.

    Parameters
    ----------
    architecture : of the network

    Attributes
    ----------
    recompute : activations of the residual blocks are computed again on the way back, for less memory
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.recompute = False
        w = a.width
        strides = [s[3 - a.dimensions :] for s in a.strides]
        around = tuple(k // 2 for k in a.ends)
        encode: list[nn.Module] = [_pad(around, a), _conv(a.channels, w, a.ends, a), _norm(w, a), nn.ReLU(inplace=True)]
        for n, stride in enumerate(strides):
            c = w * 2 ** (n + 1)
            encode += [_conv(c // 2, c, 3, a, stride=stride, padding=1), _norm(c, a), nn.ReLU(inplace=True)]
        decode: list[nn.Module] = []
        for n, stride in zip((1, 0), reversed(strides)):
            c = w * 2**n
            decode += [_up(2 * c, c, stride, a), _norm(c, a), nn.ReLU(inplace=True)]
        last = _conv(w + 2 * int(a.skip), 1, a.ends, a)
        if a.skip:
            # images begin as they are, so that even a short training does not lose what is in them
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        decode += [_pad(around, a), last]
        # registered in the order of the published checkpoint, which is read by order
        self.encode = nn.Sequential(*encode)
        self.blocks = nn.ModuleList(ResidualBlock(4 * w, a) for _ in range(a.blocks))
        self.decode = nn.Sequential(*decode)

    @property
    def n_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, image: Tensor, depth: Tensor | None = None) -> Tensor:
        """Image of the other domain.

        Parameters
        ----------
        image : (n, 1, z, y, x), in [-1, 1]
        depth : (n, 1, z, 1, 1), see :func:`depth_of`; needed where the architecture says so

        Returns
        -------
        (n, 1, z, y, x) float32, in [-1, 1]; with a skip there may be more beyond
        """
        a, (n, _, z, y, x) = self.architecture, image.shape
        if a.depth != (depth is not None):
            raise ShapeError(f"generator: depth is {'needed' if a.depth else 'no channel of this architecture'}")
        known = image if depth is None else torch.cat([image, depth.to(image.dtype).expand_as(image)], 1)
        filled = _filled(_slices(known, a) if a.dimensions == 2 else known, a)
        values = self.encode(filled)
        for block in self.blocks:
            again = self.recompute and torch.is_grad_enabled()
            values = checkpoint(block, values, use_reentrant=False) if again else block(values)
        values = self.decode[:-2](values)
        if a.skip:
            own = filled[:, a.neighbours : a.neighbours + 1].to(values.dtype)
            values = torch.cat([values, own, DETAIL * _detail(own)], 1)
        values = self.decode[-2:](values).float()
        if a.dimensions == 2:
            values = values[..., :y, :x].reshape(n, z, 1, y, x).movedim(1, 2)
        values = values[..., :z, :y, :x]
        return image.float() + values if a.skip else torch.tanh(values)


def depth_of(start: int, stop: int, n: int) -> Tensor:
    """Normalised depth of slices `start` to `stop` - 1 of n: (stop - start,) float32, -1 near, 1 far."""
    return (torch.arange(start, stop, dtype=torch.float32) + 0.5) * (2.0 / n) - 1.0


def _slices(known: Tensor, a: Architecture) -> Tensor:
    """(n, c, z, y, x) to (n z, channels, y, x): slices with their neighbours; the outermost stand for those beyond."""
    n, _, z, y, x = known.shape
    image, rest = known[:, :1], known[:, 1:]
    at = torch.arange(z, device=known.device)
    near = [image[:, :, (at + k).clamp(0, z - 1)] for k in range(-a.neighbours, a.neighbours + 1)]
    return torch.cat([*near, rest], 1).movedim(2, 1).reshape(n * z, a.channels, y, x)


def _detail(image: Tensor) -> Tensor:
    """(n, 1, ...), what differs from the mean of its surroundings."""
    near = NEAR[-(image.ndim - 2) :]
    around = [k // 2 for k in reversed(near) for _ in range(2)]
    mean = functional.avg_pool3d if image.ndim == 5 else functional.avg_pool2d
    return image - mean(functional.pad(image, around, mode="replicate"), near, 1)


def _filled(values: Tensor, a: Architecture) -> Tensor:
    """Continued at the far ends to a multiple of the reduction."""
    shape, factors = values.shape[2:], a.reduction[3 - a.dimensions :]
    more = [-n % factor for n, factor in zip(shape, factors)]
    if not any(more):
        return values
    return functional.pad(values, [k for m in reversed(more) for k in (0, m)], mode="replicate")


def _pad(around: tuple[int, ...], a: Architecture) -> nn.Module:
    z, y, x = around
    return nn.ReplicationPad3d((x, x, y, y, z, z)) if a.dimensions == 3 else nn.ReflectionPad2d((x, x, y, y))


def _conv(
    inside: int,
    outside: int,
    size: tuple[int, ...] | int,
    a: Architecture,
    *,
    stride: tuple[int, ...] | int = 1,
    padding: int = 0,
) -> nn.Module:
    if a.dimensions == 3:
        return nn.Conv3d(inside, outside, size, stride, padding)  # type: ignore[arg-type]
    flat = size if isinstance(size, int) else size[1:]
    return nn.Conv2d(inside, outside, flat, stride, padding)  # type: ignore[arg-type]


def _up(inside: int, outside: int, stride: tuple[int, ...], a: Architecture) -> nn.Module:
    kind = nn.ConvTranspose3d if a.dimensions == 3 else nn.ConvTranspose2d
    if not a.even:
        return kind(inside, outside, 3, stride, 1, tuple(s - 1 for s in stride))  # type: ignore[arg-type]
    size = tuple(4 if s == 2 else 3 for s in stride)
    return kind(inside, outside, size, stride, 1)  # type: ignore[arg-type]


def _norm(channels: int, a: Architecture) -> nn.Module:
    return ChannelNorm(channels) if a.norm == "channel" else InstanceNorm()
