"""Projector against ASTRA: forward, adjoint, and iterations of the primal-dual solver; prints a table.

    python benchmarks/projector.py [--quick] [--device auto|cpu|cuda] [--json FILE]

On a CPU the peer is ASTRA's `linear` projector, slice by slice; on a GPU also its 3-D projector on the same torch
tensors. Times are the smallest of several runs, of both sides in one process. The JSON file is a list of
{"case", "method", "metric", "value", "unit"}.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gigascope.kernels.projector import backproject, project
from gigascope.tomography.geometry import volume_width
from gigascope.tomography.primal_dual import PrimalDual


@dataclass(frozen=True)
class Case:
    """One tilt series: views within +-60 degrees over a volume as wide as the detector."""

    n_tilts: int
    n_z: int
    n_s: int
    n_y: int

    def __str__(self) -> str:
        return f"{self.n_tilts} tilts, {self.n_z} x {self.n_s} x {self.n_y}"

    @property
    def angles(self) -> Tensor:
        """(tilt,) float64, radians."""
        return torch.deg2rad(torch.linspace(-60, 60, self.n_tilts, dtype=torch.float64))

    @property
    def n_flops(self) -> int:
        """Two neighbours, multiply and add, per ray and plane."""
        return 4 * self.n_tilts * self.n_s * self.n_z * self.n_y

    @property
    def n_bytes(self) -> int:
        """Volume and views once."""
        return 4 * self.n_y * self.n_s * (self.n_z + self.n_tilts)


def seconds(run: Callable[[], object], device: torch.device, n_runs: int, budget_s: float = 20.0) -> float:
    """Smallest wall time of several runs after one to warm up; the device is waited for."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    run()
    wait()
    best, spent = math.inf, 0.0
    for _ in range(n_runs):
        start = time.perf_counter()
        run()
        wait()
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
        if spent > budget_s:
            break
    return best


def import_astra() -> ModuleType | None:
    """The peer, where it is installed."""
    try:
        import astra
    except ImportError:
        return None
    return astra


class AstraSlices:
    """ASTRA's CPU projector `linear`, applied to one slice (z, x) after the other."""

    def __init__(self, astra: ModuleType, case: Case) -> None:
        self.astra, self.case = astra, case
        volume = astra.create_vol_geom(case.n_z, case.n_s)
        views = astra.create_proj_geom("parallel", 1.0, case.n_s, -case.angles.numpy())
        self.projector = astra.create_projector("linear", views, volume)
        self.volume = astra.data2d.create("-vol", volume)
        self.views = astra.data2d.create("-sino", views)
        self.forward = self._algorithm("FP", VolumeDataId=self.volume, ProjectionDataId=self.views)
        self.adjoint = self._algorithm("BP", ReconstructionDataId=self.volume, ProjectionDataId=self.views)

    def _algorithm(self, kind: str, **options: int) -> int:
        return int(
            self.astra.algorithm.create({**self.astra.astra_dict(kind), "ProjectorId": self.projector, **options})
        )

    def project(self, slices: Any, out: Any) -> None:
        """(y, z, x) -> (y, tilt, s)."""
        for y in range(len(slices)):
            self.astra.data2d.store(self.volume, slices[y])
            self.astra.algorithm.run(self.forward)
            out[y] = self.astra.data2d.get_shared(self.views)

    def backproject(self, views: Any, out: Any) -> None:
        """(y, tilt, s) -> (y, z, x)."""
        for y in range(len(views)):
            self.astra.data2d.store(self.views, views[y])
            self.astra.algorithm.run(self.adjoint)
            out[y] = self.astra.data2d.get_shared(self.volume)

    def close(self) -> None:
        """Free what ASTRA holds."""
        self.astra.algorithm.delete([self.forward, self.adjoint])
        self.astra.data2d.delete([self.volume, self.views])
        self.astra.projector.delete(self.projector)


class AstraDirect:
    """ASTRA's 3-D CUDA projector on torch tensors, volume (y, z, x) and views (y, tilt, s)."""

    def __init__(self, astra: ModuleType, case: Case, device: torch.device) -> None:
        self.direct = __import__("astra.experimental", fromlist=["direct_FP3D"])
        volume = astra.create_vol_geom(case.n_z, case.n_s, case.n_y)
        views = astra.create_proj_geom("parallel3d", 1.0, 1.0, case.n_y, case.n_s, -case.angles.numpy())
        self.projector = astra.create_projector("cuda3d", views, volume)
        self.volume = torch.randn(case.n_y, case.n_z, case.n_s, device=device)
        self.views = torch.empty(case.n_y, case.n_tilts, case.n_s, device=device)

    def project(self) -> None:
        """Volume to views."""
        self.direct.direct_FP3D(self.projector, self.volume, self.views)

    def backproject(self) -> None:
        """Views to volume."""
        self.direct.direct_BP3D(self.projector, self.volume, self.views)


