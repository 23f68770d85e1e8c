"""Between views and mosaic: coordinates of pixels, pixels of coordinates, splat with re-prediction, blended gather."""

from gigascope.kernels.ortho.blending import blend
from gigascope.kernels.ortho.op import coordinates, pixels, splat, splat_predict
from gigascope.kernels.ortho.table import moved, view_table

__all__ = ["blend", "coordinates", "moved", "pixels", "splat", "splat_predict", "view_table"]
