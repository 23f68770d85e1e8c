"""Cultures in a store: an image group for each spheroid, with what belongs to it.

cultures.zarr/s0000/
  0 1 2 ...               image, uint16 (uint8 up to 8 bits), z y x
  labels/nuclei           uint32, row of the phantom's table + 1
  labels/spheroid         uint8, 1 in the spheroid
  labels/boundary         uint8, optional
  labels/nuclei_blurred   uint32, optional
  interim/expected        float32, electrons before noise, optional
  interim/distance        float32, 1 in the centres of nuclei, optional
  interim/tau             float32 on cells of 2 µm, effective optical depth; attributes spacing, corner_um
  interim/density         float16 on the finer grid, optional
  tables/nuclei           one row for each nucleus
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gigascope.errors import UserError
from gigascope.store.ensemble import ensemble_plan
from gigascope.store.plan import ShardPlan
from gigascope.synthesis.simulation.cells import CellGrid
from gigascope.synthesis.simulation.geometry import ImageGrid, shard_of
from gigascope.synthesis.simulation.measured import Rows, label_table

if TYPE_CHECKING:
    from gigascope.store.ensemble import EnsembleWriter, MemberWriter

# Label images and arrays of the size of the image, by the name that the items write them under.
PATHS = {
    "image": "0",
    "nuclei": "labels/nuclei/0",
    "spheroid": "labels/spheroid/0",
    "boundary": "labels/boundary/0",
    "nuclei_blurred": "labels/nuclei_blurred/0",
    "expected": "interim/expected",
    "distance": "interim/distance",
    "density": "interim/density",
}
# Cells of a shard, and of its one chunk: 128 µm.
LIGHT_SHARD = (64, 64, 64)
# Columns of the phantom's table that describe its own voxels; the image's voxels take their place.
_SEEN = ("volume_um3", *(f"{name}_{axis}" for name in ("centroid", "low", "high") for axis in "zyx"))


def dtypes(settings: Mapping[str, Any]) -> dict[str, DTypeLike]:
    """Arrays of the size of the image that these settings ask for, with their types."""
    labels, store = settings["labels"], settings["store"]
    found: dict[str, DTypeLike] = {"image": np.uint8 if settings["camera"]["bits"] <= 8 else np.uint16}
    found |= {"nuclei": np.uint32, "spheroid": np.uint8}
    wanted: dict[str, tuple[bool, DTypeLike]] = {
        "boundary": (labels["boundary"], np.uint8),
        "nuclei_blurred": (labels["blurred"], np.uint32),
        "expected": (store["keep_expected"], np.float32),
        "distance": (labels["distance"], np.float32),
    }
    return found | {name: dtype for name, (asked, dtype) in wanted.items() if asked}


def image_plan(image: ImageGrid, dtype: DTypeLike, settings: Mapping[str, Any]) -> ShardPlan:
    """Cut of an array of the size of the image; the published chain makes a whole image at once."""
    chunk, shard = settings["store"]["chunk"], settings["store"]["shard"]
    return ensemble_plan(image.shape, dtype, chunk, shard_of(image.shape, chunk, shard, settings["chain"]))


def light_plan(shape: Sequence[int]) -> ShardPlan:
    """Cut of an array of the light of a spheroid that several items share: each reads what is around its shard."""
    return ensemble_plan(shape, np.float32, LIGHT_SHARD, LIGHT_SHARD)


def density_plan(image: ImageGrid, settings: Mapping[str, Any]) -> ShardPlan:
    """Cut of the density: shards under those of the image.

    Raises
    ------
    UserError : voxels of the image that share voxels of the finer grid
    """
    ratio = [round(r) for r in image.ratio]
    if any(abs(r - n) > 1e-9 for r, n in zip(image.ratio, ratio)):
        shown = ", ".join(f"{r:g}" for r in image.ratio)
        what = f"store.keep_density needs whole numbers in grid.oversample, found {shown}."
        raise UserError(what, where="simulate", do="Leave keep_density off, or round oversample.")
    plan = image_plan(image, np.float16, settings)
    shape, chunks, shards = ([n * r for n, r in zip(size, ratio)] for size in (plan.shape, plan.chunks, plan.shards))
    return ShardPlan(tuple(shape), 2, tuple(chunks), tuple(shards))


def create_culture(
    store: EnsembleWriter, name: str, image: ImageGrid, cells: CellGrid, settings: Mapping[str, Any]
) -> MemberWriter:
    """The image group of a spheroid with all arrays, still empty but for `interim/tau`, which is for the caller."""
    wanted = dtypes(settings)
    spacing = dict(zip("zyx", image.voxel_um))
    plan = image_plan(image, wanted["image"], settings)
    written = store.create_image(name, shape=image.shape, dtype=wanted["image"], spacing=spacing, plan=plan)
    for member, dtype in wanted.items():
        cut = image_plan(image, dtype, settings)
        if PATHS[member].startswith("labels/"):
            written.create_label(member, dtype, plan=cut)
        elif member != "image":
            written.create_array(member, image.shape, dtype, plan=cut, spacing=spacing)
    if settings["store"]["keep_density"]:
        cut = density_plan(image, settings)
        written.create_array("density", cut.shape, np.float16, plan=cut, spacing=dict(zip("zyx", image.fine_um)))
    tau = written.create_array("tau", cells.shape, np.float32, spacing=dict.fromkeys("zyx", cells.spacing))
    tau.attrs["corner_um"] = list(cells.corner_um)
    tau.attrs["first"] = list(cells.first)
    return written


def complete_culture(
    written: MemberWriter,
    rows: Rows,
    image: ImageGrid,
    phantom: Mapping[str, NDArray],
    units: Mapping[str, str],
    facts: Mapping[str, Any],
) -> dict[str, NDArray]:
    """Table, label properties and attributes of a spheroid.

    Parameters
    ----------
    rows : measured on the labels, see :func:`gigascope.synthesis.simulation.measured.merged`
    phantom, units : columns of the phantom's table
    facts : attributes

    Returns
    -------
    The columns of the table: those of the phantom, with volume, centroid and box as the image shows them, and the
    phantom's own centroid beside
    """
    seen, seen_units = label_table(rows, image.shape, image.voxel_um)
    columns = {name: values for name, values in phantom.items() if name not in _SEEN}
    columns |= {f"phantom_{name}": phantom[name] for name in ("centroid_z", "centroid_y", "centroid_x")}
    columns |= seen
    known = {**units, **seen_units, **{f"phantom_centroid_{axis}": "um" for axis in "zyx"}}
    written.write_table("nuclei", columns, {name: unit for name, unit in known.items() if name in columns})
    shown = seen["n_voxels"] > 0
    centre = np.stack([seen[f"centroid_{axis}"][shown] for axis in "zyx"], axis=1)
    written.describe_labels(
        "nuclei",
        {
            "label-value": np.flatnonzero(shown) + 1,
            "class": phantom["class"][shown],
            "population": phantom["population"][shown],
            "volume_um3": seen["volume_um3"][shown],
            "centroid_um": centre,
        },
    )
    written.attrs |= dict(facts)
    return columns
