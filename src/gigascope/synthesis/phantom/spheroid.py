"""A spheroid from its settings to what is kept of it: placed, contacts settled, described in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.synthesis.phantom.contacts import Settled, settle_contacts
from gigascope.synthesis.phantom.nuclei import CLASS_NAMES
from gigascope.synthesis.phantom.phantom import Phantom, place_phantom, tissue_above
from gigascope.synthesis.phantom.recipe import PlacementRecipe, Recipe
from gigascope.synthesis.phantom.region import DistanceGrid, Region
from gigascope.synthesis.phantom.stored import packed
from gigascope.synthesis.prototypes.library import Library
from gigascope.synthesis.seeds import seed_of

# Of the wanted volume; with less than this the user is told.
REACHED = 0.98


def spheroid_seed(root: int, number: int) -> int:
    """Seed of a spheroid: the same however many there are."""
    return seed_of(root, "spheroid", number)


def build_spheroid(
    recipe: Recipe,
    seed: int,
    settings: Mapping[str, Any],
    mask: DistanceGrid | None = None,
    libraries: Mapping[str, Library] | None = None,
) -> tuple[dict[str, NDArray], list[str]]:
    """Place a spheroid, settle its contacts, describe it.

    Parameters
    ----------
    recipe : settings as the science takes them
    seed : of the spheroid
    settings : the same as JSON values, to be kept
    mask : distances, for a region of kind `mask`
    libraries : prototypes, by the name under which the recipe asks for them

    Returns
    -------
    arrays for :func:`gigascope.synthesis.phantom.stored.write_phantom`, and warnings

    Raises
    ------
    UserError : no nucleus finds room
    """
    phantom = place_phantom(recipe, seed, mask, libraries)
    settled = settle_contacts(phantom.nuclei, recipe.placement)
    if len(settled.nuclei) == 0:
        do = "Make placement.voxel_um or placement.gap_um smaller, or nuclei larger."
        raise UserError("no nucleus is left after contacts were settled.", where="phantoms", do=do)
    columns = table_of(settled, phantom.region, recipe.placement)
    facts = facts_of(phantom, settled, columns, recipe.placement)
    warnings = remarks(facts, recipe.placement)
    return packed(
        settled.nuclei.table, columns, phantom.region, {"seed": seed, "settings": settings, **facts}
    ), warnings


def table_of(settled: Settled, region: Region, placement: PlacementRecipe) -> dict[str, NDArray]:
    """One row for each nucleus, in the order of labels.

    Centroid, box and volume are those of its voxels; `depth_um` is the depth of the centroid inside the surface,
    `tissue_above_um` the way through the spheroid towards the objective. A nucleus touches the border if its voxels
    reach the edge of the field, or beyond.
    """
    nuclei, measured, table = settled.nuclei, settled.measured, settled.nuclei.table
    voxel = np.array(placement.voxel_um)
    centroid, box = measured.centroid.numpy(), measured.box.numpy()
    field = np.ceil(region.field_um / voxel - 1e-9)
    axes = table.semi_axes.numpy() * settled.scale[:, None]
    columns: dict[str, NDArray] = {
        "label_id": np.arange(1, len(nuclei) + 1, dtype=np.uint32),
        "population": nuclei.population,
        "class": nuclei.cell_class,
        "parent_id": nuclei.parent_id,
    }
    columns |= {f"centroid_{axis}": centroid[:, k] for k, axis in enumerate("zyx")}
    columns |= {f"semi_axis_{name}": axes[:, k] for k, name in enumerate("abc")}
    columns |= {f"rotation_{k}": table.rotation.numpy()[:, i] for i, k in enumerate("wzyx")}
    columns |= {"seed": table.seed.numpy().view(np.uint64), "intensity": table.intensity.numpy()}
    columns |= {f"low_{axis}": box[:, 2 * k] * voxel[k] for k, axis in enumerate("zyx")}
    columns |= {f"high_{axis}": box[:, 2 * k + 1] * voxel[k] for k, axis in enumerate("zyx")}
    return columns | {
        "clip_fraction": settled.clip_fraction,
        "volume_um3": measured.voxels.numpy() * float(voxel.prod()),
        "depth_um": -region.grid.distance(np.ascontiguousarray(centroid)),
        "tissue_above_um": tissue_above(region.grid, centroid),
        "shrunk_to": settled.scale,
        "touching_border": np.asarray((box[:, ::2] <= 0).any(axis=1) | (box[:, 1::2] >= field).any(axis=1)),
    }


def facts_of(
    phantom: Phantom, settled: Settled, columns: Mapping[str, NDArray], placement: PlacementRecipe
) -> dict[str, Any]:
    """What was reached, as JSON values."""
    volume = phantom.region.volume_um3
    kinds, counts = np.unique(columns["class"], return_counts=True)
    return {
        "n_nuclei": len(settled.nuclei),
        "n_shrunk": settled.n_shrunk,
        "n_dropped": settled.n_dropped,
        "classes": {CLASS_NAMES[int(kind)]: int(n) for kind, n in zip(kinds, counts)},
        # of the shapes themselves: voxels of which half is inside count whole, which adds to small nuclei
        "volume_fraction": float((settled.nuclei.volume * settled.scale**3) @ (1 - columns["clip_fraction"])) / volume,
        "placed_fraction": float(phantom.nuclei.volume.sum()) / volume,
        "mean_clip": float(columns["clip_fraction"].mean()),
        "overlap_um": phantom.overlap_um,
        "iterations": phantom.iterations,
        "voxel_um": list(placement.voxel_um),
    }


def remarks(facts: Mapping[str, Any], placement: PlacementRecipe) -> list[str]:
    """What the user should know of a spheroid."""
    found = []
    wanted, reached = placement.volume_fraction, facts["volume_fraction"]
    if reached < REACHED * wanted:
        why = (
            f"rsa ended after {placement.rsa_max_failures} failures in a row"
            if placement.method == "rsa"
            else f"an overlap of {facts['overlap_um']:.2g} µm was left after {facts['iterations']} iterations, "
            f"{facts['n_shrunk']} nuclei were made smaller and {facts['n_dropped']} left out"
        )
        found.append(f"a volume fraction of {wanted:.3g} was asked for, {reached:.3g} was reached: {why}.")
    elif placement.method == "relax" and facts["overlap_um"] > placement.tol_um:
        found.append(
            f"the placement did not settle: an overlap of {facts['overlap_um']:.2g} µm was left after "
            f"{facts['iterations']} iterations; nuclei lose {100 * facts['mean_clip']:.1f} % of their volume to others."
        )
    elif facts["n_dropped"]:
        found.append(
            f"{facts['n_dropped']} nuclei lost more than {placement.max_clip:.2g} of their volume and are left out."
        )
    return found
