"""What the training of an adaptation aims at; apart from what trains, so that planning loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """What counts how much for the generators.

    Attributes
    ----------
    cycle : there and back
    identity : times `cycle`, images of the domain that is aimed at
    label : of the segmenter on images that were made; 0: there is none
    structure : of edges
    spectrum, histogram : see :class:`gigascope.synthesis.adaptation.appearance.Appearance`
    """

    cycle: float = 10.0
    identity: float = 0.5
    label: float = 0.3
    structure: float = 0.0
    spectrum: float = 0.0
    histogram: float = 0.0
