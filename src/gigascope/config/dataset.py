"""A dataset: one YAML file, validated. The union over pipelines is discriminated by the key `pipeline`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from gigascope.config import (
    compression,
    synthesis,
    synthesis_adapt,
    synthesis_domain,
    synthesis_evaluate,
    synthesis_phantoms,
    synthesis_simulate,
    tomography,
    topography,
    topography_network,
)
from gigascope.config.section import Section, explain
from gigascope.config.synthesis_domain import planted_values
from gigascope.errors import UserError

# Pydantic's classes have a `register` of abc.ABCMeta, for virtual subclasses; the key of that name is no such thing.
warnings.filterwarnings("ignore", 'Field name "register" in "TopographyDataset"', UserWarning)


class _Dataset(Section):
    """What every dataset has."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the dataset, and of its folder under results/"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="`auto`: CUDA where there is one, else the CPU; or cpu, cuda, cuda:1",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of everything random in this dataset")
    optional: bool = Field(False, description="left out, with a note, by a run in which its input files are not there")

    def runs(self, stage: str) -> bool:
        """Whether a stage, by the key of its section, is part of this dataset's run."""
        return bool(getattr(getattr(self, stage), "enabled", True))


class TomographyDataset(_Dataset):
    """A tilt series to be aligned and reconstructed."""

    pipeline: Literal["tomography"] = Field(description="which chain of stages")
    inputs: tomography.TomographyInputs = Field(description="where the tilt series comes from")
    ingest: tomography.Ingest = Field(tomography.Ingest(), description="reading and checking")
    prealign: tomography.Prealign = Field(tomography.Prealign(), description="coarse alignment")
    reconstruct: tomography.Reconstruct = Field(
        tomography.Reconstruct(), description="joint alignment and reconstruction"
    )
    halves: tomography.Halves = Field(tomography.Halves(), description="even and odd views apart")
    evaluate: tomography.Evaluate = Field(tomography.Evaluate(), description="quality measures")
    report: tomography.TomographyReport = Field(tomography.TomographyReport(), description="the HTML page")


class CompressionDataset(_Dataset):
    """A volume to be compressed into a mixture of Gaussians."""

    pipeline: Literal["compression"] = Field(description="which chain of stages")
    inputs: compression.CompressionInputs = Field(description="where the volume comes from")
    ingest: compression.Ingest = Field(compression.Ingest(), description="reading and checking")
    gate: compression.Gate = Field(compression.Gate(), description="which voxels hold signal")
    fit: compression.Fit = Field(compression.Fit(), description="fitting and writing the compressed file")
    decode: compression.Decode = Field(compression.Decode(), description="the volume from the compressed file")
    evaluate: compression.Evaluate = Field(compression.Evaluate(), description="quality measures and codecs")
    report: compression.CompressionReport = Field(compression.CompressionReport(), description="the HTML page")


