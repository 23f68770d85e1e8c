"""Computed PSFs on disk, named after everything that they are computed from."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import scipy

from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.optics.settings import Settings
from gigascope.synthesis.optics.tabulate import depth_psf

_log = logging.getLogger(__name__)
# Where PSFs are kept; empty: nowhere.
VARIABLE = "GIGASCOPE_PSF_CACHE"
# Files in a folder, at most: those that were not used for the longest time go.
MOST_FILES = 32


def psf_folder() -> Path | None:
    """Folder for the PSFs of all datasets of a person: `GIGASCOPE_PSF_CACHE`, or in the home; None: it is set empty."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gigascope" / "psf"
    return Path(named) if named else None


def digest(settings: Settings, voxel_um: tuple[float, float, float], depth_um: float) -> str:
    """32 hexadecimal digits of all that :func:`gigascope.synthesis.optics.tabulate.depth_psf` depends on.

    The code of the optics and the versions of what it computes with count too: what is found is what would be computed.
    """
    text = json.dumps([_code(), asdict(settings), voxel_um, depth_um], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def cached_psf(
    folder: Path | None, settings: Settings, voxel_um: tuple[float, float, float], depth_um: float
) -> DepthPsf:
    """The PSF from `folder`, or computed and kept there; None, or a measured one: not kept.

    Several processes may use one folder: a file appears whole or not at all, and one that cannot be read is replaced.

    Raises
    ------
    UserError : measured stacks that cannot be used
    """
    if folder is None or settings.model == "measured":
        return depth_psf(settings, voxel_um, depth_um)
    path = folder / f"psf-{digest(settings, voxel_um, depth_um)}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            psf = DepthPsf.of(arrays)
        path.touch()
        return psf
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    psf = depth_psf(settings, voxel_um, depth_um)
    try:
        _keep(path, psf)
    except OSError as error:
        # a full disk, or a home that cannot be written: the next run computes it again
        _log.info("the PSF is not kept: %s", error)
    return psf


def _keep(path: Path, psf: DepthPsf) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    try:
        with beside.open("wb") as file:
            np.savez(file, **psf.arrays())  # type: ignore[arg-type]
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    # another process may remove the same ones
    kept = [(found.stat().st_mtime, found) for found in path.parent.glob("psf-*.npz") if found.exists()]
    for _, old in sorted(kept)[:-MOST_FILES]:
        old.unlink(missing_ok=True)


@functools.cache
def _code() -> str:
    """Of the modules of the optics, and of the libraries."""
    found = hashlib.blake2b(f"{np.__version__} {scipy.__version__}".encode(), digest_size=16)
    for module in sorted(Path(__file__).parent.glob("*.py")):
        found.update(module.read_bytes())
    return found.hexdigest()
