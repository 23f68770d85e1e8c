"""Pictures of slices: read at screen size from a store's pyramid, windowed, encoded into the page, with scale bars."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigascope.report.page import Html, join, number, tag, text

if TYPE_CHECKING:
    from gigascope.store.open import StoreReader

F32 = NDArray[np.float32]

# WebP quality: pure noise of 720 x 720 takes 0.4 MB in the page; all pictures of such size together stay below 4 MB.
QUALITY = 90
# Pictures with fewer samples across than this are shown with their pixels as squares: nothing is made up between them.
COARSE = 320
PERCENTILES = (0.5, 99.5)
# Of outlines: to be told from grey, and from each other by those who see fewer colours.
OUTLINE = (255, 166, 0)


@dataclass(frozen=True)
class Plane:
    """A slice as it is looked at: first row on top.

    Parameters
    ----------
    values : (rows, columns) float32, or with red, green and blue (rows, columns, 3)
    spacing : length of a row step and of a column step, nm
    """

    values: F32
    spacing: tuple[float, float]

    @property
    def size(self) -> tuple[float, float]:
        """Height and width, nm."""
        rows, columns = self.values.shape[:2]
        return rows * self.spacing[0], columns * self.spacing[1]

    def cropped(self, width: float) -> Plane:
        """The middle of it, `width` nm wide."""
        n = self.values.shape[1]
        keep = min(n, max(1, round(width / self.spacing[1])))
        start = (n - keep) // 2
        return Plane(self.values[:, start : start + keep], self.spacing)


def level_for(shapes: Sequence[tuple[int, ...]], max_px: int) -> int:
    """The coarsest level whose longest in-plane side is still at least `max_px`, or the finest.

    Parameters
    ----------
    shapes : of the levels, finest first; the last two axes count
    """
    fits = [i for i, shape in enumerate(shapes) if max(shape[-2:]) >= max_px]
    return fits[-1] if fits else 0


def level_shapes(store: StoreReader) -> list[tuple[int, ...]]:
    """Shape of every level of a store."""
    return [tuple(store.array(level).shape) for level in range(store.n_levels)]


def level_spacing(store: StoreReader, level: int) -> list[float]:
    """Sample to sample of a level along each axis; 1 where it is not known."""
    dataset = store.attributes["ome"]["multiscales"][0]["datasets"][level]
    return [float(step) for step in dataset["coordinateTransformations"][0]["scale"]]


def shrink(values: NDArray, max_px: int) -> tuple[F32, int]:
    """Block means over whole blocks so that neither side exceeds `max_px`; returns them and the edge of a block."""
    factor = max(1, math.ceil(max(values.shape[-2:]) / max_px))
    rows, columns = (n // factor for n in values.shape[-2:])
    if factor == 1 or not rows or not columns:
        return np.asarray(values, dtype=np.float32), 1
    cut = np.asarray(values[..., : rows * factor, : columns * factor], dtype=np.float32)
    blocks = cut.reshape(*values.shape[:-2], rows, factor, columns, factor)
    return blocks.mean(axis=(-3, -1), dtype=np.float32), factor


def robust_window(values: Sequence[NDArray], percentiles: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """Darkest and brightest value to show for several pictures together: percentiles of their finite values."""
    finite = np.concatenate([v[np.isfinite(v)].ravel() for v in map(np.asarray, values)] or [np.zeros(1)])
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(q) for q in np.percentile(finite, percentiles))
    if high > low:
        return low, high
    return low - 0.5, low + 0.5


def data_uri(values: NDArray, window: tuple[float, float], outline: NDArray[np.bool_] | None = None) -> str:
    """(rows, columns[, 3]), top row first, as `data:` text; `window[0]` is black, `window[1]` white, NaN black.

    Parameters
    ----------
    outline : (rows, columns), samples that are painted over
    """
    import imagecodecs

    low, high = window
    grey = np.nan_to_num((np.asarray(values, dtype=np.float32) - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    levels = np.round(np.clip(grey, 0.0, 1.0) * 255.0).astype(np.uint8)
    colours = np.ascontiguousarray(levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=-1))
    if outline is not None:
        colours[outline] = OUTLINE
    encoded = imagecodecs.webp_encode(colours, level=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(encoded).decode("ascii")


def length(nm: float) -> str:
    """A length with the unit that suits it."""
    if nm >= 1e6:
        return f"{number(nm / 1e6)} mm"
    return f"{number(nm / 1e3)} µm" if nm >= 1e3 else f"{number(nm)} nm"


def bar_length(width_nm: float) -> float:
    """A round length of a tenth to a quarter of a picture's width."""
    power = 10.0 ** math.floor(math.log10(width_nm / 4))
    return next(m * power for m in (5, 2, 1) if m * power <= width_nm / 4)