class TopographyDataset(_Dataset):
    """z-stacks of a camera array, to become a mosaic in focus and its height map."""

    pipeline: Literal["topography"] = Field(description="which chain of stages")
    inputs: topography.TopographyInputs = Field(description="where the z-stacks come from")
    synth: topography.Synth = Field(topography.Synth(), description="simulating the instrument")
    ingest: topography.Ingest = Field(topography.Ingest(), description="reading and checking")
    register: topography.Register = Field(
        topography.Register(), description="slices of one moving camera on common ground"
    )
    calibrate: topography.Calibrate = Field(
        topography.Calibrate(), description="where the views lie, and where they are in focus"
    )
    train: topography_network.Train = Field(topography_network.Train(), description="training a network on the stacks")
    infer: topography_network.Infer = Field(topography_network.Infer(), description="focus and picture of every view")
    mosaic: topography.Mosaic = Field(topography.Mosaic(), description="putting the views together")
    tiff: topography.Tiff = Field(topography.Tiff(), description="the mosaic as TIFF files")
    mesh: topography.Mesh = Field(topography.Mesh(), description="the height map as a surface")
    evaluate: topography.Evaluate = Field(topography.Evaluate(), description="quality measures")
    report: topography.TopographyReport = Field(topography.TopographyReport(), description="the HTML page")

    @model_validator(mode="after")
    def _network(self) -> TopographyDataset:
        """A network that is asked for must be trained."""
        if self.train.method == "focus" and self.infer.method == "network":
            raise ValueError("infer.method network needs a network, and train.method is focus: change one of them.")
        return self

    @model_validator(mode="after")
    def _without_effect(self) -> TopographyDataset:
        """Keys that say how files are to be read, where there are none, or none of that layout."""
        inputs, fields = self.inputs, type(self.ingest).model_fields
        idle = [] if inputs.stacks is not None else ["scan_step_mm"]
        if inputs.instrument is not None:
            idle += ["stage_up", "mirror_x", "mirror_y", "missing"]
        if inputs.images is None and self.register != topography.Register():
            raise ValueError("register has an effect on inputs.images only: leave it out.")
        given = [name for name in idle if getattr(self.ingest, name) != fields[name].default]
        if given:
            found = next(n for n in ("captures", "stacks", "images", "instrument") if getattr(inputs, n) is not None)
            raise ValueError(f"ingest.{given[0]} has no effect on inputs.{found}: leave it out.")
        return self

    @property
    def registers(self) -> bool:
        """Slices are registered: those of one camera, and where that is wanted."""
        return self.inputs.images is not None and self.register.enabled

    def runs(self, stage: str) -> bool:
        """Only a simulated instrument has a stage that simulates it, only one camera one that registers."""
        only = {"synth": self.inputs.instrument is not None, "register": self.registers}
        return only[stage] if stage in only else super().runs(stage)


class SynthesisDataset(_Dataset):
    """Virtual cell cultures with exact labels."""

    pipeline: Literal["synthesis"] = Field(description="which chain of stages")
    inputs: synthesis_domain.SynthesisInputs = Field(
        synthesis_domain.SynthesisInputs(), description="real images and labelled nuclei, where there are any"
    )
    ingest: synthesis_domain.Ingest = Field(synthesis_domain.Ingest(), description="reading the real images")
    prototypes: synthesis_domain.Prototypes = Field(
        synthesis_domain.Prototypes(), description="shapes of nuclei from labelled images"
    )
    phantoms: synthesis_phantoms.Phantoms = Field(
        synthesis_phantoms.Phantoms(), description="placing nuclei in spheroids"
    )
    simulate: synthesis_simulate.Simulate = Field(
        synthesis_simulate.Simulate(), description="what a microscope makes of them"
    )
    train: synthesis_adapt.Train = Field(
        synthesis_adapt.Train(), description="training the network between the domains"
    )
    infer: synthesis_adapt.Infer = Field(synthesis_adapt.Infer(), description="making the images look real")
    evaluate: synthesis_evaluate.Evaluate = Field(synthesis_evaluate.Evaluate(), description="quality measures")
    report: synthesis.SynthesisReport = Field(synthesis.SynthesisReport(), description="the HTML page")

    @model_validator(mode="before")
    @classmethod
    def _planted(cls, values: Any) -> Any:
        """A planted domain has the phantoms and the simulation of its dataset, where it says nothing else."""
        return planted_values(values) if isinstance(values, dict) else values

    @property
    def has_real(self) -> bool:
        """There are images whose look can be learned."""
        inputs = self.inputs
        return bool(inputs.real) or inputs.folders is not None or inputs.planted is not None

    @property
    def gives_naive(self) -> bool:
        """Naive images were given, in the folders of the published layout."""
        return self.inputs.gives_naive

    @property
    def simulates(self) -> bool:
        """Cultures are simulated: no naive images were given."""
        return not self.gives_naive

    @property
    def has_library(self) -> bool:
        """Nuclei are taken out of labelled real images, for the phantoms."""
        return self.has_real and self.prototypes.enabled and self.simulates

    def runs(self, stage: str) -> bool:
        """Without real images there is nothing to read, and no look to learn; given naive ones are not simulated."""
        only = {"prototypes": self.has_library}
        only |= dict.fromkeys(("ingest", "train", "infer"), self.has_real)
        only |= dict.fromkeys(("phantoms", "simulate"), self.simulates)
        return only[stage] if stage in only else super().runs(stage)


