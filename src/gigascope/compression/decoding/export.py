"""Gaussians for other programs: in physical units, with x first, as viewers of splats and tables of numbers want them.

Viewers blend with alpha, nearest first; the field of a compressed volume is a plain sum. What they show is a picture of
where the Gaussians are and how bright, not the decoded volume, and every file says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gigascope.compression.decoding import resolution
from gigascope.compression.mixture import Mixture
from gigascope.errors import UserError

F32 = NDArray[np.float32]

SUFFIXES = (".ply", ".splat", ".parquet", ".csv")
ALPHA_NOTE = "viewers blend these Gaussians with alpha: not the additive field of the compressed volume"
# The brightest hundredth may saturate; the maximum alone would let one soma darken everything.
BRIGHT_PERCENTILE = 99.0


@dataclass(frozen=True)
class PhysicalGaussians:
    """N Gaussians in micrometres, components (x, y, z), a right-handed frame.

    Attributes
    ----------
    means : (N, 3) float32, micrometres, the centre of the first voxel at 0
    scales : (N, 3) float32, standard deviations along the own axes, micrometres
    quaternions : (N, 4) float32, unit, (w, x, y, z); the columns of the rotation are the own axes
    amplitudes : (N,) float32, signed, in the unit of the mixture's amplitudes
    """

    means: F32
    scales: F32
    quaternions: F32
    amplitudes: F32

    def __len__(self) -> int:
        return len(self.amplitudes)

    def __getitem__(self, rows: NDArray) -> PhysicalGaussians:
        return PhysicalGaussians(self.means[rows], self.scales[rows], self.quaternions[rows], self.amplitudes[rows])

    def rotations(self) -> NDArray[np.float64]:
        """(N, 3, 3); columns are the own axes, components (x, y, z)."""
        nothing = torch.zeros(len(self), 3, dtype=torch.float64)
        quaternions = torch.from_numpy(self.quaternions.astype(np.float64))
        return Mixture(nothing, nothing, quaternions, nothing[:, 0]).rotations().numpy()

    def masses(self) -> NDArray[np.float64]:
        """(N,) integrals ``a (2 pi)^(3/2) sigma1 sigma2 sigma3``, unit of the amplitudes times cubic micrometres."""
        return self.amplitudes * (2 * math.pi) ** 1.5 * self.scales.astype(np.float64).prod(1)

    def ranked(self) -> PhysicalGaussians:
        """In the order of decreasing ``a S``: the first rows are the best short list."""
        weight = self.amplitudes * self.scales.astype(np.float64).prod(1)
        return self[np.argsort(-weight, kind="stable")]


def physical(mixture: Mixture, voxel_size_um: Sequence[float]) -> PhysicalGaussians:
    """A mixture in voxels (z, y, x) in micrometres (x, y, z).

    Scaling each sigma by a voxel size is right for unrotated Gaussians only: ``Sigma_phys = D Sigma D`` has axes of its
    own. Reversing the order of the axes is a reflection; means and scales are reversed and a quaternion becomes
    ``(w, -z, -y, -x)``, which is a rotation again, so nothing is mirrored.
    """
    size = torch.diag(torch.tensor(list(voxel_size_um), dtype=torch.float64))
    exact = Mixture(*(column.double().cpu() for column in mixture.tensors))
    scaled = resolution.mapped(exact, size)
    w, x, y, z = torch.nn.functional.normalize(scaled.quaternions, dim=1).unbind(1)
    columns = (
        scaled.means.flip(1),
        scaled.log_scales.exp().flip(1),
        torch.stack([w, -z, -y, -x], 1),
        scaled.amplitudes,
    )
    means, scales, quaternions, amplitudes = (c.float().numpy() for c in columns)
    return PhysicalGaussians(means, scales, quaternions, amplitudes)


@dataclass(frozen=True)
class Appearance:
    """How an amplitude looks in a viewer: ``grey = (a / a_p99)^gamma``, ``alpha = opacity a / a_p99``, both limited.

    Attributes
    ----------
    gamma : below 1 lifts faint structure
    opacity : alpha at the 99th percentile of the amplitudes, kept within 0.02 to 0.99
    """

    gamma: float = 0.5
    opacity: float = 1.0

    def of(self, amplitudes: F32) -> tuple[F32, F32]:
        """Grey and alpha (N,), 0 to 1, of amplitudes above 0."""
        bright = float(np.percentile(amplitudes, BRIGHT_PERCENTILE)) if amplitudes.size else 1.0
        relative = amplitudes / np.float32(bright)
        grey = np.clip(relative, 0, 1) ** self.gamma
        return grey.astype(np.float32), np.clip(self.opacity * relative, 0.02, 0.99).astype(np.float32)


def visible(gaussians: PhysicalGaussians) -> PhysicalGaussians:
    """Those with an amplitude above 0; viewers cannot take light away.

    Raises
    ------
    UserError : there is none
    """
    kept = gaussians[gaussians.amplitudes > 0]
    if not len(kept):
        raise UserError(
            f"none of {len(gaussians)} Gaussians has an amplitude above 0: there is nothing to show.",
            do="Export a table (.parquet or .csv), which keeps negative ones.",
        )
    return kept


def export(
    path: Path, gaussians: PhysicalGaussians, appearance: Appearance = Appearance(), notes: Sequence[str] = ()
) -> int:
    """Write Gaussians in the format that the file's name ends in.

    Parameters
    ----------
    path : ends in .ply or .splat (for viewers, amplitudes above 0 only) or .parquet or .csv (all, with their numbers)
    appearance : of .ply and .splat
    notes : lines for the head of the file, where the format has one

    Returns
    -------
    rows written

    Raises
    ------
    UserError : another ending, nothing to show, or the disk is full
    """
    path = Path(path)
    if path.suffix == ".ply":
        from gigascope.compression.decoding.export_ply import write_ply

        kept = visible(gaussians).ranked()
        write_ply(path, kept, *appearance.of(kept.amplitudes), [ALPHA_NOTE, *notes])
    elif path.suffix == ".splat":
        from gigascope.compression.decoding.export_splat import write_splat

        kept = visible(gaussians).ranked()
        write_splat(path, kept, *appearance.of(kept.amplitudes))
    elif path.suffix in (".parquet", ".csv"):
        from gigascope.compression.decoding.export_table import write_gaussian_table

        kept = gaussians
        write_gaussian_table(path, kept, notes)
    else:
        raise UserError(f"Gaussians are exported as {', '.join(SUFFIXES)}, not {path.suffix!r}.", where=path)
    return len(kept)
