"""Where the views lie before anything else is known: stage, camera grid, and what overlapping views say of each other.

A view's translation is its place on the mosaic in pixels; of two views that overlap, phase correlation tells the
difference. All differences together, by robust least squares on the graph of pairs, place the views.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsqr

from gigascope.errors import ShapeError, UserError
from gigascope.topography.calibration.phase import peaks, phase_correlation

_log = logging.getLogger(__name__)
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
ReadImage = Callable[[int], NDArray]

# Pairs that share less of a view say little that others do not say better.
LEAST_OVERLAP = 0.2
# Sides that whole views are reduced to before they are compared.
COMPARED_PX = 512
# A peak that stands out less is a chance maximum: the largest of 1e5 normal numbers lies at 4.3.
LEAST_CONTRAST = 7.0
# Views that are named in a message; more are counted.
NAMED = 8


@dataclass(frozen=True, eq=False)
class PairShifts:
    """Differences of translations of overlapping views.

    Attributes
    ----------
    pairs : (P, 2) int64, view numbers (a, b)
    shift : (P, 2) float64, translation of b minus translation of a, pixels (row, col)
    contrast : (P,) float64, of the peak above the correlation around it, standard deviations
    """

    pairs: I64
    shift: F64
    contrast: F64

    @property
    def certain(self) -> NDArray[np.bool_]:
        """(P,) pairs whose peak is no chance maximum."""
        return np.asarray(self.contrast >= LEAST_CONTRAST)


def stage_translations(
    stage_xy_mm: ArrayLike,
    cameras: tuple[int, int],
    pitch_mm: tuple[float, float],
    pixel_mm: float,
    signs: tuple[int, int] = (1, -1),
    camera_ids: tuple[Sequence[int], Sequence[int]] | None = None,
) -> F64:
    """Translations that the drawing of the instrument and the commanded stage positions give.

    Parameters
    ----------
    stage_xy_mm : (n_scan_y, n_scan_x, 2) commanded (x, y)
    cameras : (rows, columns) of cameras
    pitch_mm : (y, x) distance of neighbouring cameras on the sample
    pixel_mm : pixel on the sample
    signs : (y, x) +1 where the field moves over the sample with the stage coordinate, -1 where against it
    camera_ids : rows and columns of the cameras on the instrument, where some were left out; none: 0, 1, 2, ...

    Returns
    -------
    (V, 2) float64, (row, col) in mosaic pixels with mean 0; view = view_row * n_view_cols + view_col, the scan runs
    fastest inside a camera
    """
    stage = np.asarray(stage_xy_mm, dtype=np.float64)
    if stage.ndim != 3 or stage.shape[2] != 2:
        raise ShapeError(f"stage_translations: expected (n_scan_y, n_scan_x, 2) stage positions, got {stage.shape}")
    ids = camera_ids or (range(cameras[0]), range(cameras[1]))
    rows, cols = (np.asarray(i, dtype=np.float64) * p / pixel_mm for i, p in zip(ids, pitch_mm))
    at = np.empty((len(rows), stage.shape[0], len(cols), stage.shape[1], 2))
    at[..., 0] = rows[:, None, None, None] + signs[0] * stage[None, :, None, :, 1] / pixel_mm
    at[..., 1] = cols[None, None, :, None] + signs[1] * stage[None, :, None, :, 0] / pixel_mm
    flat = at.reshape(-1, 2)
    return np.asarray(flat - flat.mean(axis=0))


def overlapping_pairs(
    translation: ArrayLike, size: tuple[int, int], least: float = LEAST_OVERLAP, present: ArrayLike | None = None
) -> I64:
    """(P, 2) int64: pairs (a < b) of views that share at least this part of a view.

    Parameters
    ----------
    translation : (V, 2) pixels
    size : (R, C) of a view
    present : (V,) bool, views that are there; none: all
    """
    at = np.asarray(translation, dtype=np.float64)
    there = np.ones(len(at), np.bool_) if present is None else np.asarray(present, dtype=np.bool_).ravel()
    order = np.argsort(at[:, 0], kind="stable")
    order = order[there[order]]
    found = []
    for n, a in enumerate(order):
        stop = np.searchsorted(at[order, 0], at[a, 0] + size[0])
        others = order[n + 1 : stop]
        share = np.prod(np.clip(1.0 - np.abs(at[others] - at[a]) / np.array(size), 0.0, None), axis=1)
        b = others[share >= least]
        found.append(np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1))
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found]).astype(np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def reduced(image: NDArray, largest_px: int = COMPARED_PX) -> tuple[torch.Tensor, int]:
    """Image (rows, cols) float32 as means over squares, with a side of at most `largest_px`, and the side of those."""
    factor = max(1, -(-max(image.shape) // largest_px))
    rows, cols = (n // factor for n in image.shape)
    cut = np.asarray(image[: rows * factor, : cols * factor], dtype=np.float32)
    return torch.from_numpy(cut.reshape(rows, factor, cols, factor).mean(axis=(1, 3))), factor


def pair_shift(
    first: torch.Tensor, second: torch.Tensor, guess: ArrayLike, search_px: float, factor: int = 1
) -> tuple[F64, float]:
    """Translation of the second view minus that of the first, by phase correlation of the whole views.

    Parameters
    ----------
    first, second : (rows, cols) float32 of :func:`reduced`
    guess : (2,) expected difference, pixels of the view
    search_px : largest departure from it
    factor : of :func:`reduced`

    Returns
    -------
    difference : (2,) float64, pixels of the view
    contrast : of the peak, standard deviations of the correlation around it
    """
    expected = torch.as_tensor(np.asarray(guess, dtype=np.float64)[None] / factor)
    # first(x) = second(x - difference): moving(x + d) with d = -difference
    correlation = phase_correlation(first[None], second[None], pad=True)
    found, _, contrast = peaks(correlation, -expected, (search_px / factor, search_px / factor))
    return -found[0].cpu().numpy() * factor, float(contrast[0])


def pair_shifts(
    image: ReadImage, pairs: I64, translation: ArrayLike, *, search_px: float, n_held: int = 192
) -> PairShifts:
    """Differences of translations of all pairs.

    Parameters
    ----------
    image : view -> (R, C) image in focus
    pairs : (P, 2) of :func:`overlapping_pairs`
    translation : (V, 2) expected
    search_px : largest error of an expected difference along each axis
    n_held : reduced views that are kept, of 1 MB each
    """
    at = np.asarray(translation, dtype=np.float64)
    held: dict[int, tuple[torch.Tensor, int]] = {}

    def reduced_view(view: int) -> tuple[torch.Tensor, int]:
        if view not in held:
            if len(held) >= n_held:
                held.pop(next(iter(held)))
            held[view] = reduced(image(view))
        return held[view]

    shift, contrast = np.empty((len(pairs), 2)), np.empty(len(pairs))
    for n, (a, b) in enumerate(pairs.tolist()):
        (first, factor), (second, _) = reduced_view(a), reduced_view(b)
        shift[n], contrast[n] = pair_shift(first, second, at[b] - at[a], search_px, factor)
    return PairShifts(pairs, shift, contrast)


def place_views(
    image: ReadImage,
    translation: ArrayLike,
    size: tuple[int, int],
    *,
    search_px: float,
    present: ArrayLike | None = None,
    name: Callable[[int], str] = str,
) -> F64:
    """Translations of all views from their images.

    Parameters
    ----------
    image : view -> (R, C) image in focus
    translation : (V, 2) expected
    size : (R, C)
    search_px : largest error of the difference of two expected translations; where views stay apart, twice that and
        pairs with less overlap are tried too
    present, name : see :func:`solve_translations`

    Returns
    -------
    (V, 2) float64, mean 0

    Raises
    ------
    UserError : see :func:`solve_translations`
    """
    at = np.asarray(translation, dtype=np.float64)
    there = np.ones(len(at), np.bool_) if present is None else np.asarray(present, dtype=np.bool_).ravel()
    for wider in (1, 2):
        pairs = overlapping_pairs(at, size, LEAST_OVERLAP / wider**2, there)
        found = pair_shifts(image, pairs, at, search_px=wider * search_px)
        if not len(apart_views(found.pairs[found.certain], len(at), there)[0]):
            break
        _log.info("views are apart within %.0f px", wider * search_px)
    return solve_translations(found, len(at), size, there, name)[0]


def solve_translations(
    found: PairShifts,
    n_views: int,
    size: tuple[int, int],
    present: ArrayLike | None = None,
    name: Callable[[int], str] = str,
) -> tuple[F64, F64]:
    """Translations of all views from the differences of pairs.

    Parameters
    ----------
    found : of :func:`pair_shifts`; only certain pairs count
    n_views : V
    size : (R, C) of a view
    present : (V,) bool, views that are there; none: all
    name : what a view is called in messages

    Returns
    -------
    translation : (V, 2) float64, mean 0 over the views that are there; views that are not have 0
    residual : (P,) float64, pixels, of each pair

    Raises
    ------
    UserError : views do not overlap, or fall into groups that are not connected

    Notes
    -----
    Least squares with weights 1 / (1 + (r / s)^2) (Cauchy) whose scale s falls to half a pixel: a pair with a false
    peak loses its weight against the other paths between its views.
    """
    there = np.ones(n_views, np.bool_) if present is None else np.asarray(present, dtype=np.bool_).ravel()
    refuse_unconnected(found.pairs[found.certain], n_views, there, found.pairs, name)
    use = found.pairs[found.certain]
    shift = found.shift[found.certain]
    n, ones = np.arange(len(use)), np.ones(len(use))
    incidence = csr_matrix(
        (np.concatenate([ones, -ones]), (np.concatenate([n, n]), np.concatenate([use[:, 1], use[:, 0]]))),
        shape=(len(use), n_views),
    )
    # false peaks stand out less than true ones
    trust = np.minimum(found.contrast[found.certain] / (4 * LEAST_CONTRAST), 1.0) ** 2
    weight, translation = trust, np.zeros((n_views, 2))
    # an annealed scale: from a fortieth of a view down to half a pixel
    for scale in np.geomspace(max(size) / 40, 0.5, 8):
        for _ in range(3):
            root = np.sqrt(weight)
            rows = csr_matrix(incidence.multiply(root[:, None]))
            for axis in (0, 1):
                translation[:, axis] = lsqr(rows, shift[:, axis] * root, atol=1e-12, btol=1e-12, iter_lim=20_000)[0]
            apart = np.linalg.norm(incidence @ translation - shift, axis=1)
            weight = trust / (1.0 + (apart / scale) ** 2)
    translation -= translation[there].mean(axis=0)
    translation[~there] = 0.0
    every = np.diff(translation[found.pairs], axis=1)[:, 0] - found.shift
    residual = np.linalg.norm(every, axis=1)
    false = int((residual[found.certain] > 3.0).sum())
    _log.info("%d of %d pairs placed %d views, %d more than 3 px apart", len(use), len(residual), there.sum(), false)
    return translation, residual


def refuse_unconnected(
    pairs: ArrayLike,
    n_views: int,
    present: NDArray[np.bool_],
    tried: ArrayLike | None = None,
    name: Callable[[int], str] = str,
) -> None:
    """Raise where views that are there are not connected through pairs.

    Parameters
    ----------
    pairs : (P, 2) that are known to overlap
    tried : (Q, 2) that the layout lets overlap; none: `pairs`
    name : what a view is called in messages

    Raises
    ------
    UserError : naming views of the smaller groups
    """
    edges = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    apart, groups = apart_views(edges, n_views, present)
    if not len(apart):
        return
    if not len(edges):
        tested = 0 if tried is None else len(np.asarray(tried).reshape(-1, 2))
        raise UserError(
            f"no two of the {int(present.sum())} views overlap ({tested} pairs compared), so their poses cannot be "
            "told from the flat target.",
            do="Scan with a step below the field of a view (60 % overlap is usual), check the stage step, the pixel "
            "size and the signs of the axes, or give known poses.",
        )
    more = f" and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
    raise UserError(
        f"the views fall into {groups} groups without a sure overlap between them: "
        f"{', '.join(name(int(v)) for v in apart[:NAMED])}{more} of {int(present.sum())} are apart from the rest.",
        do="Look whether these views are dark, out of focus or displaced by more than the search, check stage step "
        "and signs, or leave their cameras out.",
    )


def apart_views(pairs: I64, n_views: int, present: NDArray[np.bool_]) -> tuple[I64, int]:
    """Views that are there and not in the largest group that pairs connect, and the number of groups."""
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_views, n_views))
    label = connected_components(graph, directed=False)[1]
    if not present.any():
        return np.empty(0, np.int64), 0
    largest = np.bincount(label[present]).argmax()
    return np.flatnonzero(present & (label != largest)), len(np.unique(label[present]))
