"""Config of the synthesis chain: the phantoms, and the page. What is read from outside is in `synthesis_domain`."""

from __future__ import annotations

from gigascope.config.section import Section


class Phantoms(Section):
    """Place nuclei in spheroids."""


class SynthesisReport(Section):
    """Write the HTML page."""
