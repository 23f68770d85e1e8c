"""Convolution that varies along z on the GPU: cuFFT for the transforms, Triton for what stands between them.

Rows of the planes go through the transforms along z a slab at a time, all k together, so that what is held beside the
planes stays small. Complex numbers are pairs of float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gigascope.kernels.filters.overlaps import overlaps
from gigascope.kernels.gpu import n_blocks, on_device_of

BLOCK = 1024
WARPS = 4
# bytes of the weighted rows of all k of one slab, and of the planes that are transformed back together
AT_ONCE = 1 << 28
SAMPLE_BLOCK = 256

Three = tuple[int, int, int]
ThreeFloats = tuple[float, float, float]


def convolve(volume: Tensor, weights: Tensor, spectra: Tensor, fft_shape: Three, start: Three, shape: Three) -> Tensor:
    """See :func:`gigascope.kernels.filters.convolve`; contiguous."""
    planes = _mixed_planes(volume, weights, spectra, fft_shape, (start[0], shape[0]))
    out = torch.empty(shape, device=volume.device)
    y, x = (slice(a, a + n) for a, n in zip(start[1:], shape[1:]))
    for part in _parts(shape[0], fft_shape):
        out[part] = torch.fft.irfft2(planes[part], s=fft_shape[1:])[:, y, x]
    return out


def area_sample(volume: Tensor, ratio: ThreeFloats, start: ThreeFloats, shape: Three) -> Tensor:
    """See :func:`gigascope.kernels.filters.area_sample`; contiguous."""
    axes = [overlaps(r, s, n) for r, s, n in zip(ratio, start, shape)]
    return _sample(volume, axes, shape)


def convolve_sampled(
    volume: Tensor,
    weights: Tensor,
    spectra: Tensor,
    fft_shape: Three,
    ratio: ThreeFloats,
    start: ThreeFloats,
    shape: Three,
) -> Tensor:
    """See :func:`gigascope.kernels.filters.convolve_sampled`; contiguous."""
    axes = [overlaps(r, s, n) for r, s, n in zip(ratio, start, shape)]
    first, shares = axes[0]
    low = int(first[0])
    n_z = min(int(first[-1]) + shares.shape[1], fft_shape[0]) - low
    planes = _mixed_planes(volume, weights, spectra, fft_shape, (low, n_z))
    lateral = torch.empty(n_z, *shape[1:], device=volume.device)
    for part in _parts(n_z, fft_shape):
        blurred = torch.fft.irfft2(planes[part], s=fft_shape[1:])
        lateral[part] = _sample(blurred, [_same(len(blurred)), *axes[1:]], (len(blurred), *shape[1:]))
    return _sample(lateral, [(first - low, shares), _same(shape[1]), _same(shape[2])], shape)


def transform_z_(planes: Tensor) -> None:
    """In place, transform (z, y, x) complex64 along z, rows at a time."""
    step = max(1, AT_ONCE // (8 * planes.shape[0] * planes.shape[2]))
    for y in range(0, planes.shape[1], step):
        planes[:, y : y + step] = torch.fft.fft(planes[:, y : y + step], dim=0)


def _parts(n_z: int, fft_shape: Three) -> list[slice]:
    """Planes in groups of at most AT_ONCE bytes."""
    step = max(1, AT_ONCE // (4 * fft_shape[1] * fft_shape[2]))
    return [slice(z, min(z + step, n_z)) for z in range(0, n_z, step)]


def _same(n: int) -> tuple[Tensor, Tensor]:
    """Overlaps of a grid with itself."""
    return torch.arange(n), torch.ones(n, 1, dtype=torch.float64)


def _mixed_planes(volume: Tensor, weights: Tensor, spectra: Tensor, fft_shape: Three, z_box: tuple[int, int]) -> Tensor:
    """Planes z of `z_box` of the result, still transformed along y and x: the first of the tensor that comes back."""
    n_z, (fft_z, fft_y, fft_x) = volume.shape[0], fft_shape
    n_k, n_x = len(weights), fft_x // 2 + 1
    planes = torch.empty(max(n_z, z_box[1]), fft_y, n_x, dtype=torch.complex64, device=volume.device)
    for part in _parts(n_z, fft_shape):
        planes[part] = torch.fft.rfft2(volume[part], s=(fft_y, fft_x))
    step = max(1, AT_ONCE // (8 * n_k * fft_z * n_x))
    for y in range(0, fft_y, step):
        rows = min(step, fft_y - y)
        weighted = torch.empty(n_k, fft_z, rows, n_x, dtype=torch.complex64, device=volume.device)
        _launch(_weigh, weighted, planes, weights, weighted, n_k, n_z, fft_z, y, rows, fft_y, n_x)
        product = torch.fft.fft(weighted, dim=1).contiguous()
        total = torch.empty(fft_z, rows, n_x, dtype=torch.complex64, device=volume.device)
        _launch(_add_products, total, product, spectra, total, n_k, fft_z, y, rows, fft_y, n_x)
        back = torch.fft.ifft(total, dim=0)
        planes[: z_box[1], y : y + rows] = back[z_box[0] : z_box[0] + z_box[1]]
    return planes


def _launch(kernel, like: Tensor, *arguments: Tensor | int) -> None:
    """One program for BLOCK complex numbers of `like`; complex tensors are handed over as pairs."""
    pairs = [torch.view_as_real(a) if isinstance(a, Tensor) and a.is_complex() else a for a in arguments]
    with on_device_of(like):
        kernel[(n_blocks(like.numel(), BLOCK),)](*pairs, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=True)


@triton.jit
def _weigh(planes, weights, out, n_k, n_z, fft_z, y, rows, fft_y, n_x, BLOCK: tl.constexpr):
    """Rows y and on, times the weight of k and of their plane; zeros behind the last plane."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, row, z, k = i % n_x, i // n_x % rows, i // (n_x * rows) % fft_z, i // (n_x * rows) // fft_z
    exists = k < n_k
    read = exists & (z < n_z)
    at = 2 * ((z * fft_y + y + row) * n_x + x)
    weight = tl.load(weights + k * n_z + z, mask=read, other=0)
    real, imaginary = tl.load(planes + at, mask=read, other=0), tl.load(planes + at + 1, mask=read, other=0)
    tl.store(out + 2 * i, weight * real, mask=exists)
    tl.store(out + 2 * i + 1, weight * imaginary, mask=exists)


