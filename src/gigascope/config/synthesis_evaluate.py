"""Config of the synthesis chain: what is measured."""

from __future__ import annotations

from gigascope.config.section import Section


class Evaluate(Section):
    """Measure how real the images look, and how well they keep their labels."""
