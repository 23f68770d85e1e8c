"""Every op of the kernels against the limits of the machine and against a peer; prints a table.

    python benchmarks/kernels.py [--quick] [--device auto|cpu|cuda] [--json FILE]

The limits are measured first: a copy of as many bytes as a primal step moves gives the rate of the memory (bytes read
plus bytes written), a large float32 matrix product that of the arithmetic (without the shorter formats of tensor
cores); the best of several runs, on a CPU with one and with all threads. Bytes count every input and output once,
operations are those of the definition; the share of the limit is the longer of the two times over ours. Peers: ASTRA
for the projector, the same formulas in plain torch for the steps, scipy (on a GPU plain torch) for the warp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy.ndimage
import torch
from projector import AstraDirect, AstraSlices, Case, Table, arguments, choose_device, import_astra, seconds
from torch import Tensor

from gigascope.kernels import projector, tv, warp


@dataclass(frozen=True)
class Limits:
    """What the machine does at most, per second."""

    n_bytes: float
    n_flops: float


@dataclass(frozen=True)
class Work:
    """One op: how to run it, what it has to move and to compute, and who else can do it."""

    name: str
    run: Callable[[], object]
    n_bytes: float
    n_flops: float
    peer: str = ""
    run_peer: Callable[[], object] | None = None


def measure_limits(device: torch.device, n_copy: int, n_matrix: int) -> Limits:
    """Rates of a copy and of a matrix product."""
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.randn(n_copy, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(n_matrix, n_matrix, device=device) for _ in range(2))
    out = torch.empty_like(a)
    copy = product = math.inf
    n_threads = torch.get_num_threads()
    for n in sorted({1, n_threads}):
        torch.set_num_threads(n)
        copy = min(copy, seconds(lambda: target.copy_(source), device, 20))
        product = min(product, seconds(lambda: torch.mm(a, b, out=out), device, 20))
    return Limits(2 * 4 * n_copy / copy, 2 * n_matrix**3 / product)


def projector_work(case: Case, device: torch.device) -> list[Work]:
    """Forward and adjoint, beside ASTRA."""
    angles, shape_zx = case.angles.to(device), (case.n_z, case.n_s)
    volume = torch.randn(case.n_z, case.n_s, case.n_y, device=device)
    views = projector.project(volume, angles, case.n_s)
    out = torch.empty_like(volume)
    peers: list[Callable[[], object] | None] = [None, None]
    name, astra = "", import_astra()
    if astra is not None and device.type == "cuda" and astra.use_cuda():
        direct = AstraDirect(astra, case, device)
        name, peers = "ASTRA CUDA direct 3-D", [direct.project, direct.backproject]
    elif astra is not None:
        slices = AstraSlices(astra, case)
        one, two = torch.randn(case.n_y, case.n_z, case.n_s), torch.randn(case.n_y, case.n_tilts, case.n_s)
        name = "ASTRA linear CPU, per slice"
        peers = [
            lambda: slices.project(one.numpy(), two.numpy()),
            lambda: slices.backproject(two.numpy(), one.numpy()),
        ]
    forward = lambda: projector.project(volume, angles, case.n_s, out=views)  # noqa: E731
    adjoint = lambda: projector.backproject(views, angles, shape_zx, out=out)  # noqa: E731
    return [
        Work("project", forward, case.n_bytes, case.n_flops, name, peers[0]),
        Work("backproject", adjoint, case.n_bytes, case.n_flops, name, peers[1]),
    ]


def plain_gradient(u: Tensor) -> Tensor:
    """Forward differences in plain torch."""
    result = torch.zeros(3, *u.shape, device=u.device)
    result[0, :-1] = u[1:] - u[:-1]
    result[1, :, :-1] = u[:, 1:] - u[:, :-1]
    result[2, :, :, :-1] = u[:, :, 1:] - u[:, :, :-1]
    return result


def plain_adjoint(p: Tensor) -> Tensor:
    """Its transpose in plain torch."""
    result = torch.zeros_like(p[0])
    result[1:] += p[0, :-1]
    result[:-1] -= p[0, :-1]
    result[:, 1:] += p[1, :, :-1]
    result[:, :-1] -= p[1, :, :-1]
    result[:, :, 1:] += p[2, :, :, :-1]
    result[:, :, :-1] -= p[2, :, :, :-1]
    return result


def volume_work(case: Case, device: torch.device) -> list[Work]:
    """Total-variation ops on the volume, beside plain torch."""
    shape = (case.n_z, case.n_s, case.n_y)
    u, ubar, atq = (torch.randn(shape, device=device) for _ in range(3))
    p, tau = torch.randn(3, *shape, device=device), torch.rand(shape[:2], device=device)
    lam, sigma, n = 0.1, 0.5, u.numel()

    def plain_dual() -> None:
        raised = p + sigma * plain_gradient(ubar)
        p.copy_(raised / (raised.norm(dim=0) / lam).clamp(min=1))

    def plain_primal() -> None:
        new = u - tau[:, :, None] * (plain_adjoint(p) + atq)
        ubar.copy_(2 * new - u)
        u.copy_(new)

    plain = "plain torch"
    return [
        Work("gradient", lambda: tv.gradient(u), 16 * n, 4 * n, plain, lambda: plain_gradient(u)),
        Work("gradient_adjoint", lambda: tv.gradient_adjoint(p), 16 * n, 6 * n, plain, lambda: plain_adjoint(p)),
        Work("dual_step_", lambda: tv.dual_step_(p, ubar, lam, sigma), 28 * n, 20 * n, plain, plain_dual),
        Work("primal_step_", lambda: tv.primal_step_(u, ubar, p, atq, tau), 28 * n, 11 * n, plain, plain_primal),
        Work("tv_norm", lambda: tv.tv_norm(u), 4 * n, 10 * n, plain, lambda: plain_gradient(u).norm(dim=0).sum()),
    ]


def data_work(case: Case, device: torch.device) -> list[Work]:
    """Ops on the data, beside plain torch."""
    shape = (case.n_tilts, case.n_s, case.n_y)
    q, ax, b = (torch.randn(shape, device=device) for _ in range(3))
    w, sigma = torch.rand(shape, device=device), torch.rand(shape[:2], device=device)
    o, n = torch.zeros(case.n_tilts, device=device), q.numel()

    def plain_step() -> Tensor:
        q.copy_(w * (q + sigma[:, :, None] * (ax + o[:, None, None] - b)) / (w + sigma[:, :, None]))
        return q.sum((1, 2), dtype=torch.float64)

    def plain_misfit() -> Tensor:
        return (w * (ax + o[:, None, None] - b).square()).sum((1, 2), dtype=torch.float64)

    def plain_sums() -> list[Tensor]:
        g, h = torch.gradient(ax, dim=(1, 2))
        r = ax - b
        terms = (torch.ones_like(r), g, h, r, g * g, g * h, h * h, g * r, h * r, r * r)
        return [(w * term).sum((1, 2), dtype=torch.float64) for term in terms]

    plain = "plain torch"
    return [
        Work("data_step_", lambda: tv.data_step_(q, ax, b, w, sigma, o), 20 * n, 8 * n, plain, plain_step),
        Work("data_misfit", lambda: tv.data_misfit(ax, b, w, o), 12 * n, 5 * n, plain, plain_misfit),
        Work("shift_sums", lambda: warp.shift_sums(ax, b, w), 12 * n, 30 * n, plain, plain_sums),
    ]


def warp_work(case: Case, device: torch.device) -> list[Work]:
    """Shifts, rotations and filters of the views, beside scipy or plain torch."""
    views = torch.randn(case.n_tilts, case.n_s, case.n_y, device=device)
    shifts = 3 * torch.randn(case.n_tilts, 2, dtype=torch.float64, device=device)
    matrices = torch.eye(2, 3, dtype=torch.float64, device=device).repeat(case.n_tilts, 1, 1)
    turn = torch.tensor(0.2)
    matrices[:, 0, 0] = matrices[:, 1, 1] = turn.cos()
    matrices[:, 0, 1], matrices[:, 1, 0], n = -turn.sin(), turn.sin(), views.numel()
    shape = (case.n_s, case.n_y)
    scipy_peers = device.type == "cpu"
    images = views.numpy() if scipy_peers else None

    def per_view(function: Callable[..., object], *options: object, **keywords: object) -> Callable[[], object] | None:
        if images is None:
            return None
        return lambda: [function(image, *options, **keywords) for image in images]

    def plain_bilinear() -> Tensor:
        theta = matrices.float()
        grid = torch.nn.functional.affine_grid(theta, [case.n_tilts, 1, *shape], align_corners=False)
        return torch.nn.functional.grid_sample(views[:, None], grid, align_corners=False)

    peer = "scipy.ndimage, per view" if scipy_peers else ""
    nd, turned = scipy.ndimage, matrices[0, :, :2].cpu().numpy()
    cubic = {"order": 3, "prefilter": False, "mode": "nearest"}
    linear = {"order": 1, "mode": "nearest"}
    spline = per_view(nd.spline_filter, order=3, output="float32", mode="mirror")
    return [
        Work("spline_coefficients", lambda: warp.spline_coefficients(views), 8 * n, 12 * n, peer, spline),
        Work("gaussian_blur 0.5", lambda: warp.gaussian_blur(views, 0.5), 8 * n, 20 * n, peer,
             per_view(nd.gaussian_filter, 0.5, mode="nearest")),
        Work("translate, linear", lambda: warp.translate(views, shifts, 1), 12 * n, 8 * n, peer,
             per_view(nd.shift, (1.3, -0.4), **linear)),
        Work("translate, cubic", lambda: warp.translate(views, shifts, 3), 12 * n, 16 * n, peer,
             per_view(nd.shift, (1.3, -0.4), **cubic)),
        Work("resample, linear", lambda: warp.resample(views, matrices, shape, 1), 12 * n, 20 * n,
             peer or "torch grid_sample", per_view(nd.affine_transform, turned, **linear) or plain_bilinear),
        Work("resample, cubic", lambda: warp.resample(views, matrices, shape, 3), 12 * n, 60 * n, peer,
             per_view(nd.affine_transform, turned, **cubic)),
    ]  # fmt: skip


def report(table: Table, case: Case, work: Work, limits: Limits, device: torch.device, n_runs: int) -> None:
    """Time, counts, share of the limit, and the peer."""
    taken = seconds(work.run, device, n_runs)
    least = max(work.n_bytes / limits.n_bytes, work.n_flops / limits.n_flops)
    row = f"{work.name} [{case}]"
    table.add(row, device.type, "time", taken, "s")
    table.add(row, device.type, "bytes, each once", work.n_bytes, "B")
    table.add(row, device.type, "operations", work.n_flops, "FLOP")
    table.add(row, device.type, "share of the measured limit", 100 * least / taken, "%")
    if work.run_peer is not None:
        theirs = seconds(work.run_peer, device, 3)
        table.add(row, work.peer, "time", theirs, "s")
        table.add(row, work.peer, "peer time / ours", theirs / taken, "")


def main() -> None:
    """Measure the limits, then every op."""
    options = arguments(__doc__)
    device = choose_device(options.device)
    gpu = device.type == "cuda"
    case = Case(61, 128, 1024, 1024) if gpu else Case(61, 64, 256, 256)
    if options.quick:
        case = Case(61, 16, 64, 64)
    # the seven arrays that a primal step reads and writes
    n_copy = 7 * case.n_z * case.n_s * case.n_y // 2
    limits = measure_limits(device, n_copy, 8192 if gpu else 512 if options.quick else 2048)
    table = Table()
    name = torch.cuda.get_device_name() if gpu else f"cpu, {torch.get_num_threads()} threads"
    table.add("limit", name, "copy", limits.n_bytes / 1e9, "GB/s")
    table.add("limit", name, "float32 matrix product", limits.n_flops / 1e9, "GFLOP/s")
    for make in (projector_work, volume_work, data_work, warp_work):
        for work in make(case, device):
            report(table, case, work, limits, device, 5 if options.quick else 20)
    table.write(options.json)


if __name__ == "__main__":
    main()