@triton.jit
def _add_products(product, spectra, total, n_k, fft_z, y, rows, fft_y, n_x, BLOCK: tl.constexpr):
    """Sum over k of product times spectrum, the latter of rows y and on."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, row, z = i % n_x, i // n_x % rows, i // (n_x * rows)
    exists = z < fft_z
    at = (z * fft_y + y + row) * n_x + x
    size, whole = tl.cast(fft_z, tl.int64) * rows * n_x, tl.cast(fft_z, tl.int64) * fft_y * n_x
    real, imaginary = tl.zeros((BLOCK,), dtype=tl.float32), tl.zeros((BLOCK,), dtype=tl.float32)
    for k in range(n_k):
        p = product + 2 * (k * size + i)
        s = spectra + 2 * (k * whole + at)
        a, b = tl.load(p, mask=exists, other=0), tl.load(p + 1, mask=exists, other=0)
        c, d = tl.load(s, mask=exists, other=0), tl.load(s + 1, mask=exists, other=0)
        real += a * c - b * d
        imaginary += a * d + b * c
    tl.store(total + 2 * i, real, mask=exists)
    tl.store(total + 2 * i + 1, imaginary, mask=exists)


def _sample(volume: Tensor, axes: list[tuple[Tensor, Tensor]], shape: Three) -> Tensor:
    """Means over boxes, all axes in one pass."""
    out = torch.empty(shape, device=volume.device)
    tables, taps = [], []
    for first, shares in axes:
        tables += [first.to(volume.device), shares.to(volume.device, torch.float32).contiguous()]
        taps.append(shares.shape[1])
    grid = (n_blocks(shape[2], SAMPLE_BLOCK), shape[1], shape[0])
    with on_device_of(volume):
        _area_sample[grid](
            volume, *tables, out, *volume.shape, *shape[1:], TZ=taps[0], TY=taps[1], TX=taps[2], BLOCK=SAMPLE_BLOCK,
            num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return out


@triton.jit
def _area_sample(
    volume, z_first, z_shares, y_first, y_shares, x_first, x_shares, out, size_z, size_y, size_x, n_y, n_x,
    TZ: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for BLOCK samples of a row; shares behind the last sample are 0, and may lie behind the end."""
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, z = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    exists = x < n_x
    from_x = tl.load(x_first + x, mask=exists, other=0)
    from_y, from_z = tl.load(y_first + y), tl.load(z_first + z)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for t in range(TX):
        share = tl.load(x_shares + x * TX + t, mask=exists, other=0)
        at_x = tl.minimum(from_x + t, size_x - 1)
        for r in range(TY):
            at_y = tl.minimum(from_y + r, size_y - 1)
            across = tl.load(y_shares + y * TY + r) * share
            for q in range(TZ):
                at_z = tl.minimum(from_z + q, size_z - 1)
                weight = tl.load(z_shares + z * TZ + q) * across
                place = (at_z * size_y + at_y) * size_x + at_x
                total += weight * tl.load(volume + place, mask=exists, other=0)
    tl.store(out + (z * n_y + y) * n_x + x, total, mask=exists)
