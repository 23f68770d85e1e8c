"""All-in-focus pictures of real focus stacks: ours beside enfuse, FocusWeave and focus-stack, in sharpness and time.

    python benchmarks/topography_fusion.py [--results FOLDER] [--data FOLDER] [--pictures FOLDER]
                                           [--quick] [--json FILE]

The datasets are `heatsink` and `pcb_edge` of config/datasets. Stacks come from results/<dataset>/registered.zarr where
the chain has run, else from the stages ingest and register, run here. All methods get the same registered slices.

middle slice      the stack's middle, for scale
ours, views       the picture that the chain's stage `infer` left in results/<dataset>/views.zarr, where it is there
ours, linear      focus of every pixel (`focus_peak`, `settle`), two neighbouring slices mixed
ours, pyramid     the same focus, detail by detail
enfuse            Debian's, with its settings for focus stacks (--hard-mask, contrast in a window of 5 pixels)
FocusWeave        Laplacian pyramids (pip install focusweave), without its alignment
focus-stack       `expected.jpg` beside the pictures, which focus-stack made, on our geometry; its time is not known

Tenengrad is the mean squared Sobel gradient of the luminance, and mean S the mean sharpness with a window of 4 pixels:
both also grow with noise and halos. Agreement is the median, over blocks of 32 pixels with texture, of a block's
Tenengrad over that of the sharpest slice there: 1 is as sharp as the best slice. Seconds are on the clock and of all
processors together; those of `ours` hold focus and mixing, not registration, which all methods need.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import io

from gigascope.config.dataset import TopographyDataset, load_dataset
from gigascope.kernels.filters import sharpness
from gigascope.runtime.run import run_stage
from gigascope.store.open import StoreReader, is_complete, open_store
from gigascope.topography.focus.fuse import fuse, fuse_pyramid
from gigascope.topography.focus.registration import apply_registration, register_stack
from gigascope.topography.focus.stream import focus_peak, luminance, settle

T = TypeVar("T")
DATASETS = ("heatsink", "pcb_edge")
BLOCK = 32
# Borders of registered slices continue by their last pixels.
BORDER = 8

UNKNOWN = (float("nan"), float("nan"))
Seconds = tuple[float, float]
Made = dict[str, tuple[NDArray, Seconds]]


def timed(make: Callable[[], T]) -> tuple[T, Seconds]:
    """What a function returns, and the seconds that it took: on the clock, and of all processors together."""
    before = os.times()
    found = make()
    after = os.times()
    return found, (after.elapsed - before.elapsed, sum(after[:4]) - sum(before[:4]))


def registered(name: str, results: Path, data: Path | None, scratch: Path) -> tuple[StoreReader, Seconds] | None:
    """Registered stack of a dataset, and the seconds that reading and registering took; none without its pictures."""
    done = results / name / "registered.zarr"
    if is_complete(done):
        return open_store(done), UNKNOWN
    overrides = {"inputs": {"images": str(data / name / ("pcb_*.jpg" if name == "pcb_edge" else ""))}} if data else {}
    dataset = load_dataset(Path("config/datasets") / f"{name}.yaml", overrides)
    assert isinstance(dataset, TopographyDataset)
    images = Path(str(dataset.inputs.images))
    if not (images.is_dir() or images.parent.is_dir()):
        return None
    config = scratch / f"{name}.yaml"
    config.write_text(json.dumps(dataset.model_dump(mode="json", by_alias=True)))
    stores = {n: scratch / name / f"{n}.zarr" for n in ("raw", "registered")}
    run_stage("topography.ingest", config, {}, {"raw": stores["raw"]})
    named = {"raw": stores["raw"]}, {"registered": stores["registered"]}
    _, seconds = timed(lambda: run_stage("topography.register", config, *named))
    return open_store(stores["registered"]), seconds


def tenengrad(image: NDArray) -> NDArray:
    grey = luminance(image[None])[0].numpy()
    return ndimage.sobel(grey, 0) ** 2 + ndimage.sobel(grey, 1) ** 2


def blocks(values: NDArray) -> NDArray:
    rows, columns = (n // BLOCK * BLOCK for n in values.shape)
    return values[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK).mean((1, 3))


def enfused(stack: NDArray, scratch: Path) -> tuple[NDArray, Seconds] | None:
    """Debian's enfuse with its settings for focus stacks; none where it is not installed."""
    if shutil.which("enfuse") is None:
        return None
    names = []
    for k, image in enumerate(stack):
        names.append(str(scratch / f"slice_{k:03}.tif"))
        io.imsave(names[-1], image, check_contrast=False)
    weights = ["--exposure-weight=0", "--saturation-weight=0", "--contrast-weight=1", "--hard-mask"]
    output = scratch / "fused.tif"
    command = ["enfuse", *weights, "--contrast-window-size=5", f"--output={output}", *names]
    _, seconds = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    return io.imread(output)[..., :3], seconds


def woven(stack: NDArray) -> tuple[NDArray, Seconds] | None:
    """FocusWeave, a Python package, on two cores; none where it is not installed."""
    if importlib.util.find_spec("focusweave") is None:
        return None
    focusweave = importlib.import_module("focusweave")
    config = focusweave.FocusStackConfig(images=list(stack), no_align=True, keep_size=True, workers=2)
    found, seconds = timed(lambda: focusweave.run(config))
    return np.asarray(found.image), seconds


