"""Tables of Gaussians for analysis: one row each, with every number in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.store.writers.whole_file import whole_file

if TYPE_CHECKING:
    from gigascope.compression.decoding.export import PhysicalGaussians


def gaussian_columns(gaussians: PhysicalGaussians) -> dict[str, NDArray[np.float32]]:
    """Columns by name: means, scales, own axes and masses.

    `x_um`, `y_um`, `z_um`; `sigma_1_um` and so on; `axis_1_x` and so on, the unit vector that belongs to `sigma_1_um`;
    `amplitude` in the unit of the file; `mass`, the amplitude times the volume under a Gaussian of height 1.
    """
    columns = {f"{name}_um": gaussians.means[:, k] for k, name in enumerate("xyz")}
    columns |= {f"sigma_{k + 1}_um": gaussians.scales[:, k] for k in range(3)}
    axes = gaussians.rotations().astype(np.float32)
    columns |= {f"axis_{k + 1}_{name}": axes[:, j, k] for k in range(3) for j, name in enumerate("xyz")}
    return {**columns, "amplitude": gaussians.amplitudes, "mass": gaussians.masses().astype(np.float32)}


def write_gaussian_table(path: Path, gaussians: PhysicalGaussians, notes: Sequence[str] = ()) -> None:
    """Write Parquet, or CSV where the name ends in .csv; notes go into the metadata of the Parquet file.

    Raises
    ------
    UserError : the disk is full or must not be written to
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.table(gaussian_columns(gaussians))
    with whole_file(path, table.nbytes) as partial:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, str(partial))
        else:
            described = table.replace_schema_metadata({"notes": "\n".join(notes)})
            pyarrow.parquet.write_table(described, str(partial), compression="zstd")
