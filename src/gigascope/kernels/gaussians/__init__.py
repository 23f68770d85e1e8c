"""Mixtures of 3D Gaussians: values on grids and at points, their gradients, and the step of the optimiser."""

from gigascope.kernels.gaussians.adam import adam_
from gigascope.kernels.gaussians.op import (
    count_pairs,
    evaluate,
    evaluate_points,
    moments,
    parameter_gradients,
    squared_sums,
)
from gigascope.kernels.gaussians.projection import max_projection

__all__ = [
    "adam_",
    "count_pairs",
    "evaluate",
    "evaluate_points",
    "max_projection",
    "moments",
    "parameter_gradients",
    "squared_sums",
]
