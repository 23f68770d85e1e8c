"""Small batches for tests of the network: a textured relief seen by shifted views, without the synthetic instrument.

Run as a program it is one process of a shared training, see test_network_training.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from gigascope.topography.network.batch import Batch
from gigascope.topography.network.losses import PARITY, RECOMMENDED
from gigascope.topography.network.model import Architecture, HeightNetwork, new_network
from gigascope.topography.network.training import Schedule, Training, recommended

DZ_MM = 0.04


def make_batch(seed: int, n_groups: int = 2, views: int = 2, n_z: int = 9, side: int = 48) -> tuple[Batch, Tensor]:
    """Stacks of a smooth relief of +- 1.5 slices, views shifted by whole pixels and offset in focus; true index."""
    rng = np.random.default_rng(seed)
    margin = 6
    wide = side + 2 * margin
    stacks, coords, foot, datum, nominal, truth, group = [], [], [], [], [], [], []
    rows, cols = np.mgrid[:side, :side]
    for g in range(n_groups):
        texture = np.exp(0.35 * rng.standard_normal((wide, wide)))
        relief = ndimage.gaussian_filter(rng.standard_normal((wide, wide)), 8, mode="wrap")
        relief *= 1.5 / np.abs(relief).max()
        blurs = [ndimage.gaussian_filter(texture, s) for s in np.sqrt(0.9**2 + (1.54 * np.arange(0, 8, 0.25)) ** 2)]
        planes = np.stack(blurs)
        for _ in range(views):
            shift = rng.integers(0, 2 * margin, 2)
            offset = rng.uniform(-0.5, 0.5)
            flat = n_z / 2 - 0.5 + offset
            index = flat - relief
            defocus = np.abs(np.arange(n_z)[:, None, None] - index) / 0.25
            low = np.minimum(defocus.astype(int), len(planes) - 2)
            share = np.minimum(defocus - low, 1)
            at = np.arange(wide)
            values = planes[low, at[:, None], at] * (1 - share) + planes[low + 1, at[:, None], at] * share
            box = slice(shift[0], shift[0] + side), slice(shift[1], shift[1] + side)
            seen = 90 * values[:, box[0], box[1]]
            stacks.append(np.clip(np.round(seen + np.sqrt(seen / 30) * rng.standard_normal(seen.shape)), 0, 255))
            coords.append(np.stack([rows + shift[0], cols + shift[1]]))
            foot.append([wide / 2 + rng.uniform(-90, 90), wide / 2 + rng.uniform(-90, 90)])
            datum.append(np.full((side, side), flat * DZ_MM))
            nominal.append(round(flat))
            truth.append(index[box])
            group.append(g)
    n = len(group)
    f32 = [torch.from_numpy(np.array(a, np.float32)) for a in (coords, foot, datum, nominal, truth)]
    batch = Batch(
        stacks=torch.from_numpy(np.array(stacks).astype(np.uint8)),
        coords=f32[0],
        group=torch.tensor(group),
        foot=f32[1],
        distance_mm=torch.full((n,), 3.4),
        datum_mm=f32[2],
        z_mm=(torch.arange(n_z) * DZ_MM).float().expand(n, n_z).contiguous(),
        nominal=f32[3],
        weight=torch.ones(n),
        dz_mm=DZ_MM,
        stage_up=True,
        n_groups=n_groups,
    )
    return batch, f32[4]


def parity_network(n_z: int = 9, levels: int = 3) -> HeightNetwork:
    """A small one of the published kind."""
    return new_network(Architecture(n_z, (8,) * levels), seed=1)


def training(kind: str, rank: int = 0, n_ranks: int = 1, steps: int = 6, seed: int = 5) -> Training:
    """A short training; with several processes each has its share of the groups."""

    def batches(step: int) -> Batch:
        batch = make_batch(seed + step, side=40)[0]
        per = batch.n_groups // n_ranks
        return batch.part(rank * per, (rank + 1) * per)

    shared = n_ranks > 1
    if kind == "parity":
        return Training(parity_network(), batches, PARITY, Schedule(steps=steps, lr=1e-3, warm_up=2), 7, shared)
    network = new_network(recommended(9, levels=2), seed=2)
    return Training(network, batches, RECOMMENDED, Schedule(steps=steps, lr=1e-3, warm_up=2), 7, shared)


def main() -> None:
    """kind, rank, processes, file of the meeting, file of the losses."""
    kind, rank, n_ranks, meeting, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=n_ranks)
    shared = training(kind, rank, n_ranks)
    for _ in shared.updates():
        pass
    if rank == 0:
        Path(out).write_text(json.dumps(shared.curves), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
