"""Files with a residual layer: every voxel within its bound, in every region."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gigascope.compression.correction.integer_decoder import integer_field
from gigascope.compression.correction.residual import ResidualSettings, encode_brick
from gigascope.compression.decoding.decode import Decoder
from gigascope.compression.decoding.volume import GaussianVolume
from gigascope.compression.gmix.container import Gmix, split, write_compact
from gigascope.compression.noise import NoiseModel
from gigascope.errors import UserError

from .compressed import write_file

SHAPE = (40, 60, 90)


def with_residual(folder: Path, rng: np.random.Generator, bound: int) -> tuple[Path, np.ndarray]:
    """A file of noisy voxels around a random mixture, and these voxels."""
    plain = write_file(folder / "plain.gmix", rng, 60, SHAPE, "zyx")
    gmix = Gmix(plain)
    header, decoder = gmix.header, Decoder(gmix)
    field = decoder.region(0, (slice(0, 40), slice(0, 60), slice(0, 90))).numpy()
    volume = np.clip(np.rint(field + rng.normal(0, 20, SHAPE)), 0, 65535).astype(np.uint16)
    noise = NoiseModel(1.0, 90.0, 20.0)
    settings = ResidualSettings("uint16", noise, bound=bound)
    layer = {}
    for index in itertools.product(*map(range, header.grid.counts)):
        z, y, x = (slice(i * n, min((i + 1) * n, m)) for i, n, m in zip(index, header.brick, SHAPE))
        prediction = integer_field(
            decoder.mixture(0, (z, y, x))[0],
            gmix.background(0),
            (z, y, x),
            offset=header.intensity[0].offset,
            scale=header.intensity[0].scale,
            c_max=header.c_max,
            eps=header.eps[0],
            dtype="uint16",
        )
        layer[0, *index] = encode_brick(volume[z, y, x], prediction.numpy(), settings)
    path = folder / f"bound{bound}.gmix"
    bricks = split(decoder.whole(0), header)
    again = replace(header, noise=(noise,), residual=settings.to_attributes())
    write_compact(path, again, bricks, gmix.background(0)[None], layer, header.background[0].step)
    same = [torch.equal(a, b) for a, b in zip(Decoder(Gmix(path)).whole(0).tensors, decoder.whole(0).tensors)]
    assert all(same), "the mixture of the second file is not that of the first"
    return path, volume


@pytest.mark.parametrize("bound", [0, 7])
def test_every_voxel_is_within_the_bound_in_every_region(rng: np.random.Generator, tmp_path: Path, bound: int) -> None:
    path, volume = with_residual(tmp_path, rng, bound)
    decoded = np.asarray(GaussianVolume(path))
    assert np.abs(decoded.astype(int) - volume).max() <= bound
    assert bound == 0 or np.abs(decoded.astype(int) - volume).max() > 0
    for _ in range(8):
        z, y, x = (slice(*sorted(rng.choice(n + 1, 2, replace=False).tolist())) for n in SHAPE)
        assert np.array_equal(GaussianVolume(path)[z, y, x], decoded[z, y, x])
    kept = GaussianVolume(path)
    assert all(np.array_equal(kept[plane], decoded[plane]) for plane in range(SHAPE[0]))


def test_projections_are_those_of_the_corrected_voxels(rng: np.random.Generator, tmp_path: Path) -> None:
    path, volume = with_residual(tmp_path, rng, 0)
    compressed = GaussianVolume(path)
    assert np.array_equal(compressed.max_projection("y"), volume.max(1))
    assert np.array_equal(compressed.sum_projection("x"), volume.sum(2, dtype=np.float64).astype(np.float32))


def test_coarser_levels_and_prefixes_come_from_the_gaussians_alone(rng: np.random.Generator, tmp_path: Path) -> None:
    path, _ = with_residual(tmp_path, rng, 0)
    compressed, plain = GaussianVolume(path), GaussianVolume(tmp_path / "plain.gmix")
    assert np.array_equal(compressed.at_level(2)[...], plain.at_level(2)[...])
    assert np.array_equal(compressed.prefix(1.0)[...], plain[...])


def test_a_correction_of_another_brick_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    path, _ = with_residual(tmp_path, rng, 0)
    decoder = Decoder(Gmix(path))
    wrong = decoder.gmix.residual
    assert wrong is not None
    read = wrong.read
    wrong.read = lambda frame, index: read(frame, (0, 0, 0))  # type: ignore[method-assign]
    with pytest.raises(UserError):
        decoder.region(0, (slice(32, 40), slice(0, 48), slice(0, 64)))
