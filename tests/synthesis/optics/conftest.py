"""Settings of optics, and a phantom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gigascope.config.section import dump
from gigascope.config.synthesis_optics import Optics
from gigascope.synthesis.optics.settings import Settings


@pytest.fixture
def optics() -> Callable[..., Settings]:
    """Settings of the section, validated, with small PSFs: optics(na=0.8)."""

    def make(**keys: Any) -> Settings:
        return Settings.of(dump(Optics(**{"cap_um": (6.0, 3.0, 3.0), **keys})))

    return make
