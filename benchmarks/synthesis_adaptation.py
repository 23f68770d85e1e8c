"""A planted gap between two simulated domains, closed by the adaptation; and how fast it trains. Prints a table.

    python benchmarks/synthesis_adaptation.py [--quick] [--norm channel] [--label 0.3] [--steps N] [--json FILE]

Domain B is the default confocal microscope. Domain A has other phantoms, a wider PSF (x 1.8), 0.4 haze, half the
photons with a gain of 2, 1.6 times the attenuation, a gamma of 0.8; nobody but this table sees its labels. 6 + 6
images of 32 x 128 x 128 voxels to train on, 3 to test; generators of width 8 with 3 blocks, crops of 16 x 32 x 32, rate
6e-4. Each row stands for the simulated test images (naive), what the network makes of them (adapted), and the test
phantoms as domain A shows them (true). --quick: 1 + 1 images of 16 x 64 x 64 voxels, 1 to test, 8 steps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from projector import Table

from gigascope.metrics.detection import detection
from gigascope.metrics.overlap import count_overlaps, merge_overlaps
from gigascope.metrics.spectrum import ring_power, spectrum_distance
from gigascope.metrics.wasserstein import wasserstein
from gigascope.registry import get_stage
from gigascope.runtime.run import run_stage
from gigascope.store.commit import finish
from gigascope.store.ensemble import create_ensemble
from gigascope.store.open import StoreReader, open_store
from gigascope.synthesis.adaptation.adapted import Adapting
from gigascope.synthesis.adaptation.alignment import Alignment, block_shifts
from gigascope.synthesis.adaptation.domain import Domain
from gigascope.synthesis.adaptation.inference import Adapter
from gigascope.synthesis.adaptation.stored import read_adaptation
from gigascope.synthesis.evaluation.segmenting import Classical, otsu

VOXEL = (1.5, 0.5, 0.5)
SHAPE, QUICK_SHAPE = (32, 128, 128), (16, 64, 64)
PLANTED: dict[str, Any] = {
    "optics": {"widen": 1.8},
    "attenuation": {"mu_ex": 0.016, "mu_em": 0.0128, "mu_nuc": 0.0064, "haze_fraction": 0.4},
    "camera": {"peak_electrons": 100, "gain_adu_per_e": 2.0},
}
GAMMA = 0.8


def stage(folder: Path, name: str, values: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """One stage in this process."""
    config = folder / f"{name}.yaml"
    config.write_text(json.dumps({"pipeline": "synthesis", "name": "gap", "device": "auto", **values}))
    declared = get_stage(f"synthesis.{name}").outputs
    every = {output: folder / f"{name}-{output}{kind.value}" for output, kind in declared.items()} | outputs
    run_stage(f"synthesis.{name}", config, inputs, every, scratch=folder / "scratch", workers=1)


def simulate(folder: Path, seed: int, n: int, shape: tuple[int, int, int], planted: tuple[bool, ...]) -> list[Path]:
    """Images of the same n phantoms, plain or planted."""
    region = {"semi_axes_um": [30.0, 40.0, 40.0], "surface_rms": 0.02}
    dataset: dict[str, Any] = {"seed": seed, "phantoms": {"n_spheroids": n, "region": region}}
    phantoms = folder / f"phantoms-{seed}.zarr"
    stage(folder, "phantoms", dataset, {}, {"phantoms": phantoms})
    found = []
    for gap in planted:
        path = folder / f"images-{seed}-{'a' if gap else 'b'}.zarr"
        settings = {**(PLANTED if gap else {}), "grid": {"field_um": [n * v for n, v in zip(shape, VOXEL)]}}
        stage(folder, "simulate", {**dataset, "simulate": settings}, {"phantoms": phantoms}, {"cultures": path})
        found.append(bent(path) if gap else path)
    return found


def bent(path: Path) -> Path:
    """The same images with a gamma below 1, as some cameras have it."""
    source, target = open_store(path), path.with_name(f"gamma-{path.name}")
    ensemble = create_ensemble(target)
    for name in source.images:
        image = source.image(name)
        values = image.array()[:].astype(np.float64)
        out = ensemble.create_image(name, shape=values.shape, dtype=np.uint16, axes=image.axes, spacing=image.spacing)
        out[...] = (1000 * (values / 1000) ** GAMMA).round().clip(0, 65535).astype(np.uint16)
    finish(ensemble, {})
    return target


def images_of(store: StoreReader) -> list[NDArray]:
    """(z, y, x) of each image."""
    arrays = [store.image(name).array()[:] for name in store.images]
    return [array.reshape(array.shape[-3:]) for array in arrays]


def segmented(image: NDArray) -> NDArray:
    """By one classical method for all: a threshold for each slice, and a watershed of distances."""
    method = Classical()
    thresholds = np.array([otsu(method.blurred(image[z : z + 1], VOXEL)) for z in range(len(image))])
    return method.labels(image, VOXEL, thresholds)


def separation(image: NDArray, labels: NDArray) -> float:
    """Chance that a voxel of a nucleus is brighter than one of the background (area under the ROC)."""
    inside, outside = image[labels > 0], image[labels == 0]
    values = np.concatenate([inside, outside])
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")[: inside.size] + 1.0
    return float((ranks.sum() - inside.size * (inside.size + 1) / 2) / (inside.size * outside.size))


def measure(
    table: Table, case: str, method: str, images: list[NDArray], labels: list[NDArray], target: list[NDArray]
) -> None:
    """How far images are from those of the target domain, and what is found in them."""
    low, high = np.percentile(np.concatenate([t.ravel() for t in target]), [0.1, 99.9])
    mine, theirs = ([(2 * (v.astype(np.float64) - low) / (high - low) - 1).clip(-1, 1) for v in s]
                    for s in (images, target))  # fmt: skip
    table.add(case, method, "W1 of intensities", wasserstein(np.ravel(mine), np.ravel(theirs)), "")
    power = [np.mean([ring_power(v) for v in s], axis=0) for s in (mine, theirs)]
    table.add(case, method, "spectrum, RMS of log10", float(spectrum_distance(*power, mine[0].shape)), "")
    found = detection(merge_overlaps(count_overlaps(t, segmented(v)) for v, t in zip(images, labels)))
    table.add(case, method, "DET", found.det, "")
    table.add(case, method, "SEG", found.seg, "")
    auc = np.mean([separation(v, t) for v, t in zip(images, labels)])
    table.add(case, method, "AUC of foreground", float(auc), "")


def tiling(network: Path, cultures: Path) -> float:
    """RMS of what windows change in an image, over the standard deviation of the image."""
    found = read_adaptation(network)
    adapter = Adapter(found.to_a, found.cultures, found.real)
    domain = Domain.open(cultures)
    z, y, x = domain.volumes[0].shape
    whole = (slice(0, z), slice(0, y), slice(0, x))
    made = [
        Adapting(adapter, domain, window, (0.5, 0.5, 0.5), "cosine", (0, 0, 0)).region(0, whole).astype(np.float64)
        for window in ((z, y // 2, x // 2), (z, y, x))
    ]
    return float(np.sqrt(np.mean((made[0] - made[1]) ** 2)) / made[1].std())


def run(table: Table, folder: Path, options: argparse.Namespace) -> None:
    """Simulate, train, adapt, measure."""
    n, n_test, steps = (1, 1, 8) if options.quick else (6, 3, options.steps)
    shape = QUICK_SHAPE if options.quick else SHAPE
    case = f"norm {options.norm}, label {options.label:g}, {steps} steps"
    (cultures,) = simulate(folder, 3 * options.seed, n, shape, (False,))
    (real,) = simulate(folder, 3 * options.seed + 1, n, shape, (True,))
    test, truth = simulate(folder, 3 * options.seed + 2, n_test, shape, (False, True))
    train = {
        "width": 8,
        "blocks": 3,
        "norm": options.norm,
        "crop": [16, 32, 32],
        "batch": 1,
        "steps": steps,
        "lr": 6e-4,
        "weights": {"label": options.label},
    }
    outputs = {name: folder / f"{name}.zarr" for name in ("training", "adapted")}
    network = folder / "network.pt"
    dataset: dict[str, Any] = {"seed": options.seed, "train": train}
    begun, busy = time.perf_counter(), time.process_time()
    inputs = {"cultures": cultures, "real": real}
    stage(folder, "train", dataset, inputs, {"network": network, "training": outputs["training"]})
    seconds, core = time.perf_counter() - begun, time.process_time() - busy
    stage(folder, "infer", dataset, {"cultures": test, "network": network}, {"adapted": outputs["adapted"]})
    learned = open_store(outputs["training"]).attrs
    table.add(case, "training", "steps", float(learned["steps"]), "")
    table.add(case, "training", "time", seconds, "s")
    table.add(case, "training", "core time of a step", core / max(1, learned["steps"]), "s")
    table.add(case, "training", "speed", learned["loader_steps_per_s"], "steps/s")
    table.add(case, "training", "share of the time waiting for crops", learned["loader_wait_share"], "")
    target = images_of(open_store(real))
    labels = [open_store(test).image(name).label("nuclei")[:] for name in open_store(test).images]
    sets = {"naive": test, "adapted": outputs["adapted"], "true": truth}
    for method, path in sets.items():
        measure(table, case, method, images_of(open_store(path)), labels, target)
    pairs = zip(images_of(open_store(test)), images_of(open_store(outputs["adapted"])))
    shifts = Alignment.of(np.concatenate([block_shifts(*pair) for pair in pairs]))
    table.add(case, "adapted", "median shift of blocks", shifts.median, "voxel")
    table.add(case, "adapted", "windows against the whole, RMS / std", tiling(network, test), "")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 + 1 small images, 8 steps")
    parser.add_argument("--norm", default="instance", choices=["channel", "instance"])
    parser.add_argument("--label", type=float, default=0.0, help="weight of the label term")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="of torch")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        run(table, Path(folder), options)
    table.write(options.json)


if __name__ == "__main__":
    main()
