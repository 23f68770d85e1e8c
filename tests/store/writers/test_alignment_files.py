"""Alignments as .xf, .tlt, .aln and JSON: round trips, signs, and what the other programs mean by the numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gigascope.errors import ShapeError, UserError
from gigascope.store.writers.aln import read_aln, write_aln
from gigascope.store.writers.portal import read_portal_json, write_portal_json
from gigascope.store.writers.xf import read_tlt, read_xf, read_xf_matrices, write_tlt, write_xf

AXES = [0.0, 12.5, -90.0, 85.3, 175.0]
TOLERANCE_PX = 1e-3  # specification, section 2.3


@settings(max_examples=40, deadline=None)
@given(axis=st.sampled_from(AXES), seed=st.integers(0, 2**32 - 1), n=st.integers(1, 30), n_out=st.integers(0, 5))
def test_round_trips_change_no_number(tmp_path_factory, axis, seed, n, n_out):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("alignment")
    shifts = rng.uniform(-300, 300, (n, 2))
    tilt = rng.permutation(np.linspace(-62, 61, n))
    excluded = np.zeros(n, dtype=bool)
    excluded[rng.permutation(n)[: min(n_out, n - 1)]] = True
    write_xf(folder / "a.xf", shifts, axis, excluded=excluded)
    write_tlt(folder / "a.tlt", tilt)
    write_aln(folder / "a.aln", shifts, tilt, axis, raw_shape=(958, 924), thickness_px=120, excluded=excluded)
    write_portal_json(folder / "a.json", shifts, tilt, axis, volume_angstrom=(1, 2, 3), excluded=excluded)
    aln = read_aln(folder / "a.aln")
    assert (aln.raw_shape, aln.thickness_px) == ((958, 924), 120)
    for read in (read_xf(folder / "a.xf"), aln.alignment, read_portal_json(folder / "a.json", n)[0]):
        kept = ~read.excluded
        # a .xf marks an excluded view by the identity, which nothing tells from a view that was not rotated
        if axis != 0 or not excluded.any():
            np.testing.assert_array_equal(read.excluded, excluded)
        np.testing.assert_allclose(read.shifts[kept & ~excluded], shifts[~excluded], atol=TOLERANCE_PX)
        turned = (read.tilt_axis_deg[~excluded] - axis + 180) % 360 - 180
        assert np.abs(np.radians(turned)).max() * 1000 < TOLERANCE_PX  # 1000 px from the centre
    np.testing.assert_allclose(read_tlt(folder / "a.tlt"), tilt, atol=TOLERANCE_PX)
    np.testing.assert_allclose(aln.alignment.tilt_deg, tilt, atol=TOLERANCE_PX)


def _blobs(x, y, rng_state):
    """A smooth image without symmetry, at any point."""
    rng = np.random.default_rng(rng_state)
    image = np.zeros_like(x)
    for _ in range(25):
        cx, cy = rng.uniform(-22, 22, 2)
        image += rng.uniform(0.3, 1) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * rng.uniform(2, 4) ** 2))
    return image


def _grid(height, width):
    """x and y of every pixel relative to the centre, rows by ascending y."""
    return np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)


def _newstack(raw, line, shape):
    """What IMOD's newstack makes of one image: new = A (old - centre) + d + new centre."""
    a, d = np.array(line[:4]).reshape(2, 2), np.array(line[4:])
    x, y = _grid(*shape)
    old = np.linalg.solve(a, np.stack([x.ravel() - d[0], y.ravel() - d[1]]))
    height, width = raw.shape
    at = np.stack([old[1] + (height - 1) / 2, old[0] + (width - 1) / 2])
    return ndimage.map_coordinates(raw, at, order=5).reshape(shape)


def _misfit(image, expected):
    """Remaining shift in x and y, and rotation in radians, of `image` against `expected`, to first order."""
    x, y = _grid(*image.shape)
    along_y, along_x = np.gradient(expected)
    inside = (np.hypot(x, y) < 28).ravel()
    columns = [along_x.ravel(), along_y.ravel(), (x * along_y - y * along_x).ravel()]
    return np.linalg.lstsq(np.stack(columns, 1)[inside], (expected - image).ravel()[inside], rcond=None)[0]