def pictures_of(stack: NDArray, views: Path, expected: Path | None, scratch: Path) -> Made:
    """Pictures and seconds by method."""
    made: Made = {"middle slice": (stack[len(stack) // 2], (0.0, 0.0))}
    if is_complete(views):
        made["ours, views"] = (np.asarray(open_store(views).member("aif")[0, 0]), UNKNOWN)
    # compiled before it is timed
    settle(focus_peak(stack[:, :64, :64]))
    index, measuring = timed(lambda: settle(focus_peak(stack)))
    for method, make in (("linear", lambda: fuse(stack, index)), ("pyramid", lambda: fuse_pyramid(stack, index))):
        image, mixing = timed(make)
        made[f"ours, {method}"] = (image, (measuring[0] + mixing[0], measuring[1] + mixing[1]))
    for name, install, peer in (
        ("enfuse", "apt-get install enfuse", enfused(stack, scratch)),
        ("FocusWeave", "pip install focusweave", woven(stack)),
    ):
        if peer is None:
            print(f"{name} is not installed ({install}): left out")
        else:
            made[name] = peer
    if expected is not None and expected.exists():
        theirs = io.imread(expected)
        pair = np.stack([made["ours, pyramid"][0], theirs])
        moved, _ = apply_registration(pair, register_stack(pair, reference=0, gaps=(1,)), brightness=False)
        made["focus-stack"] = (moved[1], UNKNOWN)
    return made


def figures(made: Made, stack: NDArray, valid: NDArray) -> Iterator[tuple[str, str, float, str]]:
    """(method, metric, value, unit) of every picture."""
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    inside = (slice(rows[0] + BORDER, rows[-1] + 1 - BORDER), slice(columns[0] + BORDER, columns[-1] + 1 - BORDER))
    best = np.max([blocks(tenengrad(s)[inside]) for s in stack], axis=0)
    textured = best > np.quantile(best, 0.25)
    for method, (image, seconds) in made.items():
        energy = tenengrad(image)[inside]
        s = sharpness(luminance(image[None]).contiguous(), 4.0, 2.0)[0].numpy()[inside]
        yield method, "tenengrad", float(energy.mean()), "counts^2"
        yield method, "mean_sharpness", float(s.mean()), "1"
        yield method, "agreement", float(np.median(blocks(energy)[textured] / best[textured])), "1"
        yield method, "time", seconds[0], "s"
        yield method, "cpu_time", seconds[1], "s"


def measure(name: str, arguments: argparse.Namespace, scratch: Path) -> list[dict[str, object]]:
    """Figures of one dataset, printed as a table."""
    found = registered(name, arguments.results, arguments.data, scratch)
    if found is None:
        print(f"{name}: its pictures are not there; left out (--data names their folder)")
        return []
    store, seconds = found
    member = store.member("rgb") if store.attrs["colours"] == 3 else store.member("green")
    stack = np.asarray(member[0, 0])
    stack = np.moveaxis(stack, 1, -1) if stack.ndim == 4 else np.repeat(stack[..., None], 3, axis=-1)
    if arguments.quick:
        stack = stack[:, ::2, ::2]
    valid = np.asarray(store.member("valid")[...]) > 0
    valid = valid[::2, ::2] if arguments.quick else valid
    facts = store.attrs["registration"]
    print(f"{name}: {len(stack)} slices of {stack.shape[1]} x {stack.shape[2]}; {facts['summary']}; {facts['order']}")
    expected = None if arguments.data is None or arguments.quick else arguments.data / name / "expected.jpg"
    views = Path("none") if arguments.quick else arguments.results / name / "views.zarr"
    made = pictures_of(stack, views, expected, scratch)
    rows: list[dict[str, object]] = []
    if np.isfinite(seconds[0]):
        for metric, value in zip(("registration", "registration_cpu"), seconds):
            rows.append({"case": name, "method": "ours", "metric": metric, "value": value, "unit": "s"})
        print(f"{name:10} order and registration, common to all methods: {seconds[0]:.1f} s, {seconds[1]:.1f} s of CPU")
    print(f"{'':10} {'method':14} {'Tenengrad':>10} {'mean S':>8} {'agreement':>10} {'seconds':>8} {'of CPU':>8}")
    table: dict[str, list[float]] = {}
    for method, metric, value, unit in figures(made, stack, valid):
        if np.isfinite(value):
            rows.append({"case": name, "method": method, "metric": metric, "value": value, "unit": unit})
        table.setdefault(method, []).append(value)
    for method, (ten, s, agreement, took, cpu) in table.items():
        print(f"{name:10} {method:14} {ten:10.0f} {s:8.4f} {agreement:10.3f} {took:8.2f} {cpu:8.2f}", flush=True)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for method, (image, _) in made.items():
            io.imsave(arguments.pictures / f"{name}_{method.replace(', ', '_').replace(' ', '_')}.png", image)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder of the chain")
    parser.add_argument("--data", type=Path, help="folder with a subfolder of pictures for each dataset")
    parser.add_argument("--pictures", type=Path, help="also write the pictures there")
    parser.add_argument("--quick", action="store_true", help="every second pixel of the smaller stack")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    rows: list[dict[str, object]] = []
    for name in DATASETS[:1] if arguments.quick else DATASETS:
        with tempfile.TemporaryDirectory() as scratch:
            rows += measure(name, arguments, Path(scratch))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
