"""Filters: Gaussian and sharpness of image stacks, convolution that varies along z, sampling to a coarser grid."""

from gigascope.kernels.filters.op import gaussian, sharpness
from gigascope.kernels.filters.op_fft import area_sample, convolve, convolve_sampled, spectra

__all__ = ["area_sample", "convolve", "convolve_sampled", "gaussian", "sharpness", "spectra"]