@pytest.mark.parametrize("axis", AXES)
def test_applying_the_xf_undoes_planted_rotation_and_shift(tmp_path, rng, axis):
    """The raw view is drawn from its formula, r = R(phi) (a + f); nothing but the file goes into the correction."""
    f = rng.uniform(-6, 6, 2)
    state = int(rng.integers(2**32))
    raw_shape, aligned_shape = (96, 101), (88, 84)
    x, y = _grid(*raw_shape)
    c, s = np.cos(np.radians(axis)), np.sin(np.radians(axis))
    raw = _blobs(c * x + s * y - f[0], -s * x + c * y - f[1], state)
    write_xf(tmp_path / "a.xf", [f], axis)
    aligned = _newstack(raw, np.loadtxt(tmp_path / "a.xf"), aligned_shape)
    dx, dy, angle = _misfit(aligned, _blobs(*_grid(*aligned_shape), state))
    assert np.hypot(dx, dy) < 0.02
    assert abs(angle) * 50 < 0.02  # at 50 px from the centre


def test_the_misfit_of_the_test_above_sees_a_wrong_sign(tmp_path):
    x, y = _grid(88, 84)
    dx, dy, angle = _misfit(_blobs(x - 0.3, y + 0.2, 1), _blobs(x, y, 1))
    np.testing.assert_allclose([dx, dy], [0.3, -0.2], atol=0.02)
    c, s = np.cos(0.005), np.sin(0.005)
    angle = _misfit(_blobs(c * x + s * y, -s * x + c * y, 1), _blobs(x, y, 1))[2]
    assert angle == pytest.approx(0.005, rel=0.1)


@pytest.mark.parametrize("axis", AXES)
def test_the_tilt_axis_becomes_vertical(tmp_path, axis):
    """phi is counter-clockwise from the upward vertical: the axis points to (-sin phi, cos phi) in the raw view."""
    write_xf(tmp_path / "a.xf", [[0, 0]], axis)
    (matrix,), _ = read_xf_matrices(tmp_path / "a.xf")
    phi = np.radians(axis)
    np.testing.assert_allclose(matrix @ [-np.sin(phi), np.cos(phi)], [0, 1], atol=1e-6)


def test_aln_and_xf_are_the_same_transform(tmp_path, rng):
    """AreTomo's own export to IMOD: d = -R(-ROT) (TX, TY)."""
    shifts, tilt = rng.uniform(-50, 50, (9, 2)), np.linspace(-40, 40, 9)
    write_xf(tmp_path / "a.xf", shifts, -78.2)
    write_aln(tmp_path / "a.aln", shifts, tilt, -78.2, raw_shape=(100, 100))
    table = np.loadtxt(tmp_path / "a.aln")
    matrices, d = read_xf_matrices(tmp_path / "a.xf")
    phi = np.radians(table[:, 1])
    expected = np.stack([[np.cos(-phi), -np.sin(-phi)], [np.sin(-phi), np.cos(-phi)]]).transpose(2, 0, 1)
    np.testing.assert_allclose(matrices, expected, atol=1e-6)
    np.testing.assert_allclose(d, np.einsum("nij,nj->ni", expected, -table[:, 3:5]), atol=TOLERANCE_PX)


def test_xf_has_one_line_per_raw_section_and_seven_decimals(tmp_path):
    write_xf(tmp_path / "a.xf", [[1.5, -2.25], [3, 4], [0, 0]], 0.0, excluded=[False, True, False])
    assert (tmp_path / "a.xf").read_text().splitlines() == [
        "  1.0000000   0.0000000   0.0000000   1.0000000  -1.5000000   2.2500000",
        "  1.0000000   0.0000000   0.0000000   1.0000000   0.0000000   0.0000000",
        "  1.0000000   0.0000000   0.0000000   1.0000000   0.0000000   0.0000000",
    ]


