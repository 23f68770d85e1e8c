"""The published training's HJSON as sections `inputs`, `train` and `infer`, key by key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gigascope.errors import UserError
from gigascope.synthesis.legacy.simulation import Imported

# What is the same under another name. `mode`, and others that take more than that, are in training_values.
SAME = {
    "norm": "norm",
    "ngf": "width",
    "batch_size": "batch",
    "pool_size": "pool",
    "learning_rate": "lr",
    "train_d_every_x": "d_every",
    "crop_size": "crop",
}
DISCRIMINATORS = {"PatchGANDiscriminator": "patch", "PixelDiscriminator": "pixel"}
# Where there is only one way here, and its value.
ONLY = {"netG": "resnet_9blocks", "preprocess": "crop", "A_nc": 1, "B_nc": 1, "direction": "BtoA"}
ONLY |= {"direction_inference": "BtoA", "resume_training": 0, "epoch_count": 0}
# Files and intervals that the workflow decides on.
WORKFLOW = ("experiment", "save_model_every_x_epochs")
OTHERS = (
    "dataset_folder", "mode", "discriminator", "learning_rate_fix", "learning_rate_decay", "lambda_identity",
    "lambda_cycle_A", "lambda_cycle_B", "img_dim", "inf_patch_size", "inf_patch_overlap",
)  # fmt: skip
KEYS = (*SAME, *ONLY, *WORKFLOW, *OTHERS)
# A window for `null`, the whole image.
WHOLE = 1 << 20


def training_values(given: Mapping[str, Any], networks: str | None, where: str) -> Imported:
    """Sections `inputs`, `train` and `infer`.

    Parameters
    ----------
    given : of the HJSON; keys that are left out have their published default
    networks : path of the trained `models.pth`; none: there is none
    where : the file

    Raises
    ------
    UserError : an unknown key, a way that there is not here, a mode of inference without networks
    """
    if unknown := [key for key in given if key not in KEYS]:
        raise UserError(f"the key {unknown[0]} is not one of the published program.", where=where)
    for key, value in ONLY.items():
        if given.get(key, value) != value:
            raise UserError(f"{key} {given[key]!r} has no counterpart, only {value!r}.", where=where)
    train: dict[str, Any] = {"preset": "paper"}
    train |= {ours: given[theirs] for theirs, ours in SAME.items() if theirs in given}
    if "discriminator" in given:
        if given["discriminator"] not in DISCRIMINATORS:
            raise UserError(f"discriminator {given['discriminator']!r} is not known.", where=where)
        train["discriminator"] = DISCRIMINATORS[given["discriminator"]]
    if given.get("img_dim", 3) == 2:
        train["arch"] = "cyclegan2d"
    weights = {}
    cycles = [given.get(f"lambda_cycle_{domain}", 10) for domain in "AB"]
    if cycles[0] != cycles[1]:
        raise UserError(f"lambda_cycle_A {cycles[0]} and lambda_cycle_B {cycles[1]} differ; here is one.", where=where)
    if cycles[0] != 10:
        weights["cycle"] = cycles[0]
    if "lambda_identity" in given:
        weights["identity"] = given["lambda_identity"]
    if weights:
        train["weights"] = weights
    if given.get("mode") == "inference":
        if networks is None:
            raise UserError("mode inference needs models.pth beside the settings.", where=where)
        train |= {"steps": 0, "start": networks}
    else:
        train["epochs"] = [int(given.get(f"learning_rate_{part}", 3500)) for part in ("fix", "decay")]
    infer: dict[str, Any] = {"blend": "half_cut", "scale": "full"}
    if "inf_patch_size" in given:
        infer["window"] = given["inf_patch_size"] or [WHOLE] * 3
    if "inf_patch_overlap" in given:
        infer["overlap"] = given["inf_patch_overlap"]
    found = Imported({"train": train, "infer": infer})
    if networks is not None and "start" not in train:
        found.remarks.append(f"{networks} is not used, since mode is train: it stands for new networks.")
    if given.get("dataset_folder"):
        found.values["inputs"] = {"folders": given["dataset_folder"]}
    return found


def read_hjson(text: str, where: str) -> dict[str, Any]:
    """The flat HJSON of the published settings: comments, keys without quotes, one entry on a line, lists over several.

    Raises
    ------
    UserError : a line that is no entry
    """
    entries: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith(("#", "//")):
            continue
        if entries and entries[-1].count("[") > entries[-1].count("]"):
            entries[-1] += " " + line
        else:
            entries.append(line)
    found: dict[str, Any] = {}
    for entry in entries:
        inner = entry.removeprefix("{").removesuffix("}").strip() if entry[0] in "{}" or entry[-1] == "}" else entry
        if not inner:
            continue
        key, colon, value = inner.partition(":")
        if not colon:
            raise UserError(f"{entry!r} is no `key: value`.", where=where)
        found[key.strip().strip("\"'")] = _value(value)
    return found


def _value(text: str) -> Any:
    """JSON where it is such, with a comma or a comment behind it; else words."""
    for cut in (text, text.split(" #")[0], text.split(" //")[0]):
        bare = cut.strip().rstrip(",").strip()
        try:
            return json.loads(bare)
        except json.JSONDecodeError:
            continue
    return bare.strip("'")
