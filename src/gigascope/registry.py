"""Which pipelines there are, where their stages are declared, and stages by name.

Apart from `gigascope.stage`, which every stage's fingerprint covers: a new pipeline must not make the others run again.
"""

from __future__ import annotations

import difflib
import importlib

from gigascope.errors import UserError
from gigascope.stage import DECLARED, Stage

# Where the stages of a pipeline are declared, in the order in which they run.
MODULES: dict[str, tuple[str, ...]] = {
    "tomography": ("gigascope.tomography.stages", "gigascope.report.stages"),
    "compression": ("gigascope.compression.stages", "gigascope.report.stages"),
    "topography": (
        "gigascope.topography.stages",
        "gigascope.topography.training.stages",
        "gigascope.topography.inference.stages",
        "gigascope.topography.mosaic.stages",
        "gigascope.topography.evaluation.stages",
        "gigascope.report.stages",
    ),
    "synthesis": (
        "gigascope.synthesis.domain.stages",
        "gigascope.synthesis.prototypes.stages",
        "gigascope.synthesis.phantom.stages",
        "gigascope.synthesis.simulation.stages",
        "gigascope.synthesis.adaptation.stages",
        "gigascope.synthesis.evaluation.stages",
        "gigascope.report.stages",
    ),
}


def stages(pipeline: str | None = None) -> list[Stage]:
    """All declared stages, of one pipeline or of all, in order of running."""
    chains = list(MODULES) if pipeline is None else [pipeline]
    for chain in chains:
        for module in MODULES[chain]:
            importlib.import_module(module)
    # a module may declare stages of several pipelines, and be imported for another one first
    found = [s for s in DECLARED.values() if s.pipeline in chains]
    return sorted(found, key=lambda s: (chains.index(s.pipeline), MODULES[s.pipeline].index(s.function.__module__)))


def get_stage(name: str) -> Stage:
    """The stage of that name.

    Raises
    ------
    UserError : there is none
    """
    if name in DECLARED:
        # Snakemake asks for the stage of a job several times
        return DECLARED[name]
    pipeline = name.split(".")[0]
    known = {s.name: s for s in stages(pipeline)} if pipeline in MODULES else {}
    if name not in known:
        names = [s.name for s in stages()]
        near = difflib.get_close_matches(name, names, n=1)
        raise UserError(
            f"there is no stage {name!r}.",
            do=f"Did you mean {near[0]}?" if near else f"Stages: {', '.join(names)}.",
        )
    return known[name]
