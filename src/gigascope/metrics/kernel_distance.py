"""Distance of two sets of crops by the features of a fixed random network: unbiased kernel distance, linear classifier.

The network needs no training and no downloaded weights; untrained convolutions respond to edges and textures of all
scales they see (Saxe et al., ICML 2011). The distance is the maximum mean discrepancy with a polynomial kernel,
unbiased also for few samples: Gretton et al., JMLR 13, 723 (2012), equation 3; Binkowski et al., ICLR 2018 (KID).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from gigascope.errors import ShapeError

F64 = NDArray[np.float64]
WIDTHS = (16, 32, 64, 128)
N_FEATURES = 2 * WIDTHS[-1]
FOLDS = 5


class RandomFeatures(nn.Module):
    """Four convolutions of stride 2 with ReLU and weights that never change; mean and spread of each last channel.

    Parameters
    ----------
    seed : of the weights; results are comparable for equal seeds only
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        channels = (1, *WIDTHS)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(channels):
            conv = nn.Conv3d(n_in, n_out, 3, stride=2, padding=1, padding_mode="replicate")
            with torch.no_grad():
                # He et al., ICCV 2015, equation 10: the spread stays from layer to layer
                assert conv.bias is not None
                conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * math.sqrt(2 / (27 * n_in)))
                conv.bias.copy_(0.1 * torch.randn(n_out, generator=generator))
            layers += [conv, nn.ReLU()]
        self.layers = nn.Sequential(*layers).requires_grad_(False)

    def forward(self, crops: Tensor) -> Tensor:
        """(n, 1, z, y, x) float32, about -1 to 1, to (n, 256) features."""
        if crops.ndim != 5 or crops.shape[1] != 1:
            raise ShapeError(f"expected crops (n, 1, z, y, x), got {tuple(crops.shape)}")
        found = self.layers(crops).flatten(2)
        return torch.cat([found.mean(dim=2), found.std(dim=2, correction=0)], dim=1)


class Standard:
    """Features less the mean of a reference set, over two of its standard deviations: all channels count alike.

    Unscaled features hardly see texture, and at one standard deviation the cubes of a few outliers decide: crops whose
    grain was 1.3 times as coarse stood 2, 227 and, at two, 48 standard deviations of the floor apart, a shift of
    brightness 181, 32 and 55 (80 crops each).
    """

    def __init__(self, reference: NDArray) -> None:
        self.mean = np.asarray(reference, np.float64).mean(axis=0)
        spread = np.asarray(reference, np.float64).std(axis=0)
        # a channel that hardly any crop of the reference excites must not be all that counts in another set
        least = 0.1 * float(np.sqrt((spread**2).mean())) or 1.0
        self.spread = 2.0 * np.maximum(spread, least)

    def __call__(self, features: NDArray) -> F64:
        """(n, features) float64."""
        return (np.asarray(features, np.float64) - self.mean) / self.spread


class KernelDistance:
    """Squared maximum mean discrepancy of two sets of features with k(x, y) = (x . y / d + 1)^3.

    Parameters
    ----------
    a, b : (n, d), (m, d) standardised features
    """

    def __init__(self, a: F64, b: F64) -> None:
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise ShapeError(f"features are (n, d) of one d, got {a.shape} and {b.shape}")
        d = a.shape[1]
        self._aa, self._bb, self._ab = ((p @ q.T / d + 1.0) ** 3 for p, q in ((a, a), (b, b), (a, b)))

    @property
    def value(self) -> float:
        """Unbiased estimate, which may be negative; NaN where a set has less than two."""
        return float(self.drawn(np.ones((1, len(self._aa))), np.ones((1, len(self._bb))))[0])

    def drawn(self, a: F64, b: F64) -> F64:
        """The estimate for draws of tiles with replacement.

        Parameters
        ----------
        a, b : (draws, n), (draws, m) how often each was drawn. A tile that was drawn twice is not compared with itself,
            so that the estimate stays unbiased
        """
        within = [_within(k, w) for k, w in ((self._aa, a), (self._bb, b))]
        across = ((a @ self._ab) * b).sum(axis=1) / (a.sum(axis=1) * b.sum(axis=1))
        return np.asarray(within[0] + within[1] - 2 * across)


def _within(kernel: F64, weights: F64) -> F64:
    own = (weights**2) @ np.diag(kernel)
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (((weights @ kernel) * weights).sum(axis=1) - own) / pairs, np.nan)


def two_sample_auc(a: F64, b: F64, random: np.random.Generator) -> float:
    """How well a linear classifier tells two sets of features apart, judged on what it has not seen.

    Parameters
    ----------
    a, b : (n, d), (m, d) standardised features
    random : deals samples out to the five folds

    Returns
    -------
    area under the receiver operating characteristic, mean over the folds; 0.5 is indistinguishable. NaN with less than
    ten samples of either set

    Notes
    -----
    Ridge regression on the class, its strength the mean variance of a feature times d / n. Lopez-Paz and Oquab,
    ICLR 2017.
    """
    if min(len(a), len(b)) < 2 * FOLDS:
        return math.nan
    values = np.concatenate([a, b])
    truth = np.repeat([0.0, 1.0], [len(a), len(b)])
    fold = np.concatenate([random.permutation(len(v)) % FOLDS for v in (a, b)])
    areas = []
    for k in range(FOLDS):
        seen, weight = fold != k, np.where(truth == 1, 0.5 / len(b), 0.5 / len(a))
        mean = weight[seen] @ values[seen] / weight[seen].sum()
        x = (values - mean) * np.sqrt(weight)[:, None]
        y = (2 * truth - 1) * np.sqrt(weight)
        gram = x[seen].T @ x[seen]
        strength = np.trace(gram) / len(seen) or 1.0
        direction = np.linalg.solve(gram + strength * np.eye(len(gram)), x[seen].T @ y[seen])
        areas.append(_auc(values[~seen] @ direction, truth[~seen] == 1))
    return float(np.mean(areas))


def _auc(scores: F64, positive: NDArray[np.bool_]) -> float:
    """Mann and Whitney's statistic over the number of pairs."""
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))
