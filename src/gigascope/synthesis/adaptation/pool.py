"""Images that were made earlier, which a discriminator sees again (Shrivastava et al. 2017, arXiv 1612.07828)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class ImagePool:
    """Up to `size` images, with the depth that belongs to each.

    Filled first; then each new image is handed on directly with probability a half, or takes the place of a random one
    that is handed on instead. Kept in float16, in which steps within [-1, 1] are finer than those of 11 bits.

    Parameters
    ----------
    size : images that are kept; 0: none, everything is handed on

    Attributes
    ----------
    images, depths : what is kept
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self.depths: list[Tensor | None] = []

    def exchange(
        self, images: Tensor, depths: Tensor | None, random: np.random.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Images for the discriminator in place of new ones.

        Parameters
        ----------
        images : (n, 1, z, y, x), detached
        depths : (n, 1, z, 1, 1) or none
        random : of this step

        Returns
        -------
        the same shapes
        """
        chosen = [self._one(images[n], None if depths is None else depths[n], random) for n in range(len(images))]
        out = torch.stack([image for image, _ in chosen])
        return out, None if depths is None else torch.stack([d for _, d in chosen if d is not None])

    def _one(self, image: Tensor, depth: Tensor | None, random: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        if len(self.images) < self.size:
            self.images.append(image.half())
            self.depths.append(depth)
            return image, depth
        # both drawn always: what a step draws does not depend on what it finds
        swap, place = random.random() >= 0.5, int(random.integers(max(1, self.size)))
        if not swap or not self.size:
            return image, depth
        old = self.images[place].to(image.dtype), self.depths[place]
        self.images[place], self.depths[place] = image.half(), depth
        return old

    def state_dict(self) -> dict[str, Any]:
        """All that is kept."""
        return {"images": list(self.images), "depths": list(self.depths)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Take over what was kept, on a device."""
        self.images = [image.to(device) for image in state["images"]]
        self.depths = [None if depth is None else depth.to(device) for depth in state["depths"]]
