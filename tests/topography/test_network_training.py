"""Training: resuming, several processes, learning."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.topography.network.losses import PARITY, RECOMMENDED
from gigascope.topography.network.model import Architecture, new_network
from gigascope.topography.network.training import PARITY_SCHEDULE, Schedule, Training, look, network_of, recommended

from . import network_batches
from .network_batches import make_batch, parity_network, training


@pytest.mark.parametrize("kind", ["parity", "recommended"])
def test_resumed_training_equals_an_undisturbed_one(kind: str, tmp_path: Path) -> None:
    whole = training(kind)
    for _ in whole.updates():
        pass
    first = training(kind)
    for _ in first.updates():
        if first.step == 3:
            break
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = training(kind)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second.step == 3
    for _ in second.updates():
        pass
    for pair in ((whole.network, second.network), (whole.result, second.result)):
        for a, b in zip(*(network.parameters() for network in pair)):
            assert (a - b).abs().max() <= 1e-6
    assert whole.curves == second.curves


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parity", "recommended"])
def test_two_processes_train_as_one(kind: str, tmp_path: Path) -> None:
    single = training(kind)
    for _ in single.updates():
        pass
    program = [sys.executable, network_batches.__file__, kind]
    files = [str(tmp_path / "meeting"), str(tmp_path / "curves.json")]
    running = [subprocess.Popen([*program, str(rank), "2", *files]) for rank in range(2)]
    assert [p.wait(timeout=600) for p in running] == [0, 0]
    shared = json.loads((tmp_path / "curves.json").read_text())
    assert len(shared) == len(single.curves)
    for a, b in zip(single.curves, shared):
        assert a.keys() == b.keys()
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-9), (a["step"], name)


def test_published_training_leaves_mid_stack_for_the_focus() -> None:
    batch, truth = make_batch(41, n_groups=1, n_z=11, side=48)
    # the focus lies two slices from the middle of what is left
    batch, truth = replace(batch, stacks=batch.stacks[:, 4:], z_mm=batch.z_mm[:, 4:]), truth - 4
    # the published output scale of 1e-4 would need thousands of steps
    network = new_network(Architecture(7, (8, 8, 8), input="scaled", output_scale=0.3), 0)
    run = Training(network, lambda step: batch, PARITY, Schedule(steps=60, lr=3e-3, warm_up=5, average=0), 0)
    for _ in run.updates():
        pass
    start, end = run.curves[0], run.curves[-1]
    print("sharpness and distance terms:", start["sharp"], end["sharp"], start["arg"], end["arg"])
    assert end["sharp"] < start["sharp"]
    assert end["arg"] < 0.5 * start["arg"]
    with torch.no_grad():
        index = network(batch.stacks).index
    assert (index - truth).abs().mean() < 0.5 * (3.0 - truth).abs().mean()


def test_learning_brings_views_closer_to_the_truth_than_their_prior() -> None:
    steps, side = 60, 64

    def batches(step: int) -> object:
        return make_batch(100 + step % 6, n_groups=1, views=4, side=side)[0]

    network = new_network(recommended(9, levels=2), 1)
    run = Training(network, batches, RECOMMENDED, Schedule(steps=steps, lr=3e-3, warm_up=5, average=0.9), 0)
    for _ in run.updates():
        pass
    first = sum(c["agreement"] for c in run.curves[:6])
    last = sum(c["agreement"] for c in run.curves[-6:])
    assert last < first
    unseen, truth = make_batch(999, n_groups=1, views=4, side=side)
    inner = slice(None), slice(12, -12), slice(12, -12)
    with torch.no_grad():
        found = look(run.result.eval(), unseen.stacks).index
        prior = look(new_network(recommended(9, levels=2), 1), unseen.stacks).index
    errors = [((x - truth)[inner] ** 2).mean().sqrt().item() for x in (found, prior)]
    print("RMSE in slices of network and prior:", errors)
    assert errors[0] < errors[1]


def test_filler_crops_count_for_nothing() -> None:
    batch, _ = make_batch(43, n_groups=2)
    weight = batch.weight.clone()
    weight[2:] = 0
    results = []
    for case in (batch.part(0, 1), replace(batch, weight=weight)):
        run = Training(parity_network(), lambda step, case=case: case, PARITY, Schedule(steps=2, lr=1e-3), 3)
        for _ in run.updates():
            pass
        results.append([p.detach() for p in run.network.parameters()])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_rates_rise_and_fall() -> None:
    schedule = Schedule(steps=1000, lr=1.0, warm_up=100)
    rates = [schedule.rate(s) for s in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.03)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    assert PARITY_SCHEDULE.rate(0) == PARITY_SCHEDULE.rate(100_000) == 1e-4


def test_checkpoints_say_what_they_are_of() -> None:
    state = copy.deepcopy(training("parity").state_dict())
    assert state["architecture"]["n_z"] == 9
    with pytest.raises(ShapeError, match="trained on stacks of 9 slices, these have 17"):
        network_of(state, 17)
    other = Training(parity_network(levels=2), lambda step: make_batch(0)[0], PARITY, Schedule(), 0)
    with pytest.raises(ShapeError, match="the checkpoint is of"):
        other.load_state_dict(state)
    # the recommended network counts slices from the prior and takes any stack
    free = network_of(training("recommended").state_dict(), 17)
    assert free.architecture.n_z == 17


def test_agreement_needs_a_prior() -> None:
    with pytest.raises(ShapeError, match="needs a network with prior focus"):
        Training(parity_network(), lambda step: make_batch(0)[0], RECOMMENDED, Schedule(), 0)
