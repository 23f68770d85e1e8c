"""Snakemake that looks at the states of its jobs every two seconds.

Its SLURM plugin looks after 10, 20, 30 s and so on until a job has ended, and no option changes that: of a run of small
jobs most is waiting. Nothing else differs; jobs start a Snakemake as it is.
"""

from __future__ import annotations

import asyncio
import sys

import snakemake.cli
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

EVERY_S = 2


async def _sleep(executor: RemoteExecutor) -> None:
    await asyncio.sleep(EVERY_S)


if __name__ == "__main__":
    RemoteExecutor.sleep = _sleep
    snakemake.cli.main(sys.argv[1:])
