"""What a store keeps of a training: pictures, losses, what loading cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from gigascope.learning.live import loss_columns
from gigascope.store.create import StoreWriter
from gigascope.store.plan import ShardPlan
from gigascope.synthesis.adaptation.learning import Learning
from gigascope.synthesis.adaptation.mapping import Mapping

LOADER, LOSSES = "loader", "losses"
# Of a picture: the same at every moment, and what changes. Each also with `_xz`.
STILL, MOVING = ("naive", "real"), ("adapted",)


def write_record(store: StoreWriter, learning: Learning, mappings: tuple[Mapping, Mapping]) -> None:
    """Write a training that has come to its end.

    Members `naive`, `real` (crop, y, x) and `adapted` (moment, crop, y, x), float32 in [-1, 1], the same with `_xz` for
    (z, x); tables `losses` and `loader`, one row per step; attributes as the report shows them.
    """
    training, material, pictures = learning.training, learning.material, learning.pictures
    if training is None or material is None:
        raise RuntimeError("the training has not begun")
    for across, axes in (("", ("y", "x")), ("_xz", ("z", "x"))):
        for name in STILL:
            _put(store, name + across, getattr(pictures[0], name + across).numpy(), ("crop", *axes))
        for name in MOVING:
            values = np.stack([getattr(picture, name + across).numpy() for picture in pictures])
            _put(store, name + across, values, ("moment", "crop", *axes))
    store.write_table(LOSSES, loss_columns(learning.curves))
    store.write_table(LOADER, learning.stats.table(), {"bytes_read": "byte", "bytes_used": "byte", "wait_s": "s",
                                                       "total_s": "s"})  # fmt: skip
    course, label = learning.course, training.label
    store.attrs |= {
        "method": course.architecture.kind,
        "architecture": course.architecture.to_dict(),
        "n_parameters": sum(p.numel() for p in training.networks["to_a"].parameters()),
        "steps": training.step,
        "steps_asked": course.schedule.steps,
        "collapsed": training.collapsed,
        "crop": list(course.crop),
        "batch": course.batch,
        "processes": learning.processes,
        "bfloat16": course.means.bfloat16,
        "moments": [picture.step for picture in pictures],
        "label_halvings": label.halvings,
        "grey_real": [mappings[0].low, mappings[0].high],
        "grey_cultures": [mappings[1].low, mappings[1].high],
        "threshold_real": material.surveys[0].threshold,
        **_ends(learning.curves),
        **learning.stats.metrics(),
    }


def _ends(curves: list[dict[str, float]]) -> dict[str, Any]:
    """Means of the losses over the first and the last tenth."""
    if not curves:
        return {}
    n = max(1, len(curves) // 10)
    columns = loss_columns(curves)
    names = [name for name in columns if name not in ("step", "rate", "gradient", "loss")]
    return {
        "first_losses": {name: float(columns[name][:n].mean()) for name in names},
        "last_losses": {name: float(columns[name][-n:].mean()) for name in names},
    }


def _put(store: StoreWriter, name: str, values: np.ndarray, axes: tuple[str, ...]) -> None:
    values = np.ascontiguousarray(values, np.float32)
    store.create_member(name, ShardPlan(values.shape, 4, values.shape, values.shape), np.float32, axes=axes)[...] = (
        values
    )
