"""Config of the toy chain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gigascope.config.dataset import PIPELINES, _Dataset
from gigascope.config.section import Section


class ToyInputs(Section):
    """A volume of random numbers."""

    shape: tuple[int, int, int] = Field((7, 9, 8), description="z, y, x")


class Ingest(Section):
    """Make the volume."""


class Smooth(Section):
    """Smooth it block by block, after a first round that sums up each block."""

    parts: int = Field(1, ge=1, description="number of jobs")
    factor: float = Field(0.5, description="weight of the neighbours' sums")
    pause_s: float = Field(0.0, description="time that an item takes")
    killed_item: int = Field(-1, description="item of the first round whose process is killed as it first writes")
    hungry_item: int = Field(-1, description="item of the first round that takes memory")
    hungry_mb: int = Field(0, description="memory that it takes")


class Pick(Section):
    """Pick bright voxels block by block; of two that are too close across a border, keep the brighter."""

    parts: int = Field(1, ge=1, description="number of jobs")
    sweeps: int = Field(1, ge=0, description="sweeps over the borders, in eight colours")
    threshold: float = Field(0.8, description="picked are brighter voxels")
    steps: int = Field(1, ge=1, description="resumable steps that an item takes")
    pause_s: float = Field(0.0, description="time that a step takes")


class ToyDataset(_Dataset):
    """A toy."""

    pipeline: Literal["toy"] = Field(description="which chain of stages")
    inputs: ToyInputs = Field(ToyInputs(), description="the volume")
    ingest: Ingest = Field(Ingest(), description="making")
    smooth: Smooth = Field(Smooth(), description="smoothing")
    pick: Pick = Field(Pick(), description="picking")


PIPELINES["toy"] = ToyDataset
