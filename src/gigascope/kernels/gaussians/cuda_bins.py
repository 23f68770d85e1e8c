"""Each Gaussian in the frame of the grid, and the list of Gaussians of every tile of it, on the GPU.

Frames are those of the CPU (`frames.py`): nested coordinates with x last, so that a tile kernel does two thirds of its
work once per row. They are made in float64; the tile kernels get float32 coefficients relative to an integer anchor,
which are the same wherever the grid starts.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.gpu import n_blocks, on_device_of

# 4 x 8 x 8 samples: one warp holds a tile, a row of x per thread
TILE = (4, 8, 8)
# columns of a frame, float64, those of `frames.py`: nu (3), s (3), g, a, b, cut^2, Q (9)
FRAME = 19
# columns of the coefficients, float32: nu - anchor (3), sqrt(k) s (3), g, a, b, k cut^2, k = log2(e) / 2
COEFFICIENTS = 16
BLOCK = 64
PAIRS = 128

# 2^-122 is the least an exponential is asked for, as on the CPU
LARGEST_CUT = 13.0
_LOG2E_2 = tl.constexpr(0.5 * math.log2(math.e))
_ROOT = tl.constexpr(math.sqrt(0.5 * math.log2(math.e)))
_FRAME = tl.constexpr(FRAME)
_COEFFICIENTS = tl.constexpr(COEFFICIENTS)


class Frames(NamedTuple):
    """What tile kernels know of each Gaussian."""

    frames: Tensor  # (N, FRAME) float64
    coefficients: Tensor  # (N, COEFFICIENTS) float32
    anchors: Tensor  # (N, 4) int32, floor of nu
    halves: Tensor  # (N, 3) float64, half sizes of the box around the cut, samples
    unknown: Tensor  # (N,) bool, of numbers that are not finite


class Bins(NamedTuple):
    """Pairs of a tile and a Gaussian, twice: by Gaussian, as they were made, and by tile."""

    frames: Frames
    offsets: Tensor  # (N + 1,) int64, first pair of each Gaussian
    tiles: Tensor  # (pairs,) int32, tile of each pair; the number of tiles where the Gaussian misses the tile
    starts: Tensor  # (tiles + 1,) int32, first pair of each tile, in the order by tile
    pairs: Tensor  # (pairs,) int64, pairs in the order by tile
    gaussians: Tensor  # (pairs,) int32, Gaussian of each pair in the order by tile
    n_tiles: tuple[int, int, int]


def make_frames(geometry: Sequence[Tensor], origin: Sequence[float], spacing: Sequence[float]) -> Frames:
    """Frames of means, log-scales, quaternions and cuts, all contiguous."""
    means = geometry[0]
    n = means.shape[0]
    # zeros and not empty: the compile test runs what follows without the kernel
    frames, halves = means.new_zeros(n, FRAME, dtype=torch.float64), means.new_zeros(n, 3, dtype=torch.float64)
    coefficients, anchors = means.new_zeros(n, COEFFICIENTS), means.new_zeros(n, 4, dtype=torch.int32)
    if n:
        grid = torch.tensor([*origin, *spacing], dtype=torch.float64, device=means.device)
        outputs = frames, coefficients, anchors, halves
        with on_device_of(means):
            _prepare[(n_blocks(n, BLOCK),)](
                *geometry, grid, *outputs, n, B=BLOCK, LARGEST=LARGEST_CUT, num_warps=2, enable_fp_fusion=True
            )
    unknown = ~((frames[:, :6].abs() < 1e15) & (halves.abs() < 1e15).repeat(1, 2)).all(dim=1)
    return Frames(frames, coefficients, anchors, halves, unknown)


def make_bins(
    geometry: Sequence[Tensor], shape: Sequence[int], origin: Sequence[float], spacing: Sequence[float]
) -> Bins:
    """Bins of a grid (z, y, x) with tiles of TILE samples."""
    frames = make_frames(geometry, origin, spacing)
    device = frames.frames.device
    size, tile = torch.tensor(shape, device=device), torch.tensor(TILE, device=device)
    # the margin is rounding; tile kernels decide exactly
    half = frames.halves * (1 + 1e-9) + 1e-9
    low = torch.nan_to_num((frames.frames[:, :3] - half).ceil()).clamp(min=0).minimum(size)
    high = torch.nan_to_num((frames.frames[:, :3] + half).floor() + 1).clamp(min=0).minimum(size)
    low = torch.where(frames.unknown[:, None], 0.0, low).long()
    high = torch.where(frames.unknown[:, None], size.double(), high).long()
    empty = (high <= low).any(dim=1) | (geometry[3] <= 0)
    first, last = low // tile, (high - 1) // tile + 1
    n_tiles = tuple(n_blocks(n, t) for n, t in zip(shape, TILE))
    return bin_boxes(
        frames, first, torch.where(empty[:, None], first, last), (n_tiles[0], n_tiles[1], n_tiles[2]), reject=True
    )


def bin_boxes(frames: Frames, first: Tensor, last: Tensor, n_tiles: tuple[int, int, int], reject: bool) -> Bins:
    """Pairs of every Gaussian with its box of tiles; `reject` leaves out tiles of TILE that its ellipsoid misses."""
    extent, device = last - first, first.device
    counts = extent.prod(dim=1)
    offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    n_pairs, n = int(offsets[-1]), math.prod(n_tiles)
    owners = torch.repeat_interleave(torch.arange(len(counts), device=device), counts, output_size=n_pairs)
    rest = torch.arange(n_pairs, device=device) - offsets[owners]
    box, start = extent[owners], first[owners]
    x = start[:, 2] + rest % box[:, 2]
    rest = rest // box[:, 2]
    y, z = start[:, 1] + rest % box[:, 1], start[:, 0] + rest // box[:, 1]
    tiles = ((z * n_tiles[1] + y) * n_tiles[2] + x).int()
    owners = owners.int()
    if reject and n_pairs:
        with on_device_of(tiles):
            _reject[(n_blocks(n_pairs, PAIRS),)](
                frames.frames, owners, tiles, n_pairs, n, n_tiles[1], n_tiles[2],
                Z=TILE[0], Y=TILE[1], X=TILE[2], P=PAIRS, num_warps=4, enable_fp_fusion=True,
            )  # fmt: skip
    ordered, pairs = torch.sort(tiles, stable=True)
    starts = torch.searchsorted(ordered, torch.arange(n + 1, device=device, dtype=torch.int32)).int()
    return Bins(frames, offsets, tiles, starts, pairs, owners[pairs], n_tiles)


class _Remembered:
    """The bins of the last call: a step of a fit evaluates, then gathers its moments, with the same Gaussians."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owners: tuple[weakref.ref[Tensor], ...] = ()
        self.key: object = None
        self.bins: Bins | None = None

    def find(self, geometry: Sequence[Tensor], *grid: Sequence[float]) -> Bins:
        """Bins for these very tensors, unchanged since, on this grid; else new ones."""
        if any(tensor.is_inference() for tensor in geometry):
            return make_bins(geometry, *grid)  # type: ignore[arg-type]
        key = tuple(tensor._version for tensor in geometry), tuple(tuple(numbers) for numbers in grid)
        with self.lock:
            same = len(self.owners) == len(geometry) and all(o() is t for o, t in zip(self.owners, geometry))
            if same and key == self.key and self.bins is not None:
                return self.bins
        bins = make_bins(geometry, *grid)  # type: ignore[arg-type]
        with self.lock:
            self.owners, self.key, self.bins = tuple(weakref.ref(tensor) for tensor in geometry), key, bins
        return bins


