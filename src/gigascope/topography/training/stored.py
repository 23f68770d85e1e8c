"""What is kept of a training: the network, pictures of patches, statistics of the loader, what was decided and why."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gigascope.errors import ShapeError, UserError
from gigascope.learning.live import loss_columns
from gigascope.store.create import StoreWriter
from gigascope.store.plan import ShardPlan
from gigascope.topography.network.model import HeightNetwork
from gigascope.topography.network.training import network_of
from gigascope.topography.training.learning import Learning
from gigascope.topography.training.trial import Trial

__all__ = ["Verdict", "choose", "loss_columns", "read_network", "write_focus", "write_training"]

Method = Literal["network", "focus"]
# Members (patch, row, col) and (moment, patch, row, col), float32.
STILL, MOVING = ("slice", "prior"), ("in_focus", "network")
LOADER = "loader"


@dataclass(frozen=True)
class Verdict:
    """What inference is to use, and why, in words.

    Attributes
    ----------
    use : network or focus
    why : a sentence
    """

    use: Method
    why: str

    @staticmethod
    def of(trial: Trial) -> Verdict:
        """The network where it is better than the prior that it began with."""
        if trial.network_is_better:
            return Verdict("network", f"The network is used: {trial.words()}.")
        return Verdict("focus", f"The network is not used, focus alone is: {trial.words()}.")


def write_focus(network: Path, store: StoreWriter, why: str) -> str:
    """Write that there is no network, into its file and the store of the training; the sentence that says so."""
    verdict = Verdict("focus", f"No network was trained, focus alone is used: {why}.")
    torch.save(asdict(verdict), network)
    store.attrs |= {"method": "focus", **asdict(verdict)}
    return verdict.why


def write_training(network: Path, store: StoreWriter, learning: Learning) -> Verdict:
    """Write a training that has come to its end, and what is to be used.

    The file of the network holds what :func:`..network.training.network_of` takes, and the verdict. The store has
    members `slice`, `prior` (patch, row, col) and `in_focus`, `network` (moment, patch, row, col), counts and heights
    in steps of the stage, and the table `loader`, one row per step.
    """
    if learning.trial is None:
        raise RuntimeError("the training is not at its end")
    verdict = Verdict.of(learning.trial)
    torch.save({**learning.result(), **asdict(verdict)}, network)
    pictures = learning.pictures
    for name in STILL:
        _put(store, name, getattr(pictures[0], name).numpy(), ("patch", "row", "col"))
    for name in MOVING:
        values = np.stack([getattr(picture, name).numpy() for picture in pictures])
        _put(store, name, values, ("moment", "patch", "row", "col"))
    store.write_table(LOADER, *learning.stats.table())
    store.attrs |= {
        "method": "network",
        **asdict(verdict),
        "moments": [picture.step for picture in pictures],
        "patch_view": pictures[0].view.tolist(),
        "patch_corner": pictures[0].corner.tolist(),
        **learning.stats.metrics(),
        **_facts(learning, learning.trial),
    }
    return verdict


def read_network(path: Path, n_z: int) -> tuple[HeightNetwork | None, Verdict]:
    """The network of a file, ready for inference, or none; and what training found is to be used.

    Parameters
    ----------
    n_z : slices of the stacks

    Raises
    ------
    UserError : no file of a training
    ShapeError : it was trained on another number of slices and depends on it
    """
    wrong = UserError("is no network of a training.", where=path, do="topography.train makes this file.")
    # what is no archive is taken for an older format, which may end in anything
    if not zipfile.is_zipfile(path):
        raise wrong
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        verdict = Verdict(state["use"], state["why"])
    except (RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise wrong from error
    return (network_of(state, n_z) if "network" in state else None), verdict


def choose(path: Path, asked: Literal["auto", "network", "focus"], n_z: int) -> Verdict:
    """What inference uses, and why.

    Parameters
    ----------
    path : file of the network
    asked : auto, what training found better; or one of them, whatever it found
    n_z : slices of the stacks

    Raises
    ------
    UserError : a network is asked for, and none was trained on such stacks
    """
    try:
        network, verdict = read_network(path, n_z)
    except ShapeError as error:
        raise UserError(f"is of other stacks: {error}.", where=path, do="Train on these stacks.") from error
    if asked == "network" and network is None:
        raise UserError(f"holds no network. {verdict.why}", where=path, do="Set infer.method: auto or focus.")
    if asked == "auto" or asked == verdict.use:
        return verdict
    return Verdict(asked, f"infer.method is {asked}. Training found otherwise. {verdict.why}")


def _facts(learning: Learning, trial: Trial) -> dict[str, Any]:
    course, curves = learning.course, learning.curves
    return {
        "steps": course.schedule.steps,
        "patch_px": course.loading.patch,
        "positions": course.positions,
        "processes": learning.processes,
        "architecture": course.architecture.to_dict(),
        "n_parameters": learning.n_parameters,
        "first_loss": curves[0]["loss"],
        "last_loss": curves[-1]["loss"],
        "judged_network_slices": trial.network,
        "judged_prior_slices": trial.prior,
        "judged_pixels": trial.pixels,
    }


def _put(store: StoreWriter, name: str, values: np.ndarray, axes: tuple[str, ...]) -> None:
    values = np.ascontiguousarray(values, np.float32)
    plan = ShardPlan(values.shape, 4, values.shape, values.shape)
    store.create_member(name, plan, np.float32, axes=axes)[...] = values