class Table:
    """Rows that are printed as they come and written as JSON at the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, case: object, method: str, metric: str, value: float, unit: str) -> None:
        """Print one row and keep it."""
        self.rows.append({"case": str(case), "method": method, "metric": metric, "value": value, "unit": unit})
        print(f"{case!s:34} {method:32} {metric:38} {value:12.4g} {unit}", flush=True)

    def write(self, path: Path | None) -> None:
        """Write the rows, where a file was asked for."""
        if path is not None:
            path.write_text(json.dumps(self.rows, indent=1) + "\n")


def measure_own(table: Table, case: Case, device: torch.device, n_runs: int) -> tuple[float, float]:
    """Forward and adjoint into given arrays, and a whole iteration; returns the first two times."""
    angles = case.angles.to(device)
    volume = torch.randn(case.n_z, case.n_s, case.n_y, device=device)
    views = project(volume, angles, case.n_s)
    out = torch.empty_like(volume)
    method = f"gigascope {device.type}"
    forward = seconds(lambda: project(volume, angles, case.n_s, out=views), device, n_runs)
    adjoint = seconds(lambda: backproject(views, angles, (case.n_z, case.n_s), out=out), device, n_runs)
    for name, taken in (("forward", forward), ("adjoint", adjoint)):
        table.add(case, method, name, taken, "s")
        table.add(case, method, f"{name} rate", case.n_flops / taken / 1e9, "GFLOP/s")
    measure_iterations(table, case, device, n_runs, forward + adjoint)
    return forward, adjoint


def measure_iterations(table: Table, case: Case, device: torch.device, n_runs: int, passes: float) -> None:
    """One iteration of the solver: volume as wide as the views (crop) or as a section needs, and 4 groups of views."""
    method = f"gigascope {device.type}"
    wide = volume_width(case.n_s, case.n_z, case.angles.numpy(), "section")
    for name, groups, width in (("K=1 crop", 1, case.n_s), ("K=4 crop", 4, case.n_s), ("K=1 section", 1, wide)):
        sizes = [len(range(k, case.n_tilts, groups)) for k in range(groups)]
        shape = (case.n_z, width, case.n_y)
        problem = PrimalDual(case.angles.to(device), sizes, shape, case.n_s, lam=0.1, constants=True)
        views = torch.randn(case.n_tilts, case.n_s, case.n_y, device=device)
        problem.set_data(views, torch.ones_like(views))
        taken = seconds(problem.iterate, device, max(3, n_runs // 3))
        table.add(case, method, f"iteration {name}", taken, "s")
        table.add(case, method, f"iteration {name} / (fwd + adj)", taken / passes, "")


def compare(table: Table, case: Case, device: torch.device, n_runs: int) -> None:
    """Our times and those of ASTRA on one case."""
    forward, adjoint = measure_own(table, case, device, n_runs)
    astra = import_astra()
    if astra is None:
        print("ASTRA is not installed (extra dev): no peer times")
        return
    peer = AstraSlices(astra, case)
    slices = torch.randn(case.n_y, case.n_z, case.n_s).numpy()
    views = torch.empty(case.n_y, case.n_tilts, case.n_s).numpy()
    cpu = torch.device("cpu")
    peer_forward = seconds(lambda: peer.project(slices, views), cpu, 3)
    peer_adjoint = seconds(lambda: peer.backproject(views, slices), cpu, 3)
    peer.close()
    report_peer(table, case, "ASTRA linear CPU, per slice", (peer_forward, peer_adjoint), (forward, adjoint))
    if device.type == "cuda" and astra.use_cuda():
        direct = AstraDirect(astra, case, device)
        times = seconds(direct.project, device, n_runs), seconds(direct.backproject, device, n_runs)
        report_peer(table, case, "ASTRA CUDA direct 3-D", times, (forward, adjoint))


def report_peer(table: Table, case: Case, method: str, peer: tuple[float, float], own: tuple[float, float]) -> None:
    """Times of a peer and how many of ours fit into them."""
    for name, theirs, ours in zip(("forward", "adjoint"), peer, own, strict=True):
        table.add(case, method, name, theirs, "s")
        table.add(case, method, f"{name}: peer time / ours", theirs / ours, "")


def choose_device(name: str) -> torch.device:
    """The device asked for; auto takes CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def arguments(description: str | None) -> argparse.Namespace:
    """Options that the kernel benchmarks share."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small case, seconds in all")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


def main() -> None:
    """Run all cases."""
    options = arguments(__doc__)
    device = choose_device(options.device)
    cases = [Case(61, 16, 64, 64)] if options.quick else [Case(61, 64, 256, 256), Case(61, 128, 128, 128)]
    if device.type == "cuda" and not options.quick:
        cases.append(Case(61, 128, 1024, 1024))
    table = Table()
    for case in cases:
        compare(table, case, device, 5 if options.quick else 30)
    table.write(options.json)


if __name__ == "__main__":
    main()
