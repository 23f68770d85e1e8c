"""What a person should know about a library of prototypes, and when there is none to be had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gigascope.errors import UserError
from gigascope.synthesis.prototypes.extraction import REASONS, Extracted

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader


def remarks(found: Extracted) -> list[str]:
    """Of one image: how many nuclei were left out and why, and what is doubtful about the others."""
    lines = []
    n_discarded = sum(found.discarded.values())
    if n_discarded:
        lines.append(f"{found.n} of {found.n + n_discarded} nuclei were kept; {_counts(found.discarded)}.")
    if found.borrowed:
        lines.append(f"{found.borrowed} nuclei have no free surroundings: their background is that of the whole image.")
    if found.crops and found.beyond_crop:
        lines.append(f"{found.beyond_crop} nuclei are wider than the 12 um of a texture: its rim is repeated outside.")
    return lines


def require_labels(names: Sequence[str], real: StoreReader) -> None:
    """Refuse images without labels.

    Raises
    ------
    UserError : none of the images has labels
    """
    if not names:
        raise UserError(
            f"none of the {len(real.images)} images has labels: there are no nuclei to take shapes from.",
            where="prototypes",
            do="Name labels under inputs.real, or set prototypes.enabled: false (shapes are then drawn by rule).",
        )


def require_nuclei(found: Mapping[str, Extracted], real: StoreReader) -> None:
    """Refuse a library without records.

    Raises
    ------
    UserError : no nucleus was kept
    """
    if any(extracted.n for extracted in found.values()):
        return
    discarded: Counter[str] = Counter()
    for extracted in found.values():
        discarded += extracted.discarded
    what = f"none of the {sum(discarded.values())} labelled nuclei can be a prototype: {_counts(discarded)}."
    do = "Look at the labels (gigascope view), or raise prototypes.max_residual, max_hidden or lower min_voxels."
    raise UserError(what, where=real.path, do=do)


def _counts(discarded: Counter[str]) -> str:
    return ", ".join(f"{discarded[reason]} {reason}" for reason in REASONS if discarded[reason])
