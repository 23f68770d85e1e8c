"""The stores of the chain as sets of images that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gigascope.synthesis.evaluation.volumes import ADAPTED, NAIVE, REAL, ImageSet, open_set, paired

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader


@dataclass(frozen=True, eq=False)
class Sets:
    """Kinds of images.

    Attributes
    ----------
    naive : simulated images
    real : images that they should look like, or none
    adapted : what a network made of the simulated ones, with their labels, or none
    test : real images with labels that nothing was trained on, or none: then all real ones with labels
    """

    naive: ImageSet
    real: ImageSet | None
    adapted: ImageSet | None
    test: ImageSet | None

    @property
    def all(self) -> list[ImageSet]:
        """Those that there are."""
        return [s for s in (self.real, self.naive, self.adapted) if s is not None]


def open_sets(stores: Mapping[str, StoreReader]) -> Sets:
    """Sets from the stores `cultures`, and `real` and `adapted` where there are any.

    Of `real` those images count that are of the domain A; of them those for inference are for tests.
    """
    naive = open_set(NAIVE, stores["cultures"])
    real = test = None
    if REAL in stores:
        store = stores[REAL]
        names = [n for n in store.images if store.image(n).attrs.get("domain", "A") == "A"]
        if names:
            real = open_set(REAL, store, names)
            held = [n for n in names if store.image(n).attrs.get("use") == "inference"]
            kept = [v for v in real.volumes if v.name in held and v.labels is not None]
            test = ImageSet(REAL, tuple(kept)) if kept else None
    adapted = paired(naive, open_set(ADAPTED, stores[ADAPTED])) if ADAPTED in stores else None
    return Sets(naive, real, adapted, test)
