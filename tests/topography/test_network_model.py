"""The network's size, head, padding, tiles and variants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.topography.network.evidence import CHANNELS, REACH, find_evidence
from gigascope.topography.network.model import Architecture, HeightNetwork, index_of_phase, new_network, tiles
from gigascope.topography.network.training import look, recommended

from .network_batches import make_batch, parity_network


@pytest.mark.parametrize(("filters", "count"), [((32, 32, 32, 64, 64, 64), 310_944), ((32, 32, 32, 64, 64), 228_256)])
def test_published_sizes(filters: tuple[int, ...], count: int) -> None:
    assert new_network(Architecture(65, filters), 0).n_parameters == count


def test_index_head_has_the_published_values() -> None:
    phase = torch.tensor([0.0, 0.1, -np.pi / 2, np.pi / 2], dtype=torch.float64)
    expected = torch.tensor([32.0, 35.1937, 0.01, 63.99], dtype=torch.float64)
    torch.testing.assert_close(index_of_phase(phase, 65), expected, atol=1e-4, rtol=0)


def test_an_untrained_network_says_mid_stack() -> None:
    batch, _ = make_batch(0)
    index = new_network(Architecture(9, (32, 32, 32)), 0)(batch.stacks).index
    # the raw output is of order 1 and scaled by 1e-4
    assert (index - 4.0).abs().max() < 0.01


def test_training_changes_no_running_statistics() -> None:
    network = parity_network()
    batch, _ = make_batch(1)
    names = {name for name, _ in network.named_parameters()}
    assert set(network.state_dict()) == names
    trained = network.train()(batch.stacks).index
    network(batch.stacks).index.sum().backward()
    assert torch.equal(network.eval()(batch.stacks).index, trained)


def test_affine_is_batch_normalisation_at_rest(rng: np.random.Generator) -> None:
    network = parity_network()
    block = network.encoder[0]
    x = torch.from_numpy(rng.standard_normal((2, 8, 5, 6)).astype(np.float32))
    rest = torch.nn.BatchNorm2d(8, eps=1e-3).eval()
    torch.testing.assert_close(block.wide_norm(x), rest(x))


def test_other_sizes_are_padded_with_zeros_and_cropped(rng: np.random.Generator) -> None:
    network = parity_network()
    stacks = torch.from_numpy(rng.integers(0, 255, (1, 9, 37, 50)).astype(np.uint8))
    padded = torch.nn.functional.pad(stacks, (0, 6, 0, 3))
    assert padded.shape[2:] == (40, 56)
    torch.testing.assert_close(network(stacks).index, network(padded).index[:, :37, :50])


@pytest.mark.parametrize(("levels", "halo"), [(3, 24), (6, 192)])
def test_tiles_give_what_the_whole_gives(levels: int, halo: int, rng: np.random.Generator) -> None:
    architecture = Architecture(5, (4,) * levels, output_scale=1.0 if levels == 3 else 20.0)
    assert architecture.reach <= halo
    network = new_network(architecture, 3).eval()
    shape = (70, 90) if levels == 3 else (60, 600)
    stacks = torch.from_numpy(rng.integers(0, 255, (1, 5, *shape)).astype(np.uint8))
    with torch.no_grad():
        whole = network(stacks).index[0]
        put = torch.full(shape, torch.nan)
        n = 0
        for read, own, place in tiles(shape, architecture.multiple, 32 if levels == 3 else 64, halo):
            put[place] = network(stacks[:, :, read[0], read[1]]).index[0][own]
            n += 1
    assert n > 6
    assert whole.std() > 0.05, "nothing to be compared"
    assert (put - whole).abs().max() <= 1e-3


def test_tiles_of_the_recommended_network_give_what_the_whole_gives(rng: np.random.Generator) -> None:
    architecture = recommended(7, levels=2)
    network = new_network(architecture, 3).eval()
    torch.nn.init.normal_(network.head.weight, std=0.3)
    halo = architecture.reach + REACH
    shape = (40, 260)
    stacks = torch.from_numpy(rng.integers(60, 255, (1, 7, *shape)).astype(np.uint8))
    with torch.no_grad():
        whole = look(network, stacks).index[0]
        put = torch.full(shape, torch.nan)
        for read, own, place in tiles(shape, architecture.multiple, 96, halo):
            put[place] = look(network, stacks[:, :, read[0], read[1]]).index[0][own]
    assert (put - whole).abs().max() <= 1e-3


def test_published_reach_is_within_the_halo() -> None:
    assert Architecture(65).reach == 159
    assert Architecture(65, (32, 32, 32, 64, 64)).reach == 79


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "group"},
        {"input": "scaled"},
        {"input": "local"},
        {"skips": (-1,)},
        {"skips": (3, 0, -1)},
    ],
)
def test_variants_run_and_train(change: dict) -> None:
    batch, _ = make_batch(2, n_groups=1, side=37)
    network = new_network(Architecture(9, (8, 8, 16), **change), 0)
    found = network(batch.stacks)
    found.index.sum().backward()
    assert found.index.shape == (2, 37, 37)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_network_with_prior_starts_at_it() -> None:
    batch, truth = make_batch(3)
    evidence = find_evidence(batch.stacks)
    found = look(new_network(recommended(9), 0), batch.stacks, evidence)
    assert torch.equal(found.index, evidence.prior.clamp(0.01, 7.99))
    assert torch.equal(found.log_variance, evidence.log_variance.clamp(-12, 3))
    assert evidence.channels.shape[1] == CHANNELS
    error = (found.index - truth)[:, 8:-8, 8:-8]
    assert error.square().mean().sqrt() < 0.3


def test_recomputing_activations_changes_no_gradient() -> None:
    batch, _ = make_batch(4, n_groups=1)
    grads = []
    for recompute in (False, True):
        network = parity_network().train()
        network.recompute = recompute
        network(batch.stacks).index.sum().backward()
        grads.append([p.grad for p in network.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_architecture_survives_json() -> None:
    for architecture in (Architecture(65), recommended(17)):
        assert Architecture.from_dict(architecture.to_dict()) == architecture


def test_wrong_input_is_refused() -> None:
    network = parity_network()
    with pytest.raises(ShapeError, match=r"expected stacks \(n, 9, h, w\)"):
        network(torch.zeros(1, 8, 32, 32))
    with pytest.raises(ShapeError, match="prior is none"):
        network(torch.zeros(1, 9, 32, 32), torch.zeros(1, 32, 32))
    with pytest.raises(ShapeError, match="prior is focus"):
        HeightNetwork(recommended(9))(torch.zeros(1, 9, 32, 32))
    with pytest.raises(ShapeError, match="skips"):
        Architecture(9, (8, 8), skips=(0, 0, 0))
