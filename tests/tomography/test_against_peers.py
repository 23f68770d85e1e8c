"""Acceptance test 11: the joint solve beside what a user would pick instead, on the same series."""

from __future__ import annotations

import pytest

from gigascope.tomography.geometry import rms_error

# RMS px of the best peer on seed 0, as `python benchmarks/alignment.py` printed it (projection matching for both)
BEST_PEER_PX = {"object": 0.878, "section": 0.791}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BEST_PEER_PX)
def test_joint_solve_has_at_most_half_of_the_best_peers_error(kind, prepared, aligned):
    sim, found = prepared(kind, 0).sim, aligned(kind, 0)
    error = rms_error(found.shifts, sim.shifts_true, sim.tilt)
    print(f"{kind}: {error:.3f} px, best peer {BEST_PEER_PX[kind]} px")
    assert error <= BEST_PEER_PX[kind] / 2
