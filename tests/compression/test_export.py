"""Exports read back by independent readers: nothing is moved, scaled wrongly or mirrored."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas
import plyfile
import pyarrow.parquet
import pytest
import torch
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from gigascope.compression.decoding.bake import bake
from gigascope.compression.decoding.export import ALPHA_NOTE, Appearance, export, physical
from gigascope.compression.mixture import Mixture
from gigascope.errors import UserError

from .compressed import dense_sum, random_mixture

VOXEL_UM = (0.7, 0.3, 0.2)


def helix(turns: float = 1.5, n: int = 40) -> Mixture:
    """A chiral object in voxels (z, y, x): right-handed in (x, y, z), each Gaussian drawn out along the curve."""
    t = np.linspace(0, 2 * np.pi * turns, n)
    x, y, z = 60 + 20 * np.cos(t), 60 + 20 * np.sin(t), 5 + 4 * t
    tangent = np.stack([np.full(n, 4.0), 20 * np.cos(t), -20 * np.sin(t)], 1)  # (z, y, x)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.cross(tangent, [1.0, 0.3, 0.2])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    axes = np.stack([tangent, across, np.cross(tangent, across)], 2)
    quaternions = Rotation.from_matrix(axes).as_quat(scalar_first=True)
    scales = np.tile([4.0, 1.2, 0.8], (n, 1))
    columns = np.stack([z, y, x], 1), np.log(scales), quaternions, np.linspace(0.2, 1.0, n)
    return Mixture(*(torch.from_numpy(c.astype(np.float32)) for c in columns))


def truth(mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Means and covariances in micrometres (x, y, z) from the definition."""
    size = np.array(VOXEL_UM)
    exact = Mixture(*(c.double() for c in mixture.tensors))
    covariances = exact.covariances().numpy() * size[:, None] * size
    return (exact.means.numpy() * size)[:, ::-1], covariances[:, ::-1, ::-1]


def assembled(scales: np.ndarray, quaternions: np.ndarray) -> np.ndarray:
    """Covariances as a viewer makes them."""
    axes = Rotation.from_quat(quaternions, scalar_first=True).as_matrix() * scales[:, None, :]
    return axes @ axes.transpose(0, 2, 1)


def relative(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.linalg.norm(found - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))


def writhe_sign(points: np.ndarray) -> float:
    """Handedness of a curve: mean signed volume of its consecutive steps."""
    a, b, c = (np.diff(points, axis=0)[k : len(points) - 3 + k] for k in range(3))
    return float(np.sign(np.mean(np.einsum("ni,ni->n", np.cross(a, b), c))))


