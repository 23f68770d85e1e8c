"""Primal-dual total-variation steps, fused and in place."""

from gigascope.kernels.tv.op import (
    data_misfit,
    data_step_,
    dual_step_,
    gradient,
    gradient_adjoint,
    primal_step_,
    tv_norm,
)

__all__ = ["data_misfit", "data_step_", "dual_step_", "gradient", "gradient_adjoint", "primal_step_", "tv_norm"]
