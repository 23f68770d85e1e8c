"""The .ply layout of 3D Gaussian splatting: one vertex per Gaussian, scales as logarithms, opacity as logit.

Kerbl, Kopanas, Leimkuehler and Drettakis, ACM Trans. Graph. 42, 139 (2023), and the files of their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gigascope.store.writers.whole_file import whole_file

if TYPE_CHECKING:
    from gigascope.compression.decoding.export import F32, PhysicalGaussians

COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
# colour is 0.5 plus this times the first coefficient of the spherical harmonics, 1 / (2 sqrt(pi))
HARMONIC = 0.28209479


def write_ply(path: Path, gaussians: PhysicalGaussians, grey: F32, alpha: F32, comments: Sequence[str]) -> None:
    """Write binary little-endian PLY, positions and scales in micrometres.

    Raises
    ------
    UserError : the disk is full or must not be written to
    """
    table = np.zeros(len(gaussians), [(name, "<f4") for name in COLUMNS])
    for k, name in enumerate("xyz"):
        table[name] = gaussians.means[:, k]
        table[f"scale_{k}"] = np.log(gaussians.scales[:, k])
        table[f"f_dc_{k}"] = (grey - 0.5) / HARMONIC
    table["opacity"] = np.log(alpha / (1 - alpha))
    for k in range(4):
        table[f"rot_{k}"] = gaussians.quaternions[:, k]
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {_one_line(c)}" for c in comments)]
    lines += [f"element vertex {len(gaussians)}", *(f"property float {name}" for name in COLUMNS), "end_header"]
    with whole_file(path, table.nbytes) as partial, partial.open("wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("ascii", "replace"))
        file.write(table.tobytes())


def _one_line(text: str) -> str:
    return " ".join(text.split())
