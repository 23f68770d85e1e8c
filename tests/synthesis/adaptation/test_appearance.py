"""Spectra and histograms of domains: what they are, and where their differences pull."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gigascope.metrics import spectrum
from gigascope.synthesis.adaptation.appearance import LEVELS, Appearance, histogram, ring_power


def images(rng: np.random.Generator, n: int, shape: tuple[int, ...] = (8, 24, 20), noise: float = 0.1) -> Tensor:
    return torch.from_numpy(rng.normal(-0.4, noise, (n, 1, *shape)).astype(np.float32))


@pytest.mark.parametrize("shape", [(8, 24, 20), (5, 17, 32)])
def test_power_is_that_of_the_metric(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    found = images(rng, 3, shape)
    wanted = np.mean([spectrum.ring_power(image[0].numpy()) for image in found], axis=0)
    # next to the mean, which was removed, there is what single precision leaves
    np.testing.assert_allclose(ring_power(found), wanted, rtol=1e-3, atol=1e-7)


def test_histogram_counts_every_voxel_near_its_value(rng: np.random.Generator) -> None:
    found = images(rng, 2, noise=0.5)
    found[0, 0, 0, 0, :2] = torch.tensor([-5.0, 5.0])
    counts = histogram(found)
    assert counts.sum() == pytest.approx(1.0, abs=1e-5)
    levels = torch.linspace(*LEVELS[:2], LEVELS[2])
    assert counts @ levels == pytest.approx(found.clamp(*LEVELS[:2]).mean().item(), abs=1e-5)


def test_single_slices_have_a_spectrum(rng: np.random.Generator) -> None:
    assert ring_power(images(rng, 2, (1, 16, 16))).mean() == pytest.approx(0.01, rel=0.2)


def test_gradient_is_that_of_half_the_mean_square(rng: np.random.Generator) -> None:
    """With nothing before, the running mean is the image's own, and the pull the plain gradient."""
    made, real = images(rng, 2, noise=0.2), images(rng, 2)
    for name, measure, transform in (
        ("histogram", histogram, lambda counts: counts.cumsum(0)),
        ("spectrum", ring_power, lambda power: torch.log10(power + 1e-6)),
    ):
        key = "power" if name == "spectrum" else name
        appearance = Appearance()
        assert not appearance.terms({f"{key} made": measure(made)})
        appearance.follow({f"{key} made": measure(made), f"{key} real": measure(real)})
        image = made.clone().requires_grad_()
        term = appearance.terms({f"{key} made": measure(image)})[name]
        (mine,) = torch.autograd.grad(term, image)
        apart = transform(measure(image)) - transform(measure(real))
        if name == "spectrum":
            apart = apart * (torch.arange(apart.numel()).reshape(apart.shape) > 0)
        loss = 0.5 * apart.square().mean()
        (wanted,) = torch.autograd.grad(loss, image)
        assert term.item() == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


def test_images_of_one_domain_pull_at_nothing_in_the_mean(rng: np.random.Generator) -> None:
    """Each is different, and none is to become like another."""
    appearance = Appearance()
    for _ in range(200):
        scale = rng.uniform(0.5, 2.0, 2)
        made, real = (images(rng, 1, noise=0.1 * s) for s in scale)
        appearance.follow({f"power {k}": ring_power(v) for k, v in (("made", made), ("real", real))})
    pull = appearance.terms({"power made": ring_power(made)})["spectrum"]
    assert pull.item() < 0.5 * 0.1**2


def test_gain_that_is_pulled_at_becomes_that_of_the_domain(rng: np.random.Generator) -> None:
    gain = torch.tensor(1.0, requires_grad=True)
    optimiser, appearance = torch.optim.Adam([gain], lr=0.02), Appearance()
    for _ in range(200):
        base, real = images(rng, 1), images(rng, 1, noise=0.25)
        measured = {"power made": ring_power(gain * base), "power real": ring_power(real)}
        for term in appearance.terms(measured).values():
            optimiser.zero_grad()
            term.backward()
            optimiser.step()
        appearance.follow({name: value.detach() for name, value in measured.items()})
    assert gain.item() == pytest.approx(2.5, rel=0.1)