def test_shift_of_a_binned_stack_is_divided_by_the_bin(tmp_path):
    write_xf(tmp_path / "a.xf", [[8.0, -4.0]], 30.0, bin=4)
    _, d = read_xf_matrices(tmp_path / "a.xf")
    np.testing.assert_allclose(d, [[-2, 1]])
    np.testing.assert_allclose(read_xf(tmp_path / "a.xf", bin=4).shifts, [[8, -4]])


def test_an_unmoved_view_is_not_taken_for_an_excluded_one(tmp_path):
    write_xf(tmp_path / "a.xf", [[0, 0], [1, 1]], 0.0)
    assert not read_xf(tmp_path / "a.xf").excluded.any()


def test_aln_lists_sections_by_tilt_from_one_and_dark_ones_in_its_header(tmp_path):
    tilt = [0.0, 3, -3, 6, -6]
    write_aln(
        tmp_path / "a.aln",
        np.ones((5, 2)),
        tilt,
        85.3,
        raw_shape=(30, 40),
        thickness_px=7,
        excluded=[False, False, False, True, False],
        tilt_offset_deg=1.5,
    )
    lines = (tmp_path / "a.aln").read_text().splitlines()
    header = [line.split("=")[0].strip("# ") for line in lines if line.startswith("#")][1:-1]
    assert header == ["RawSize", "NumPatches", "DarkFrame", "AlphaOffset", "BetaOffset", "Thickness"]
    assert lines[1] == "# RawSize = 40 30 5"
    assert lines[3].split("=")[1].split() == ["4", "4", "6.000"]  # place from 0, section from 1
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert [int(row[0]) for row in rows] == [5, 3, 1, 2]
    assert {len(row) for row in rows} == {10}
    assert read_aln(tmp_path / "a.aln").alpha_offset_deg == 1.5


def test_json_has_the_portals_keys(tmp_path):
    write_portal_json(tmp_path / "a.json", [[1, 0]], [3.0], 90.0, volume_angstrom=(100, 200, 300))
    whole = json.loads((tmp_path / "a.json").read_text())
    (section,) = whole["per_section_alignment_parameters"]
    assert whole["volume_dimension"] == {"x": 300, "y": 200, "z": 100}
    assert section["z_index"] == 0
    np.testing.assert_allclose(section["in_plane_rotation"], [[0, -1], [1, 0]], atol=1e-8)
    np.testing.assert_allclose([section["x_offset"], section["y_offset"]], [0, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 1 0\n", "line 1 is not six numbers"),
        ("1 0 0 1 0 0\n\n1 0 0 x 0 0\n", "line 3 is not six numbers"),
        ("1 0 0 1 nan 0\n", "line 1 is not six numbers"),
        ("-1 0 0 1 0 0\n", "line 1 mirrors"),
        ("\n", "no transforms"),
    ],
)
def test_broken_xf_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "a.xf").write_text(text)
    with pytest.raises(UserError, match=message):
        read_xf(tmp_path / "a.xf")


ROW = "    1     0.0000    1.00000      1.000      2.000     1.00     1.00     1.00     0.00      3.00\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROW, "RawSize"),
        ("# RawSize = 4 4 1\n", "no sections"),
        ("# RawSize = 4 4 x\n" + ROW, "line 1 is not numbers"),
        ("# RawSize = 4 4 2\n" + ROW + ROW, "section twice"),
        ("# RawSize = 4 4 2\n" + ROW.replace("    1 ", "    3 ", 1), "outside the 2"),
        ("# RawSize = 4 4 1\n" + ROW[:40] + "\n", "line 2 has 4 columns"),
    ],
)
def test_broken_aln_is_refused(tmp_path, text, message):
    (tmp_path / "a.aln").write_text(text)
    with pytest.raises(UserError, match=message):
        read_aln(tmp_path / "a.aln")


@pytest.mark.parametrize("text", ["", "{}", '{"per_section_alignment_parameters": []}', "[1]"])
def test_broken_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        read_portal_json(tmp_path / "a.json", 3)


