"""PSFs on disk, named after everything that they are computed from."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gigascope.synthesis.optics.depth_psf import DepthPsf
from gigascope.synthesis.optics.settings import Settings
from gigascope.synthesis.optics.tabulate import depth_psf

# Raised when the same settings give another PSF than before, or the file is laid out anew.
VERSION = 1


def digest(settings: Settings, voxel_um: tuple[float, float, float], depth_um: float) -> str:
    """32 hexadecimal digits of all that :func:`gigascope.synthesis.optics.tabulate.depth_psf` depends on.

    Of measured stacks the contents count, not the names.
    """
    values = asdict(settings)
    files = [_contents(Path(path)) for path in values.pop("paths")]
    text = json.dumps([VERSION, values, files, voxel_um, depth_um], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def cached_psf(
    folder: Path | None, settings: Settings, voxel_um: tuple[float, float, float], depth_um: float
) -> DepthPsf:
    """The PSF from `folder`, or computed and kept there; None: computed.

    Several processes may use one folder: a file appears whole or not at all, and one that cannot be read is replaced.

    Raises
    ------
    UserError : measured stacks that cannot be used
    """
    if folder is None:
        return depth_psf(settings, voxel_um, depth_um)
    path = folder / f"psf-{digest(settings, voxel_um, depth_um)}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return DepthPsf.of(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    psf = depth_psf(settings, voxel_um, depth_um)
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    with beside.open("wb") as file:
        np.savez(file, **psf.arrays())  # type: ignore[arg-type]
    beside.replace(path)
    return psf


def _contents(path: Path) -> str:
    """Digest of a file, or of all files in a folder with their names."""
    found = hashlib.blake2b(digest_size=16)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            found.update(str(file.relative_to(path)).encode())
            with file.open("rb") as handle:
                while chunk := handle.read(1 << 20):
                    found.update(chunk)
    return found.hexdigest()
