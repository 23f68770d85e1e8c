"""The metadata of a crate: a Provenance Run Crate of the runs that made a result, built with the library rocrate.

https://w3id.org/ro/wfrun/provenance/0.5: the Snakefile is the workflow, each stage a tool and a step of it, each run of
a stage an action that links the tool with what it read and what it made.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.rocrate import ROCrate

import gigascope
from gigascope.config.dataset import PIPELINES, Dataset
from gigascope.crate.entities import Entities, measured, ref, refs
from gigascope.crate.runs import Data, Run
from gigascope.crate.words import About, circumstances, leaves, title

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
RO_CRATE = "https://w3id.org/ro/crate/1.1"
# Terms that the profile needs and RO-Crate 1.1 has not.
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
BUILD = "https://codemeta.github.io/terms/buildInstructions"
# What the profile's own example calls the time and memory that a run used.
USAGE = "https://w3id.org/ro/terms/nf-trace"
UNIT = "https://qudt.org/vocab/unit"
CONDA = "https://conda.io/projects/conda/en/latest/user-guide/tasks/manage-environments.html"
PIP = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"
COMPLETED = "http://schema.org/CompletedActionStatus"
# The folder of a crate that holds the workflow: what of the checkout is needed to run it.
WORKFLOW = "workflow"


def crate_of(
    dataset: Dataset, runs: Sequence[Run], kit: Mapping[str, Path], held: Mapping[str, Path], yaml: str, about: About
) -> ROCrate:
    """The metadata of a finished dataset.

    Parameters
    ----------
    kit : files of the workflow, by their path in the crate
    held : files of the result that are in the crate, and stores, which are folders, by their path in it
    yaml : path of the dataset's YAML in the crate

    Returns
    -------
    a crate that was not written; its data entities know no source, so that writing it could copy nothing
    """
    graph = _Graph(dataset, runs, held, about)
    graph.describe()
    workflow = graph.workflow(kit)
    actions = [graph.run(run, position) for position, run in enumerate(runs, 1)]
    graph.whole(workflow, actions, yaml)
    return graph.crate


class _Graph(Entities):
    def __init__(self, dataset: Dataset, runs: Sequence[Run], held: Mapping[str, Path], about: About) -> None:
        super().__init__(held)
        self.dataset = dataset
        self.runs = runs
        self.about = about
        # inputs and outputs that a store or file stood for, by its id
        self.slots: dict[str, list[str]] = {}
        self.agent: dict[str, Any] = {}
        if about.agent is not None:
            name, address = about.agent
            self.agent = {"agent": ref(self.add(address, "Person", name=name))}

    # the whole

    def describe(self) -> None:
        """What the crate as a whole is."""
        root, metadata, licence = self.crate.root_dataset, self.crate.metadata, self.about.licence
        for address, (name, version) in PROFILES.items():
            self.add(address, "CreativeWork", name=name, version=version)
        metadata["conformsTo"] = refs([RO_CRATE, list(PROFILES)[-1]])
        metadata.extra_contexts.append(TERMS)
        metadata.extra_terms["buildInstructions"] = BUILD
        root["conformsTo"] = refs(PROFILES)
        root["name"] = title(self.dataset)
        chain = (PIPELINES[self.dataset.pipeline].__doc__ or "").strip().split("\n")[0]
        n_stores = sum(data.store for run in self.runs for data in run.outputs.values())
        root["description"] = f"{chain} How {len(self.runs)} stages made {n_stores} stores and the files beside them."
        root["datePublished"] = self.about.published.isoformat(timespec="seconds")
        root["license"] = licence
        if licence.startswith(("http://", "https://")):
            name = licence.rstrip("/").rpartition("/")[2]
            root["license"] = ref(self.add(licence, "CreativeWork", name=name, description="Licence of these data"))

    def workflow(self, kit: Mapping[str, Path]) -> Any:
        """The Snakefile as main workflow, the stages as its tools and steps, its other files beside it."""
        main = f"{WORKFLOW}/Snakefile"
        environments = {path: ref(CONDA) for path in kit if path.startswith(f"{WORKFLOW}/envs/")}
        environments |= {path: ref(PIP) for path in kit if path.endswith("/requirements.lock")}
        self.add(CONDA, "WebPage", name="Conda environment file")
        self.add(PIP, "WebPage", name="Requirements file of pip")
        for path, source in kit.items():
            if path != main:
                more = {"conformsTo": environments[path]} if path in environments else {}
                self.file(path, source, name=path.removeprefix(f"{WORKFLOW}/"), **more)
        told = {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "gigascope",
            "description": "Raw microscopy data to finished, browsable 3D results.",
            "version": gigascope.__version__,
            "license": "MIT",
            **measured(kit[main]),
            "buildInstructions": refs(environments),
            "hasPart": refs(f"#{run.stage.name}" for run in self.runs),
            "step": refs(f"#step-{run.stage.name}" for run in self.runs),
        }
        return self.crate.add_workflow(dest_path=main, properties=told, main=True, lang="snakemake", gen_cwl=False)

    def whole(self, workflow: Any, actions: Sequence[str], yaml: str) -> None:
        """The run of the workflow, and of the engine."""
        runs, unique = self.runs, _unique(self.runs)
        starts = [run.started for run in runs if run.started is not None]
        made = [self.data(data) for run in runs for data in run.outputs.values()]
        # What no stage of this dataset made: raw files, and stores of other datasets.
        read = [self.data(data) for run in runs for data in (*run.raw, *run.inputs.values()) if data.file is None]
        whole = self.add(
            f"#run-workflow-{unique}",
            "CreateAction",
            name=f"Run of the {self.dataset.pipeline} chain on {self.dataset.name}",
            description=f"snakemake --config datasets={yaml.removeprefix(WORKFLOW + '/')}. From the first start of a "
            "stage to the last end of one; stages may have been run again in between.",
            instrument=ref(workflow.id),
            object=refs([yaml, *read]),
            result=refs(made),
            **({"startTime": _time(min(starts))} if starts else {}),
            endTime=_time(max(run.ended for run in runs)),
            actionStatus=COMPLETED,
            subjectOf=refs(id_ for id_ in made if id_.endswith("report.html")),
            **self.agent,
        )
        version = importlib.metadata.version("snakemake")
        told = "This version was installed when the crate was written; Snakemake's records do not name it."
        engine = self.add(
            "#snakemake", "SoftwareApplication", name="Snakemake", softwareVersion=version, description=told,
            url="https://snakemake.github.io",
        )  # fmt: skip
        steps = refs(f"#control-{run.stage.name}" for run in runs)
        organize = self.add(
            f"#run-snakemake-{unique}", "OrganizeAction", name="Run of Snakemake", instrument=ref(engine), object=steps,
            result=ref(whole), **self.agent,
        )  # fmt: skip
        self.crate.root_dataset["mentions"] = refs([whole, organize, *actions])

    # a stage

    def run(self, run: Run, position: int) -> str:
        """A stage as tool and step, and its run as an action, whose id is returned."""
        name, text = run.stage.name, run.stage.title
        action = f"#run-{name}-{_unique([run])}"
        tool = self.add(
            f"#{name}",
            "SoftwareApplication",
            name=f"gigascope {name}",
            description=text,
            softwareVersion=run.version or gigascope.__version__,
            identifier=self.value(f"#code/{name}", "code digest", run.code, "gigascope:code_digest"),
            softwareRequirements=refs(self._packages(run)),
            input=refs(self._slots(run, "in", run.inputs)),
            output=refs(self._slots(run, "out", run.outputs)),
        )
        config = self.beside(f"config/{name}.json", f"frozen config of {name}")
        self.add(
            action,
            "CreateAction",
            name=f"{text.removesuffix('.')} ({self.dataset.name})",
            description=circumstances(run),
            instrument=ref(tool),
            object=refs([*map(self.data, (*run.inputs.values(), *run.raw)), *config, *self._parameters(run, action)]),
            result=refs(map(self.data, run.outputs.values())),
            **({"startTime": _time(run.started)} if run.started is not None else {}),
            endTime=_time(run.ended),
            actionStatus=COMPLETED,
            resourceUsage=refs(self._usage(run, action)),
            **self.agent,
        )
        step = self.add(f"#step-{name}", "HowToStep", name=text, position=str(position), workExample=ref(tool))
        self.add(f"#control-{name}", "ControlAction", name=f"Step {position}: {name}", instrument=ref(step),
                 object=ref(action))  # fmt: skip
        self.beside(f"logs/{name}.log", f"log of {name}", about=ref(action))
        self.beside(f"benchmarks/{name}.tsv", f"Snakemake's benchmark of {name}", about=ref(action))
        return action

    def _slots(self, run: Run, way: str, data: Mapping[str, Data]) -> Iterator[str]:
        """The inputs or outputs that a run had, by the names under which the stage declares them."""
        for name, item in data.items():
            id_ = self.data(item)
            slot = self.add(f"#{run.stage.name}/{way}/{name}", "FormalParameter", name=name,
                            additionalType="Dataset" if item.store else "File")  # fmt: skip
            self.slots.setdefault(id_, []).append(slot)
            self.crate.dereference(id_)["exampleOfWork"] = refs(self.slots[id_])
            yield slot

    def _parameters(self, run: Run, action: str) -> Iterator[str]:
        """Every value of the config of a stage, and the seed."""
        for key, value in (*leaves(run.config), ("seed", run.seed)):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield self.add(f"{action}/{quote(key)}", "PropertyValue", name=key, value=text)

    def _usage(self, run: Run, action: str) -> Iterator[str]:
        """Time and memory."""
        wall_ms = None if run.wall_s is None else round(1000 * run.wall_s)
        used = {
            "realTime": (wall_ms, f"{USAGE}#realTime", "MilliSEC"),
            "peakRSS": (run.peak_bytes, f"{USAGE}#peakRSS", "BYTE"),
            "peakGPUMemory": (run.peak_gpu_bytes or None, "gigascope:peak_gpu_memory_bytes", "BYTE"),
        }
        for name, (value, what, unit) in used.items():
            if value is not None:
                yield self.add(f"{action}/usage/{name}", "PropertyValue", name=name, propertyID=what,
                               unitCode=f"{UNIT}/{unit}", value=str(value))  # fmt: skip

    def _packages(self, run: Run) -> Iterator[str]:
        """What a stage was run with."""
        for name, version in run.packages.items():
            address = f"https://pypi.org/project/{name}/{version}/"
            yield self.add(address, "SoftwareApplication", name=name, softwareVersion=version, url=address)
        if run.python:
            address = f"https://www.python.org/downloads/release/python-{run.python.replace('.', '')}/"
            yield self.add(address, "SoftwareApplication", name="Python", softwareVersion=run.python, url=address)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _unique(runs: Iterable[Run]) -> str:
    """Eight digits, the same whenever the same runs are described."""
    told = [[run.stage.name, run.host, str(run.ended), *(d.digest for d in run.outputs.values())] for run in runs]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
