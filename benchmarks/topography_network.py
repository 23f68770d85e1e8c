"""How far off heights are: classical focus, its mean over views, and two networks trained on the same stacks.

    python benchmarks/topography_network.py [--quick] [--preset XS|S] [--views ROWS COLS] [--steps N] [--json FILE]

The synthetic instrument gives the stacks and their truth. RMSE of the height in micrometres (and in steps of the stage)
on textured pixels, one offset removed: of single views, and of a mosaic to which every view contributes, plainly and by
the variance that an estimator claims. Pixels near a step, closer than 8 px + NA x step / pixel to an edge of a block,
are given apart: a window of 8 px cannot see the step where it is.

log-parabola, centroid   section 12's estimators on the sharpness with a window of 8 px
prior                    the product's classical estimator (thin-lens curve, windows of 8 and 4 px)
parity network           published form and objective, a few steps: it has not left mid-stack by then
network                  corrects the prior; taught by what the other views find with a small window
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gigascope.kernels.filters import sharpness
from gigascope.topography.capture.bayer import pack_green, unpack_green
from gigascope.topography.focus.peak import estimate_peak
from gigascope.topography.geometry.poses import foot, metric_distance, to_view
from gigascope.topography.instrument.instrument import Instrument
from gigascope.topography.instrument.world import Window
from gigascope.topography.network.batch import Batch
from gigascope.topography.network.evidence import Evidence, find_evidence
from gigascope.topography.network.losses import PARITY, RECOMMENDED, Objective
from gigascope.topography.network.model import Architecture, HeightNetwork, new_network
from gigascope.topography.network.training import Schedule, Training, look, recommended

BORDER = 8
MAX_VIEWS = 6


@dataclass
class Scene:
    """Some views of an instrument in memory."""

    instrument: Instrument
    numbers: list[int]
    stacks: list[NDArray[np.uint8]]
    flow: list[NDArray[np.float64]]
    z_flat_mm: list[NDArray[np.float64]]
    z_mm: list[NDArray[np.float64]]
    nominal: list[float]
    evidence: list[Evidence]

    @staticmethod
    def simulated(preset: str, views: tuple[int, int], seed: int) -> Scene:
        """Simulate the views of the first rows and columns, green only, as a training reads them."""
        instrument = Instrument(preset, seed=seed)
        capture, truth = instrument.capture, instrument.truth
        scene = Scene(instrument, [], [], [], [], [], [], [])
        for row, col in np.ndindex(*views):
            pattern = instrument.sensor.pattern or "GBRG"
            scene.numbers.append(truth.rig.number(row, col))
            with np.errstate(invalid="ignore"):
                scene.stacks.append(unpack_green(pack_green(capture.read(row, col), pattern), pattern))
            scene.flow.append(truth.flow(row, col))
            scene.z_flat_mm.append(capture.z_flat_mm(row, col))
            scene.z_mm.append(capture.z_stage_mm[row, col])
            scene.nominal.append(float(np.round(np.median(truth.nominal(row, col)))))
            scene.evidence.append(find_evidence(torch.from_numpy(scene.stacks[-1])[None]))
        return scene

    @property
    def size(self) -> int:
        """Pixels along a view."""
        return self.stacks[0].shape[1]

    def height_um(self, view: int, index: NDArray) -> NDArray:
        """Heights of the indices of a view."""
        z = self.z_mm[view]
        low = np.clip(np.floor(index).astype(int), 0, len(z) - 2)
        stage = z[low] + (index - low) * (z[low + 1] - z[low])
        return (self.z_flat_mm[view] - stage) * 1000 * self.instrument.capture.stage_sign

    def batch(self, step: int, patch: int, positions: int, seed: int) -> Batch:
        """Crops of all views around random points that at least two see."""
        rng = np.random.default_rng((seed, step))
        flow = np.array([[f.min(axis=(0, 1)), f.max(axis=(0, 1))] for f in self.flow])
        poses = self.instrument.truth.poses
        taken: list[tuple[int, int, tuple[slice, slice], NDArray]] = []
        group = 0
        while group < positions:
            point = rng.uniform(flow[:, 0].min(axis=0), flow[:, 1].max(axis=0))
            at = to_view(poses, np.array(self.numbers), point)
            seen = np.flatnonzero(((at >= 16) & (at <= self.size - 17)).all(axis=1))
            if len(seen) < 2:
                continue
            for view in rng.permutation(seen)[:MAX_VIEWS]:
                corner = np.clip(np.round((at[view] - patch / 2) / 2) * 2, 0, self.size - patch).astype(int)
                box = slice(corner[0], corner[0] + patch), slice(corner[1], corner[1] + patch)
                taken.append((group, int(view), box, point))
            group += 1
        return self._cut(taken, positions)

    def _cut(self, taken: list[tuple[int, int, tuple[slice, slice], NDArray]], positions: int) -> Batch:
        facts = self.instrument.capture.attributes()
        poses = self.instrument.truth.poses
        feet, distance = foot(poses), metric_distance(poses, float(facts["f_eff_mm"]), float(facts["m_ref"]))
        evidence = [
            torch.stack([getattr(self.evidence[v], f.name)[0][(..., *box)] for _, v, box, _ in taken])
            for f in fields(Evidence)
        ]
        # stage positions from their middle: float32 keeps nanometres
        middle = float(self.z_mm[0].mean())
        return Batch(
            stacks=torch.from_numpy(np.stack([self.stacks[v][(slice(None), *box)] for _, v, box, _ in taken])),
            coords=_f32([np.moveaxis(self.flow[v][box] - point, -1, 0) for _, v, box, point in taken]),
            group=torch.tensor([g for g, *_ in taken]),
            foot=_f32([feet[self.numbers[v]] - point for _, v, _, point in taken]),
            distance_mm=_f32([distance[self.numbers[v]] for _, v, *_ in taken]),
            datum_mm=_f32([self.z_flat_mm[v][box] - middle for _, v, box, _ in taken]),
            z_mm=_f32([self.z_mm[v] - middle for _, v, *_ in taken]),
            nominal=_f32([self.nominal[v] for _, v, *_ in taken]),
            weight=torch.ones(len(taken)),
            dz_mm=self.instrument.capture.dz_mm,
            stage_up=self.instrument.stage_up,
            n_groups=positions,
            evidence=Evidence(*evidence),
        )


def _f32(arrays: list) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(arrays), np.float32))


class Judge:
    """Errors of height maps of single views and of the mosaic that they make."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        truth = scene.instrument.truth
        low = np.min([f.min(axis=(0, 1)) for f in scene.flow], axis=0).astype(int) + 20
        high = np.max([f.max(axis=(0, 1)) for f in scene.flow], axis=0).astype(int) - 20
        window = Window(low[0], low[1], *(high - low))
        points = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high)), indexing="ij"), axis=-1)
        self.pixels = [to_view(truth.poses, n, points) for n in scene.numbers]
        self.height = truth.height_um(window)
        optics = scene.instrument.optics
        self.reach = 8 + optics.na * 80 / optics.pixel_um
        self.textured, self.near = truth.texture(window) > 0.99, truth.near_step(window, self.reach)
        grid = [divmod(n, scene.instrument.size.views[1]) for n in scene.numbers]
        self.of_view = [
            (truth.view_height_um(*rc), truth.view_texture(*rc) > 0.99, truth.view_near_step(*rc, self.reach))
            for rc in grid
        ]

    def errors(self, heights: list[NDArray], weights: list[NDArray]) -> dict[str, float]:
        """RMSE, um: of views away from steps; of the plain mean of views away from, near and in all; and weighted."""
        inner = slice(BORDER, -BORDER), slice(BORDER, -BORDER)
        single = [(h - t)[inner][(x & ~near)[inner]] for h, (t, x, near) in zip(heights, self.of_view, strict=True)]
        found = {"single": _rms(np.concatenate(single))}
        samples = [self._sampled(h, p) for h, p in zip(heights, self.pixels, strict=True)]
        shares = [self._sampled(w, p) for w, p in zip(weights, self.pixels, strict=True)]
        for name, parts in (("mean", [np.isfinite(s) * 1.0 for s in samples]), ("weighted", shares)):
            total = np.nansum(parts, axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                fused = np.nansum([np.nan_to_num(s) * np.nan_to_num(w) for s, w in zip(samples, parts)], axis=0) / total
            error = fused - self.height
            found[f"{name} away"] = _rms(error[self.textured & ~self.near])
            found[f"{name} near"] = _rms(error[self.textured & self.near])
            found[f"{name} all"] = _rms(error[self.textured])
        return found

    def _sampled(self, values: NDArray, pixels: NDArray) -> NDArray:
        out = np.full(self.height.shape, np.nan)
        inside = ((pixels >= BORDER) & (pixels <= self.scene.size - 1 - BORDER)).all(axis=-1)
        out[inside] = ndimage.map_coordinates(values, pixels[inside].T, order=1, mode="nearest")
        return out


def _rms(error: NDArray) -> float:
    error = error[np.isfinite(error)]
    return float(np.sqrt(np.mean((error - np.median(error)) ** 2)))


def train(
    scene: Scene, network: HeightNetwork, objective: Objective, schedule: Schedule, patch: int
) -> tuple[HeightNetwork, float]:
    """The trained network and the seconds of its training."""
    run = Training(network, lambda step: scene.batch(step, patch, 2, 0), objective, schedule, 0)
    started = time.perf_counter()
    for _ in run.updates():
        pass
    return run.result.eval(), time.perf_counter() - started


def compare(scene: Scene, steps: int, parity_steps: int) -> list[dict[str, float | str]]:
    """Rows of the table."""
    judge = Judge(scene)
    size = scene.instrument.size
    patch = min(128, size.patch)
    rows: list[dict[str, float | str]] = []

    def row(name: str, indices: list[NDArray], weights: list[NDArray], seconds: float = 0.0) -> None:
        heights = [scene.height_um(v, index) for v, index in enumerate(indices)]
        rows.append({"method": name, "seconds": seconds, **judge.errors(heights, weights)})
        print("  ".join(f"{v:8.2f}" if isinstance(v, float) else f"{v:16s}" for v in rows[-1].values()), flush=True)

    print(f"{'method':16s}  " + "  ".join(f"{c:>8s}" for c in COLUMNS))
    for method in ("argmax", "parabola", "log_parabola", "centroid", "lens"):
        peaks = [estimate_peak(sharpness(torch.from_numpy(s), 8.0, 2.0), method, sigma=8.0) for s in scene.stacks]
        row(method, [p.index.numpy() for p in peaks], [p.confidence.numpy() + 1e-3 for p in peaks])
    row(
        "prior",
        [e.prior[0].numpy() for e in scene.evidence],
        [np.exp(-e.log_variance[0].numpy()) for e in scene.evidence],
    )
    fine = [e.fine[0].numpy() for e in scene.evidence]
    row("teacher", fine, [1 / e.fine_variance[0].numpy() for e in scene.evidence])
    networks = []
    if parity_steps:
        filters = (32,) * min(3, size.levels) + (64,) * (size.levels - 3)
        parity = new_network(Architecture(size.n_z, filters), 0)
        networks.append(("parity network", parity, PARITY, Schedule(parity_steps, 1e-4, 0, 1.0, weight_decay=0.0)))
    schedule = Schedule(steps=steps, lr=2e-3, warm_up=min(100, steps // 10))
    networks.append(("network", new_network(recommended(size.n_z), 0), RECOMMENDED, schedule))
    for name, network, objective, plan in networks:
        trained, seconds = train(scene, network, objective, plan, patch)
        with torch.no_grad():
            found = [
                look(trained, torch.from_numpy(s)[None], e) for s, e in zip(scene.stacks, scene.evidence, strict=True)
            ]
        row(
            name,
            [f.index[0].numpy() for f in found],
            [np.exp(-f.log_variance[0].numpy()) for f in found],
            seconds,
        )
    return rows


COLUMNS = ("seconds", "single", "mean", "m. near", "m. all", "weighted", "w. near", "w. all")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="XS, 40 steps, no parity network")
    parser.add_argument("--preset", default="XS", choices=["XS", "S"])
    parser.add_argument("--views", nargs=2, type=int, default=None, help="rows and columns; all of XS, 4 x 4 of S")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--parity-steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the instrument")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    preset = "XS" if args.quick else args.preset
    views = tuple(args.views or ((2, 4) if preset == "XS" else (4, 4)))
    print(f"preset {preset}, {views[0]} x {views[1]} views, height errors in um")
    scene = Scene.simulated(preset, (views[0], views[1]), args.seed)
    steps, parity = (40, 0) if args.quick else (args.steps, args.parity_steps)
    rows = compare(scene, steps, parity)
    if args.json:
        case = f"{preset} {views[0]}x{views[1]}, {steps} steps"
        flat = [
            {
                "case": case,
                "method": row["method"],
                "metric": name,
                "value": value,
                "unit": "s" if name == "seconds" else "um",
            }
            for row in rows
            for name, value in row.items()
            if name != "method"
        ]
        args.json.write_text(json.dumps(flat, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
