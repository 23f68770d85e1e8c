"""The stages of the compression chain: read, call, write. The science is in the modules beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gigascope.compression import plan
from gigascope.config import compression as config
from gigascope.stage import Kind, stage

if TYPE_CHECKING:
    from gigascope.runtime.context import Context


@stage(
    "compression.ingest",
    config.Ingest,
    inputs={},
    outputs={"volume": Kind.STORE},
    estimate=plan.estimate_ingest,
    reads_inputs=True,
)
def ingest(ctx: Context, cfg: config.Ingest) -> None:
    """Read a volume (or simulate one) plane by plane, with background, noise model and statistics of its bricks."""
    raise RuntimeError("not yet")


@stage(
    "compression.gate",
    config.Gate,
    inputs={"volume": Kind.STORE},
    outputs={"gate": Kind.STORE},
    estimate=plan.estimate_gate,
    gpu=True,
)
def gate(ctx: Context, cfg: config.Gate) -> None:
    """Find the voxels that hold signal."""
    raise RuntimeError("not yet")
