"""Config of the topography chain: training a network on the stacks, and finding the focus of every view."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from gigascope.config.section import Section


class TrainWeights(Section):
    """What counts how much in training; none: as the mode has it."""

    agreement: NonNegativeFloat | None = Field(
        None,
        description=(
            "mode recommended: likelihood of what all other views find at a place, each with a window of 2 pixels; 1"
        ),
    )
    height: NonNegativeFloat | None = Field(
        None, description="views agree on the height that the network gives, per squared slice; 0.5"
    )
    photo: NonNegativeFloat | None = Field(
        None,
        description=(
            "views agree on the picture in focus: per squared count (mode parity), or per squared contrast after 30 % "
            "of the steps (mode recommended); 0"
        ),
    )
    sharp: NonNegativeFloat | None = Field(
        None, description="sharpness of the slice that the network selects; 5000 in mode parity, 0 in recommended"
    )
    arg: NonNegativeFloat | None = Field(
        None, description="distance to the sharpest slice, per squared slice; 1 in mode parity, 0 in recommended"
    )


class Train(Section):
    """Train a network on the stacks themselves: it learns what the other views of a place say of it."""

    method: Literal["network", "focus"] = Field(
        "network",
        description=(
            "`network`: train one, and use it where it turns out better than focus alone; `focus`: none, the focus of "
            "each view by itself"
        ),
    )
    mode: Literal["recommended", "parity"] = Field(
        "recommended",
        description=(
            "`recommended`: the network corrects the focus of each view; `parity`: the published network, objective "
            "and schedule, which needs many thousands of steps"
        ),
    )
    steps: PositiveInt | None = Field(
        None, description="training steps; none: 300 to 2000, by the size of the mosaic; 100001 in mode parity"
    )
    positions: PositiveInt = Field(2, description="places of the mosaic in a step, over all processes together")
    max_views: int = Field(6, ge=1, description="views of a place that a step looks at, at most")
    patch_px: int | None = Field(
        None,
        ge=32,
        multiple_of=2,
        description="side of the crops of the views, pixels; none: three chunks, 576 and the view at most",
    )
    crops: Literal["aligned", "free"] = Field(
        "aligned",
        description="`aligned`: whole chunks, nothing is read in vain; `free`: the place in the middle of its crops",
    )
    order: Literal["disk", "uniform"] = Field(
        "disk",
        description=(
            "`disk`: places near each other follow each other, so that much of what is read was read just before; "
            "`uniform`: independent"
        ),
    )
    levels: int | None = Field(
        None, ge=1, le=6, description="poolings of the network; none: 3, in mode parity 3 to 6 by the size of the patch"
    )
    lr: PositiveFloat | None = Field(None, description="learning rate; none: 0.002, in mode parity 0.0001")
    average: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay of the running mean of the weights, which is what is used; none: 0.999, 0 in mode parity",
    )
    thresholds: tuple[NonNegativeFloat, NonNegativeFloat] = Field(
        (1.0, 1.5),
        description=(
            "sharpness from which on a pixel counts for weights.sharp and for weights.arg, in noise levels of the "
            "published instrument; 1.5 and 2 for shiny samples"
        ),
    )
    weights: TrainWeights = Field(TrainWeights(), description="what counts how much")
    recompute: bool | None = Field(
        None,
        description=(
            "activations are computed a second time instead of kept: less memory, a third more time; none: in mode "
            "parity"
        ),
    )
    prefetch_mb: PositiveFloat = Field(
        2048, description="memory for the crops that are read ahead, megabytes, for each process"
    )
    evidence_mb: NonNegativeFloat = Field(
        2048,
        description=(
            "memory for what focus finds in whole views, megabytes, for each process; views that do not all fit: it is "
            "found in each crop anew"
        ),
    )
    processes: PositiveInt | None = Field(
        None,
        description="processes that share the places of a step; none: one for each GPU, one on a CPU",
    )

    @model_validator(mode="after")
    def _idle(self) -> Train:
        """Keys that nothing would read."""
        if self.method == "focus":
            given = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
            if idle := [name for name in given if name != "method"]:
                raise ValueError(f"{idle[0]} has no effect on method focus, which trains nothing: leave it out.")
        if self.mode == "parity" and self.weights.agreement:
            raise ValueError("weights.agreement needs the focus that mode recommended begins with: leave it out.")
        if self.thresholds != type(self).model_fields["thresholds"].default and not self.uses_thresholds:
            raise ValueError("thresholds have no effect where weights.sharp and weights.arg are 0: leave them out.")
        return self

    @model_validator(mode="after")
    def _shared(self) -> Train:
        if self.processes is not None and self.positions % self.processes:
            raise ValueError(
                f"positions {self.positions} cannot be shared equally by {self.processes} processes: give a multiple."
            )
        return self

    @property
    def uses_thresholds(self) -> bool:
        """A term counts pixels by their sharpness."""
        default = 0.0 if self.mode == "recommended" else 1.0
        weights = (self.weights.sharp, self.weights.arg)
        return any(default if weight is None else weight for weight in weights)


class Infer(Section):
    """Find the slice in focus of every pixel of every view, and the picture in focus."""

    method: Literal["auto", "network", "focus"] = Field(
        "auto",
        description=(
            "`auto`: the network where training found it better than focus alone; `network`, `focus`: that one, "
            "whatever training found"
        ),
    )
    colour: Literal["linear", "nearest"] = Field(
        "nearest",
        description=(
            "picture in focus: `nearest`, each pixel from the slice nearest to its focus, which is sharpest; `linear`, "
            "both slices around it, by their distance, which is smoother"
        ),
    )
    fill: bool = Field(
        True, description="pixels whose focus is in doubt follow those around them; false: what was found there stays"
    )
    tile_px: int = Field(
        1024, ge=64, description="side of the tiles in which a view is worked on, pixels: memory, not the result"
    )
    parts: PositiveInt = Field(1, description="jobs that share the views; the result does not depend on it")