Dataset = TomographyDataset | CompressionDataset | TopographyDataset | SynthesisDataset
PIPELINES: dict[str, type[_Dataset]] = {
    "tomography": TomographyDataset,
    "compression": CompressionDataset,
    "topography": TopographyDataset,
    "synthesis": SynthesisDataset,
}


def parse_dataset(values: dict[str, Any], where: str = "dataset") -> Dataset:
    """Validate plain values as a dataset.

    Raises
    ------
    UserError : with every wrong key by its path, the value found and the one expected
    """
    pipeline = values.get("pipeline") if isinstance(values, dict) else None
    if pipeline not in PIPELINES:
        raise UserError(
            f"pipeline is {pipeline!r}.", where=where, do=f"Write one of: {', '.join(PIPELINES)} (key `pipeline`)."
        )
    try:
        return _validated(PIPELINES[pipeline], values)
    except ValidationError as error:
        problems = explain(error, PIPELINES[pipeline])
        text = [f"{'.'.join(map(str, path))}: {sentence}" for path, sentence in problems]
        raise UserError("\n  ".join(text), where=where) from None


def read_yaml(path: Path, do: str) -> tuple[dict[str, Any], Any]:
    """Values of a YAML file, and the same with the lines on which they stand.

    Parameters
    ----------
    do : what to do where there is no such file, or nothing in it

    Raises
    ------
    UserError : file missing, not YAML (with the line), or without keys
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such file.", where=path, do=do) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}.", where=path) from None
    try:
        marked = YAML(typ="rt").load(text)
        values = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"not valid YAML: {error.problem}.", where=f"{path}:{line}") from None
    if not isinstance(values, dict):
        raise UserError("holds no keys.", where=path, do=do)
    return values, marked


def load_dataset(path: str | Path, overrides: dict[str, Any] | None = None) -> Dataset:
    """Read and validate a dataset YAML; `overrides` are nested values laid over the file's.

    Raises
    ------
    UserError : file missing or not YAML (with the line), unknown or wrong keys (with their lines)
    """
    path = Path(path)
    values, marked = read_yaml(path, do="Give the path of a dataset YAML; `gigascope init` writes one.")
    if overrides:
        values = merge(values, overrides)
    try:
        return _validated(_pipeline_of(values, path), values)
    except ValidationError as error:
        problems = explain(error, PIPELINES[values["pipeline"]])
        text_lines = [f"{_place(path, marked, keys)}: {'.'.join(map(str, keys))}: {why}" for keys, why in problems]
        raise UserError("\n".join(text_lines)) from None


def _pipeline_of(values: dict[str, Any], path: Path) -> type[_Dataset]:
    if values.get("pipeline") not in PIPELINES:
        parse_dataset(values, where=str(path))
    return PIPELINES[values["pipeline"]]


def _validated(model: type[_Dataset], values: dict[str, Any]) -> Dataset:
    """By the model of the pipeline itself: the union's errors would have its name in front of every key."""
    dataset: Any = model.model_validate(values)
    return dataset


def _place(path: Path, marked: Any, keys: tuple[str | int, ...]) -> str:
    """`file:line` of the innermost key that stands in the file."""
    line = None
    node = marked
    for key in keys:
        try:
            line = node.lc.data[key][0] + 1
            node = node[key]
        except (AttributeError, KeyError, TypeError, IndexError):
            break
    return f"{path}:{line}" if line is not None else str(path)


def merge(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`values` with `overrides` laid over, section by section."""
    merged = dict(values)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def dataset_schema() -> dict[str, Any]:
    """JSON Schema of a dataset YAML, for editors."""
    adapter: TypeAdapter[Dataset] = TypeAdapter(Annotated[Dataset, Field(discriminator="pipeline")])
    schema = adapter.json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "gigascope dataset"}


def schema_text() -> str:
    """The schema as it stands in config/schema/dataset.json."""
    return json.dumps(dataset_schema(), indent=2, ensure_ascii=False) + "\n"
