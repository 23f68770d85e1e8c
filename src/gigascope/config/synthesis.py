"""Config of the synthesis chain: the page. Every other part of the chain has a module of its own."""

from __future__ import annotations

from pydantic import Field

from gigascope.config.section import Section


class SynthesisReport(Section):
    """Write the HTML page."""

    picture_px: int = Field(720, ge=128, le=2048, description="longest side of a picture, pixels")