bins_of = _Remembered().find


@triton.jit
def _prepare(
    means, log_scales, quaternions, cuts, grid, frames, coefficients, anchors, halves, n,
    B: tl.constexpr, LARGEST: tl.constexpr
):  # fmt: skip
    i = tl.program_id(0) * B + tl.arange(0, B)
    ok = i < n
    w = tl.load(quaternions + 4 * i, mask=ok, other=1.0).to(tl.float64)
    x = tl.load(quaternions + 4 * i + 1, mask=ok, other=0.0).to(tl.float64)
    y = tl.load(quaternions + 4 * i + 2, mask=ok, other=0.0).to(tl.float64)
    z = tl.load(quaternions + 4 * i + 3, mask=ok, other=0.0).to(tl.float64)
    length = tl.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / length, x / length, y / length, z / length
    h_z, h_y, h_x = tl.load(grid + 3), tl.load(grid + 4), tl.load(grid + 5)
    one = tl.exp(-tl.load(log_scales + 3 * i, mask=ok, other=0.0).to(tl.float64))
    two = tl.exp(-tl.load(log_scales + 3 * i + 1, mask=ok, other=0.0).to(tl.float64))
    three = tl.exp(-tl.load(log_scales + 3 * i + 2, mask=ok, other=0.0).to(tl.float64))
    # rows are own axes, columns z, y, x
    b_1z, b_1y, b_1x = (
        one * h_z * (1 - 2 * (y * y + z * z)),
        one * h_y * (2 * (x * y + w * z)),
        one * h_x * (2 * (x * z - w * y)),
    )
    b_2z, b_2y, b_2x = (
        two * h_z * (2 * (x * y - w * z)),
        two * h_y * (1 - 2 * (x * x + z * z)),
        two * h_x * (2 * (y * z + w * x)),
    )
    b_3z, b_3y, b_3x = (
        three * h_z * (2 * (x * z + w * y)),
        three * h_y * (2 * (y * z - w * x)),
        three * h_x * (1 - 2 * (x * x + y * y)),
    )
    # Gram and Schmidt over the columns x, y, z
    s_x = tl.sqrt(b_1x * b_1x + b_2x * b_2x + b_3x * b_3x)
    q_1, q_2, q_3 = b_1x / s_x, b_2x / s_x, b_3x / s_x
    xy, xz = q_1 * b_1y + q_2 * b_2y + q_3 * b_3y, q_1 * b_1z + q_2 * b_2z + q_3 * b_3z
    p_1, p_2, p_3 = b_1y - xy * q_1, b_2y - xy * q_2, b_3y - xy * q_3
    s_y = tl.sqrt(p_1 * p_1 + p_2 * p_2 + p_3 * p_3)
    p_1, p_2, p_3 = p_1 / s_y, p_2 / s_y, p_3 / s_y
    yz = p_1 * b_1z + p_2 * b_2z + p_3 * b_3z
    r_1, r_2, r_3 = b_1z - xz * q_1 - yz * p_1, b_2z - xz * q_2 - yz * p_2, b_3z - xz * q_3 - yz * p_3
    s_z = tl.sqrt(r_1 * r_1 + r_2 * r_2 + r_3 * r_3)
    g, a, b = yz / s_y, xy / s_x, xz / s_x
    cut = tl.load(cuts + i, mask=ok, other=0.0).to(tl.float64)
    cut = tl.where(cut > LARGEST, LARGEST, cut)
    to_z, to_y, to_x = cut / s_z, cut / s_y, cut / s_x
    turn = (a * g - b) * to_z
    tl.store(halves + 3 * i, to_z, mask=ok)
    tl.store(halves + 3 * i + 1, tl.sqrt(to_y * to_y + g * g * to_z * to_z), mask=ok)
    tl.store(halves + 3 * i + 2, tl.sqrt(to_x * to_x + a * a * to_y * to_y + turn * turn), mask=ok)
    f, c = frames + i * _FRAME, coefficients + i * _COEFFICIENTS
    for j in tl.static_range(3):
        nu = (tl.load(means + 3 * i + j, mask=ok, other=0.0).to(tl.float64) - tl.load(grid + j)) / tl.load(grid + 3 + j)
        tl.store(f + j, nu, mask=ok)
        anchor = tl.floor(nu)
        anchor = tl.where(anchor > 1e9, 1e9, tl.where(anchor < -1e9, -1e9, anchor))
        tl.store(c + j, (nu - anchor).to(tl.float32), mask=ok)
        tl.store(anchors + 4 * i + j, tl.where(anchor == anchor, anchor, 0.0).to(tl.int32), mask=ok)
    _store_columns(f + 3, (s_z, s_y, s_x, g, a, b, cut * tl.abs(cut)), ok)
    q = (r_1 / s_z, p_1, q_1, r_2 / s_z, p_2, q_2, r_3 / s_z, p_3, q_3)
    _store_columns(f + 10, q, ok)
    _store_columns(c + 3, (s_z * _ROOT, s_y * _ROOT, s_x * _ROOT, g, a, b, cut * tl.abs(cut) * _LOG2E_2), ok)


