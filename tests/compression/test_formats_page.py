"""What docs/formats.md says of the folder of Gaussians is enough to read it: its own code, run on a real one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigascope.compression.gmix.container import Header, Intensity, split, write_group
from gigascope.compression.gmix.quantiser import Quantiser
from gigascope.compression.mixture import Mixture
from gigascope.store.commit import finish
from gigascope.store.create import create_store

from .compressed import random_mixture

SHAPE = (2, 40, 50, 70)


@pytest.fixture
def given(rng: np.random.Generator) -> list[Mixture]:
    return [random_mixture(rng, n, SHAPE[1:]) for n in (70, 110)]


def read_as_the_page_says(repository: Path, store: Path) -> dict[str, Any]:
    page = (repository / "docs" / "formats.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "g/pos" in block]
    found: dict[str, Any] = {}
    exec(code.replace("results/brain/gaussians.zarr", str(store)), found)
    return found


@pytest.mark.parametrize("brick", [(32, 32, 64), (64, 128, 128)])
def test_plain_tables_are_read_with_zarr_and_numpy_alone(
    given: list[Mixture], brick: tuple[int, int, int], repository: Path, tmp_path: Path
) -> None:
    header = Header(
        axes=("c", "z", "y", "x"),
        shape=SHAPE,
        dtype="uint16",
        intensity=(Intensity(90.0, 3000.0), Intensity(10.0, 500.0)),
        eps=(1e-3, 1e-3),
        quantiser=Quantiser(adaptive=True, theta=1e-4),
        brick=brick,
    )
    bricks = split(given[0], header, 0) | split(given[1], header, 1)
    writer = create_store(tmp_path / "gaussians.zarr")
    write_group(writer, header, bricks, np.zeros((2, *header.background_shape), np.float32))
    finish(writer, {})
    found = read_as_the_page_says(repository, tmp_path / "gaussians.zarr")

    for frame, mixture in enumerate(given):
        rows = found["frame"] == frame
        assert rows.sum() == len(mixture)
        # rows are sorted along a curve in each brick: each Gaussian's own one is the nearest
        means, sigma = found["means"][rows], found["sigma"][rows]
        amplitude, quaternion = found["amplitude"][rows], found["quaternion"][rows]
        apart = np.abs(means[:, None] - mixture.means.numpy()[None]).max(2)
        own = apart.argmin(1)
        assert sorted(own) == list(range(len(mixture)))
        assert apart.min(1).max() < 1 / 32 + 1e-5
        scales = np.sort(mixture.log_scales.exp().numpy()[own], axis=1)[:, ::-1]
        np.testing.assert_allclose(np.sort(sigma, axis=1)[:, ::-1], scales, rtol=np.log(50) / 255)
        expected = mixture.amplitudes.numpy()[own]
        most = np.abs(np.concatenate([m.amplitudes.numpy() for m in given])).max()
        np.testing.assert_allclose(
            np.sign(amplitude) * np.sqrt(np.abs(amplitude) / most),
            np.sign(expected) * np.sqrt(np.abs(expected) / most),
            atol=0.51 / 2047,
        )
        # the same ellipsoid, whichever way its axes are named
        covariance = covariances(sigma, quaternion)
        true = mixture.covariances().numpy()[own]
        error = np.abs(covariance - true).max((1, 2)) / np.abs(true).max((1, 2))
        assert error.max() < 0.03


def covariances(sigma: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """(n, 3, 3), from the textbook's rotation matrix of (w, x, y, z)."""
    w, x, y, z = quaternion.T
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    axes = rotation * sigma[:, None, :]
    return axes @ axes.transpose(0, 2, 1)
