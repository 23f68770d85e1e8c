"""Config of the synthesis chain: the network that makes simulated images look real."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gigascope.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class AdaptWeights(Section):
    """What counts how much for the generators; none: as the preset has it."""

    cycle: NonNegativeFloat | None = Field(
        None, description="an image that went to the other domain and back is what it was; 2, 10 without skip"
    )
    identity: NonNegativeFloat | None = Field(
        None, description="an image of the domain that is aimed at stays as it is, times `cycle`; 0, 0.5 without skip"
    )
    label: NonNegativeFloat | None = Field(
        None,
        description=(
            "nuclei are found where the labels have them, by a small network that learns beside; raised from 0 over "
            "the first third, halved when images get easier than simulated ones; 0.3, 0 in preset paper"
        ),
    )
    structure: NonNegativeFloat | None = Field(None, description="edges stay where they are; 6, 0 without skip")
    spectrum: NonNegativeFloat | None = Field(
        None,
        description=(
            "images that are made have as much power at each scale, noise too, as those of their domain, in the mean "
            "of many crops; 20, 0 without skip"
        ),
    )
    histogram: NonNegativeFloat | None = Field(
        None,
        description=(
            "each grey value is as frequent in images that are made as in those of their domain, in the mean of many "
            "crops; 300, 0 without skip"
        ),
    )


class Train(Section):
    """Train the networks between simulated and real images."""

    arch: Literal["cyclegan3d", "cyclegan2d", "identity"] = Field(
        "cyclegan3d",
        description=(
            "`cyclegan3d`: volumes; `cyclegan2d`: slice by slice, less memory; `identity`: none, images stay as "
            "they are"
        ),
    )
    preset: Literal["small", "paper"] = Field(
        "small",
        description=(
            "`small`: tile-independent, aware of depth and voxel shape; `paper`: the published networks, losses and "
            "schedule (Bruch et al. 2023), which need days"
        ),
    )
    width: PositiveInt | None = Field(None, description="channels of the first layer; none: 32, 64 in preset paper")
    blocks: NonNegativeInt | None = Field(
        None, description="residual blocks of a generator; none: 6, 9 in preset paper"
    )
    norm: Literal["channel", "instance"] | None = Field(
        None,
        description=(
            "normalisation in the generators: `channel`, each voxel by itself, so that windows do not show; "
            "`instance`, over the image; none: channel, instance in preset paper"
        ),
    )
    discriminator: Literal["patch", "pixel"] = Field(
        "patch", description="what judges: `patch`, pieces of the image; `pixel`, single voxels"
    )
    depth_cond: bool | None = Field(
        None, description="networks know how deep a voxel lies; none: true, false in preset paper"
    )
    skip: bool | None = Field(
        None,
        description=(
            "generators compute what differs and add it to the image, so that training begins with images as they are; "
            "none: true, false in preset paper"
        ),
    )
    crop: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        None,
        description=(
            "voxels (z, y, x) of the crops that are trained on; none: [32, 128, 128], [8, 128, 128] in two "
            "dimensions, [32, 256, 256] and [1, 256, 256] in preset paper, smaller where the images are"
        ),
    )
    batch: PositiveInt | None = Field(None, description="crops of each domain in a step; none: 2, 1 in preset paper")
    micro_batch: PositiveInt | None = Field(
        None,
        description="crops that go through the networks at a time: memory, not the result; none: all of a process",
    )
    steps: NonNegativeInt | None = Field(
        None, description="training steps; none: 30000; in preset paper 7000 times the number of simulated images"
    )
    epochs: tuple[NonNegativeInt, NonNegativeInt] | None = Field(
        None,
        description=(
            "times that all simulated images are gone through, at the full rate and on the way down, in place of "
            "steps and decay_from; none: by steps, [3500, 3500] in preset paper"
        ),
    )
    lr: PositiveFloat = Field(2e-4, description="learning rate of generators and discriminators")
    betas: tuple[Share, Share] = Field((0.5, 0.999), description="memory of Adam's two means")
    decay_from: Share = Field(0.5, description="share of the steps after which the rate falls along a line to 0")
    weights: AdaptWeights = Field(AdaptWeights(), description="what counts how much")
    pool: NonNegativeInt = Field(50, description="images made earlier that discriminators see again")
    d_every: PositiveInt | None = Field(
        None,
        description="discriminators learn in every so many-th step (or epoch); none: 1, 2 in preset paper",
    )
    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay of the running mean of the generators, which is used; none: 0.999, 0 in preset paper",
    )
    stop_after: NonNegativeInt | None = Field(
        None,
        description=(
            "training ends early when a discriminator's loss stays below 0.001 for so many steps, since then nothing "
            "is learned; 0: never; none: 500, 10 epochs where there are epochs"
        ),
    )
    foreground: Share | None = Field(
        None,
        description=(
            "share of the crops in which at least 1 % of the voxels are nuclei, or above background in real images; "
            "none: 0.8, 0 in preset paper"
        ),
    )
    norm_percentiles: tuple[Percent, Percent] | None = Field(
        None,
        description=(
            "percentiles of all voxels of a domain that become -1 and 1; none: [0.1, 99.9], in preset paper the whole "
            "range of 8-bit images"
        ),
    )
    amp: Literal["auto", "on", "off"] = Field(
        "auto",
        description="networks compute in bfloat16, normalisation and losses in float32; `auto`: on a GPU",
    )
    checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "activations of residual blocks are computed again instead of kept: less memory, a fifth more time; "
            "`auto`: on a GPU"
        ),
    )
    start: str | None = Field(
        None,
        description=(
            "file of networks to begin with: one of this stage, or `models.pth` of the published program (preset "
            "paper); none: at random"
        ),
    )
    prefetch_mb: PositiveFloat = Field(
        1024, description="memory for crops that are read ahead, megabytes, for each process"
    )
    readers: PositiveInt = Field(4, description="threads that read and prepare crops, for each process")
    processes: PositiveInt | None = Field(
        None, description="processes that share the crops of a step; none: one for each GPU, one on a CPU"
    )

    @model_validator(mode="after")
    def _idle(self) -> Train:
        """Keys that nothing would read."""
        if self.arch == "identity" and (idle := [name for name in _given(self) if name != "arch"]):
            raise ValueError(f"{idle[0]} has no effect on arch identity, which trains nothing: leave it out.")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("steps and epochs both say how long: leave one out.")
        by_epochs = self.epochs is not None or (self.preset == "paper" and self.steps is None)
        if by_epochs and "decay_from" in _given(self):
            raise ValueError("decay_from has no effect where epochs say when the rate falls: leave it out.")
        return self

    @model_validator(mode="after")
    def _together(self) -> Train:
        batch = self.batch or (1 if self.preset == "paper" else 2)
        if self.processes is not None and batch % self.processes:
            raise ValueError(f"batch {batch} cannot be shared equally by {self.processes} processes: give a multiple.")
        low, high = self.norm_percentiles or (0.1, 99.9)
        if low >= high:
            raise ValueError(f"norm_percentiles: {low:g} is not below {high:g}.")
        return self


class AdaptGuard(Section):
    """When an adapted image is rejected: its structures are not where the labels are."""

    median_voxels: PositiveFloat = Field(
        0.5, description="median shift between blocks of a simulated image and what was made of it, voxels"
    )
    q95_voxels: PositiveFloat = Field(1.0, description="95 % quantile of these shifts, voxels")


class Infer(Section):
    """Make the simulated images look real."""

    window: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (32, 256, 256), description="voxels (z, y, x) that go through the network at a time"
    )
    overlap: Share | tuple[Share, Share, Share] = Field(
        0.5, description="share of a window that the next one covers too, of each axis or of all; below 1"
    )
    blend: Literal["cosine", "half_cut"] = Field(
        "cosine",
        description="`cosine`: windows fade into each other; `half_cut`: each ends in the middle, as published",
    )
    halo: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = Field(
        (0, 0, 0), description="voxels (z, y, x) around each window that the network sees and that are then dropped"
    )
    weights: Literal["average", "last"] = Field(
        "average", description="`average`: the running mean of the generators, where there is one; `last`: as trained"
    )
    statistics: Literal["window", "volume"] = Field(
        "window",
        description=(
            "norm instance: statistics of each `window`, as published, or of the whole `volume`, measured first, so "
            "that windows are alike"
        ),
    )
    scale: Literal["real", "full"] = Field(
        "real", description="grey values: those of the `real` images, or the `full` range of 16 bits, as published"
    )
    amp: Literal["auto", "on", "off"] = Field(
        "auto", description="the network computes in bfloat16; `auto`: on a GPU if it was trained so"
    )
    guard: AdaptGuard = Field(AdaptGuard(), description="when an image is rejected")
    chunk: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (64, 256, 256), description="voxels (z, y, x) of the chunks of the adapted images"
    )
    shard: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (128, 512, 512), description="voxels (z, y, x) of their files, whole chunks; one is worked on at a time"
    )
    parts: PositiveInt = Field(1, description="jobs that share the files; the result does not depend on it")

    @model_validator(mode="after")
    def _whole(self) -> Infer:
        if any(s % c for s, c in zip(self.shard, self.chunk)):
            raise ValueError(f"shard {list(self.shard)} does not hold a whole number of chunks {list(self.chunk)}.")
        if max(self.overlaps) >= 1:
            raise ValueError("overlap must be below 1, else windows do not advance.")
        return self

    @property
    def overlaps(self) -> tuple[float, float, float]:
        """Of each axis (z, y, x)."""
        given = self.overlap
        return given if isinstance(given, tuple) else (given, given, given)


def _given(section: Section) -> list[str]:
    """Keys that have another value than their default."""
    fields: dict[str, Any] = type(section).model_fields
    return [name for name, field in fields.items() if getattr(section, name) != field.default]
