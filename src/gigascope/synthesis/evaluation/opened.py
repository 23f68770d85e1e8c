"""The stores of the chain as sets of images that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gigascope.errors import UserError
from gigascope.synthesis.evaluation.volumes import ADAPTED, NAIVE, REAL, ImageSet, open_set, paired

if TYPE_CHECKING:
    import torch

    from gigascope.store.open import StoreReader
    from gigascope.synthesis.evaluation.scores import Segment

NAIVE_STORE = "cultures"


@dataclass(frozen=True, eq=False)
class Sets:
    """Kinds of images.

    Attributes
    ----------
    naive : simulated images, or those that were given in their place
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

    Of `real` those images count that are of the domain A; of them those for inference are for tests. Without
    `cultures` the naive images are those of the domain B in `real` that are adapted.

    Raises
    ------
    UserError : no naive images, or such as cannot be compared
    """
    if NAIVE_STORE in stores:
        naive = open_set(NAIVE, stores[NAIVE_STORE])
    elif REAL in stores:
        naive = open_set(NAIVE, stores[REAL], given_names(stores[REAL]))
    else:
        raise UserError("there are neither simulated images nor naive ones.", do="Give --input cultures=PATH.")
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


def given_names(store: StoreReader) -> list[str]:
    """Names of the naive images beside the real ones that are adapted: for inference, or all where none are."""
    of = {name: store.image(name).attrs for name in store.images}
    names = [name for name, attrs in of.items() if attrs.get("domain") == "B"]
    return [name for name in names if of[name].get("use") == "inference"] or names


def network_segmenter(path: Path | None, device: torch.device) -> Callable[[str], Segment]:
    """The segmenter that learned beside an adaptation, for each kind of images on the scale that it was trained on.

    Parameters
    ----------
    path : file of the adaptation; none: there is none

    Raises
    ------
    UserError : no such file, or one without a segmenter
    """
    from gigascope.synthesis.adaptation.stored import read_adaptation
    from gigascope.synthesis.evaluation.downstream import NetworkSegmenter

    do = "Set evaluate.segmenter: classical, or train with train.weights.label above 0."
    if path is None:
        raise UserError("asks for a network that was trained, and there is none.", where="evaluate.segmenter", do=do)
    found = read_adaptation(path)
    network, real, cultures = found.segmenter, found.real, found.cultures
    if network is None or real is None or cultures is None:
        raise UserError("holds no segmenter.", where=path, do=do)
    return lambda key: NetworkSegmenter(network, cultures if key == NAIVE else real, device)
