"""OME-Zarr 0.5 metadata: axes, units, scale and translation of each level, display window, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import zarr

_AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_CUSTOM_UNITS = {"tilt": "degree"}


@dataclass(frozen=True)
class Channel:
    """What a channel shows, and how.

    Attributes
    ----------
    label : its name
    colour : of its brightest value, RRGGBB in hexadecimal
    window : darkest and brightest value to show; none: percentiles of the data
    active : shown when the image is opened
    """

    label: str
    colour: str = "FFFFFF"
    window: tuple[float, float] | None = None
    active: bool = True


def axes_metadata(axes: Sequence[str], spacing: Mapping[str, float], unit: str) -> list[dict[str, str]]:
    """One entry per axis; an axis without a spacing has no unit, a custom axis (the tilt) no type."""
    entries = []
    for axis in axes:
        entry = {"name": axis}
        if axis in _AXIS_TYPES:
            entry["type"] = _AXIS_TYPES[axis]
        if axis in spacing and (axis in _CUSTOM_UNITS or _AXIS_TYPES.get(axis) == "space"):
            entry["unit"] = _CUSTOM_UNITS.get(axis, unit)
        entries.append(entry)
    return entries


def datasets(
    axes: Sequence[str], spacing: Mapping[str, float], factors: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """Path, scale and translation of each level, from the steps between levels.

    A mean over f samples lies (f - 1) / 2 samples beyond the first of them, hence the translation.
    """
    step = np.array([spacing.get(axis, 1.0) for axis in axes])
    levels = np.cumprod([[1] * len(axes), *factors], axis=0)
    return [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": (step * factor).tolist()},
                {"type": "translation", "translation": (step * (factor - 1) / 2).tolist()},
            ],
        }
        for number, factor in enumerate(levels)
    ]


def omero(
    channels: Sequence[Channel], extremes: Sequence[tuple[float, float]], windows: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Display settings of channels, each with its least and largest value, its darkest and brightest one to show."""
    entries = [
        {
            "label": channel.label,
            "color": channel.colour,
            "active": channel.active,
            "coefficient": 1,
            "family": "linear",
            "window": {"min": low, "max": high, "start": start, "end": end},
        }
        for channel, (low, high), (start, end) in zip(channels, extremes, windows, strict=True)
    ]
    grey = all(channel.colour == "FFFFFF" for channel in channels)
    return {"channels": entries, "rdefs": {"model": "greyscale" if grey else "color"}}


def write_image_metadata(
    group: zarr.Group,
    *,
    name: str,
    axes: Sequence[str],
    spacing: Mapping[str, float],
    unit: str,
    factors: Sequence[Sequence[int]],
    display: dict[str, Any] | None = None,
) -> None:
    """Write the `ome` attributes of an image whose levels are the arrays "0", "1", ... of `group`."""
    from ome_zarr.format import FormatV05
    from ome_zarr.writer import write_multiscales_metadata

    write_multiscales_metadata(
        group,
        datasets(axes, spacing, factors),
        fmt=FormatV05(),
        axes=axes_metadata(axes, spacing, unit),
        name=name,
        metadata={"omero": display} if display else {},
    )


def write_label_list(labels: zarr.Group, names: Sequence[str]) -> None:
    """Write the `ome` attributes that make `labels` and its members `names` the label images of the parent group."""
    from ome_zarr.format import FormatV05
    from ome_zarr.writer import write_label_metadata

    # The library appends to the list, so an interrupted attempt would leave each name twice.
    labels.attrs.pop("ome", None)
    for name in names:
        write_label_metadata(labels, name, fmt=FormatV05(), source={"image": "../../"})
    # 0.5 wants its version in this group too; the library (0.18) leaves it out.
    labels.attrs["ome"] = {"version": FormatV05().version, "labels": list(names)}


def write_label_properties(label: zarr.Group, columns: Mapping[str, Sequence[Any]]) -> None:
    """Add properties of each label, columns of equal length with `label-value` among them, to a label image."""
    ome: Any = label.attrs["ome"]
    rows = [dict(zip(columns, values)) for values in zip(*columns.values(), strict=True)]
    label.attrs["ome"] = {**ome, "image-label": {**ome["image-label"], "properties": rows}}


def write_collection(group: zarr.Group, names: Sequence[str]) -> None:
    """Write the `ome` attributes that make `group` a collection of the images `names`, in this order.

    The layout is that of bioformats2raw, the only one that OME-Zarr 0.5 has for collections; the list of images stands
    in the group OME, as it says.
    """
    from ome_zarr.format import FormatV05

    version = FormatV05().version
    group.attrs["ome"] = {"version": version, "bioformats2raw.layout": 3}
    group.require_group("OME").attrs["ome"] = {"version": version, "series": list(names)}
