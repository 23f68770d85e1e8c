"""What the page of an evaluated dataset is made from, whatever its chain: stores, tables, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EvaluatedResult:
    """Stores, tables and metrics of a dataset.

    Attributes
    ----------
    name : of the dataset
    stores : by name, those of :attr:`ORDER` that there are
    tables : columns by name of the table
    metrics : content of metrics.json
    """

    # Stores whose provenance is shown, in the order in which the stages ran.
    ORDER: ClassVar[tuple[str, ...]] = ()

    name: str
    stores: Mapping[str, StoreReader]
    tables: Mapping[str, Columns]
    metrics: Mapping[str, Any]

    def value(self, name: str) -> float | None:
        """A metric, none where it does not exist."""
        entry = self.metrics.get(name)
        found = entry.get("value") if isinstance(entry, Mapping) else None
        return None if found is None else float(found)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Provenance of every store, in the order in which the stages ran."""
        return [self.stores[name].provenance for name in self.ORDER if name in self.stores]

    def config(self, section: str) -> Mapping[str, Any]:
        """What a stage was run with, empty where that is not known."""
        for record in self.records:
            found = dict(record.get("config") or {}).get(section)
            if isinstance(found, Mapping):
                return found
        return {}

    @property
    def warnings(self) -> list[str]:
        """Everything the reader should know, from every stage; each once."""
        found = [str(message) for record in self.records for message in record.get("warnings") or []]
        found += [str(message) for message in self.metrics.get("warnings") or []]
        return list(dict.fromkeys(found))
