"""Training: schedules, pools, the label term, the same losses after a stop, pieces of a batch, other processes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from gigascope.errors import UserError
from gigascope.synthesis.adaptation import losses
from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.loader import Batch, Crops
from gigascope.synthesis.adaptation.networks import PUBLISHED, Networks, load_published
from gigascope.synthesis.adaptation.pool import ImagePool
from gigascope.synthesis.adaptation.schedule import FOLLOWED, Collapse, LabelWeight, Schedule, epoch_factor
from gigascope.synthesis.adaptation.segmenter import Segmenter, Targets, label_loss, segmenter_loss, targets_of
from gigascope.synthesis.adaptation.training import Means, Objective, Training

from .ensembles import nuclei

TINY = Architecture(width=4, blocks=1)
SHAPE = (10, 24, 24)


def batch_of(step: int, n: int = 1) -> Batch:
    """A function of its number."""
    rng = np.random.default_rng(step)
    depth = torch.linspace(-1, 1, SHAPE[0]).view(1, 1, -1, 1, 1).expand(n, -1, -1, -1, -1)
    crops = []
    for domain in range(2):
        labels = [nuclei(rng, SHAPE, 5) for _ in range(n)]
        values = np.stack(labels) > 0
        image = values * (1.2 if domain else 0.7) - 0.6 + rng.normal(0, 0.05, values.shape)
        known = np.stack([targets_of(found, (1.5, 0.5, 0.5)) for found in labels])
        targets = Targets(*(torch.from_numpy(known[:, k : k + 1]) for k in range(3)))
        tensor = torch.from_numpy(image.astype(np.float32))[:, None]
        crops.append(Crops(tensor, depth, targets if domain else None))
    return Batch(*crops)


def training(
    a: Architecture = TINY,
    objective: Objective = Objective(structure=0.5, spectrum=2.0, histogram=30.0),  # noqa: B008
    schedule: Schedule = Schedule(steps=20, ema=0.9),  # noqa: B008
    **means: object,
) -> Training:
    networks = Networks(a, segmenter=objective.label > 0, seed=3)
    return Training(networks, batch_of, objective, schedule, Means(**{"pool": 3, **means}), seed=4)


def run(found: Training, steps: int) -> list[dict[str, float]]:
    for _, _ in zip(range(steps), found.updates()):
        pass
    return found.curves


def test_rate_falls_as_published_in_epochs() -> None:
    """G3."""
    found = [epoch_factor(e, 3500, 3500) for e in (0, 3500, 3501, 7000)]
    assert found == pytest.approx([1, 1, 1 - 1 / 3501, 1 / 3501], rel=1e-12)
    by_epochs = Schedule(steps=28_000, epochs=(3500, 3500), epoch_steps=4, d_every=2)
    assert by_epochs.factor(4 * 3501 + 3) == 1 - 1 / 3501
    assert [by_epochs.discriminators_learn(s) for s in (0, 3, 4, 7, 8)] == [True, True, False, False, True]


def test_rate_falls_over_the_second_half_of_the_steps() -> None:
    schedule = Schedule(steps=100)
    assert [schedule.factor(s) for s in (0, 50, 51, 99)] == [1, 1, 1 - 1 / 51, 1 - 49 / 51]
    assert [replace(schedule, d_every=3).discriminators_learn(s) for s in range(4)] == [True, False, False, True]


def test_pool_hands_on_the_first_50_and_then_half_of_the_stored_ones() -> None:
    """G4."""
    pool, random = ImagePool(50), np.random.default_rng(1)
    # all numbers up to 2048 are numbers in float16
    numbers = [float(n % 2048) for n in range(10_050)]
    out = [float(pool.exchange(torch.full((1, 1, 1, 1, 1), v), None, random)[0]) for v in numbers]
    assert out[:50] == numbers[:50]
    later = np.array(out[50:]) != np.array(numbers[50:])
    assert later.mean() == pytest.approx(0.5, abs=0.02)
    assert len(pool.images) == 50


def test_pool_keeps_the_depth_of_an_image_with_it() -> None:
    pool, random = ImagePool(4), np.random.default_rng(2)
    for n in range(100):
        image, depth = pool.exchange(*(torch.full((1, 1, k, 1, 1), float(n)) for k in (2, 2)), random)
        assert depth is not None
        assert float(image.mean()) == float(depth.mean())
    none = ImagePool(0)
    for n in range(5):
        assert float(none.exchange(torch.full((1, 1, 1, 1, 1), float(n)), None, random)[0]) == n


def test_collapse_counts_steps_in_a_row() -> None:
    collapse = Collapse(3)
    assert [collapse.add(low, 0.2) for low in (1e-4, 1e-4, 0.1, 1e-4, 1e-4, 1e-4)] == [False] * 5 + [True]
    assert not any(Collapse(0).add(0, 0) for _ in range(1000))


def test_label_weight_rises_over_a_third_and_is_halved_when_images_get_easy() -> None:
    weight = LabelWeight(0.3)
    assert [weight.at(share) for share in (0, 1 / 6, 1 / 3, 1)] == pytest.approx([0, 0.15, 0.3, 0.3])
    for _ in range(3 * FOLLOWED):
        weight.add(made=0.5, naive=0.4)
    assert weight.halvings == 0
    # running means forget the harder images within some hundred steps
    for _ in range(6 * FOLLOWED):
        weight.add(made=0.3, naive=0.4)
    assert 1 <= weight.halvings <= 6
    assert weight.at(1) == 0.3 * 0.5**weight.halvings
    easy = LabelWeight(0.3)
    for step in range(2 * FOLLOWED):
        easy.add(made=0.3, naive=0.4)
        assert easy.halvings == (step + 1) // FOLLOWED


def test_losses_are_those_of_least_squares(rng: np.random.Generator) -> None:
    judged = torch.from_numpy(rng.normal(size=(2, 1, 3, 4, 5)).astype(np.float32))
    other = torch.from_numpy(rng.normal(size=(2, 1, 3, 4, 5)).astype(np.float32))
    wanted = 0.5 * (((judged - 1) ** 2).mean() + (other**2).mean())
    torch.testing.assert_close(losses.discriminator_loss(judged, other), wanted)
    torch.testing.assert_close(losses.difference(judged, other), (judged - other).abs().mean())


def test_structure_sees_what_moves_and_not_how_bright_it_is(rng: np.random.Generator) -> None:
    image = torch.from_numpy((nuclei(rng, (12, 40, 40), 8) > 0).astype(np.float32))[None, None]
    same, brighter, moved = image.clone(), 0.5 * image + 0.3, image.roll(4, -1)
    found = [float(losses.structure(other, image)) for other in (same, brighter, moved)]
    print(found)
    assert found[0] == 0
    assert found[1] < 1e-3
    assert found[2] > 0.02
    assert torch.isfinite(losses.structure(torch.zeros_like(image[:, :, :1]), image[:, :, :1]))


def test_every_network_learns() -> None:
    found = training()
    before = copy.deepcopy(found.networks.states())
    row = run(found, 2)[-1]
    for name, state in found.networks.states().items():
        changed = [not torch.equal(value, before[name][key]) for key, value in state.items()]
        assert all(changed), name
    assert {"fool_a", "cycle_b", "identity_a", "label", "structure", "judge_b", "segmenter_naive"} <= row.keys()
    assert row["rate"] == 2e-4
    # the running mean lies between the start and now
    average = next(found.used["to_a"].parameters())
    assert not torch.equal(average, next(found.networks["to_a"].parameters()))


def test_terms_without_weight_are_left_out() -> None:
    """The published program stops with an error where identity is 0."""
    row = run(training(objective=Objective(identity=0, label=0)), 1)[0]
    assert not [name for name in row if name.startswith(("identity", "label", "structure", "segmenter"))]
    networks = Networks(TINY, segmenter=False, seed=0)
    assert "segmenter" not in networks


def test_discriminators_wait_where_they_learn_rarely() -> None:
    found = training(schedule=Schedule(steps=4, d_every=2))
    assert ["judge_a" in row for row in run(found, 4)] == [True, False, True, False]


@pytest.mark.parametrize(("kind", "steps"), [("cyclegan3d", 20), ("cyclegan2d", 6)])
def test_stopped_training_goes_on_to_the_same_losses(kind: str, steps: int) -> None:
    """G6: 20 steps, and 10 steps, saved, loaded, 10 steps; with more steps than the pool holds."""
    schedule, half = Schedule(steps=steps, ema=0.9), steps // 2
    a = replace(TINY, kind=kind, neighbours=1 if kind == "cyclegan2d" else 0)
    whole = training(a, schedule=schedule)
    through = run(whole, steps)
    first = training(a, schedule=schedule)
    run(first, half)
    state = copy.deepcopy(first.state_dict())
    second = training(a, schedule=schedule)
    second.load_state_dict(state)
    assert second.curves == through[:half]
    again = run(second, steps)
    assert again == through
    for name, value in whole.networks.state_dict().items():
        assert torch.equal(value, second.networks.state_dict()[name]), name


def test_pieces_of_a_batch_are_learned_from_as_the_whole() -> None:
    found = []
    for size in (None, 1):
        learning = training(micro_batch=size)
        learning.batches = lambda step: batch_of(step, 2)
        found.append(run(learning, 3))
    for row, other in zip(*found):
        for name, value in row.items():
            assert other[name] == pytest.approx(value, rel=2e-3, abs=1e-5), name


def test_bfloat16_and_recomputing_change_little() -> None:
    plain, rough, again = (
        run(training(objective=Objective(), **means), 2) for means in ({}, {"bfloat16": True}, {"recompute": True})
    )
    assert again == plain
    assert rough != plain
    for name in ("cycle_a", "judge_a", "segmenter_naive"):
        assert rough[1][name] == pytest.approx(plain[1][name], rel=0.2)


def test_losses_that_are_no_numbers_end_the_training() -> None:
    found = training()
    run(found, 1)
    with torch.no_grad():
        next(found.networks["to_a"].parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match=r"training has diverged: at step 1 .*cycle_a.*Set a lower train\.lr"):
        run(found, 1)


def test_training_ends_when_a_discriminator_has_won() -> None:
    found = training(schedule=Schedule(steps=50, collapse=2))
    run(found, 1)
    found._collapse.runs = [2, 0]
    found._collapse.add = lambda *_: True  # type: ignore[method-assign]
    assert len(run(found, 50)) == 2
    assert found.collapsed


def test_segmenter_learns_nuclei() -> None:
    torch.manual_seed(0)
    network = Segmenter(base=8)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(60):
        batch = batch_of(step).b
        optimiser.zero_grad()
        loss = segmenter_loss(network(batch.image), batch.targets)
        loss.backward()
        optimiser.step()
    batch = batch_of(1000).b
    said = network(batch.image).detach()
    inside = said[:, :1] > 0
    truth = batch.targets.foreground > 0
    iou = float((inside & truth).sum() / (inside | truth).sum())
    print("IoU", iou, "loss", float(label_loss(said, batch.targets)))
    assert iou > 0.8


# the published checkpoint


def published(networks: Networks) -> dict[str, object]:
    """As the published program would save them: other names, the same order."""
    states = {theirs: networks[mine].state_dict() for mine, theirs in PUBLISHED.items()}
    return {
        name: {f"model.{n}.anything": value for n, value in enumerate(state.values())} for name, state in states.items()
    }


def test_published_checkpoint_is_read_by_the_order_of_its_layers() -> None:
    a = replace(TINY, norm="instance", depth=False)
    theirs, mine = (Networks(a, segmenter=False, seed=seed) for seed in (1, 2))
    load_published(mine, published(theirs), "models.pth")
    for name in PUBLISHED:
        for one, other in zip(theirs[name].parameters(), mine[name].parameters()):
            assert torch.equal(one, other)
    # G_A of the published program maps to B
    assert PUBLISHED["to_b"] == "netG_A_state_dict"


def test_published_checkpoint_of_another_architecture_is_refused() -> None:
    a = replace(TINY, norm="instance", depth=False)
    theirs = Networks(a, segmenter=False, seed=1)
    for other in (replace(a, width=5), replace(a, blocks=2), replace(a, depth=True)):
        with pytest.raises(UserError, match=r"netG_A_state_dict is of another architecture.*Set train\.preset: paper"):
            load_published(Networks(other, segmenter=False, seed=0), published(theirs), "models.pth")
