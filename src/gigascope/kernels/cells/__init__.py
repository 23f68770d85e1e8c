"""Virtual cell cultures: shapes of nuclei, what is drawn from them, depth-dependent light, noise of a camera."""

from gigascope.kernels.cells.harmonics import harmonic_scales, real_harmonics, sphere_rule
from gigascope.kernels.cells.owned import Owned, owned
from gigascope.kernels.cells.raster import density, fraction, labels
from gigascope.kernels.cells.shape import log_bounds, radius, reach, rotation_matrices, scaled, volume, volume_factor
from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM, NucleiTable, nuclei_table

__all__ = [
    "CROP",
    "CROP_SPACING_UM",
    "NucleiTable",
    "Owned",
    "density",
    "fraction",
    "harmonic_scales",
    "labels",
    "log_bounds",
    "nuclei_table",
    "owned",
    "radius",
    "reach",
    "real_harmonics",
    "rotation_matrices",
    "scaled",
    "sphere_rule",
    "volume",
    "volume_factor",
]
