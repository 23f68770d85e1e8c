"""What the rules of scattered stages ask: paths of the records by which open job, parts and gather wait for each other.

Records are small, temporary, and lie beside the work folder of their stage. Parts and rounds are counted in the config,
so the graph is known before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigascope.config.dataset import Dataset
from gigascope.registry import get_stage, stages
from gigascope.runtime import records


@dataclass(frozen=True)
class RecordRules:
    """Records of the scattered stages of the datasets of one start of Snakemake.

    Attributes
    ----------
    results : results folder, as written in the config
    datasets : by name
    """

    results: str
    datasets: Mapping[str, Dataset]

    def opened(self, stage: str) -> str:
        """Path pattern of the record that the work of a stage is open."""
        return f"{self._folder(stage)}/{records.OPEN}"

    def part(self, stage: str) -> str:
        """Path pattern of the record of a part of a round."""
        return f"{self._folder(stage)}/{records.part_name('{round}', '{part}')}"

    def round(self, stage: str) -> str:
        """Path pattern of the mark that all parts of a round are done."""
        return f"{self._folder(stage)}/{records.round_name('{round}')}"

    def before(self, stage: str) -> Callable[[Any], str]:
        """Input function of a part: the record of all that has to be done before its round."""

        def path(wildcards: Any) -> str:
            number = int(wildcards.round)
            pattern = self.round(stage) if number else self.opened(stage)
            return pattern.format(dataset=wildcards.dataset, round=number - 1)

        return path

    def of_round(self, wildcards: Any) -> list[str]:
        """Input function of the mark of a round: the records of its parts."""
        pattern, n_parts = self.part(wildcards.stage), self.n_parts(wildcards.stage, wildcards.dataset)
        return [pattern.format(dataset=wildcards.dataset, round=wildcards.round, part=p) for p in range(n_parts)]

    def all(self, stage: str) -> Callable[[Any], list[str]]:
        """Input function of a gather: all records of its stage; none where one job does the whole stage."""

        def paths(wildcards: Any) -> list[str]:
            dataset = wildcards.dataset
            declared, n_parts = get_stage(stage), self.n_parts(stage, dataset)
            if n_parts == 1:
                return []
            n_rounds = declared.rounds(getattr(self.datasets[dataset], declared.key))
            rounds, opened, mark, part = range(n_rounds), self.opened(stage), self.round(stage), self.part(stage)
            # The marks too: without one that is gone, a single lost part would have its whole round started again.
            return [
                opened.format(dataset=dataset),
                *(mark.format(dataset=dataset, round=r) for r in rounds[:-1]),
                *(part.format(dataset=dataset, round=r, part=p) for r in rounds for p in range(n_parts)),
            ]

        return paths

    def forget_lost_work(self, first: bool) -> None:
        """Remove records whose work folder is gone, as after a kill between a commit and the end of its job.

        Parameters
        ----------
        first : this is the Snakemake that plans, not one that runs a job for it
        """
        for name, dataset in self.datasets.items() if first else ():
            for stage in stages(dataset.pipeline):
                if stage.scatter is not None:
                    records.forget_lost_work(Path(self._folder(stage.name).format(dataset=name)))

    def n_parts(self, stage: str, dataset: str) -> int:
        """Parts of each round of a stage."""
        declared = get_stage(stage)
        return declared.parts(getattr(self.datasets[dataset], declared.key))

    def _folder(self, stage: str) -> str:
        root = self.results.replace("{", "{{").replace("}", "}}")
        return f"{root}/scratch/{{dataset}}/{stage}.records"
