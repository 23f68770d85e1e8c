"""Virtual cell cultures: shapes of nuclei, what is drawn from them, depth-dependent light, noise of a camera."""

from gigascope.kernels.cells.harmonics import harmonic_scales, real_harmonics, sphere_rule
from gigascope.kernels.cells.light import attenuate_, cone_depth, read_out
from gigascope.kernels.cells.noise import Sensor, camera
from gigascope.kernels.cells.owned import Owned, owned
from gigascope.kernels.cells.raster import density, fraction, labels
from gigascope.kernels.cells.shape import log_bounds, radius, reach, rotation_matrices, scaled, volume, volume_factor
from gigascope.kernels.cells.table import CROP, CROP_SPACING_UM, NucleiTable, nuclei_table

__all__ = [
    "CROP",
    "CROP_SPACING_UM",
    "NucleiTable",
    "Owned",
    "Sensor",
    "attenuate_",
    "camera",
    "cone_depth",
    "density",
    "fraction",
    "harmonic_scales",
    "labels",
    "log_bounds",
    "nuclei_table",
    "owned",
    "radius",
    "reach",
    "read_out",
    "real_harmonics",
    "rotation_matrices",
    "scaled",
    "sphere_rule",
    "volume",
    "volume_factor",
]
