"""What `gigascope check` and the workflow know of a dataset of virtual cultures before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from gigascope.config.dataset import SynthesisDataset
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
    cultures : one line about what is simulated
    """

    domain: tuple[ImageHeader, ...]
    cultures: str

    def describe(self) -> list[str]:
        """Lines for a person."""
        return [*describe_domain(self.domain), self.cultures]


def read_header(dataset: SynthesisDataset) -> SynthesisHeader:
    """Open the real images, without reading voxels, and say what will be simulated.

    Raises
    ------
    UserError : an image is missing, broken or not clear
    """
    grid, cfg = dataset.simulate.grid, dataset.phantoms
    shape = image_grid(field_of(dataset), grid.output_voxel_um, grid.oversample, grid.field_um).shape
    size = " x ".join(map(str, shape))
    voxel = " x ".join(f"{v:.4g}" for v in grid.output_voxel_um)
    text = (
        f"simulated: {cfg.n_spheroids} spheroids of about {most_nuclei(cfg)} nuclei, images of about {size} voxels "
        f"(z, y, x) of {voxel} um"
    )
    return SynthesisHeader(read_domain(dataset.inputs, dataset.ingest), text)
