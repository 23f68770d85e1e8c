"""The entropy coder: what goes in comes out, in as many bits as the probabilities say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigascope.compression.gmix.entropy import (
    TOTAL,
    Damaged,
    Decoder,
    Tables,
    cumulative,
    decode_integers,
    encode,
    encode_integers,
    uniform,
)
from gigascope.errors import ShapeError


def fresh_rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def bits(frequencies: np.ndarray) -> float:
    return float(-np.log2(frequencies / TOTAL).sum())


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 17, 300, 20_000])
def test_tables_round_trip_at_the_size_of_their_information(n: int) -> None:
    rng = fresh_rng()
    tables = Tables([cumulative(rng.integers(0, 10 ** rng.integers(1, 7), m)) for m in (1, 2, 3, 40, 1000)])
    which = rng.integers(0, 5, n)
    slots = rng.integers(0, TOTAL, n)
    sizes = tables.first[which + 1] - tables.first[which] - 1
    rows = [tables.cumulative[a : a + m] for a, m in zip(tables.first[which], sizes)]
    values = np.array([np.searchsorted(row, slot, "right") - 1 for row, slot in zip(rows, slots)], np.int64)
    starts, frequencies = tables.parts(values, which)
    data = encode(starts, frequencies)
    decoder = Decoder(data)
    np.testing.assert_array_equal(decoder.tables(tables, which), values)
    decoder.end()
    # up to 16 bits for the first symbol coded, a byte at the end; rounding of the state loses 2^-7 of it at most
    assert len(data) <= bits(frequencies) / 8 + 3 + n * np.log2(1 + 2.0**-7) / 8


@settings(deadline=None)
@given(st.lists(st.integers(1, TOTAL), max_size=60), st.randoms())
def test_uniform_values_round_trip(counts: list[int], random: object) -> None:
    values = np.array([random.randrange(count) for count in counts], np.int64)  # type: ignore[attr-defined]
    data = encode(*uniform(values, counts))
    decoder = Decoder(data)
    np.testing.assert_array_equal(decoder.uniform(np.array(counts, np.int64)), values)
    decoder.end()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-(2**61), 2**61), max_size=30), max_size=5))
def test_any_integers_round_trip(columns: list[list[int]]) -> None:
    back = decode_integers(encode_integers(columns), [len(column) for column in columns])
    assert [list(column) for column in back] == columns


def test_small_integers_take_few_bits() -> None:
    rng = fresh_rng()
    values = np.round(rng.laplace(0, 2, 2000)).astype(int)
    _, counts = np.unique(values, return_counts=True)
    entropy = -(counts / 2000 * np.log2(counts / 2000)).sum() * 2000 / 8
    assert len(encode_integers([values])) < 1.06 * entropy + 8
    assert len(encode_integers([np.zeros(100_000, int)])) < 200


def test_every_value_of_a_table_can_be_coded() -> None:
    for weights in ([0, 0, 5], [0], [0, 0], [10**9, 0, 1], np.zeros(1000)):
        table = cumulative(np.asarray(weights, np.int64))
        assert table[0] == 0
        assert table[-1] == TOTAL
        assert (np.diff(table) > 0).all()


def test_a_cut_stream_is_told_and_an_altered_one_does_no_harm() -> None:
    rng = fresh_rng()
    columns = [rng.integers(-50, 50, 40), rng.integers(0, 3, 100)]
    data = encode_integers(columns)
    for cut in range(len(data)):
        with pytest.raises(Damaged):
            decode_integers(data[:cut], [40, 100])
    told = 0
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << (bit % 8)
        try:
            assert [len(column) for column in decode_integers(bytes(altered), [40, 100])] == [40, 100]
        except Damaged:
            told += 1
    # not all: a bit that was coded with equal probabilities changes its own value only
    assert told > 2 * len(data)


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(ShapeError, match="no probability"):
        encode([0], [0])
    with pytest.raises(ShapeError, match="no probability"):
        encode([TOTAL - 1], [2])
    with pytest.raises(ShapeError, match="outside its table"):
        Tables([cumulative([1, 2])]).parts(np.array([2]), np.array([0]))
    with pytest.raises(ShapeError, match="a table has"):
        cumulative([])
