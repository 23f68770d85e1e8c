"""Which weight of the total variation is best, beside the other reconstructors: correlation with the phantom.

    python benchmarks/regularization.py [--quick] [--json FILE]

Weights are given as factors of sigma sqrt(n), the noise of n backprojected views in a voxel; 0.4 is the default of
`reconstruct.lambda`. True shifts, so that only the weight differs. SIRT and CGLS end where their misfit reaches the
noise, as in the chain, and once more after ten times as many iterations.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from gigascope.tomography import masks, phantom
from gigascope.tomography.algebraic import AlgebraicParameters, CglsSolver, SirtSolver
from gigascope.tomography.geometry import volume_width
from gigascope.tomography.reconstruct import ReconstructParameters, TvSolver, weighted_backprojection

FACTORS = (0.05, 0.1, 0.2, 0.4, 0.8)
PLANES = 64


def correlations(kind: str, snr: float, seed: int, factors: tuple[float, ...]) -> dict[str, float]:
    """Correlation with the phantom in the middle of the volume, by method; the default of earlier versions is 0.1."""
    body = phantom.object_phantom(seed) if kind == "object" else phantom.section_phantom(seed)
    shifts = np.zeros((61, 2))
    width = volume_width(128, PLANES, np.deg2rad(60.0), kind, 1.0, 4)
    sim = phantom.simulate(body, seed=seed, snr=snr, shifts=shifts, n_z=PLANES, width=width)
    signal = sim.absorbance()
    scale = float(sim.clean[30].std())
    background = 0.0 if kind == "object" else signal.mean(axis=(1, 2), keepdims=True)
    views = torch.from_numpy(((signal - background) / scale).astype(np.float32))
    sigma = math.sqrt(float(np.median(sim.noise_variance))) / scale
    angles = torch.from_numpy(sim.tilt)
    full = masks.full_rays(angles, 128, (PLANES, width), 1.0, kind)
    weights = masks.weights(torch.ones_like(views), full, torch.ones(61))
    middle = (slice(4, -4), slice((width - 100) // 2, (width + 100) // 2), slice(10, -10))
    truth = sim.volume[middle].ravel()

    def agreement(volume: torch.Tensor) -> float:
        return float(np.corrcoef(volume.numpy()[middle].ravel(), truth)[0, 1])

    shape = (PLANES, width, 128)
    found = {"backprojection": agreement(weighted_backprojection(views, weights, sim.tilt, shape=shape))}
    for method, kind_of in (("SIRT", SirtSolver), ("CGLS", CglsSolver)):
        place = {"shape": shape, "solve": kind != "object"}
        first = kind_of(views, weights, sim.tilt, parameters=AlgebraicParameters(100, sigma), **place)
        found[f"{method}, to the noise"] = agreement(first.run())
        further = AlgebraicParameters(10 * first.iteration)
        found[f"{method}, 10 times"] = agreement(kind_of(views, weights, sim.tilt, parameters=further, **place).run())
    named = {"lambda 0.1": 0.1} | {f"factor {f:g}": f * sigma * math.sqrt(61) for f in factors}
    for name, lam in named.items():
        solver = TvSolver(
            views, weights, sim.tilt, shape=shape, solve=kind != "object", parameters=ReconstructParameters(lam=lam)
        )
        found[name] = agreement(solver.run())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one phantom and three weights")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    cases = [("object", 1.0)] if arguments.quick else [(k, s) for k in ("object", "section") for s in (1.0, 20.0)]
    factors = (0.1, 0.4) if arguments.quick else FACTORS
    rows = []
    for kind, snr in cases:
        case = f"{kind} SNR {snr:g}"
        for method, value in correlations(kind, snr, 0, factors).items():
            print(f"{case:16} {method:20} correlation {value:.3f}", flush=True)
            rows.append({"case": case, "method": method, "metric": "correlation", "value": value, "unit": ""})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
