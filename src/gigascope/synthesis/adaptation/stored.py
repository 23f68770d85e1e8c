"""The file of a trained adaptation: networks, grey values, what they were trained on."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from gigascope.errors import UserError
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.generator import Generator
from gigascope.synthesis.adaptation.mapping import Mapping
from gigascope.synthesis.adaptation.networks import PUBLISHED, Networks, load_published
from gigascope.synthesis.adaptation.segmenter import Segmenter

FORMAT = 2
_AGAIN = "synthesis.train makes this file."


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What makes simulated images look real.

    Attributes
    ----------
    architecture : of the networks
    to_a : from simulated to real look; none: images stay as they are
    segmenter : that learned beside, or none
    real, cultures : grey values of the domains; none where images stay as they are
    voxel_um : edges (z, y, x) that it was trained on
    bfloat16 : it was trained in it
    step : training steps
    """

    architecture: Architecture
    to_a: Generator | None
    segmenter: Segmenter | None
    real: Mapping | None
    cultures: Mapping | None
    voxel_um: tuple[float, float, float]
    bfloat16: bool
    step: int


def write_identity(path: Path, voxel_um: tuple[float, float, float]) -> None:
    """Write that images stay as they are."""
    identity = Architecture("identity")
    torch.save(
        {
            "format": FORMAT,
            "architecture": identity.to_dict(),
            "step": 0,
            "voxel_um": tuple(voxel_um),
            "bfloat16": False,
        },
        path,
    )


def write_adaptation(
    path: Path,
    state: dict[str, Any],
    mappings: tuple[Mapping, Mapping],
    voxel_um: tuple[float, float, float],
    bfloat16: bool,
) -> None:
    """Write a trained adaptation.

    Parameters
    ----------
    state : of :meth:`..training.Training.state_dict`
    mappings : grey values of real images and of simulated ones
    voxel_um : edges (z, y, x)
    bfloat16 : it was trained in it
    """
    kept = {name: state[name] for name in ("architecture", "step", "networks", "averages")}
    grey = {name: (float(m.low), float(m.high), float(m.most)) for name, m in zip(("real", "cultures"), mappings)}
    torch.save({"format": FORMAT, **kept, "grey": grey, "voxel_um": tuple(voxel_um), "bfloat16": bfloat16}, path)


def read_adaptation(path: Path, weights: Literal["average", "last"] = "average") -> Adaptation:
    """An adaptation, ready for inference.

    Parameters
    ----------
    weights : average, running means where there are any; last, as trained

    Raises
    ------
    UserError : no file of a training
    """
    state = _load(path)
    if state.get("format") != FORMAT:
        raise UserError("is no network of a training of this release.", where=path, do=_AGAIN)
    architecture = Architecture.from_dict(state["architecture"])
    z, y, x = state["voxel_um"]
    if architecture.kind == "identity":
        return Adaptation(architecture, None, None, None, None, (z, y, x), False, 0)
    generator = Generator(architecture)
    averages = state["averages"] if weights == "average" else None
    generator.load_state_dict((averages or state["networks"])["to_a"])
    real, cultures = (Mapping(*state["grey"][name]) for name in ("real", "cultures"))
    return Adaptation(
        architecture,
        generator.eval().requires_grad_(False),
        _segmenter(state),
        real,
        cultures,
        (z, y, x),
        state["bfloat16"],
        state["step"],
    )


def load_start(networks: Networks, path: Path) -> None:
    """Take over weights to begin with: of this program, or of the published one.

    Raises
    ------
    UserError : no such file, or networks of another architecture
    """
    state = _load(path)
    if set(PUBLISHED.values()) <= set(state):
        load_published(networks, state, str(path))
        return
    if state.get("format") != FORMAT or "networks" not in state:
        do = "Give a file of synthesis.train, or models.pth of the published program."
        raise UserError("holds no networks of an adaptation.", where=path, do=do)
    saved = Architecture.from_dict(state["architecture"])
    if saved != networks.architecture:
        differences = saved.differences(networks.architecture)
        what = f"is of another architecture: there and here {differences}."
        raise UserError(what, where=path, do="Set the keys of train as it was trained, or leave train.start out.")
    networks.load_states(state["networks"])


def _segmenter(state: dict[str, Any]) -> Segmenter | None:
    saved = state["networks"].get("segmenter")
    if saved is None:
        return None
    segmenter = Segmenter(flat=state["architecture"]["strides"][0][0] == 1)
    segmenter.load_state_dict(saved)
    return segmenter.eval().requires_grad_(False)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("there is no such file.", where=path, do="Look at the path.")
    try:
        # what is no archive is taken for an older format, which may end in anything
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive of torch")
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"cannot be read as a network ({type(error).__name__}).", where=path, do=_AGAIN) from None
    if not isinstance(state, dict):
        raise UserError("holds no networks of an adaptation.", where=path, do=_AGAIN)
    return state
