"""Config of the synthesis chain: where real images and shapes of nuclei come from, and the phantoms."""

from __future__ import annotations

from gigascope.config.section import Section


class SynthesisInputs(Section):
    """What the cultures are to look like."""


class Ingest(Section):
    """Read real images, the look that is aimed at, or simulate such."""


class Prototypes(Section):
    """Take the shapes and textures of nuclei out of labelled images."""


class Phantoms(Section):
    """Place nuclei in spheroids."""


class SynthesisReport(Section):
    """Write the HTML page."""
