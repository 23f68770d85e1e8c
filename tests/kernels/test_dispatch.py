"""Properties of what the op families share: lazy imports, safety between Python threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gigascope.kernels import gaussians, parallel, projector, tv, warp
from gigascope.kernels.dispatch import backend


def test_importing_the_ops_loads_neither_numba_nor_triton():
    code = (
        "import sys\n"
        "from gigascope.kernels import cells, filters, gaussians, ortho, projector, tv, warp\n"
        "print(sorted({'numba', 'triton'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_cpu_kernels_load_neither_triton_nor_the_compiler_of_torch():
    code = (
        "import sys, torch\n"
        "from gigascope.kernels import tv\n"
        "tv.gradient(torch.ones(2, 3, 4))\n"
        "print(sorted({'triton', 'torch._dynamo'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_device_decides_the_implementation():
    assert backend(torch.zeros(1)) == "cpu"
    assert backend(torch.zeros(1, device="meta")) == "reference"


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_ops_may_be_called_from_several_threads_at_once(layer, monkeypatch):
    if layer == "workqueue":  # the layer is chosen once per process
        code = (
            "import numba\n"
            "numba.config.THREADING_LAYER = 'workqueue'\n"
            f"import runpy; runpy.run_path({__file__!r})['call_from_threads']()\n"
            "assert numba.threading_layer() == 'workqueue'"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    else:
        monkeypatch.setattr(parallel, "WORK_PER_THREAD", parallel.WORK_PER_THREAD)
        call_from_threads()


def call_from_threads() -> None:
    """Many projections, steps and shifts at once, each on all threads; each equals the one computed alone."""
    parallel.WORK_PER_THREAD = 1.0
    angles = torch.linspace(-1, 1, 5, dtype=torch.float64)
    shifts = torch.full((5, 2), 0.3, dtype=torch.float64)

    def work(seed: int) -> tuple[torch.Tensor, ...]:
        volume = torch.randn(8, 20, 40, generator=torch.Generator().manual_seed(seed))
        views = projector.project(volume, angles, 20)
        means = volume.reshape(-1, 64)[:, :3] + 4
        mixture = means, 0.3 * means, volume.reshape(-1, 64)[:, 3:7], means[:, 0], torch.full((len(means),), 3.0)
        return (
            gaussians.evaluate(*mixture, (8, 20, 40)),
            gaussians.moments(*mixture[:3], mixture[4], volume),
            views,
            projector.backproject(views, angles, (8, 20)),
            tv.gradient(volume),
            warp.translate(views, shifts)[0],
        )

    alone = [work(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for one, other in zip(alone, pool.map(work, range(8)), strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
