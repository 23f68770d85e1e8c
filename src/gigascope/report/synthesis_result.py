"""What the page of simulated cultures is made from: its stores, tables and metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.report.evaluated import Columns, EvaluatedResult
from gigascope.synthesis.evaluation.labels import TABLES
from gigascope.synthesis.evaluation.volumes import ADAPTED, NAIVE, REAL, TITLES

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

# In the order in which the stages ran.
STORES = ("real", "prototypes", "phantoms", "cultures", "training", "adapted", "evaluation")
NM_PER_UM = 1000.0
__all__ = ["ADAPTED", "NAIVE", "REAL", "STORES", "TABLES", "TITLES", "SynthesisResult", "load"]


@dataclass(frozen=True)
class SynthesisResult(EvaluatedResult):
    """Everything the page is made from.

    Attributes
    ----------
    name : of the dataset
    stores : by the names of STORES; `evaluation` always, `cultures` unless naive images were given
    tables : columns by name of the table; see TABLES
    metrics : content of metrics.json
    """

    ORDER = STORES

    @property
    def sets(self) -> list[str]:
        """Kinds of images that there are: real, naive, adapted."""
        there = dict(self.stores["evaluation"].attrs["images"])
        return [key for key in (REAL, NAIVE, ADAPTED) if key in there]

    @property
    def given(self) -> bool:
        """Naive images were given, not simulated."""
        return bool(self.stores["evaluation"].attrs.get("naive_given"))

    @property
    def voxel_um(self) -> tuple[float, float, float]:
        """Edges (z, y, x) of a voxel of the simulated images."""
        z, y, x = (float(v) for v in self.stores["evaluation"].attrs["voxel_um"])
        return (z, y, x)

    def plane(self, key: str, name: str) -> NDArray | None:
        """A slice of a kind of images; see :func:`gigascope.synthesis.evaluation.evaluation.picture_planes`."""
        store = self.stores["evaluation"]
        return np.asarray(store.side(f"{key}_{name}")[...]) if f"{key}_{name}" in store.sides else None

    def scale(self, key: str) -> tuple[float, float]:
        """Grey values of a kind of images that are shown black and white."""
        low, high = self.stores["evaluation"].attrs["scales"][key]
        return float(low), float(high)

    def rows(self, name: str, **where: str) -> Columns:
        """Columns of a table, of those rows only in which text columns have these values."""
        columns = self.tables[name]
        n = len(next(iter(columns.values()), ()))
        use = np.ones(n, bool)
        for column, wanted in where.items():
            use &= np.array([str(v) == wanted for v in columns[column]], bool)
        return {key: np.asarray(values)[use] for key, values in columns.items()}


def load(name: str, stores: Mapping[str, StoreReader], metrics: Path, tables: Mapping[str, Path]) -> SynthesisResult:
    """Gather the inputs of the page; `stores` and `tables` by the names of :class:`SynthesisResult`."""
    from gigascope.store.table import read_tsv

    return SynthesisResult(
        name=name,
        stores=stores,
        tables={key: read_tsv(path)[0] for key, path in tables.items()},
        metrics=json.loads(metrics.read_text(encoding="utf-8")),
    )
