"""What the stage of the phantoms reads from files, and the settings of one spheroid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from gigascope.config.section import dump, explain
from gigascope.config.synthesis_phantoms import Phantoms, RegionMask
from gigascope.errors import UserError
from gigascope.store.readers.volume import Keys, VolumeSource, open_volume_file

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader
    from gigascope.synthesis.phantom.recipe import Triple
    from gigascope.synthesis.phantom.region import DistanceGrid
    from gigascope.synthesis.prototypes.library import Library

# The library that the dataset's own stage makes.
OWN_LIBRARY = "prototypes"
LIBRARY_KEY = "phantoms.nuclei.library"
_KEYS = Keys("phantoms.region.mask.path", "the axes in the file", wide=True)


def settings_of(cfg: Phantoms, seed: int) -> dict[str, Any]:
    """The section with a value drawn for every distribution, validated again.

    Parameters
    ----------
    seed : of the spheroid

    Raises
    ------
    UserError : values drawn that do not go together
    """
    from gigascope.synthesis.sampler import resolve
    from gigascope.synthesis.seeds import seed_of

    drawn = resolve(dump(cfg), seed_of(seed, "settings"), "phantoms")
    try:
        settings = dump(Phantoms.model_validate(drawn))
    except ValidationError as error:
        ((path, why), *_) = explain(error, Phantoms)
        where = ".".join(("phantoms", *map(str, path)))
        do = "Narrow the distributions of these keys."
        raise UserError(f"values drawn for a spheroid do not go together: {why}", where=where, do=do) from None
    # a spheroid does not know how many others there are
    return {key: value for key, value in settings.items() if key not in ("n_spheroids", "parts")}


def named_files(cfg: Phantoms) -> tuple[Path, ...]:
    """The file of the mask, and the roots of libraries of prototypes.

    Raises
    ------
    UserError : one is not there
    """
    found = [] if cfg.region.mask.path is None else [_existing(cfg.region.mask.path, "phantoms.region.mask.path")]
    found += [_existing(f"{name}/zarr.json", LIBRARY_KEY) for name in library_names(cfg) if name != OWN_LIBRARY]
    return tuple(found)


def library_names(cfg: Phantoms) -> tuple[str, ...]:
    """Libraries of prototypes that the section names, each once."""
    kinds = (cfg.nuclei, *(population.nuclei for population in cfg.populations))
    return tuple(dict.fromkeys(kind.library for kind in kinds if kind is not None and kind.library is not None))


def open_libraries(cfg: Phantoms, own: StoreReader | None) -> dict[str, Library]:
    """All prototypes, by the name of their library.

    Parameters
    ----------
    own : store of this dataset's prototypes, if it has any

    Raises
    ------
    UserError : a library that is not there, or that is none
    """
    from gigascope.store.open import open_store
    from gigascope.synthesis.prototypes.library import read_library

    found = {}
    for name in library_names(cfg):
        if name == OWN_LIBRARY and own is None:
            do = "Let it make one (section prototypes), or give the path of another's."
            raise UserError("the dataset makes no library of prototypes.", where=LIBRARY_KEY, do=do)
        store = own if name == OWN_LIBRARY and own is not None else open_store(name)
        if not {"sh", "axes", "intensity"} <= set(store.sides):
            raise UserError("is no library of prototypes.", where=store.path, do=f"Check {LIBRARY_KEY}.")
        found[name] = read_library(store)
    return found


def open_mask(cfg: RegionMask) -> tuple[VolumeSource, Triple]:
    """The mask's file, opened but not read, and its voxel size.

    Raises
    ------
    UserError : missing, not a volume, or of unknown voxel size
    """
    if cfg.path is None:
        raise ValueError("no mask")
    source = open_volume_file(_existing(cfg.path, "phantoms.region.mask.path"), None, _KEYS)
    size = cfg.voxel_um or source.voxel_size_um
    z, y, x = size
    if z is None or y is None or x is None:
        do = "Set phantoms.region.mask.voxel_um to its voxel size (z, y, x) in micrometres."
        raise UserError(f"the file does not say its voxel size ({source.origin}).", where=cfg.path, do=do)
    return source, (z, y, x)


def read_mask(cfg: RegionMask) -> DistanceGrid:
    """Signed distances of the region that a file describes.

    Raises
    ------
    UserError : see :func:`open_mask`; no voxel is inside
    """
    from gigascope.synthesis.phantom.mask import distance_of_mask, mask_of_image

    source, voxel_um = open_mask(cfg)
    volume = source.read(0, 0, 0, source.shape[2])
    if cfg.from_image:
        inside = mask_of_image(volume.astype(np.float32), voxel_um, cfg.smooth_um, cfg.closing_um)
    else:
        inside = volume == cfg.label if cfg.label is not None else volume != 0
        if cfg.label is not None and not inside.any():
            do = "Set phantoms.region.mask.label to a value in the file, or leave it out."
            raise UserError(f"no voxel has the value {cfg.label}.", where=cfg.path, do=do)
    return distance_of_mask(inside, voxel_um, cfg.path)


def _existing(path: str, key: str) -> Path:
    if not Path(path).exists():
        raise UserError("there is no such file.", where=path, do=f"Check {key}.")
    return Path(path)
