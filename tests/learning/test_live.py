"""What is written beside a training while it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gigascope.learning.live import LiveEvents


def test_pictures_come_at_once_and_then_when_they_are_due(tmp_path: Path, monkeypatch) -> None:
    now, made = [100.0], []

    def pictures():
        made.append(now[0])
        now[0] += 2.0
        return {"patch": np.zeros((4, 6), np.uint8)}

    monkeypatch.setattr("gigascope.learning.live.time.monotonic", lambda: now[0])
    events = LiveEvents(tmp_path, 7)
    sizes = []
    for step in range(7, 150):
        events.add({"step": step, "loss": 1.0 / step}, pictures)
        now[0] += 1.0
        sizes.append((tmp_path / "events.out.tfevents.00000007").stat().st_size)
    events.close()
    # two seconds of a hundred at most
    assert made == [100.0, 202.0]
    assert (np.diff(sizes) > 0).all(), "every step is there at once"
