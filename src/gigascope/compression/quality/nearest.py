"""The evaluator of VolMicro, for comparison: at each point, only the k Gaussians with the nearest centres count.

Centres are ranked in coordinates normalised to the volume, in which a voxel is longer along a short axis, so that large
or elongated Gaussians whose centre is far are dropped although they reach the point. FAISS finds the neighbours; where
it is not installed, the tree of scipy does, with the same neighbours in more time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gigascope.compression.mixture import Mixture
from gigascope.errors import ShapeError
from gigascope.kernels import gaussians

# VolMicro's fit: 32 neighbours, none counted beyond 5 standard deviations
NEIGHBOURS = 32
CUT = 5.0
# points whose neighbours' matrices are gathered at a time: 32 neighbours of 36 bytes, 19 MB
CHUNK = 1 << 14


class NearestGaussians:
    """A mixture that is evaluated at points by its nearest centres.

    Parameters
    ----------
    mixture : N Gaussians, voxels
    shape : (z, y, x) of the volume that the coordinates are normalised to; none: ranked by distance in voxels

    Attributes
    ----------
    backend : "faiss" or "scipy"
    """

    def __init__(self, mixture: Mixture, shape: tuple[int, int, int] | None = None) -> None:
        self._mixture = mixture
        self._unit = torch.tensor(shape or (1, 1, 1), dtype=torch.float32)
        whitening = mixture.rotations().mT / mixture.log_scales.exp()[:, :, None]
        self._whitening = whitening
        self._search, self.backend = _index((mixture.means.cpu() / self._unit).numpy(), mixture.means.device)

    def query(self, points: Tensor, k: int = NEIGHBOURS, cut: float = CUT) -> Tensor:
        """Sum of the k Gaussians nearest to each point.

        Parameters
        ----------
        points : (P, 3) float32, voxels (z, y, x)
        k : neighbours; all Gaussians where there are fewer
        cut : standard deviations beyond which a Gaussian counts nothing

        Returns
        -------
        (P,) float32 in units of the amplitudes, on the mixture's device

        Raises
        ------
        ShapeError : the points are not (P, 3), or k is below 1
        """
        if points.ndim != 2 or points.shape[1] != 3 or k < 1:
            raise ShapeError(f"points are (P, 3) and k at least 1, not {tuple(points.shape)} and {k}")
        device = self._mixture.means.device
        out = torch.zeros(len(points), device=device)
        if len(self._mixture) == 0:
            return out
        for start in range(0, len(points), CHUNK):
            some = points[start : start + CHUNK].to("cpu", torch.float32)
            rows = self._search((some / self._unit).numpy(), min(k, len(self._mixture)))
            near = torch.from_numpy(rows).to(device)
            apart = some.to(device)[:, None, :] - self._mixture.means[near]
            squared = (self._whitening[near] @ apart[..., None]).square().sum((-1, -2))
            terms = self._mixture.amplitudes[near] * torch.exp(-0.5 * squared) * (squared < cut * cut)
            out[start : start + CHUNK] = terms.sum(1)
        return out


@dataclass(frozen=True)
class NearestComparison:
    """The k-nearest evaluator beside the exact one, at the same points.

    Attributes
    ----------
    rms, largest : difference of the two in units of the amplitudes
    nearest_s, exact_s : seconds of each, the index of the neighbours included
    backend : that found the neighbours, "faiss" or "scipy"
    """

    rms: float
    largest: float
    nearest_s: float
    exact_s: float
    backend: str


def compare_with_exact(
    mixture: Mixture,
    points: Tensor,
    shape: tuple[int, int, int] | None = None,
    k: int = NEIGHBOURS,
    cut: float = CUT,
) -> NearestComparison:
    """Evaluate a mixture at points by the k nearest centres and by all that reach them, both cut at the same radius.

    Parameters
    ----------
    mixture, shape : as of :class:`NearestGaussians`
    points, k, cut : as of :meth:`NearestGaussians.query`
    """
    points = points.to(mixture.means)
    cuts = torch.full_like(mixture.amplitudes, cut)
    start = time.perf_counter()
    nearest = NearestGaussians(mixture, shape)
    found = nearest.query(points, k, cut)
    between = time.perf_counter()
    exact = gaussians.evaluate_points(*mixture.tensors, cuts, points)
    difference = (found - exact).cpu().double()
    end = time.perf_counter()
    rms = float(difference.square().mean().sqrt()) if len(difference) else 0.0
    largest = float(difference.abs().max()) if len(difference) else 0.0
    return NearestComparison(rms, largest, between - start, end - between, nearest.backend)


def _index(centres: NDArray[np.float32], device: torch.device) -> tuple[Any, str]:
    """Function (points (P, 3), k) -> rows (P, k) int64 of the nearest centres, and what finds them."""
    centres = np.ascontiguousarray(centres, np.float32)
    try:
        import faiss
    except ImportError:
        from scipy.spatial import KDTree

        tree = KDTree(centres) if len(centres) else None

        def by_tree(points: NDArray[np.float32], k: int) -> NDArray[np.int64]:
            assert tree is not None  # `query` asks nothing of an empty mixture
            return np.asarray(tree.query(points, k)[1], np.int64).reshape(len(points), k)

        return by_tree, "scipy"

    index: Any = faiss.IndexFlatL2(3)
    # faiss-cpu and faiss-gpu are one module; only the second one has this
    if device.type == "cuda" and hasattr(faiss, "StandardGpuResources"):
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index)
    index.add(centres)

    def by_faiss(points: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = index.search(np.ascontiguousarray(points), k)[1]
        return rows

    return by_faiss, "faiss"
