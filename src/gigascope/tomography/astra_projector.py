"""The ASTRA toolbox in place of our projector, for comparison: same calls, same geometry, slice by slice on a CPU.

On CUDA tensors its 3-D projector works on the tensors in place (DLPack); its pair is adjoint only to about 1e-3 there.
van Aarle et al., Opt. Express 24, 25129 (2016), doi 10.1364/OE.24.025129.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gigascope.errors import UserError
from gigascope.kernels import projector


class AstraProjector:
    """Stands in for the module `gigascope.kernels.projector`.

    Raises
    ------
    UserError : the toolbox is not installed, or voxels are not cubes (its CPU projector takes square pixels only)
    """

    row_sums = staticmethod(projector.row_sums)
    column_sums = staticmethod(projector.column_sums)

    def __init__(self, hz: float) -> None:
        try:
            import astra
        except ImportError:
            raise UserError(
                "the ASTRA toolbox is not installed.",
                where="reconstruct.projector: astra",
                do="pip install astra-toolbox, or set reconstruct.projector: own.",
            ) from None
        if hz != 1:
            raise UserError(
                f"ASTRA takes cubic voxels only, hz is {hz:g}.",
                where="reconstruct.projector: astra",
                do="Set reconstruct.hz: 1 or reconstruct.projector: own.",
            )
        self._astra = astra
        self._operators: dict[tuple[bytes, int, int, int], Any] = {}

    def project(self, volume: Tensor, angles: Tensor, n_s: int, hz: float = 1.0, out: Tensor | None = None) -> Tensor:
        """See :func:`gigascope.kernels.projector.project`."""
        n_z, n_x, n_y = volume.shape
        out = torch.empty(len(angles), n_s, n_y, dtype=volume.dtype, device=volume.device) if out is None else out
        if volume.is_cuda:
            self._cuda(volume, out, angles, n_s, self._astra.experimental.direct_FP3D)
            return out
        operator = self._operator(angles, n_s, (n_z, n_x))
        for y in range(n_y):
            out[:, :, y] = torch.from_numpy(operator.FP(np.ascontiguousarray(volume[:, :, y].numpy())))
        return out

    def backproject(
        self, sinogram: Tensor, angles: Tensor, shape_zx: tuple[int, int], hz: float = 1.0, out: Tensor | None = None
    ) -> Tensor:
        """See :func:`gigascope.kernels.projector.backproject`."""
        n_s, n_y = sinogram.shape[1:]
        out = torch.empty(*shape_zx, n_y, dtype=sinogram.dtype, device=sinogram.device) if out is None else out
        if sinogram.is_cuda:
            self._cuda(out, sinogram, angles, n_s, self._astra.experimental.direct_BP3D)
            return out
        operator = self._operator(angles, n_s, shape_zx)
        for y in range(n_y):
            out[:, :, y] = torch.from_numpy(operator.BP(np.ascontiguousarray(sinogram[:, :, y].numpy())))
        return out

    def _operator(self, angles: Tensor, n_s: int, shape_zx: tuple[int, int]) -> Any:
        """ASTRA's 2-D linear projector of one slice (z rows, x columns); its angle sense is opposite to ours."""
        turned = -angles.double().cpu().numpy()
        key = (turned.tobytes(), n_s, *shape_zx)
        if key not in self._operators:
            volume = self._astra.create_vol_geom(*shape_zx)
            views = self._astra.create_proj_geom("parallel", 1.0, n_s, turned)
            self._operators[key] = self._astra.OpTomo(self._astra.create_projector("linear", views, volume))
        return self._operators[key]

    def _cuda(self, volume: Tensor, sinogram: Tensor, angles: Tensor, n_s: int, call: Any) -> None:
        """ASTRA's 3-D projector; volumes are (slice, row, column) there, projections (slice, view, detector)."""
        n_z, n_x, n_y = volume.shape
        geometry = self._astra.create_vol_geom(n_z, n_x, n_y)
        views = self._astra.create_proj_geom("parallel3d", 1.0, 1.0, n_y, n_s, -angles.double().cpu().numpy())
        pair = self._astra.create_projector("cuda3d", views, geometry)
        slices, rows = volume.permute(2, 0, 1).contiguous(), sinogram.permute(2, 0, 1).contiguous()
        call(pair, slices, rows)
        self._astra.projector.delete(pair)
        volume.copy_(slices.permute(1, 2, 0))
        sinogram.copy_(rows.permute(1, 2, 0))