def read_splat(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions, linear scales, RGBA 0 to 255, quaternions, as web viewers read them."""
    data = path.read_bytes()
    assert len(data) % 32 == 0
    rows = list(struct.iter_unpack("<3f3f4B4B", data))
    table = np.array(rows)
    quaternions = (table[:, 10:] - 128) / 128
    return table[:, :3], table[:, 3:6], table[:, 6:10], quaternions


def test_ply_reads_back(rng: np.random.Generator, tmp_path: Path) -> None:
    mixture = random_mixture(rng, 300, (60, 80, 100))
    path = tmp_path / "a.ply"
    written = export(path, physical(mixture, VOXEL_UM), Appearance(gamma=0.5, opacity=0.8), ["one note"])
    kept = mixture[mixture.amplitudes > 0]
    order = torch.argsort(-(kept.amplitudes.double() * kept.log_scales.double().sum(1).exp()), stable=True)
    kept = kept[order]
    ply = plyfile.PlyData.read(path)
    vertex = ply["vertex"]
    assert written == vertex.count == len(kept) < 300
    assert ply.comments == [ALPHA_NOTE, "one note"]
    assert not ply.text
    names = [p.name for p in vertex.properties]
    assert names == [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
        *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]
    means, covariances = truth(kept)
    found = np.stack([vertex[n] for n in "xyz"], 1)
    assert np.abs(found - means).max() <= 1e-6 * np.abs(means).max()
    scales = np.exp(np.stack([vertex[f"scale_{k}"] for k in range(3)], 1))
    quaternions = np.stack([vertex[f"rot_{k}"] for k in range(4)], 1)
    assert relative(assembled(scales, quaternions), covariances).max() < 1e-5
    bright = np.percentile(kept.amplitudes.numpy(), 99)
    grey = np.clip(kept.amplitudes.numpy() / bright, 0, 1) ** 0.5
    assert np.allclose(0.5 + 0.28209479 * vertex["f_dc_1"], grey, atol=1e-5)
    alpha = 1 / (1 + np.exp(-vertex["opacity"]))
    assert np.allclose(alpha, np.clip(0.8 * kept.amplitudes.numpy() / bright, 0.02, 0.99), atol=1e-5)


def test_splat_reads_back(rng: np.random.Generator, tmp_path: Path) -> None:
    mixture = random_mixture(rng, 300, (60, 80, 100))
    path = tmp_path / "a.splat"
    export(path, physical(mixture, VOXEL_UM))
    kept = mixture[mixture.amplitudes > 0]
    weight = kept.amplitudes.double() * kept.log_scales.double().sum(1).exp()
    kept = kept[torch.argsort(-weight, stable=True)]
    positions, scales, colours, quaternions = read_splat(path)
    means, covariances = truth(kept)
    assert np.abs(positions - means).max() <= 1e-6 * np.abs(means).max()
    assert relative(assembled(scales, quaternions), covariances).max() < 0.02
    bright = np.percentile(kept.amplitudes.numpy(), 99)
    assert np.abs(colours[:, 0] - 255 * np.sqrt(np.clip(kept.amplitudes.numpy() / bright, 0, 1))).max() <= 0.51
    assert (colours[:, 0] == colours[:, 1]).all()
    assert (colours[:, 0] == colours[:, 2]).all()
    assert colours[:, 3].min() >= round(0.02 * 255)


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".parquet", ".csv"])
def test_a_right_handed_helix_stays_right_handed(tmp_path: Path, suffix: str) -> None:
    """And each Gaussian still lies along the curve, which fails for a mirrored rotation even where means are right."""
    mixture = helix()
    path = tmp_path / f"helix{suffix}"
    export(path, physical(mixture, VOXEL_UM))
    if suffix == ".ply":
        vertex = plyfile.PlyData.read(path)["vertex"]
        means = np.stack([vertex[n] for n in "xyz"], 1)
        scales = np.exp(np.stack([vertex[f"scale_{k}"] for k in range(3)], 1))
        quaternions = np.stack([vertex[f"rot_{k}"] for k in range(4)], 1)
    elif suffix == ".splat":
        means, scales, _, quaternions = read_splat(path)
    else:
        table = pandas.read_parquet(path) if suffix == ".parquet" else pandas.read_csv(path)
        means, scales = (
            table[["x_um", "y_um", "z_um"]].to_numpy(),
            table[[f"sigma_{k}_um" for k in (1, 2, 3)]].to_numpy(),
        )
        axes = np.stack([table[[f"axis_{k}_{n}" for n in "xyz"]].to_numpy() for k in (1, 2, 3)], 2)
        assert np.allclose(np.linalg.det(axes), 1, atol=1e-4)
        quaternions = Rotation.from_matrix(axes).as_quat(scalar_first=True)
    along = np.argsort(means[:, 2])
    means, covariances = means[along], assembled(scales, quaternions)[along]
    expected_means, expected_covariances = truth(mixture)
    order = np.argsort(expected_means[:, 2])
    assert writhe_sign(means) == writhe_sign(expected_means[order]) == 1
    assert relative(covariances, expected_covariances[order]).max() < 0.02
    curve = np.gradient(means, axis=0)
    curve /= np.linalg.norm(curve, axis=1, keepdims=True)
    longest = np.linalg.eigh(covariances)[1][:, :, 2]
    assert np.abs(np.einsum("ni,ni->n", longest, curve))[2:-2].min() > 0.95


def test_componentwise_scaling_would_be_wrong() -> None:
    """What the seed's exporter does, on the same helix: the test above can fail."""
    mixture = helix()
    _, covariances = truth(mixture)
    size = np.array(VOXEL_UM)
    naive = mixture.rotations().numpy() * (np.exp(mixture.log_scales.numpy()) * size)[:, None, :]
    naive = (naive @ naive.transpose(0, 2, 1))[:, ::-1, ::-1]
    assert relative(naive, covariances).max() > 0.2


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_keep_every_number(rng: np.random.Generator, tmp_path: Path, suffix: str) -> None:
    mixture = random_mixture(rng, 200, (60, 80, 100))
    path = tmp_path / f"a{suffix}"
    assert export(path, physical(mixture, VOXEL_UM), notes=["one note"]) == 200
    table = pandas.read_parquet(path) if suffix == ".parquet" else pandas.read_csv(path)
    means, covariances = truth(mixture)
    assert np.abs(table[["x_um", "y_um", "z_um"]].to_numpy() - means).max() <= 1e-6 * np.abs(means).max()
    scales = table[["sigma_1_um", "sigma_2_um", "sigma_3_um"]].to_numpy(np.float64)
    axes = np.stack([table[[f"axis_{k}_{n}" for n in "xyz"]].to_numpy(np.float64) for k in (1, 2, 3)], 2)
    found = (axes * scales[:, None, :] ** 2) @ axes.transpose(0, 2, 1)
    assert relative(found, covariances).max() < 1e-5
    assert np.allclose(table["amplitude"], mixture.amplitudes, rtol=1e-6)
    masses = mixture.amplitudes.numpy() * np.sqrt((2 * np.pi) ** 3 * np.linalg.det(covariances))
    assert np.allclose(table["mass"], masses, rtol=1e-4)
    if suffix == ".parquet":
        assert pyarrow.parquet.read_schema(path).metadata[b"notes"] == b"one note"


def test_other_endings_and_nothing_to_show_are_refused(tmp_path: Path) -> None:
    dark = physical(Mixture(*helix().tensors[:3], -helix().amplitudes), VOXEL_UM)
    with pytest.raises(UserError, match=r"\.ply, \.splat, \.parquet, \.csv"):
        export(tmp_path / "a.obj", dark)
    with pytest.raises(UserError, match="nothing to show"):
        export(tmp_path / "a.ply", dark)
    assert not list(tmp_path.iterdir())


def test_baked_amplitudes_are_the_non_negative_least_squares(rng: np.random.Generator) -> None:
    shape = (30, 40, 50)
    mixture = random_mixture(rng, 120, shape, sigma=(1.0, 4.0))
    cuts = mixture.cuts(3.5, 1e-3)
    baked = bake(mixture, cuts, shape, iterations=400)
    assert (baked.mixture.amplitudes > 0).all()
    lines = [np.arange(n, dtype=np.float64) for n in shape]
    units = [Mixture(*(c[i : i + 1] for c in mixture.tensors[:3]), torch.ones(1)) for i in range(len(mixture))]
    columns = np.stack([dense_sum(u, cuts[i : i + 1], lines).ravel() for i, u in enumerate(units)], 1)
    field = columns @ mixture.amplitudes.double().numpy()
    best, misfit = nnls(columns, field)
    assert baked.misfit == pytest.approx(misfit / np.linalg.norm(field), rel=1e-4)
    dropped = np.linalg.norm(columns @ mixture.amplitudes.double().clamp_min(0).numpy() - field)
    assert misfit < 0.98 * dropped
    # rows are the same Gaussians, in their order
    places = {tuple(m): a for m, a in zip(baked.mixture.means.tolist(), baked.mixture.amplitudes.tolist())}
    found = np.array([places.get(tuple(m), 0.0) for m in mixture.means.tolist()])
    assert np.abs(columns @ (found - best)).max() < 2e-3


def test_baking_a_positive_mixture_changes_nothing() -> None:
    mixture = helix()
    baked = bake(mixture, mixture.cuts(3.5, 1e-3), (64, 96, 96))
    assert baked.misfit == 0
    assert torch.equal(baked.mixture.amplitudes, mixture.amplitudes)
