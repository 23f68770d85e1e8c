"""Height from focus and the all-in-focus picture of one view: our estimators in one run.

    python benchmarks/topography_focus.py [--views N] [--quick] [--json FILE]

simulated  views of the synthetic instrument (preset S: 384 px, 17 slices, dz 40 um): height RMSE and 95th percentile in
           micrometres after one offset, PSNR in dB of the fused green picture to that made with the true index (both
           have the same noise: what is left is what the choice of slices costs), seconds per view

Real stacks, beside peers: topography_fusion.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.topography.capture.bayer import demosaic
from gigascope.topography.focus.fuse import fuse
from gigascope.topography.focus.peak import METHODS
from gigascope.topography.focus.stream import focus_peak, settle
from gigascope.topography.instrument.instrument import Instrument

BORDER = 20


def rows_of(case: str, method: str, figures: dict[str, tuple[float, str]]) -> Iterator[dict[str, object]]:
    for metric, (value, unit) in figures.items():
        yield {"case": case, "method": method, "metric": metric, "value": value, "unit": unit}


def simulated(n_views: int) -> list[dict[str, object]]:
    """Estimators against the truth of the instrument."""
    results: list[dict[str, object]] = []
    print(f"{'simulated':14} {'method':14} {'RMSE um':>8} {'p95 um':>7} {'PSNR dB':>8} {'seconds':>8}")
    for renderer in ("fast", "reference") if n_views > 4 else ("fast",):
        instrument = Instrument("S", seed=0, specimen="relief", renderer=renderer)
        dz = 1000.0 * instrument.capture.dz_mm
        views = [(i // 8, i % 8) for i in np.linspace(0, 63, n_views).astype(int)]
        errors: dict[str, list[NDArray]] = {}
        psnr: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        for view in views:
            stack = instrument.simulate(*view)
            pattern = instrument.capture.pattern
            green = np.stack([demosaic(s, pattern)[..., 1] for s in stack]) if pattern else stack
            green = green.astype(np.float32)
            true = instrument.truth.index(*view)
            good = instrument.truth.visible(*view) & (instrument.truth.view_texture(*view) > 0.5)
            good[:BORDER], good[-BORDER:], good[:, :BORDER], good[:, -BORDER:] = False, False, False, False
            best = fuse(green, torch.from_numpy(true.astype(np.float32)))
            for method in (*METHODS, "combined"):
                begun = time.perf_counter()
                peak = focus_peak(green, method=method)
                index = settle(peak) if method == "combined" else peak.index
                seconds[method] = seconds.get(method, 0.0) + (time.perf_counter() - begun) / len(views)
                error = dz * (index.numpy() - true)[good]
                errors.setdefault(method, []).append(error)
                # noise of one picture is in both: what is left is what the choice of slices costs
                difference = (fuse(green, index) - best)[good]
                psnr.setdefault(method, []).append(10 * np.log10(255.0**2 / max(float(np.mean(difference**2)), 1e-9)))
        for method, values in errors.items():
            # one offset for all views: the datum is known
            error = np.concatenate(values)
            error = error - np.median(error)
            rms, p95 = float(np.sqrt(np.mean(error**2))), float(np.quantile(np.abs(error), 0.95))
            picture = float(np.mean(psnr[method]))
            print(f"{renderer:14} {method:14} {rms:8.2f} {p95:7.2f} {picture:8.1f} {seconds[method]:8.2f}", flush=True)
            figures = {
                "height_rmse": (rms, "um"),
                "height_p95": (p95, "um"),
                "psnr_to_true_index": (picture, "dB"),
                "time": (seconds[method], "s"),
            }
            results += rows_of(f"S {renderer}", method, figures)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=4, help="simulated views; more than 4 also run the ray tracer")
    parser.add_argument("--quick", action="store_true", help="one view")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    results = simulated(1 if arguments.quick else arguments.views)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
