"""Needs of the toy chain."""

from __future__ import annotations

from typing import Any

from gigascope.runtime.resources import BASE_BYTES, Estimate
from gigascope.stage import JobKind


def read_header(dataset: Any) -> Any:
    """Shape of the volume."""
    return dataset.inputs.shape


def estimate(dataset: Any, header: Any) -> Estimate:
    """Of any stage, whole."""
    return Estimate(BASE_BYTES, 0, 1.0, 10_000, 10, "toy")


def estimate_job(dataset: Any, header: Any, job: JobKind) -> Estimate:
    """Of a job of a scattered stage: parts need the most."""
    factor = 2 if job == "part" else 1
    return Estimate(factor * BASE_BYTES, 0, 600.0 * factor, 10_000, 10, "toy")
