"""The joint solve beside what a user would pick instead, on the same data."""

from __future__ import annotations

import pytest

from gigascope.tomography.geometry import rms_error

# px RMS on seed 0 of the phantoms at SNR 1, printed by `python benchmarks/alignment.py` with pystackreg 0.2.8 and
# scikit-image 0.26 installed
PEERS = {
    "object": {
        "phase correlation": 2.495,
        "StackReg": 0.513,
        "StackReg, smoothed": 0.318,
        "cosine correlation": 0.927,
        "projection matching": 0.751,
    },
    "section": {
        "phase correlation": 3.823,
        "StackReg": 2.931,
        "StackReg, smoothed": 2.393,
        "cosine correlation": 1.363,
        "projection matching": 0.545,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["object", "section"])
def test_joint_solve_halves_the_error_of_the_best_peer(kind, prepared, aligned):
    sim = prepared(kind, 0).sim
    rms = rms_error(aligned(kind, 0).shifts, sim.shifts_true, sim.tilt)
    best = min(PEERS[kind].values())
    print(f"{kind}: {rms:.3f} px, best peer {best:.3f} px")
    assert rms <= best / 2
