"""Config of the compression chain: volumes to mixtures of 3D Gaussians."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gigascope.config.section import Section

Voxels = Annotated[int, Field(ge=8, le=1024)]
# Short names of gigascope.compression.peers.codecs.
CodecName = Literal["av1", "av1_slow", "hevc10", "hevc12", "sperr", "sz3", "jpeg2000", "jpegxl", "zfp"]


class NeuronVolume(Section):
    """A simulated confocal volume of branching cells, with its noise-free truth, instead of a file.

    With the dataset's seed 0, and no crop, it is the bench volume, voxel for voxel.
    """

    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (100, 320, 400), description="size of the simulated volume (z, y, x), voxels"
    )
    crop: tuple[tuple[NonNegativeInt, PositiveInt], ...] | None = Field(
        None, description="first and last + 1 voxel kept along z, y and x; none: the whole volume"
    )
    peak_electrons: PositiveFloat = Field(1500.0, description="photo-electrons at the brightest voxel; 150: dim")

    @model_validator(mode="after")
    def _crop(self) -> NeuronVolume:
        if self.crop is not None:
            if len(self.crop) != 3:
                raise ValueError("crop needs three pairs, one for each of z, y and x.")
            for (first, last), n, axis in zip(self.crop, self.shape, "zyx"):
                if not first < last <= n:
                    raise ValueError(f"crop {first} to {last} along {axis} does not lie within 0 to {n}.")
        return self


class CompressionInputs(Section):
    """Where the volume comes from: a file, or a simulation."""

    volume: str | None = Field(
        None,
        description=(
            "TIFF (single, BigTIFF, OME-TIFF), folder or glob of TIFF files (one plane or one stack each), or "
            "OME-Zarr; relative to where you start"
        ),
    )
    phantom: NeuronVolume | None = Field(None, description="simulate the volume instead of reading one")

    @model_validator(mode="after")
    def _one_source(self) -> CompressionInputs:
        if (self.volume is None) == (self.phantom is None):
            raise ValueError("give either volume (a file) or phantom (a simulation).")
        return self


class Ingest(Section):
    """Read the volume plane by plane, keep it sharded with brick statistics, background and noise model."""

    axes: str | None = Field(
        None,
        pattern=r"^[tczyx]+$",
        description=(
            "order of the file's axes, letters of t, c, z, y, x (such as zcyx), the files' own first for a stack of "
            "files; none: as the file says"
        ),
    )
    voxel_size_um: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, description="voxel size (z, y, x), micrometres; none: from the file, else 1 with a warning"
    )
    channels: tuple[NonNegativeInt, ...] | None = Field(None, description="channels kept, from 0; none: all")
    times: tuple[NonNegativeInt, ...] | None = Field(None, description="time points kept, from 0; none: all")
    not_finite: Literal["refuse", "background"] = Field(
        "refuse",
        description="NaN and infinite values of float volumes: refused with their place, or filled with the background",
    )

    @model_validator(mode="after")
    def _axes(self) -> Ingest:
        axes = self.axes
        if axes is not None and (len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes)):
            raise ValueError(f"axes {axes} must name y and x, and no axis twice.")
        return self


class GateNetwork(Section):
    """The occupancy network of the mode `network`: an MLP on encoded coordinates."""

    steps: PositiveInt = Field(2000, description="training steps")
    batch: int = Field(65536, ge=64, description="points per step, half of them from occupied voxels and their shell")
    width: PositiveInt = Field(256, description="neurons of each hidden layer")
    depth: PositiveInt = Field(5, description="layers, the output one included")
    lr: PositiveFloat = Field(1e-3, description="learning rate at the start, cosine to a hundredth of it")
    tau: float | Literal["f1"] = Field(
        0.5, description="probability above which a voxel is occupied; f1: best F1 against the thresholded labels"
    )

    @model_validator(mode="after")
    def _tau(self) -> GateNetwork:
        if self.tau != "f1" and not 0 < float(self.tau) < 1:
            raise ValueError(f"tau {self.tau} must lie between 0 and 1, or be f1.")
        return self


class Gate(Section):
    """Which voxels hold signal: where Gaussians are seeded and where quality is measured."""

    mode: Literal["threshold", "intensity", "network"] = Field(
        "threshold",
        description=(
            "`threshold`: above the noise, no training; `intensity`: above a fraction of the range; `network`: a "
            "coordinate network trained on the thresholded labels"
        ),
    )
    smooth: NonNegativeFloat = Field(1.0, description="Gaussian blur before the threshold, sigma in voxels of x")
    seed_sd: PositiveFloat = Field(6.0, description="an object begins at this many noise standard deviations")
    grow_sd: PositiveFloat = Field(3.0, description="and grows down to this many")
    min_voxels: NonNegativeInt = Field(20, description="smaller objects are removed")
    dilate: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = Field(
        (1, 2, 2), description="margin added around objects (z, y, x), voxels"
    )
    intensity: float = Field(0.10, gt=0, lt=1, description="mode intensity: fraction of the range above the minimum")
    network: GateNetwork = Field(GateNetwork(), description="mode network")
    parts: PositiveInt = Field(1, description="jobs that share the bricks; the result does not depend on it")

    @model_validator(mode="after")
    def _hysteresis(self) -> Gate:
        if self.grow_sd > self.seed_sd:
            raise ValueError(f"grow_sd {self.grow_sd} must not be above seed_sd {self.seed_sd}.")
        return self


class Quantise(Section):
    """Bits of the stored parameters."""

    adaptive: bool = Field(
        True,
        description=(
            "steps follow from what an error costs: coarser for Gaussians that are faint, large or nearly round; "
            "false: the bits below"
        ),
    )
    position_bits: int = Field(
        4, ge=1, le=8, description="adaptive: false; binary digits of a position behind the voxel"
    )
    scale_bits: int = Field(8, ge=4, le=8, description="adaptive: false; bits of each log-scale")
    rotation_bits: int = Field(
        8, ge=4, le=10, description="adaptive: false; bits of each of three quaternion components"
    )
    amplitude_bits: int = Field(10, ge=6, le=12, description="adaptive: false; bits of an amplitude")
    iterations: NonNegativeInt = Field(40, description="iterations with quantised parameters at the end of the fit")

    @model_validator(mode="after")
    def _bits(self) -> Quantise:
        fields = type(self).model_fields
        given = [n for n in fields if n.endswith("_bits") and getattr(self, n) != fields[n].default]
        if self.adaptive and given:
            raise ValueError(f"{given[0]} has no effect on adaptive steps: set adaptive: false, or leave it out.")
        return self


class Fit(Section):
    """Fit the mixture brick by brick, meet the target, write the compressed file."""

    ratio: PositiveFloat | None = Field(None, description="target: raw bytes over compressed bytes, such as 231")
    bytes: PositiveInt | None = Field(None, description="target: size of the compressed file, bytes")
    psnr: PositiveFloat | None = Field(None, description="target: PSNR in the gate, decibels")
    max_error: NonNegativeInt | None = Field(
        None, description="target: largest error of any voxel, in grey values of the volume; 0 is lossless"
    )
    lambda_: PositiveFloat | None = Field(
        None,
        alias="lambda",
        description=(
            "target: squared error that one bit is worth, in variances of the noise, or of 2/256 of the range where "
            "the noise is less (0.4 to 16, smaller is better and larger); none and no other target: 4 variances of the "
            "noise, or of a twentieth of the mean signal"
        ),
    )
    weight: Literal["psnr", "fg", "ml", "edge"] = Field(
        "psnr",
        description=(
            "what an error counts: `psnr`: everywhere alike; `fg`: a tenth outside the gate; `ml`: over the noise "
            "variance of the fitted value; `edge`: more at edges (as VolMicro)"
        ),
    )
    robust: bool = Field(False, description="Huber loss beyond 4 noise standard deviations: hot pixels count less")
    nonneg: bool = Field(False, description="amplitudes stay positive")
    iterations: PositiveInt = Field(400, description="iterations of a brick; 1000: best")
    brick: tuple[Voxels, Voxels, Voxels] = Field(
        (64, 128, 128), description="size of a brick (z, y, x), voxels; the same on every device"
    )
    halo: int = Field(16, ge=4, le=64, description="voxels around a brick that its fit sees and its Gaussians reach")
    c_max: float = Field(3.5, ge=2, le=6, description="largest radius of a Gaussian, in its standard deviations")
    sweeps: NonNegativeInt = Field(2, le=4, description="passes over the bricks that mend the seams between them")
    sweep_iterations: PositiveInt = Field(50, description="iterations of a brick in each of these passes")
    quantise: Quantise = Field(Quantise(), description="bits of the stored parameters")
    parts: PositiveInt = Field(1, description="jobs that share the bricks; the result does not depend on it")

    @model_validator(mode="after")
    def _targets(self) -> Fit:
        named = [n for n in ("ratio", "bytes", "psnr", "max_error", "lambda_") if getattr(self, n) is not None]
        if len(set(named) - {"max_error"}) > 1:
            raise ValueError(
                f"targets {' and '.join(n.rstrip('_') for n in named)} cannot all be met: give one "
                "(max_error may go with another one)."
            )
        return self

    @model_validator(mode="after")
    def _halo(self) -> Fit:
        if any(2 * self.halo > n for n in self.brick):
            raise ValueError(f"halo {self.halo} must be at most half of every side of brick {list(self.brick)}.")
        return self


class Decode(Section):
    """The volume again, from the compressed file alone."""

    enabled: bool = Field(True, description="false: only the compressed file is kept, no decoded volume")
    factor: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (1, 1, 1), description="coarser by these factors along (z, y, x), each voxel the mean over its block"
    )
    parts: PositiveInt = Field(1, description="jobs that share the shards; the result does not depend on it")


class Evaluate(Section):
    """How good the decoded volume is, beside the codecs that a user would pick instead, at equal bytes."""

    codecs: tuple[CodecName, ...] = Field(
        ("av1", "hevc12", "sperr", "sz3", "jpeg2000", "jpegxl", "zfp"),
        description="codecs compared with, at the bytes of the compressed file and around them",
    )
    rates: int = Field(4, ge=1, le=16, description="points of each codec's curve")
    max_voxels: PositiveInt = Field(
        2**26,
        description=(
            "codecs are run on at most this many voxels: the part of a larger volume with the most foreground, and "
            "some of many times and channels"
        ),
    )


class CompressionReport(Section):
    """One HTML page with pictures, curves and numbers."""

    picture_px: int = Field(720, ge=128, le=2048, description="longest side of a picture, pixels")
