"""Random nuclei for the tests of the rasterisers: crowded, with all that a table can hold."""

from __future__ import annotations

import numpy as np
import torch

from gigascope.kernels import cells


def random_nuclei(
    rng: np.random.Generator, n: int, size_um: tuple[float, float, float], *, plain: bool = False, degree: int = 8
) -> cells.NucleiTable:
    """Nuclei of 5 to 9 µm that overlap; `plain` ones have no texture, rim or nucleoli."""
    axes = torch.from_numpy(rng.uniform(2.5, 4.5, (n, 3)))
    harmonics = torch.from_numpy(rng.standard_normal((n, 81))) * cells.harmonic_scales(0.06, 1.8, degree)
    spots = torch.from_numpy(rng.uniform(-1.5, 1.5, (n, 4, 4)))
    spots[..., 3] = torch.from_numpy(rng.uniform(0.6, 1.3, (n, 4)) * (rng.random((n, 4)) < 0.5))
    crops = torch.from_numpy(rng.uniform(0.2, 1.8, (2, cells.CROP, cells.CROP, cells.CROP)))
    look = {
        "intensity": torch.from_numpy(rng.uniform(0.5, 2, n)),
        "texture_sigma": torch.from_numpy(rng.uniform(0.1, 0.5, n)),
        "texture_scale": torch.from_numpy(rng.uniform(1, 2, n)),
        "rim": torch.from_numpy(rng.uniform(0, 0.3, n)),
        "nucleoli": spots,
        "texture": torch.from_numpy(rng.integers(-1, 2, n)),
        "gamma": torch.from_numpy(rng.choice([0.7, 1.0, 1.4], n)),
        "crops": crops,
    }
    return cells.nuclei_table(
        torch.from_numpy(rng.uniform(0, 1, (n, 3)) * np.array(size_um)),
        torch.from_numpy(rng.standard_normal((n, 4))),
        axes,
        torch.from_numpy(rng.choice([1.8, 2.0, 2.0, 3.0], n)),
        harmonics,
        seed=torch.from_numpy(rng.integers(-(2**63), 2**63 - 1, n)),
        **({} if plain else look),
    )
