"""Config of the synthesis chain: the network that makes simulated images look real."""

from __future__ import annotations

from gigascope.config.section import Section


class Train(Section):
    """Train the networks between simulated and real images."""


class Infer(Section):
    """Make the simulated images look real."""
