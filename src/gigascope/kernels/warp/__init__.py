"""Sub-pixel shift and warp of stacks of views, blur, and the sums that alignment needs."""

from gigascope.kernels.warp.op import gaussian_blur, resample, shift_sums, spline_coefficients, translate

__all__ = ["gaussian_blur", "resample", "shift_sums", "spline_coefficients", "translate"]
