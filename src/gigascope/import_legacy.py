"""`gigascope import-legacy`: settings and crops of the published program of Bruch et al. (2023) as a dataset YAML."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gigascope.config.dataset import PIPELINES, merge, parse_dataset
from gigascope.config.template import dataset_yaml
from gigascope.errors import UserError
from gigascope.init import schema_path

# The published program keeps its trained networks beside their settings.
NETWORKS = "models.pth"


def import_legacy(
    settings: Path, name: str, training: Path | None, folder: Path, force: bool = False
) -> tuple[list[Path], list[str]]:
    """Write `folder/name.yaml`, or one for each mask, and `folder/name_prototypes.zarr`.

    Parameters
    ----------
    settings : JSON of the simulation
    name : of the dataset
    training : HJSON of the training; none: no network is trained
    force : replace what is there

    Returns
    -------
    the files, and what the user should know

    Raises
    ------
    UserError : broken or incomplete settings, missing files, something without a counterpart, files in the way
    """
    from gigascope.synthesis.legacy.crops import crop_files
    from gigascope.synthesis.legacy.simulation import check_keys, simulation_values
    from gigascope.synthesis.legacy.training import read_hjson, training_values

    given = _json(settings)
    check_keys(given, str(settings))
    masks, library = _masks(given, settings), folder / f"{name}_prototypes.zarr"
    names = [name] if len(masks) == 1 else [f"{name}_{number:03d}" for number in range(len(masks))]
    files = [folder / f"{one}.yaml" for one in names]
    if (taken := [path for path in (*files, library) if path.exists()]) and not force:
        raise UserError("exists already.", where=taken[0], do="Choose another --name, or --force to replace it.")
    crops = crop_files(Path(given["input_phantom_folder"]))
    network: dict[str, Any] = {}
    remarks: list[str] = []
    if training is not None:
        networks = training.with_name(NETWORKS)
        found = training_values(
            read_hjson(_text(training), str(training)), str(networks) if networks.exists() else None, str(training)
        )
        network, remarks = found.values, found.remarks
        if "inputs" in network:
            remarks.append("Where trainB holds images, they are trained on and nothing is simulated.")
    texts = []
    for one, (mask, slices) in zip(names, masks):
        made = simulation_values(given, mask, slices, str(library))
        values = merge(merge({"pipeline": "synthesis", "name": one}, made.values), network)
        parse_dataset(values, where=str(settings))
        texts.append(dataset_yaml(PIPELINES["synthesis"], values, {}, schema_path(folder)))
        remarks += [remark for remark in made.remarks if remark not in remarks]
    folder.mkdir(parents=True, exist_ok=True)
    remarks.append(_write_library(crops, given["px_size_phantom_img"], library))
    for path, text in zip(files, texts):
        path.write_text(text, encoding="utf-8")
    return [*files, library], remarks


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("there is no such file.", where=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as text ({error}).", where=path) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"is no JSON ({error}).", where=path) from None
    if not isinstance(found, dict):
        raise UserError("holds no settings.", where=path, do="Give the JSON of the published simulation.")
    return found


def _masks(given: Mapping[str, Any], settings: Path) -> list[tuple[str, int]]:
    """Paths of the masks, and their slices."""
    from gigascope.store.readers.volume import open_volume_file

    paths = given["input_spheroid_mask"]
    paths = [paths] if isinstance(paths, str) else paths
    if not paths:
        raise UserError("input_spheroid_mask names no mask.", where=settings)
    if nrrd := [path for path in paths if str(path).endswith(".nrrd")]:
        raise UserError("is an NRRD, which is not read.", where=nrrd[0], do="Save it as TIFF.")
    return [(str(path), open_volume_file(path).shape[2]) for path in paths]


def _write_library(crops: Sequence[tuple[Path, Path]], size: Sequence[float], path: Path) -> str:
    """A record of every crop that has a shape; returns how many there are."""
    from gigascope.store.commit import finish
    from gigascope.store.create import create_store
    from gigascope.store.readers.volume import open_volume_file
    from gigascope.synthesis.legacy.crops import record_of
    from gigascope.synthesis.prototypes.extraction import Rules
    from gigascope.synthesis.prototypes.library import write_library

    voxel = (float(size[0]), float(size[1]), float(size[2]))
    records, sources = {}, {}
    for number, (crop, label) in enumerate(crops):
        image, labels = (
            (source := open_volume_file(file)).read(0, 0, 0, source.shape[2]) for file in (crop, label)
        )
        if image.shape != labels.shape:
            raise UserError(f"has the shape {labels.shape}, its crop {image.shape}.", where=label)
        records[f"c{number:05d}"] = record_of(image, labels, voxel, Rules())
        sources[f"c{number:05d}"] = {"path": str(crop), "voxel_size_um": list(voxel)}
    kept = {name: record for name, record in records.items() if record.n}
    if not kept:
        raise UserError(f"none of the {len(crops)} crops has a shape that can be described.", where=crops[0][0].parent)
    scratch = path.with_name(f".{path.name}")
    store = create_store(scratch)
    # attributes are small: where each comes from is in the table by its number
    write_library(store, kept, {"folder": str(crops[0][0].parent)} if len(kept) > 1000 else sources)
    finish(store, {})
    if path.exists():
        shutil.rmtree(path)
    scratch.rename(path)
    return f"{len(kept)} of {len(crops)} crops became records of {path}."
