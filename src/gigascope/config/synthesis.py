"""Config of the synthesis chain: the phantoms, and the page. What is read from outside is in `synthesis_domain`."""

from __future__ import annotations

from pydantic import Field

from gigascope.config.section import Section


class Phantoms(Section):
    """Place nuclei in spheroids."""


class SynthesisReport(Section):
    """Write the HTML page."""

    picture_px: int = Field(720, ge=128, le=2048, description="longest side of a picture, pixels")
