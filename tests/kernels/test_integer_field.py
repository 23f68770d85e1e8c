"""The integer field against its definition in Python's own integers, whatever the order, the boxes and the threads."""

from __future__ import annotations

import itertools
import os
import zlib

import numba
import numpy as np
import pytest
import torch

from gigascope.errors import ShapeError
from gigascope.kernels import integer_field
from gigascope.kernels.integer_field import layout, reference

# of the table as little-endian int32; files with a residual layer depend on every entry
TABLE_CRC = 3713443313


def random_rows(rng: np.random.Generator, n: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Rows of random ellipsoids: rounded quadratic forms with boxes of several sizes, some outside the volume."""
    rows = torch.zeros(n, layout.N_COLUMNS, dtype=torch.int64)
    one = 1 << layout.EXPONENT_BITS
    for row in rows:
        sigmas = np.exp(rng.uniform(np.log(0.4), np.log(12), 3))
        axes = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        form = 0.5 / np.log(2) * axes @ np.diag(1 / sigmas**2) @ axes.T
        anchor = rng.integers(-4, np.array(shape) + 4)
        d = rng.uniform(-0.5, 0.5, 3)
        limit = rng.uniform(0.5, 9)
        reach = np.sqrt(limit * 2 * np.log(2) * np.diag(axes @ np.diag(sigmas**2) @ axes.T))
        row[layout.ANCHOR] = torch.from_numpy(anchor)
        row[layout.CONSTANT] = round(float(d @ form @ d) * one)
        row[layout.LINEAR] = torch.from_numpy(np.rint(-2 * form @ d * one).astype(np.int64))
        row[layout.SQUARE] = torch.from_numpy(np.rint(np.diag(form) * one).astype(np.int64))
        mixed = 2 * np.array([form[0, 1], form[0, 2], form[1, 2]]) * one
        row[layout.MIXED] = torch.from_numpy(np.rint(mixed).astype(np.int64))
        row[layout.LIMIT] = round(limit * one)
        row[layout.AMPLITUDE] = int(rng.integers(-layout.LARGEST_AMPLITUDE, layout.LARGEST_AMPLITUDE)) << 8
        row[layout.LOW] = torch.from_numpy(np.floor(anchor + d - reach).astype(np.int64) - 1)
        row[layout.HIGH] = torch.from_numpy(np.ceil(anchor + d + reach).astype(np.int64) + 1)
    return rows


def python_term(row: list[int], place: tuple[int, int, int], table: list[list[int]]) -> int:
    """The module's normative text, in integers of any size."""
    z, y, x = (p - a for p, a in zip(place, row[layout.ANCHOR]))
    b, s, m = row[layout.LINEAR], row[layout.SQUARE], row[layout.MIXED]
    e = row[layout.CONSTANT] + b[0] * z + b[1] * y + b[2] * x + s[0] * z * z + s[1] * y * y + s[2] * x * x
    e += m[0] * z * y + m[1] * z * x + m[2] * y * x
    assert abs(e) < 1 << 62
    if e >= row[layout.LIMIT]:
        return 0
    e = max(e, 0)
    entry, fraction = (e >> 20) % 4096, (e >> 8) % 4096
    product = row[layout.AMPLITUDE] * (table[entry][0] - (table[entry][1] * fraction >> 12))
    assert abs(product) < 1 << 63
    return product >> 24 + (e >> 32)


def field_of(rows: torch.Tensor, shape: tuple[int, int, int], origin: tuple[int, int, int] = (0, 0, 0)) -> torch.Tensor:
    field = torch.zeros(shape, dtype=torch.int64)
    integer_field.add_(field, rows, origin)
    return field


def test_table_is_the_stored_one():
    table = layout.exp2_table()
    assert table.shape == (4096, 2)
    assert zlib.crc32(table.astype("<i4").tobytes()) == TABLE_CRC
    # and what it should be: within half a unit of the power of two
    assert np.abs(table[:, 0] - 2.0 ** (28 - np.arange(4096) / 4096)).max() <= 0.5 + 1e-6


def test_cpu_and_torch_give_the_integers_of_python(rng):
    shape, origin = (5, 7, 11), (3, -2, 40)
    rows = random_rows(rng, 12, shape)
    for columns in (layout.ANCHOR, layout.LOW, layout.HIGH):
        rows[:, columns] += torch.tensor(origin)
    table = layout.exp2_table().tolist()
    expected = np.zeros(shape, np.int64)
    for row, (index, _) in itertools.product(rows.tolist(), np.ndenumerate(expected)):
        expected[index] += python_term(row, tuple(i + o for i, o in zip(index, origin)), table)
    assert np.count_nonzero(expected) > 50
    torch_field = torch.zeros(shape, dtype=torch.int64)
    reference.add_(torch_field, rows, origin)
    np.testing.assert_array_equal(torch_field.numpy(), expected)
    np.testing.assert_array_equal(field_of(rows, shape, origin).numpy(), expected)


def test_boxes_hold_all_that_is_below_the_limit(rng):
    shape = (12, 14, 16)
    rows = random_rows(rng, 40, shape)
    everywhere = rows.clone()
    everywhere[:, layout.LOW], everywhere[:, layout.HIGH] = -1000, 1000
    assert torch.equal(field_of(rows, shape), field_of(everywhere, shape))


def test_order_and_cuts_do_not_matter(rng):
    shape = (10, 20, 30)
    rows = random_rows(rng, 60, shape)
    whole = field_of(rows, shape)
    assert torch.equal(field_of(rows[torch.from_numpy(rng.permutation(60))], shape), whole)
    cuts = [sorted({0, n, *rng.integers(1, n, 2).tolist()}) for n in shape]
    for box in itertools.product(*(itertools.pairwise(c) for c in cuts)):
        part = field_of(rows, tuple(b - a for a, b in box), tuple(a for a, _ in box))
        assert torch.equal(part, whole[tuple(slice(a, b) for a, b in box)])


def test_threads_do_not_matter(rng, thread_counts):
    shape = (9, 20, 30)
    rows = random_rows(rng, 60, shape)
    results = []
    for n_threads in thread_counts:
        numba.set_num_threads(n_threads)
        results.append(field_of(rows, shape))
    assert torch.equal(*results)


def test_nothing_to_add_adds_nothing(rng):
    assert not field_of(random_rows(rng, 0, (4, 4, 4)), (4, 4, 4)).any()
    assert not field_of(random_rows(rng, 5, (4, 4, 4)), (4, 4, 4), (1000, 0, 0)).any()


@pytest.mark.parametrize(
    ("field", "rows"),
    [
        (torch.zeros(4, 4, 4), torch.zeros(1, layout.N_COLUMNS, dtype=torch.int64)),
        (torch.zeros(4, 4, dtype=torch.int64), torch.zeros(1, layout.N_COLUMNS, dtype=torch.int64)),
        (torch.zeros(4, 4, 4, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64)),
        (torch.zeros(4, 4, 4, dtype=torch.int64).transpose(0, 2), torch.zeros(1, layout.N_COLUMNS, dtype=torch.int64)),
    ],
)
def test_other_arrays_are_refused(field, rows):
    with pytest.raises(ShapeError):
        integer_field.add_(field, rows, (0, 0, 0))


@pytest.mark.slow
def test_triton_compiles_to_machine_code_of_a_gpu():
    triton = pytest.importorskip("triton", reason="triton, of the extra dev, compiles kernels")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter has taken the compiler's place in this process")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from gigascope.kernels.integer_field import cuda

    tiles = dict(zip("ZYX", cuda.TILE))
    names = [parameter.name for parameter in cuda._add.params]
    types = {name: "constexpr" if name in tiles else "i32" for name in names}
    types |= dict.fromkeys(("field", "gaussians", "tiles", "starts", "stops", "members"), "*i64") | {"table": "*i32"}
    source = ASTSource(cuda._add, types, {(names.index(name),): side for name, side in tiles.items()})
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": cuda.WARPS})
    assert len(binary.asm["cubin"]) > 0
