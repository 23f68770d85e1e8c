"""Config of the synthesis chain: what a microscope makes of the phantoms."""

from __future__ import annotations

from gigascope.config.section import Section


class Simulate(Section):
    """Draw, blur and photograph the phantoms."""
