"""The tomography chain in slabs under the real Snakemake: its graph, and the same tomogram out of it."""

from __future__ import annotations

import numpy as np
import pytest

from gigascope.store.open import open_store

from .checkout import Checkout, Job, chain, configs

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ONE = "config/datasets/one.yaml"
# Two rounds of five iterations, and one in which the tomogram is written.
ROUNDS = 3


def test_tomogram_in_parts_has_a_job_for_each_part_of_each_round_and_is_the_same(
    finished: Checkout, finished_once: Checkout
) -> None:
    finished.edit(ONE, "  iterations: 10\n", "  iterations: 10\n  round: 5\n  parts: 2\n")
    parts = {
        Job("tomography_reconstruct_part", "one", round=str(r), part=str(p)) for r in range(ROUNDS) for p in (0, 1)
    }
    between = {Job("scatter_round", "one", "tomography.reconstruct", round=str(r)) for r in range(ROUNDS - 1)}
    opened = {Job("tomography_reconstruct_open", "one")}
    assert finished.planned() == configs("one", "reconstruct") | chain("one", "reconstruct") | parts | between | opened
    finished.snakemake()
    for store in ("tomogram", "aligned", "halves"):
        cut, whole = (open_store(c.result(f"one/{store}.zarr")) for c in (finished, finished_once))
        np.testing.assert_array_equal(np.asarray(cut.array()[:]), np.asarray(whole.array()[:]), err_msg=store)
    tomogram = open_store(finished.result("one/tomogram.zarr"))
    assert tomogram.provenance["scatter"]["items"] == [2, 2, 1]
    assert finished.planned() == set()
