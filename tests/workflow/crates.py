"""What an RO-Crate must hold: the requirements of the profiles it names, one by one, read back with the library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import rocrate
from rocrate.rocrate import ROCrate

from gigascope.crate.write import write_crate

from .checkout import Checkout

METADATA = "ro-crate-metadata.json"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/ro/wfrun/provenance/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


def many(value: Any) -> list[Any]:
    """One or several values of a property, as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]


def check_crate(checkout: Checkout, dataset: str, out: Path) -> Crate:
    """Write the light crate of a result, and check all that holds for every chain."""
    write_crate(checkout.result(dataset), out, config=checkout.root / "config/config.yaml", licence="For this test.")
    found = Crate(out)
    found.check()
    found.check_links()
    stores = sorted(path.stem for path in checkout.result(dataset).glob("*.zarr"))
    assert {f"#{store}.zarr": checkout.attributes(f"{dataset}/{store}")["digest"] for store in stores} == {
        entity.id: found.digest(entity.id) for entity in found.of_type("Dataset") if entity.id.endswith(".zarr")
    }
    return found


class Crate:
    """A crate that was read back."""

    def __init__(self, path: Path) -> None:
        self.crate = ROCrate(path)
        self.folder = Path(self.crate.source)
        self.text = json.loads((self.folder / METADATA).read_text())
        self.graph: list[dict[str, Any]] = self.text["@graph"]

    def of_type(self, name: str) -> list[Any]:
        """All entities of a type."""
        return [entity for entity in self.crate.get_entities() if name in many(entity.type)]

    def run(self, stage: str) -> Any:
        """The action that is the run of a stage."""
        (found,) = [a for a in self.of_type("CreateAction") if a["instrument"].id == f"#{stage}"]
        return found

    def digest(self, id_: str) -> str:
        """The digest of a store."""
        found: str = self.crate.get(id_)["identifier"]["value"]
        return found

    def check(self) -> None:
        """Every requirement (MUST) of RO-Crate 1.1 and of the four profiles."""
        self._ro_crate()
        self._workflow_ro_crate()
        self._process_run()
        self._provenance_run()

    def _ro_crate(self) -> None:
        ids = [entity["@id"] for entity in self.graph]
        assert len(ids) == len(set(ids)), "every @id stands once"
        assert all("@type" in entity for entity in self.graph)
        assert not list(self._nested()), "the graph is flat"
        dangling = [id_ for id_ in self._references() if id_ not in ids and not id_.startswith("http")]
        assert not dangling, "whatever is referred to is described"
        assert "https://w3id.org/ro/crate/1.1" in {e.id if hasattr(e, "id") else e for e in self._conforms()}
        root = self.crate.root_dataset
        assert root.type == "Dataset"
        assert all(root[key] for key in ("name", "description", "license", "datePublished"))
        parts = [part.id for part in root["hasPart"]]
        for entity in self.graph:
            id_ = entity["@id"]
            is_data = {"File", "Dataset"} & set(many(entity["@type"])) and id_ != "./" and not id_.startswith("#")
            if is_data:
                assert id_ in parts, f"the root has {id_} as a part"
                place = self.folder / unquote(id_)
                assert place.is_dir() if id_.endswith("/") else place.is_file(), f"{id_} is there"

    def _workflow_ro_crate(self) -> None:
        workflow = self.crate.mainEntity
        assert {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"} <= set(workflow.type)
        assert workflow["programmingLanguage"].type == "ComputerLanguage"
        assert "snakemake" in workflow["programmingLanguage"].id

    def _process_run(self) -> None:
        root = self.crate.root_dataset
        assert {entity.id for entity in root["conformsTo"]} == PROFILES
        assert {entity.type for entity in root["conformsTo"]} == {"CreativeWork"}
        for action in self.of_type("CreateAction"):
            tools = {"SoftwareApplication", "ComputationalWorkflow"}
            assert tools & set(many(action["instrument"].type))
            assert action in root["mentions"]
            assert MOMENT.fullmatch(action["endTime"])
            assert "startTime" not in action or action["startTime"] <= action["endTime"]
            assert action["name"]
            assert action["description"]
            for data in (*many(action["object"]), *many(action["result"])):
                assert data.type in ("File", "Dataset", "PropertyValue"), data

    def _provenance_run(self) -> None:
        workflow = self.crate.mainEntity
        actions = self.of_type("CreateAction")
        tools = many(workflow["hasPart"])
        assert {t.type for t in tools} == {"SoftwareApplication"}
        assert all(sum(a["instrument"] is tool for a in actions) == 1 for tool in tools), "each tool was run"
        (whole,) = [action for action in actions if action["instrument"] is workflow]
        assert len(actions) == len(tools) + 1
        for parameter in self.of_type("FormalParameter"):
            assert parameter["additionalType"] in ("File", "Dataset")
        steps = many(workflow["step"])
        assert [step["workExample"] for step in steps] == tools
        assert [int(step["position"]) for step in steps] == list(range(1, len(tools) + 1))
        controls = self.of_type("ControlAction")
        assert {(c["instrument"].id, c["object"]["instrument"].id) for c in controls} == {
            (step.id, step["workExample"].id) for step in steps
        }
        (engine,) = self.of_type("OrganizeAction")
        assert engine["instrument"]["name"] == "Snakemake"
        assert engine["result"] is whole
        assert {c.id for c in engine["object"]} == {c.id for c in controls}
        used = [value for action in actions for value in many(action.get("resourceUsage"))]
        assert used
        assert all(value.type == "PropertyValue" and value["propertyID"] and value["unitCode"] for value in used)

    def check_links(self) -> None:
        """What a stage read was made before it, by the action that says so, or came from outside."""
        made: dict[str, Any] = {}
        for step in many(self.crate.mainEntity["step"]):
            (action,) = [a for a in self.of_type("CreateAction") if a["instrument"] is step["workExample"]]
            for data in many(action["object"]):
                outside = data.id.startswith(("#input/", "config/")) or data.type == "PropertyValue"
                assert outside or data.id in made, f"{action.id} reads {data.id}, which no step before it made"
                if data.id in made and "startTime" in action:
                    assert made[data.id]["endTime"] <= action["endTime"]
            made |= {data.id: action for data in many(action["result"])}

    def _conforms(self) -> list[Any]:
        return many(self.crate.metadata["conformsTo"])

    def _nested(self) -> Iterator[str]:
        for entity in self.graph:
            for value in entity.values():
                yield from (entity["@id"] for v in many(value) if isinstance(v, dict) and set(v) != {"@id"})

    def _references(self) -> Iterator[str]:
        for entity in self.graph:
            for value in entity.values():
                yield from (v["@id"] for v in many(value) if isinstance(v, dict))


def without_network(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata with the contexts that they name written out, so that another program need not fetch them.

    The library holds the context of RO-Crate 1.3; what 1.1 has otherwise is put right.
    """
    base = json.loads((Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_text())["@context"]
    bioschemas, run = "https://bioschemas.org/", "https://w3id.org/ro/terms/workflow-run#"
    terms = {name: f"{bioschemas}{name}" for name in ("ComputationalWorkflow", "FormalParameter")}
    terms |= {name: f"{bioschemas}ComputationalWorkflow#{name}" for name in ("input", "output")}
    terms |= {name: f"{run}{name}" for name in ("sha256", "resourceUsage")}
    own = [context for context in metadata["@context"] if isinstance(context, dict)]
    merged: dict[str, Any] = {}
    for context in (*many(base), terms, *own):
        merged |= context
    used = {key for entity in metadata["@graph"] for key in entity if not key.startswith("@")}
    assert used <= set(merged), "every property is a term of a context"
    return {**metadata, "@context": merged}
