"""What `gigascope check` and the workflow know of a dataset of virtual cultures before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gigascope.config.dataset import SynthesisDataset
from gigascope.errors import UserError
from gigascope.synthesis.domain.plan import ImageHeader, describe_domain, read_domain
from gigascope.synthesis.phantom.plan import most_nuclei
from gigascope.synthesis.simulation.geometry import image_grid
from gigascope.synthesis.simulation.plan import field_of


@dataclass(frozen=True)
class SynthesisHeader:
    """What the estimates of the stages follow from, beside the config.

    Attributes
    ----------
    domain : headers of the real images, and of naive ones that were given
    cultures : lines about what is simulated, or that it is not
    """

    domain: tuple[ImageHeader, ...]
    cultures: tuple[str, ...]

    def describe(self) -> list[str]:
        """Lines for a person."""
        return [*describe_domain(self.domain), *self.cultures]


def read_header(dataset: SynthesisDataset) -> SynthesisHeader:
    """Open the real images, without reading voxels, and say what will be simulated.

    Raises
    ------
    UserError : an image is missing, broken or not clear; those for training are too small for its crops; given naive
        images lack labels that the training asks for
    """
    domain = read_domain(dataset.inputs, dataset.ingest)
    _check_crops(dataset, domain)
    if dataset.gives_naive:
        return SynthesisHeader(domain, _given(dataset, domain))
    grid, cfg = dataset.simulate.grid, dataset.phantoms
    shape = image_grid(field_of(dataset), grid.output_voxel_um, grid.oversample, grid.field_um).shape
    size = " x ".join(map(str, shape))
    voxel = " x ".join(f"{v:.4g}" for v in grid.output_voxel_um)
    text = (
        f"simulated: {cfg.n_spheroids} spheroids of about {most_nuclei(cfg)} nuclei, images of about {size} voxels "
        f"(z, y, x) of {voxel} um"
    )
    return SynthesisHeader(domain, (text,))


def _check_crops(dataset: SynthesisDataset, domain: tuple[ImageHeader, ...]) -> None:
    """Refuse now what the training would refuse after everything else has run; planted images have no size yet."""
    from gigascope.synthesis.adaptation.domain import check_crops
    from gigascope.synthesis.adaptation.plan import crop_of

    if not dataset.has_real or dataset.inputs.planted is not None or dataset.train.arch == "identity":
        return
    train = {kind: {i.name: i.written for i in domain if (i.domain, i.use) == (kind, "train")} for kind in "AB"}
    if dataset.train.crop is None:
        # cut down to the images
        smallest = [min(sides) for sides in zip(*train["A"].values(), *train["B"].values())]
        crop = crop_of(dataset.train, (smallest[0], smallest[1], smallest[2])) if smallest else None
    else:
        crop = dataset.train.crop
    for kind, shapes in train.items():
        if shapes and crop is not None:
            check_crops(shapes, crop, "the real images" if kind == "A" else "the naive images")


def _given(dataset: SynthesisDataset, domain: tuple[ImageHeader, ...]) -> tuple[str, ...]:
    """What becomes of naive images that were given."""
    from gigascope.synthesis.adaptation.plan import objective_of

    train, inference = ([i for i in domain if (i.domain, i.use) == ("B", use)] for use in ("train", "inference"))
    bare = next((image for image in train if not image.labelled), None)
    if bare is not None and dataset.train.arch != "identity" and objective_of(dataset.train).label > 0:
        raise UserError(
            f"the label term needs labels of the naive images, and {bare.name} in trainB has none.",
            where="train.weights.label",
            do=f"Set train.weights.label: 0, or put {Path(bare.name).stem}_label.tif beside each image.",
        )
    adapted = f"{len(inference)} of inferenceB are adapted" if inference else "the same are adapted (no inferenceB)"
    scores = "" if all(image.labelled for image in inference or train) else ", without scores where there are no labels"
    return (
        "nothing is simulated, trainB has naive images: phantoms, simulate and prototypes are left out",
        f"{len(train)} naive images of trainB are trained on, {adapted} and compared{scores}",
    )
