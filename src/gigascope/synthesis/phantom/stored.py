"""Phantoms in a store: a group for each spheroid.

    phantoms.zarr/
      zarr.json              attributes: n_spheroids, voxel_um
      s0000/                 attributes: seed, settings (resolved), region, counts, volume_fraction, overlap_um
        nuclei/              table for people: one row for each nucleus, in the order of labels
        columns/             what the rasteriser draws from, see :class:`gigascope.kernels.cells.NucleiTable`
        distance             float32 (z, y, x), of a region that is a mask
      crops                  float16 (m, 48, 48, 48), textures of a prototype library

Positions are µm from the corner of the field, whose size is `region.high + region.margin_um`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.kernels.cells import NucleiTable
from gigascope.store.create import StoreWriter, new_array
from gigascope.store.plan import shard_plan
from gigascope.store.table import write_table
from gigascope.synthesis.phantom.region import Region, region_from

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

CROPS = "crops"
# A little more than the bounds of nuclei, which are good to float32.
NEAR = 1.001
UNITS = {
    **{f"{name}_{axis}": "um" for name in ("centroid", "low", "high") for axis in "zyx"},
    **{f"semi_axis_{k}": "um" for k in "abc"},
    "volume_um3": "um^3",
    "depth_um": "um",
    "tissue_above_um": "um",
}
_KERNEL = tuple(name for name in NucleiTable._fields if name not in ("crops", "octaves"))


@dataclass(frozen=True)
class StoredPhantom:
    """A spheroid as the next stages need it.

    Attributes
    ----------
    region : shape of the spheroid
    table : nuclei, for :mod:`gigascope.kernels.cells`; label = row + 1
    columns : the table for people, by name
    facts : all attributes: seed, settings, region, counts and what was reached
    """

    region: Region
    table: NucleiTable
    columns: dict[str, NDArray]
    facts: dict[str, Any]


def group_name(number: int) -> str:
    """Name of a spheroid's group: s0000, s0001, ..."""
    return f"s{number:04d}"


def packed(
    table: NucleiTable, columns: Mapping[str, NDArray], region: Region, facts: Mapping[str, Any]
) -> dict[str, NDArray]:
    """All of a spheroid as arrays by name, for :func:`write_phantom`."""
    text = json.dumps({**facts, "region": region.descriptor(), "octaves": table.octaves})
    found: dict[str, NDArray] = {"facts": np.frombuffer(text.encode(), np.uint8)}
    found |= {f"columns.{name}": getattr(table, name).numpy() for name in _KERNEL}
    found |= {f"nuclei.{name}": values for name, values in columns.items()}
    if region.mask is not None:
        found["distance"] = region.mask.values
    return found


