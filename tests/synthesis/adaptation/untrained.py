"""Generators that no training has touched, and which nevertheless do something."""

from __future__ import annotations

from torch import nn

from gigascope.synthesis.adaptation.architecture import Architecture
from gigascope.synthesis.adaptation.generator import Generator


def untrained(a: Architecture) -> Generator:
    """With a last layer as others begin with it: with a skip it begins with nothing, and would hide the others."""
    network = Generator(a)
    last = network.decode[-1]
    assert isinstance(last, nn.Conv2d | nn.Conv3d)
    last.reset_parameters()
    return network