def picture(
    plane: Plane,
    window: tuple[float, float],
    *,
    alt: str,
    name: str = "",
    corner: str = "",
    low_corner: str = "",
    bar: bool = True,
    aspect: float | None = None,
    thin: bool = False,
    outline: NDArray[np.bool_] | None = None,
) -> Html:
    """A slice with its name, and a scale bar along its width.

    Parameters
    ----------
    alt : what is to be seen, for those who do not see it
    name, corner, low_corner : short text at the upper left, upper right and lower right
    aspect : width over height as shown; default: true to scale
    thin : the picture is narrow, its text smaller
    outline : (rows, columns), samples that are painted over
    """
    height, width = plane.size
    rows, columns = plane.values.shape[:2]
    coarse = "coarse" if max(rows, columns) < COARSE else None
    parts = [
        tag_image(data_uri(plane.values, window, outline), alt, columns, rows, coarse),
        tag("span", name, class_="name") if name else "",
        tag("span", corner, class_="corner") if corner else "",
        tag("span", low_corner, class_="corner low") if low_corner else "",
    ]
    if bar:
        nm = bar_length(width)
        parts.append(tag("span", tag("span", length(nm)), class_="bar", style=f"width:{100 * nm / width:.2f}%"))
    ratio = aspect if aspect is not None else width / height
    return tag("div", *parts, class_=f"picture{' thin' if thin else ''}", style=f"aspect-ratio:{ratio:.4f}")


def tag_image(source: str, alt: str, width: int, height: int, class_: str | None) -> Html:
    """An `img` element; it has no closing tag."""
    kind = f' class="{class_}"' if class_ else ""
    return Html(f'<img src="{source}" alt="{text(alt)}" width="{width}" height="{height}"{kind}>')


@dataclass(frozen=True)
class OrthogonalSlices:
    """Central slices of a volume: xy, xz and zy, rows as looked at (y up, z up), and where the volume was cut."""

    xy: Plane
    xz: Plane
    zy: Plane

    def window(self) -> tuple[float, float]:
        """One window for the three."""
        return robust_window([self.xy.values, self.xz.values, self.zy.values])


def orthogonal_slices(store: StoreReader, max_px: int, width_nm: float | None = None) -> OrthogonalSlices:
    """The three central slices of a store with axes (z, y, x), at screen size.

    Parameters
    ----------
    max_px : longest side of a slice, samples
    width_nm : shows only the middle of x, this wide
    """
    level = level_for(level_shapes(store), max_px)
    array = store.array(level)
    step = level_spacing(store, level)
    z, y, x = (n // 2 for n in array.shape)
    xy = _plane(np.asarray(array[z]), (step[1], step[2]), max_px, up=True)
    xz = _plane(np.asarray(array[:, y]), (step[0], step[2]), max_px, up=True)
    zy = _plane(np.asarray(array[:, :, x]).T, (step[1], step[0]), max_px, up=True)
    if width_nm is not None:
        xy, xz = xy.cropped(width_nm), xz.cropped(width_nm)
    return OrthogonalSlices(xy, xz, zy)


def _plane(values: NDArray, spacing: tuple[float, float], max_px: int, up: bool) -> Plane:
    small, factor = shrink(values, max_px)
    return Plane(small[::-1] if up else small, (spacing[0] * factor, spacing[1] * factor))


def cross(slices: OrthogonalSlices, window: tuple[float, float], what: str) -> Html:
    """The three slices side by side to one scale: xy, to its right zy (y shared), under it xz (x shared)."""
    names = {"xy": "x–y, z = 0", "zy": "z–y", "xz": "x–z"}
    words = {
        "xy": f"{what}: x–y slice through the middle, x to the right, y up",
        "zy": f"{what}: z–y slice through the middle, z to the right, y up",
        "xz": f"{what}: x–z slice through the middle, x to the right, z up",
    }
    return three_views(slices, window, names, words)


def three_views(
    planes: OrthogonalSlices, window: tuple[float, float], names: Mapping[str, str], alts: Mapping[str, str]
) -> Html:
    """Three planes to one scale: xy, to its right zy (y shared), under it xz (x shared).

    Parameters
    ----------
    names, alts : of "xy", "zy" and "xz": the name in the corner, and what is to be seen
    """
    height, width = planes.xy.size
    depth = planes.xz.size[0]
    # a thin section would leave strips too narrow to carry text
    share_x, share_z = width / (width + depth), depth / (width + depth)
    share_y, share_z_down = height / (height + depth), depth / (height + depth)
    thin = min(share_z, share_z_down) < 0.12
    parts = [picture(planes.xy, window, name=names["xy"], alt=alts["xy"])]
    for name in ("zy", "xz"):
        plane = getattr(planes, name)
        parts.append(picture(plane, window, name=names[name], bar=False, thin=thin, alt=alts[name]))
    columns = f"{100 * share_x:.3f}fr {100 * share_z:.3f}fr"
    rows = f"{100 * share_y:.3f}fr {100 * share_z_down:.3f}fr"
    ratio = (width + depth) / (height + depth)
    style = f"grid-template-columns:{columns};grid-template-rows:{rows};aspect-ratio:{ratio:.4f}"
    return tag("div", join(parts), class_="slices", style=style)