@pytest.mark.parametrize(
    "arrays",
    [
        ([1.0, 2.0], [0.0], None),
        (np.zeros((3, 2)), np.zeros(2), None),
        (np.zeros((3, 2)), np.zeros(3), [True]),
        (np.full((3, 2), np.nan), np.zeros(3), None),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(tmp_path, arrays):
    shifts, tilt, excluded = arrays
    with pytest.raises(ShapeError):
        write_aln(tmp_path / "a.aln", shifts, tilt, 0.0, raw_shape=(4, 4), excluded=excluded)
    assert list(tmp_path.iterdir()) == []


def test_shifts_of_excluded_views_need_no_value(tmp_path):
    write_xf(tmp_path / "a.xf", [[np.nan, np.nan], [1, 2]], 30.0, excluded=[True, False])
    assert read_xf(tmp_path / "a.xf").excluded.tolist() == [True, False]


def test_real_imod_files_round_trip(shared_data, tmp_path):
    folder = shared_data / "tomo" / "alignment_formats"
    for name, axis in (("imod_tilt_1.xf", -100.0), ("test.xf", -11.4)):
        found = read_xf(folder / name)
        np.testing.assert_allclose(found.tilt_axis_deg, axis, atol=1.0)
        write_xf(tmp_path / name, found.shifts, found.tilt_axis_deg, magnification=found.magnification)
        np.testing.assert_allclose(np.loadtxt(tmp_path / name), np.loadtxt(folder / name), atol=TOLERANCE_PX)
    tilt = read_tlt(folder / "imod_tilt_1.tlt")
    write_tlt(tmp_path / "a.tlt", tilt)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "a.tlt"), tilt)
    assert len(tilt) == len(read_xf(folder / "imod_tilt_1.xf").shifts) == 59


def test_real_aln_of_aretomo(shared_data):
    found = read_aln(shared_data / "tomo" / "alignment_formats" / "test.aln")
    assert found.raw_shape == (2032, 2032)
    assert found.alignment.n_views == 90
    np.testing.assert_array_equal(np.flatnonzero(~found.alignment.excluded), [0, 1, 2, 3])
    np.testing.assert_allclose(found.alignment.tilt_deg[:4], [-61.5, -60, -58.5, -57])
    phi = np.radians(-12.6611)
    c, s = np.cos(phi), np.sin(phi)
    np.testing.assert_allclose(found.alignment.shifts[0], [c * 24.786 + s * -2.677, -s * 24.786 + c * -2.677])


@pytest.mark.parametrize("number", range(5))
def test_real_aln_that_counts_from_zero(shared_data, tmp_path, number):
    path = shared_data / "tomo" / "shrec21_alignments" / f"model_{number}.aln"
    found = read_aln(path).alignment
    assert not found.excluded.any()
    np.testing.assert_allclose(found.tilt_deg, np.linspace(60, -60, 61), atol=0.02)  # section 0 has the highest tilt
    write_aln(tmp_path / "a.aln", found.shifts, found.tilt_deg, found.tilt_axis_deg, raw_shape=(512, 512))
    ours, theirs = np.loadtxt(tmp_path / "a.aln"), np.loadtxt(path)
    theirs[:, 0] += 1
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE_PX)


@pytest.mark.parametrize("axis", AXES)
def test_the_xf_undoes_the_map_that_the_chain_resamples_by(tmp_path, rng, axis):
    """Our index matrices lead from an aligned point to the raw one, the .xf back to the aligned one."""
    from gigascope.tomography.geometry import raw_from_aligned

    raw_shape, frame, f = (90, 121), (80, 70), rng.uniform(-9, 9, (1, 2))
    (to_raw,) = raw_from_aligned(f, np.radians(axis), raw_shape, frame)
    write_xf(tmp_path / "a.xf", f, axis)
    (matrix,), (d,) = read_xf_matrices(tmp_path / "a.xf")
    at = rng.uniform(0, 70, (20, 2))  # (s, y) indices
    row_column = at @ to_raw[:, :2].T + to_raw[:, 2]
    raw = row_column[:, ::-1] - (np.array(raw_shape[::-1]) - 1) / 2
    np.testing.assert_allclose(raw @ matrix.T + d + (np.array(frame) - 1) / 2, at, atol=TOLERANCE_PX)
