"""Sums of Gaussians in integer arithmetic: the same bits on every processor, for any order and number of threads."""

from gigascope.kernels.integer_field.op import add_

__all__ = ["add_"]
