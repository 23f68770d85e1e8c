"""Other people's alignment of a tilt series, in an environment of its own: `alignment.py` calls this with that Python.

    PYTHON alignment_peers.py SERIES.npz SHIFTS.npz

SERIES.npz holds `views` (tilt, s, y) float32 with the tilt axis along y, and `tilt_deg`. SHIFTS.npz gets (tilt, 2)
displacements (f_s, f_y) in pixels and the seconds taken, by method; what is not installed is left out.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np

Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]


def torch_methods() -> Iterator[tuple[str, Solve]]:
    """torch-tiltxcorr (Burt et al.): IMOD's cosine-stretched correlation of neighbours, in PyTorch."""
    try:
        import torch
        from torch_tiltxcorr import tiltxcorr
    except ImportError:
        return

    def solve(views: np.ndarray, tilt_deg: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(views.swapaxes(1, 2)))
        # what moves an image back, as (y, x)
        return -tiltxcorr(images, torch.from_numpy(tilt_deg), 0.0).numpy()[:, ::-1]

    yield "torch-tiltxcorr", solve


def etspy_methods() -> Iterator[tuple[str, Solve]]:
    """ETSpy (NIST): phase correlation, StackReg, and centre of mass with common lines."""
    try:
        from etspy.base import TomoStack
    except ImportError:
        return
    for method in ("PC", "StackReg", "COM-CL"):

        def solve(views: np.ndarray, tilt_deg: np.ndarray, method: str = method) -> np.ndarray:
            # its tilt axis lies along the images' second axis
            stack = TomoStack(views.copy(), tilts=tilt_deg)
            return -np.asarray(stack.stack_register(method).shifts.data, dtype=np.float64)

        yield f"ETSpy {method}", solve


def main() -> None:
    warnings.filterwarnings("ignore")
    with np.load(sys.argv[1]) as series:
        views, tilt_deg = series["views"].astype(np.float32), series["tilt_deg"].astype(np.float64)
    found: dict[str, np.ndarray] = {}
    for name, solve in (*torch_methods(), *etspy_methods()):
        begun = time.perf_counter()
        try:
            shifts = solve(views, tilt_deg)
        except Exception as error:  # somebody else's program may fail in any way on noise
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        found[name] = np.asarray(shifts, dtype=np.float64)
        found[f"{name} seconds"] = np.array(time.perf_counter() - begun)
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
