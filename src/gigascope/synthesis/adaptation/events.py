"""Losses and pictures of a training as events for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gigascope.learning.events import EventFile
from gigascope.synthesis.adaptation.pictures import Picture


def add_losses(events: EventFile, row: dict[str, float]) -> None:
    """Losses of a step."""
    named = {(n if n == "rate" else f"losses/{n}"): v for n, v in row.items() if n != "step"}
    events.scalars(int(row["step"]), named)


def add_picture(events: EventFile, picture: Picture) -> None:
    """Crops beside each other: simulated, adapted, real."""
    for name in ("naive", "adapted", "real"):
        pixels = np.concatenate(list(getattr(picture, name).numpy()), axis=1)
        events.picture(picture.step, name, ((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8))


def write_events(path: Path, curves: Sequence[dict[str, float]], pictures: Sequence[Picture]) -> None:
    """All of a training that has come to its end."""
    # under another name until it is whole: TensorBoard, and the writer, want tfevents in it
    partial = path.with_name(f"tfevents-{path.name}.partial")
    events = EventFile(partial)
    for row in curves:
        add_losses(events, row)
    for picture in pictures:
        add_picture(events, picture)
    events.close()
    partial.replace(path)
