"""The Triton kernels compile to machine code of a GPU, also on machines without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton, of the extra dev or of a CUDA build of torch, compiles kernels")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter has taken the compiler's place in this process", allow_module_level=True)

POINTERS = {
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.uint16: "*u16",
}
TARGET = ("cuda", 90, 32)
LAUNCHED = {"_project", "_backproject"}
LAUNCHED |= {"_gradient", "_gradient_adjoint", "_dual_step", "_primal_step", "_data_step", "_tv_norm", "_data_misfit"}
LAUNCHED |= {"_prepare", "_reject", "_evaluate", "_raw_moments", "_raw_squares", "_add_moments", "_add_squares"}
LAUNCHED |= {"_parameter_gradients", "_adam", "_evaluate_points"}
LAUNCHED |= {"_filter", "_scatter_rows", "_shift_sums", "_translate", "_resample"}
LAUNCHED |= {"_steepness", "_map_forward", "_map_back", "_splat", "_predict", "_gradients", "_blend"}
LAUNCHED |= {"_weigh", "_add_products", "_area_sample"}
LAUNCHED |= {"_vote_tiles", "shade_tiles"}


class Compiling:
    """Stands in for a kernel: compiles what would have been launched, the way Triton specialises its arguments."""

    def __init__(self, kernel: Any, seen: list[str]) -> None:
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, grid: object) -> Any:
        return self.compile

    def compile(self, *arguments: Any, num_warps: int, enable_fp_fusion: bool, **constants: Any) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = [parameter.name for parameter in self.kernel.params]
        types, values, hints = {}, {(names.index(name),): value for name, value in constants.items()}, {}
        for i, (name, argument) in enumerate(zip(names, arguments, strict=False)):
            if isinstance(argument, torch.Tensor):
                types[name], hints[(i,)] = POINTERS[argument.dtype], [["tt.divisibility", 16]]
            elif isinstance(argument, float):
                types[name] = "fp32"
            elif argument == 1:  # Triton makes a constant of it
                types[name], values[(i,)] = "constexpr", 1
            else:
                types[name] = "i32"
        types |= dict.fromkeys(constants, "constexpr")
        options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
        source = ASTSource(self.kernel, types, values, hints)
        binary = triton.compile(source, target=GPUTarget(*TARGET), options=options)
        assert len(binary.asm["cubin"]) > 0
        self.seen.append(self.kernel.__name__)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that were compiled; those that kernels call stay as they are."""
    from gigascope.kernels.cells import cuda_raster
    from gigascope.kernels.filters import cuda as filters
    from gigascope.kernels.filters import cuda_fft
    from gigascope.kernels.gaussians import cuda as gaussians
    from gigascope.kernels.gaussians import cuda_adam, cuda_bins, cuda_points
    from gigascope.kernels.ortho import cuda as ortho
    from gigascope.kernels.ortho import cuda_blend, cuda_splat
    from gigascope.kernels.projector import cuda as projector
    from gigascope.kernels.tv import cuda as tv
    from gigascope.kernels.warp import cuda as warp

    seen: list[str] = []
    volumes = (projector, tv, warp, gaussians, cuda_adam, cuda_bins, cuda_points)
    for module in (*volumes, filters, cuda_fft, ortho, cuda_splat, cuda_blend, cuda_raster):
        for name in LAUNCHED & set(vars(module)):
            monkeypatch.setattr(module, name, Compiling(getattr(module, name), seen))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "n_s"), [((64, 96, 256), 96), ((1, 1, 1), 1)])
def test_every_triton_kernel_compiles(compiled, shape, n_s):
    from gigascope.kernels.gaussians import cuda as gaussians
    from gigascope.kernels.projector import cuda as projector
    from gigascope.kernels.tv import cuda as tv
    from gigascope.kernels.warp import cuda as warp

    n_t = 1 if shape == (1, 1, 1) else 6
    angles = torch.linspace(-1, 1, n_t, dtype=torch.float64)
    u, p, views = torch.zeros(shape), torch.zeros(3, *shape), torch.zeros(n_t, n_s, shape[2])
    shifts, mask = torch.zeros(n_t, 2, dtype=torch.float64), torch.ones_like(views, dtype=torch.uint8)
    matrices = torch.zeros(n_t, 2, 3, dtype=torch.float64)
    for hz in (1.0, 4.0):
        projector.project(u, angles, n_s, hz)
        projector.backproject(views, angles, shape[:2], hz)
    tv.gradient(u)
    tv.gradient_adjoint(p)
    tv.dual_step_(p, u, 0.1, 0.5)
    tv.primal_step_(u, u.clone(), p, u, torch.zeros(shape[:2]), 1.0, True)
    tv.data_step_(views, views, views, views, torch.zeros(n_t, n_s), torch.zeros(n_t))
    tv.tv_norm(u)
    tv.data_misfit(views, views, views, torch.zeros(n_t))
    warp.spline_coefficients(views)
    warp.translate_adjoint(views, shifts, 1)
    warp.shift_sums(views, views, views)
    for order in (1, 3):
        warp.translate(views, shifts, order, mask)
        warp.resample(views, matrices, (4, 5), order, 2, mask)
    n, grid = n_t, ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mixture = torch.zeros(n, 3), torch.zeros(n, 3), torch.ones(n, 4), torch.ones(n), torch.ones(n)
    geometry, sums = (*mixture[:3], mixture[4]), torch.zeros(n, 10)
    gaussians.evaluate(*mixture, shape, *grid)
    gaussians.moments(*geometry, u, *grid)
    gaussians.squared_sums(*geometry, u, *grid)
    gaussians.count_pairs(*geometry, shape, *grid)
    gaussians.evaluate_points(*mixture, torch.zeros(n, 3))
    gradients = gaussians.parameter_gradients(*mixture[1:4], sums)
    state = torch.zeros(n, 11), torch.zeros(n, 11), torch.zeros(n, dtype=torch.int32)
    ranges = (0.9, 0.99), 1e-12, (0.0, 1.0), (0.0,) * 6
    gaussians.adam_(*mixture[:4], gradients, *state, (0.1,) * 4, *ranges)
    topography(views)
    synthesis(u)
    assert set(compiled) == LAUNCHED


