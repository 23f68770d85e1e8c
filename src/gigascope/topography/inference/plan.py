"""What inference will need, from shapes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gigascope.runtime.resources import Estimate
from gigascope.stage import JobKind

if TYPE_CHECKING:
    from gigascope.config.dataset import TopographyDataset
    from gigascope.topography.plan import TopographyHeader


def estimate_infer(dataset: TopographyDataset, header: TopographyHeader) -> Estimate:
    """A view as it is stored, one tile of it at work, and what is found in it."""
    return Estimate(2**30, 2**30, 60, 10**6, 40, "focus")


def estimate_infer_job(dataset: TopographyDataset, header: TopographyHeader, job: JobKind) -> Estimate:
    """A part has its share of the views."""
    whole = estimate_infer(dataset, header)
    return replace(whole, seconds=whole.seconds / (dataset.infer.parts if job == "part" else 1))
