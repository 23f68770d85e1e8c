"""The blended gather of a mosaic tile: signature, checks, dispatch."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from gigascope.errors import ShapeError
from gigascope.kernels.dispatch import backend, check, check_positive, check_table
from gigascope.kernels.library import define
from gigascope.kernels.ortho.op import check_pair, check_views

MODES = ("mean", "best")
SAMPLINGS = ("linear", "cubic")
COLOURS = (torch.uint8, torch.uint16, torch.float32)
# columns of a photometric correction: gain, bias, a0 .. a5
N_PHOTOMETRIC = 8


class Blend(NamedTuple):
    """A tile of the mosaic; all float32, on the device of the views."""

    colour: Tensor  # (channels, rows, cols), NaN where unseen
    height: Tensor  # (rows, cols), NaN where unseen
    weight: Tensor  # (rows, cols), sum of the weights of the views that count; 0 where unseen
    n_views: Tensor  # (rows, cols), views that count
    height_std: Tensor  # (rows, cols), weighted standard deviation of their heights; NaN of fewer than two


def blend(
    table: Tensor,
    distortion: Tensor,
    size: Sequence[int],
    heights: Tensor,
    colours: Tensor,
    corners: Tensor,
    start: Sequence[int],
    shape: Sequence[int],
    least_gate: float,
    confidence: Tensor | None = None,
    photometric: Tensor | None = None,
    gate: float = 3.0,
    feather: float = 128.0,
    epsilon: float = 0.01,
    mode: str = "mean",
    sampling: str = "linear",
    clarity: Tensor | None = None,
) -> Blend:
    """Colour and height of a mosaic tile from all views that see it.

    Parameters
    ----------
    table : (K, 21) float64, rows of :func:`view_table`
    distortion : (order,) float64
    size : (R, C) pixels of a view
    heights : (K, h, w) float32, a crop of the height map of each view; NaN where it has none, and then the view does
        not count there
    colours : (K, h, w, channels) uint8, uint16 or float32, the same crops of the all-in-focus images; channels may be 0
    corners : (K, 2) int64 (row, column) of the first pixel of each crop; a mosaic pixel that a view sees outside its
        crop counts as unseen by it
    start, shape : (row, col) of the tile's first pixel, and its (rows, cols)
    least_gate : least distance from the median at which a height is an outlier, over `gate`; 0.25 slice spacings
    confidence : (K, h, w) float32, the same crops, >= 0; none: 0
    photometric : (K, 8) float64 gain, bias, a0 .. a5 of the correction
        (gain v + bias)(1 + a0 + a1 x + a2 y + a3 x^2 + a4 y^2 + a5 x y), x and y from -0.5 to 0.5 across the larger
        side of the view; a0 relative to its mean. None: no correction
    gate : heights farther than gate max(1.4826 MAD, least_gate) from the median of a pixel's views do not count
    feather : pixels over which the weight of a view falls off toward its border, > 0
    epsilon : confidence of a pixel without one
    mode : mean (weighted) or best (colour and height of the view of largest weight, the first of equal ones)
    clarity : (K, h, w) float32, the same crops, > 0: factors of the weights with which colours, and only these, are
        averaged or chosen; none: 1
    sampling : of the colours between pixels: linear, or cubic (sharper; values may leave the range of the views)

    Returns
    -------
    Blend

    Raises
    ------
    ShapeError : shapes, dtypes or devices disagree, or another mode or sampling

    Notes
    -----
    weight = min(1, (d + 1/2) / feather)^2 (epsilon + confidence), d the distance from the border of the view, so that
    also the outermost pixels weigh. Heights and confidence are sampled bilinearly. Cubic is cubic convolution (Keys,
    IEEE Trans. ASSP 29, 1153 (1981), a = -1/2), borders repeated. In gather form: each mosaic pixel is written once,
    its views counted in the order of their rows in the table, so the result is the same in every run.
    """
    if table.shape[0] == 0:  # nobody sees the tile
        unseen, none = heights.new_full(tuple(shape), torch.nan), heights.new_zeros(tuple(shape))
        return Blend(
            heights.new_full((colours.shape[3], *shape), torch.nan), unseen, none, none.clone(), unseen.clone()
        )
    options = (float(least_gate), float(gate), float(feather), float(epsilon), mode, sampling)
    return Blend(
        *torch.ops.gigascope.ortho_blend(
            table, distortion, list(size), heights, colours, confidence, clarity, photometric, corners, list(start),
            list(shape), *options,
        )
    )  # fmt: skip


def _implementation(tensor: Tensor) -> ModuleType:
    """Module for the device of `tensor`, imported when first needed: numba and Triton are slow to import."""
    chosen = backend(tensor)
    if chosen == "cpu":
        from gigascope.kernels.ortho import cpu_blend

        return cpu_blend
    if chosen == "cuda":
        from gigascope.kernels.ortho import cuda_blend

        return cuda_blend
    from gigascope.kernels.ortho import reference_blend

    return reference_blend


def _check_maps(
    table: Tensor,
    heights: Tensor,
    colours: Tensor,
    confidence: Tensor | None,
    clarity: Tensor | None,
    photometric: Tensor | None,
) -> None:
    n = table.shape[0]
    shapes: dict[str, tuple[int | str, ...]] = dict.fromkeys(("heights", "confidence", "clarity"), (n, "h", "w"))
    sizes = check("blend", shapes, heights=heights, confidence=confidence, clarity=clarity)
    if heights.dtype != torch.float32:
        raise ShapeError(f"blend: heights: expected torch.float32, got {heights.dtype}")
    if colours.ndim != 4 or colours.shape[:3] != (n, sizes["h"], sizes["w"]) or colours.dtype not in COLOURS:
        names, found = " or ".join(str(dtype) for dtype in COLOURS), f"{tuple(colours.shape)} {colours.dtype}"
        raise ShapeError(f"blend: colours: expected ({n}, {sizes['h']}, {sizes['w']}, channels) {names}, got {found}")
    if photometric is not None:
        check_table("blend", "photometric", photometric, (n, N_PHOTOMETRIC))


@define(
    "ortho_blend",
    "(Tensor table, Tensor distortion, SymInt[] size, Tensor heights, Tensor colours, Tensor? confidence, "
    "Tensor? clarity, Tensor? photometric, Tensor corners, SymInt[] start, SymInt[] shape, float least_gate, "
    "float gate, float feather, float epsilon, str mode, str sampling) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _blend(
    table: Tensor,
    distortion: Tensor,
    size: list[int],
    heights: Tensor,
    colours: Tensor,
    confidence: Tensor | None,
    clarity: Tensor | None,
    photometric: Tensor | None,
    corners: Tensor,
    start: list[int],
    shape: list[int],
    least_gate: float,
    gate: float,
    feather: float,
    epsilon: float,
    mode: str,
    sampling: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_views("blend", table, distortion, size)
    _check_maps(table, heights, colours, confidence, clarity, photometric)
    if tuple(corners.shape) != (table.shape[0], 2) or corners.dtype != torch.int64:
        found = f"{tuple(corners.shape)} {corners.dtype}"
        raise ShapeError(f"blend: corners: expected ({table.shape[0]}, 2) torch.int64, got {found}")
    check_pair("blend", "shape", shape)
    check_positive("blend", feather=feather, gate=gate)
    if len(start) != 2 or not least_gate >= 0 or not epsilon >= 0:
        raise ShapeError(f"blend: expected a start of two, least_gate, epsilon >= 0: {start}, {least_gate}, {epsilon}")
    if mode not in MODES:
        raise ShapeError(f"blend: mode: expected {' or '.join(MODES)}, got {mode}")
    if sampling not in SAMPLINGS:
        raise ShapeError(f"blend: sampling: expected {' or '.join(SAMPLINGS)}, got {sampling}")
    if photometric is None:
        photometric = table.new_zeros(table.shape[0], N_PHOTOMETRIC)
        photometric[:, 0] = 1
    views = (table.contiguous(), distortion.contiguous(), size)
    weights = (None if map_ is None else map_.contiguous() for map_ in (confidence, clarity))
    maps = (heights.contiguous(), colours.contiguous(), *weights)
    place = (photometric.contiguous(), corners.contiguous(), start, shape)
    options = (least_gate, gate, feather, epsilon, mode, sampling)
    return _implementation(heights).blend(*views, *maps, *place, *options)


@_blend.register_fake
def _blend_meta(
    table: Tensor,
    distortion: Tensor,
    size: list[int],
    heights: Tensor,
    colours: Tensor,
    confidence: Tensor | None,
    clarity: Tensor | None,
    photometric: Tensor | None,
    corners: Tensor,
    start: list[int],
    shape: list[int],
    least_gate: float,
    gate: float,
    feather: float,
    epsilon: float,
    mode: str,
    sampling: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    colour = heights.new_empty(colours.shape[3], *shape)
    return (colour, *(heights.new_empty(shape) for _ in range(4)))  # type: ignore[return-value]
