"""`gigascope init` for virtual cultures: look at the real image and fill in what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gigascope.config.synthesis_domain import Ingest, SynthesisInputs
from gigascope.errors import UserError
from gigascope.synthesis.domain.folders import FOLDERS
from gigascope.synthesis.domain.plan import describe_domain, read_domain


def look(path: str | None, overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and remarks for a dataset YAML.

    Parameters
    ----------
    path : a real image, or the folder of trainA, trainB, ...; none: cultures are simulated without a look to learn, or
        `overrides` say where real images come from
    overrides : nested values set by hand

    Returns
    -------
    nested values, and remarks by dotted key

    Raises
    ------
    UserError : the image is broken, not clear, or does not say its voxel size
    """
    if path is None:
        return {}, {}
    given = overrides.get("inputs", {})
    of_folder = any((Path(path) / name).is_dir() for name in FOLDERS)
    named = {"folders": path} if of_folder else {"real": [{"image": path}]}
    inputs = SynthesisInputs.model_validate({**named, **given})
    try:
        images = read_domain(inputs, Ingest.model_validate(overrides.get("ingest", {})))
    except UserError as error:
        hint = "To set a key now, add for example --set 'ingest.voxel_size_um=[1.5, 0.5, 0.5]'."
        raise UserError(str(error), do=hint if "voxel size" in str(error) else None) from None
    size = [float(f"{v:.6g}") for v in images[0].voxel_um]
    values = {
        "inputs": named,
        "ingest": {"voxel_size_um": size},
        "simulate": {"grid": {"output_voxel_um": size}},
    }
    notes = {
        f"inputs.{next(iter(named))}": "; ".join(describe_domain(images[:3])),
        "ingest.voxel_size_um": "of the first image" if len(images) > 1 else "of the image",
        "simulate.grid.output_voxel_um": "as the image has it",
    }
    return values, notes