def topography(views: torch.Tensor) -> None:
    """The kernels of z-stacks and mosaics, on images of the shape (n, rows, columns) of `views`."""
    from gigascope.kernels.filters import cuda as filters
    from gigascope.kernels.ortho import cuda as ortho
    from gigascope.kernels.ortho import cuda_blend

    (n, *shape), nowhere = views.shape, torch.zeros(0, dtype=torch.float64)
    for dtype in (torch.uint8, torch.uint16, torch.float32):
        filters.sharpness(views.to(dtype), 8.0, 2.0, "replicate", 1.0)
    filters.gaussian(views, 2.0, 3.0, "zero")
    table, corners = torch.zeros(n, 21, dtype=torch.float64), torch.zeros(n, 2, dtype=torch.float64)
    for distortion in (nowhere, torch.zeros(2, dtype=torch.float64)):
        for heights in (None, views, views.double()):
            ortho.coordinates(table, distortion, (4, 5), corners, shape, 1.0, heights, torch.float32)
        ortho.pixels(table, distortion, (4, 5), (0, 0), shape, torch.float64)
    coords, group = torch.zeros(n, 2, *shape), torch.zeros(n, dtype=torch.int64)
    for border in ("drop", "wrap", "clamp"):
        _, mosaic, weights = ortho.splat_predict(views, coords, group, 1, shape, border, True)
        for through in (False, True):
            ortho.splat_predict_backward(views, views, coords, group.int(), mosaic, weights, border, through)
    view, light = table + 1, torch.zeros(n, 8, dtype=torch.float64)
    for dtype, confidence, *how in ((torch.uint8, views, "mean", "cubic"), (torch.uint16, None, "best", "linear")):
        maps = views, torch.zeros(n, *shape, 3, dtype=dtype), confidence, confidence, light, corners.long()
        cuda_blend.blend(view, nowhere, shape, *maps, (0, 0), shape, 0.1, 3.0, 128.0, 0.01, *how)


def synthesis(volume: torch.Tensor) -> None:
    """The kernels of simulated cultures."""
    nuclei(volume)
    from gigascope.kernels.filters import cuda_fft

    for n_k in (1, 2):
        fft_shape = tuple(n + 2 for n in volume.shape)
        half = (*fft_shape[:2], fft_shape[2] // 2 + 1)
        arrays = volume, torch.zeros(n_k, len(volume)), torch.zeros(n_k, *half, dtype=torch.complex64)
        cuda_fft.convolve(*arrays, fft_shape, (1, 1, 1), volume.shape)
        cuda_fft.convolve_sampled(*arrays, fft_shape, (0.5, 1.0, 1.0), (0.0, 0.0, 0.0), volume.shape)


def nuclei(volume: torch.Tensor) -> None:
    """The rasterisers, with and without gap, harmonics, crops."""
    from gigascope.kernels.cells import cuda_raster, nuclei_table
    from gigascope.kernels.cells.bodies import Grid

    first, step = (0, 0, 0), (1.0, 1.0, 1.0)
    plain = nuclei_table(torch.zeros(2, 3))
    # degree 3: the loops over degrees are unrolled
    waves = torch.zeros(2, 81)
    waves[:, :16] = 1
    rich = nuclei_table(torch.zeros(2, 3), None, 4.75, 2.0, waves, crops=torch.ones(1, 48, 48, 48))
    samples = Grid(first, tuple(2 * n for n in volume.shape), step)
    cuda_raster.fraction(plain, samples, 0.0, 2)
    for table, gap in ((plain, 0.0), (rich, 0.5)):
        cuda_raster.labels(table, samples, gap, 2)
        cuda_raster.density(table, Grid(first, tuple(volume.shape), step), gap)
