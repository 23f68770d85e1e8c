"""Separable Gaussian filter of image stacks, and the sharpness of every slice that depth from focus works on."""

from gigascope.kernels.filters.op import gaussian, sharpness

__all__ = ["gaussian", "sharpness"]
