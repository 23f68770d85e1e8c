"""The store of adapted images: its layout, what a job keeps to fill it, which images are rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gigascope.store.create import plan_of
from gigascope.store.ensemble import EnsembleWriter, ensemble_plan
from gigascope.synthesis.adaptation.alignment import Alignment
from gigascope.synthesis.adaptation.domain import Domain
from gigascope.synthesis.adaptation.inference import Adapter, windows_for
from gigascope.synthesis.adaptation.windows import Lattice

VOLUMES = "volumes"
Shape = tuple[int, int, int]


def lay_out(store: EnsembleWriter, cultures: Domain, chunk: Shape, shard: Shape) -> list[dict[str, int]]:
    """Create an image for each simulated one, uint16 of the same axes, and name their files.

    Returns
    -------
    of each file its `volume`, number of the `shard` in it, and `voxels`
    """
    entries = []
    for number, volume in enumerate(cultures.volumes):
        z, y, x = cultures.voxel_um
        shape = volume.image.shape
        axes = ("c", "z", "y", "x")[-len(shape) :]
        plan = ensemble_plan(shape, np.uint16, chunk, shard)
        image = store.create_image(
            volume.name, shape=shape, dtype=np.uint16, axes=axes, spacing={"z": z, "y": y, "x": x}, plan=plan
        )
        # labels are those of the simulated image: referred to, not copied
        image.attrs["source"] = f"{cultures.path.name}/{volume.name}"
        for place, region in enumerate(plan_of(image.array).regions()):
            voxels = int(np.prod([r.stop - r.start for r in region]))
            entries.append({"volume": number, "shard": place, "voxels": voxels})
    return entries


@dataclass(frozen=True, eq=False)
class Adapting:
    """What a process keeps to adapt one file after another.

    Attributes
    ----------
    adapter : the network
    cultures : simulated images
    window, overlap, blend, halo : see :func:`..windows.lattice`
    """

    adapter: Adapter
    cultures: Domain
    window: Shape
    overlap: tuple[float, float, float]
    blend: Literal["cosine", "half_cut"]
    halo: Shape

    def windows(self, number: int) -> Lattice:
        """Of an image."""
        shape = self.cultures.volumes[number].shape
        return windows_for(self.adapter.generator, shape, self.window, self.overlap, self.blend, self.halo)

    def measure(self, number: int) -> NDArray[np.float64]:
        """Statistics of an image, see :meth:`Adapter.measure`."""
        return self.adapter.measure(self.cultures.volumes[number].read, self.windows(number))

    def region(
        self, number: int, region: tuple[slice, ...], sums: NDArray[np.float64] | None = None
    ) -> NDArray[np.uint16]:
        """Grey values of a region of an image, by its measured statistics where they are given."""
        if sums is not None:
            self.adapter.freeze(sums)
        return self.adapter.region(self.cultures.volumes[number].read, self.windows(number), region)


@dataclass(frozen=True)
class Limits:
    """Shifts of blocks up to which an image is kept, voxels.

    Attributes
    ----------
    median, q95 : of their lengths
    """

    median: float
    q95: float

    def why_rejected(self, found: Alignment) -> str | None:
        """In words; none: it is kept."""
        if found.median < self.median and found.q95 < self.q95:
            return None
        return (
            f"structures moved by {found.median:.2f} voxels in the median of {found.blocks} blocks and by "
            f"{found.q95:.2f} in 95 %, up to {self.median:g} and {self.q95:g} are allowed"
        )


def write_verdicts(store: EnsembleWriter, shifts: list[list[NDArray[np.float64]]], limits: Limits) -> dict[str, str]:
    """Write how well each image is aligned with the simulated one; returns which are rejected, and why.

    Parameters
    ----------
    shifts : of each image, of each of its files (n, 3), voxels
    """
    names = store.images
    found = [Alignment.of(np.concatenate(parts)) for parts in shifts]
    why = {name: reason for name, one in zip(names, found) if (reason := limits.why_rejected(one)) is not None}
    columns: dict[str, Any] = {
        "name": np.array(names, dtype="T"),
        "shift_median": np.array([one.median for one in found]),
        "shift_q95": np.array([one.q95 for one in found]),
        "blocks": np.array([one.blocks for one in found], np.int64),
        "rejected": np.array([name in why for name in names]),
    }
    store.write_table(VOLUMES, columns, {"shift_median": "voxel", "shift_q95": "voxel"})
    store.attrs["rejected"] = list(why)
    for name, one in zip(names, found):
        store.image(name).attrs |= {"rejected": name in why, "shift_median": one.median, "shift_q95": one.q95}
    return why
