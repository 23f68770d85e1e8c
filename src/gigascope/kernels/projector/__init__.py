"""Parallel-beam projection of a tilt series and its exact adjoint."""

from gigascope.kernels.projector.op import backproject, column_sums, project, row_sums

__all__ = ["backproject", "column_sums", "project", "row_sums"]
