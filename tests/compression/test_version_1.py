"""Files of version 1 are kept here as they were once written: whatever reads that version must give the same voxels.

A change of the format that makes these tests fail needs a new number in ``gmix.header.VERSION``, and a reader of the
old one. ``python -m tests.compression.test_version_1`` writes files and voxels anew, for such a version.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gigascope.compress import compress
from gigascope.compression.bench_volume import bench_crop, bench_volume
from gigascope.compression.decoding.volume import GaussianVolume

FILES = Path(__file__).parent / "files"
# keys of `fit`; two channels, several bricks, of which some are cut by the volume's end
KINDS = {
    "adaptive": {"lambda_": 8.0},
    "fixed": {"lambda_": 8.0, "quantise": {"adaptive": False}},
    "bounded": {"max_error": 60},
    "lossless": {"max_error": 0},
}
BRICK, ITERATIONS = (16, 32, 32), 60


def source() -> NDArray[np.uint16]:
    """(c, z, y, x), with structure."""
    crop = bench_crop(bench_volume()).volume
    return np.stack([crop[20:40, 30:66, 40:80], crop[30:50, 60:96, 20:60]])


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_of_a_file_of_version_1_stay_what_they_were(kind: str) -> None:
    volume = GaussianVolume(FILES / f"{kind}.gmix")
    with np.load(FILES / "version_1.npz") as expected:
        decoded = np.asarray(volume)
        assert decoded.shape == (2, 20, 36, 40)
        assert decoded.dtype == np.uint16
        difference = np.abs(decoded.astype(np.int64) - expected[kind])
        # with a bound, decoding is exact on every machine; without, a sum may fall on the other side of one half
        assert difference.max() <= (0 if kind in ("bounded", "lossless") else 1)
        assert (difference > 0).mean() < 1e-3
        assert volume.voxel_size_um == (0.5, 0.2, 0.2)


def write() -> None:
    """The files, and the voxels that they decode to."""
    volume, expected = source(), {}
    FILES.mkdir(exist_ok=True)
    for kind, keys in KINDS.items():
        data = compress(
            volume, axes="czyx", voxel_size_um=(0.5, 0.2, 0.2), brick=BRICK, halo=8, iterations=ITERATIONS, **keys
        )
        path = FILES / f"{kind}.gmix"
        path.write_bytes(data)
        expected[kind] = np.asarray(GaussianVolume(path))
    np.savez_compressed(FILES / "version_1.npz", **expected)


if __name__ == "__main__":
    write()
