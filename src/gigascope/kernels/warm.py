"""Compile the CPU kernels ahead of time: ``python -m gigascope.kernels.warm`` fills numba's cache for float32."""

from __future__ import annotations

import torch

from gigascope.kernels import cells, filters, gaussians, integer_field, ortho, projector, tv, warp


def warm() -> None:
    """Call every CPU kernel once on arrays of a few voxels."""
    warm_volumes()
    warm_views()
    warm_cultures()


def warm_volumes() -> None:
    """Those of tilt series and volumes."""
    angles = torch.tensor([-0.9, 0.1], dtype=torch.float64)
    volume, views = torch.ones(3, 4, 5), torch.ones(2, 4, 5)
    projector.project(volume, angles, 4)
    projector.backproject(views, angles, (3, 4))

    p = tv.gradient(volume)
    tv.gradient_adjoint(p)
    tv.dual_step_(p, volume, 0.1, 0.5)
    tv.primal_step_(volume.clone(), volume.clone(), p, volume, torch.ones(3, 4))
    offset = torch.zeros(2, dtype=torch.float64)
    tv.data_step_(views.clone(), views, views, views, torch.ones(2, 4), offset)
    tv.tv_norm(volume)
    tv.data_misfit(views, views, views, offset)

    shifts = torch.zeros(2, 2, dtype=torch.float64)
    matrices = torch.eye(2, 3, dtype=torch.float64).repeat(2, 1, 1)
    warp.spline_coefficients(views)
    warp.gaussian_blur(views, 0.5)
    warp.shift_sums(views, views, views)
    for order in (1, 3):
        warp.resample(views, matrices, (4, 5), order)
        moving = views.clone().requires_grad_()
        warp.translate(moving, shifts, order)[0].sum().backward()

    means, scales, quaternions = torch.ones(2, 3), torch.zeros(2, 3), torch.ones(2, 4)
    amplitudes, cuts = torch.ones(2), torch.full((2,), 3.0)
    shape, moving = (3, 4, 5), means.clone().requires_grad_()
    gaussians.evaluate(moving, scales, quaternions, amplitudes, cuts, shape).sum().backward()
    gaussians.squared_sums(means, scales, quaternions, cuts, volume)
    gaussians.count_pairs(means, scales, quaternions, cuts, shape)
    gaussians.evaluate_points(means, scales, quaternions, amplitudes, cuts, means)
    first, second, steps = torch.zeros(2, 11), torch.zeros(2, 11), torch.zeros(2, dtype=torch.int32)
    gradients = [tensor.clone() for tensor in (means, scales, quaternions, amplitudes)]
    rates = (0.1, 0.1, 0.1, 0.1)
    gaussians.adam_(means, scales, quaternions, amplitudes, gradients, first, second, steps, rates)

    row = torch.zeros(1, 21, dtype=torch.int64)
    row[:, 7:10], row[:, 13] = 1 << 31, 1 << 32
    integer_field.add_(torch.zeros(3, 4, 5, dtype=torch.int64), row, (0, 0, 0))


def warm_views() -> None:
    """Those of z-stacks and mosaics: filters, maps, splat and blend."""
    for dtype in (torch.uint8, torch.uint16, torch.float32):
        stack = torch.ones(1, 4, 5, dtype=dtype)
        filters.gaussian(stack, 0.5)
        filters.sharpness(stack)
    one, zero = torch.ones(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    normal = torch.tensor([[0.0, 0.0, -1.0]] * 2, dtype=torch.float64)
    views = ortho.view_table((4, 5), 1.0, one, normal, 0 * one, zero, one), 0 * one[:1], (4, 5)
    heights = torch.zeros(2, 4, 5, requires_grad=True)
    ortho.coordinates(*views, zero, (4, 5))
    coords, group = ortho.coordinates(*views, zero, (4, 5), heights), torch.zeros(2, dtype=torch.int64)
    ortho.pixels(*views, (0, 0), (4, 5))
    ortho.splat_predict(heights, coords, group, (4, 5))[0].nan_to_num().sum().backward()
    for dtype in (torch.uint8, torch.uint16, torch.float32):
        colours = torch.ones(2, 4, 5, 3, dtype=dtype)
        ortho.blend(*views, heights.detach(), colours, zero.long(), (0, 0), (4, 5), 0.1)


def warm_cultures() -> None:
    """Those of simulated cultures: nuclei, convolution and sampling, light, camera."""
    table, grid = cells.nuclei_table(torch.zeros(2, 3)), ((0, 0, 0), (3, 4, 5), (1.0, 1.0, 1.0))
    cells.labels(table, *grid)
    cells.density(table, *grid)
    cells.fraction(table, *grid)
    cells.owned(table, (1.0, 1.0, 1.0))
    volume, box = torch.ones(4, 5, 6), ((1.0, 1.5, 2.0), (0.0, 0.0, 0.0), (2, 2, 2))
    spectra = filters.spectra(torch.ones(2, 3, 3, 3), volume.shape)
    filters.convolve_sampled(volume, torch.ones(2, 4), spectra, volume.shape, *box)
    filters.area_sample(volume, *box)
    tau = cells.cone_depth(volume, torch.zeros(1, 2, dtype=torch.float64))
    places = (0, 0, 0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    cells.attenuate_(volume, tau, *places)
    cells.read_out(tau, (2, 2, 2), *places)
    cells.camera(volume, cells.Sensor(), 0, (0, 0, 0), volume.shape)


if __name__ == "__main__":
    warm()