@triton.jit
def _store_columns(at, columns, ok):
    for j in tl.static_range(len(columns)):
        tl.store(at + j, columns[j].to(at.dtype.element_ty), mask=ok)


@triton.jit
def _reject(
    frames, owners, tiles, n_pairs, n, tiles_y, tiles_x, Z: tl.constexpr, Y: tl.constexpr, X: tl.constexpr,
    P: tl.constexpr
):  # fmt: skip
    """Pairs whose tile the ellipsoid misses get tile n: |c| at its centre less its reach is above the cut."""
    p = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    ok = p < n_pairs
    tile = tl.load(tiles + p, mask=ok, other=0)
    f = frames + tl.load(owners + p, mask=ok, other=0) * _FRAME
    d_z = tile // (tiles_x * tiles_y) * Z + (Z - 1) * 0.5 - tl.load(f)
    d_y = tile // tiles_x % tiles_y * Y + (Y - 1) * 0.5 - tl.load(f + 1)
    d_x = tile % tiles_x * X + (X - 1) * 0.5 - tl.load(f + 2)
    s_z, s_y, s_x = tl.load(f + 3), tl.load(f + 4), tl.load(f + 5)
    g, a, b = tl.load(f + 6), tl.load(f + 7), tl.load(f + 8)
    c_z, c_y, c_x = s_z * d_z, s_y * (d_y + g * d_z), s_x * (d_x + a * d_y + b * d_z)
    # what a step along each axis changes c by: columns of the triangular factor
    reach = tl.sqrt(s_z * s_z + s_y * s_y * g * g + s_x * s_x * b * b) * ((Z - 1) * 0.5) + s_x * ((X - 1) * 0.5)
    reach += tl.sqrt(s_y * s_y + s_x * s_x * a * a) * ((Y - 1) * 0.5) + tl.sqrt(tl.load(f + 9))
    square = c_z * c_z + c_y * c_y + c_x * c_x
    tl.store(tiles + p, n, mask=ok & (tl.sqrt(square) > reach * (1 + 1e-9)))
