"""The compression chain on an array in memory: `compress(volume) -> bytes`, `decompress(bytes) -> volume`.

The stages of the workflow themselves run, in a temporary folder: what a notebook gets is what a cluster makes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def compress(
    volume: NDArray,
    *,
    voxel_size_um: Sequence[float] = (1.0, 1.0, 1.0),
    axes: str | None = None,
    device: str = "auto",
    gate: Mapping[str, Any] | None = None,
    **fit: Any,
) -> bytes:
    """Fit a mixture of Gaussians to a volume and return the compact file.

    Parameters
    ----------
    volume : (z, y, x), or with leading axes of time and channel; integers of 8 to 32 bits or float32
    voxel_size_um : (z, y, x)
    axes : letters of t, c, z, y, x; None: the last ones of tczyx
    device : auto, cpu, cuda
    gate, fit : keys of the sections `gate` and `fit` of a dataset, such as ``ratio=200``; ``lambda_`` for lambda

    Raises
    ------
    UserError : a volume or key that is refused, see `gigascope keys compression`
    """
    from ruamel.yaml import YAML

    from gigascope.runtime.run import run_stage

    fit = {name.rstrip("_"): value for name, value in fit.items()}
    with tempfile.TemporaryDirectory(prefix="gigascope-") as name:
        folder = Path(name)
        _write(folder / "raw.zarr", volume)
        dataset = {
            "pipeline": "compression",
            "name": "array",
            "device": device,
            "inputs": {"volume": str(folder / "raw.zarr")},
            "ingest": {"axes": axes or "tczyx"[-volume.ndim :], "voxel_size_um": [float(s) for s in voxel_size_um]},
            "gate": dict(gate or {}),
            "fit": fit,
        }
        config = folder / "array.yaml"
        with config.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(dataset, file)
        store, mask, out = folder / "volume.zarr", folder / "gate.zarr", folder / "volume.gmix"
        run_stage("compression.ingest", config, {}, {"volume": store})
        run_stage("compression.gate", config, {"volume": store}, {"gate": mask})
        outputs = {"gmix": out, "gaussians": folder / "gaussians.zarr", "bricks": folder / "bricks.tsv"}
        run_stage("compression.fit", config, {"volume": store, "gate": mask}, outputs)
        return out.read_bytes()


def decompress(data: bytes, device: str = "auto") -> NDArray:
    """The volume that a compact file holds, in the original's dtype.

    Raises
    ------
    UserError : not such a file, or one that was cut off or altered
    """
    from gigascope.compression.decoding.volume import GaussianVolume
    from gigascope.runtime.device import choose_device

    with tempfile.TemporaryDirectory(prefix="gigascope-") as name:
        path = Path(name, "volume.gmix")
        path.write_bytes(data)
        return np.asarray(GaussianVolume(path, device=choose_device(device)))


def _write(path: Path, volume: NDArray) -> None:
    import zarr

    array = zarr.create_array(str(path), shape=volume.shape, dtype=volume.dtype, chunks=_chunks(volume.shape))
    array[...] = volume


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Planes, as ingest reads them."""
    return tuple(1 if axis < len(shape) - 2 else n for axis, n in enumerate(shape))