def write_phantom(store: StoreWriter, number: int, arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    """Write what :func:`packed` made as the group of a spheroid; returns its attributes."""
    facts: dict[str, Any] = json.loads(bytes(arrays["facts"]))
    group = store.group.create_group(group_name(number), attributes=facts)
    for name, values in arrays.items():
        kind, _, rest = name.partition(".")
        if kind == "columns" or name == "distance":
            path = f"columns/{rest}" if rest else name
            array = new_array(group, path, shard_plan(values.shape, values.dtype), values.dtype)
            array[...] = values
    table = {name.removeprefix("nuclei."): values for name, values in arrays.items() if name.startswith("nuclei.")}
    write_table(group, "nuclei", table, {name: unit for name, unit in UNITS.items() if name in table})
    return facts


def all_nuclei(spheroids: Iterable[tuple[int, Mapping[str, NDArray]]]) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Columns and units of one table of all spheroids, in the order of labels.

    Parameters
    ----------
    spheroids : (number, what :func:`packed` made) of each
    """
    parts: dict[str, list[NDArray]] = {}
    for number, arrays in spheroids:
        own = {name.removeprefix("nuclei."): values for name, values in arrays.items() if name.startswith("nuclei.")}
        parts.setdefault("spheroid", []).append(np.full(len(own["label_id"]), number))
        for name, values in own.items():
            parts.setdefault(name, []).append(values)
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    return columns, {name: unit for name, unit in UNITS.items() if name in columns}


def rounded(columns: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Numbers to four digits after the point, for people."""
    return {name: np.round(values, 4) if values.dtype.kind == "f" else values for name, values in columns.items()}


def write_crops(store: StoreWriter, crops: NDArray[np.float16]) -> None:
    """Keep the textures of a prototype library, which all spheroids share."""
    if len(crops):
        plan = shard_plan(crops.shape, crops.dtype)
        store.create_member(CROPS, plan, crops.dtype)[...] = crops


def read_phantom(store: StoreReader, number: int) -> StoredPhantom:
    """A spheroid of a store of phantoms.

    Raises
    ------
    UserError : there is none of that number, or the store is damaged
    """
    import zarr

    name = group_name(number)
    group: Any = zarr.open_group(store.path, mode="r", zarr_format=3)[name]
    facts = dict(group.attrs)
    arrays = {column: torch.from_numpy(store.member(f"{name}/columns/{column}")[...]) for column in _KERNEL}
    table = NucleiTable(**arrays, crops=_crops(store), octaves=facts["octaves"])
    return StoredPhantom(read_region(store, number, facts), table, store.columns(f"{name}/nuclei"), facts)


def read_nuclei_near(
    store: StoreReader, number: int, low_um: NDArray[np.float64], high_um: NDArray[np.float64], reach: float = 1.0
) -> tuple[NucleiTable, torch.Tensor]:
    """Those nuclei of a spheroid that may reach into a box, so that memory does not grow with the spheroid.

    Parameters
    ----------
    low_um, high_um : (3,) corners of the box
    reach : how far nuclei reach, of their own reach; see :func:`gigascope.kernels.cells.bodies.reach_of_gap`

    Returns
    -------
    the rows of the table, in their order, and their labels (n,) int32
    """
    name = group_name(number)
    centre, radius = (np.asarray(store.member(f"{name}/columns/{column}")[...]) for column in ("centre", "reach"))
    span = radius[:, None] * (reach * NEAR)
    near = np.flatnonzero(((centre + span >= low_um) & (centre - span <= high_um)).all(axis=1))
    columns: dict[str, torch.Tensor] = {}
    for column in _KERNEL:
        # rows that are near each other are near in the table too: few of its chunks are read
        member = store.member(f"{name}/columns/{column}")
        rows: Any = (near, *[slice(None)] * (member.ndim - 1))
        columns[column] = torch.from_numpy(np.asarray(member.oindex[rows]))
    table = NucleiTable(**columns, crops=_crops(store), octaves=read_facts(store, number)["octaves"])
    return table, torch.from_numpy((near + 1).astype(np.int32))


def read_facts(store: StoreReader, number: int) -> dict[str, Any]:
    """Attributes of a spheroid: seed, settings, region, counts and what was reached."""
    import zarr

    group: Any = zarr.open_group(store.path, mode="r", zarr_format=3)[group_name(number)]
    return dict(group.attrs)


def read_region(store: StoreReader, number: int, facts: Mapping[str, Any]) -> Region:
    """Shape of a spheroid, with its attributes."""
    if facts["region"]["mask"] is None:
        return region_from(facts["region"])
    values = np.asarray(store.member(f"{group_name(number)}/distance")[...], np.float32)
    return region_from(facts["region"], values)


def read_places(store: StoreReader, number: int) -> dict[str, NDArray]:
    """Centroids and volumes of the nuclei of a spheroid, of the table for people."""
    return store.columns(f"{group_name(number)}/nuclei", ("centroid_z", "centroid_y", "centroid_x", "volume_um3"))


def _crops(store: StoreReader) -> torch.Tensor:
    if (store.path / CROPS).is_dir():
        return torch.from_numpy(store.member(CROPS)[...])
    return torch.zeros((0, 48, 48, 48), dtype=torch.float16)


def n_spheroids(store: StoreReader) -> int:
    """How many spheroids a store of phantoms holds."""
    return int(store.attrs["n_spheroids"])
