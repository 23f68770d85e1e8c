"""`gigascope decode` and `gigascope export`: compressed volumes as files that other programs read."""

from __future__ import annotations

import re
import sys
import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError

if TYPE_CHECKING:
    from gigascope.compression.decoding.volume import GaussianVolume

VOLUME_SUFFIXES = (".zarr", ".tif", ".tiff")
PICTURE_SUFFIXES = (".png", ".tif", ".tiff")
_RANGE = re.compile(r"(\d*):(\d*)")


def decode_file(
    file: Path,
    out: Path,
    *,
    roi: str | None = None,
    factor: str = "1",
    channel: int | None = None,
    time: int | None = None,
    project: str | None = None,
    axis: str = "z",
    device: str = "auto",
    force: bool = False,
) -> None:
    """Decode a compressed volume, or a part of it, into a file.

    Parameters
    ----------
    roi : `z0:z1,y0:y1,x0:x1` in voxels of the original, first and last + 1; an end left out is that of the volume
    factor : coarser by one number, or by `z,y,x`; a voxel is the mean over its box
    channel, time : one of them; none: all
    project : max or mean, along `axis`
    device : auto, cpu or cuda

    Raises
    ------
    UserError : a file that is missing or damaged, options that do not fit it, an output that is in the way
    """
    check_output(
        out, PICTURE_SUFFIXES if project else VOLUME_SUFFIXES, "a projection" if project else "a volume", force
    )
    volume = _open(file, device).at_level(parse_factor(factor))
    key = _key(volume, parse_roi(roi, volume.header.shape[-3:]), channel, time)
    begun = clock.monotonic()
    if project:
        text = _write_projection(volume, out, key, project, axis)
    else:
        text = _write_volume(volume, out, key, {"roi": roi, "factor": factor, "channel": channel, "time": time})
    print(f"wrote {out}: {text}, {clock.monotonic() - begun:.1f} s")


def export_file(
    file: Path,
    out: Path,
    *,
    roi: str | None = None,
    channel: int = 0,
    time: int = 0,
    bake: bool = False,
    look: Mapping[str, float] | None = None,
    device: str = "auto",
    force: bool = False,
) -> None:
    """Export the Gaussians of one frame for viewers (.ply, .splat) or as a table (.parquet, .csv).

    Parameters
    ----------
    roi : as in :func:`decode_file`; Gaussians whose mean lies in it
    bake : refit the amplitudes so that none is negative, instead of leaving negative ones out
    look : `gamma` and `opacity` of :class:`gigascope.compression.decoding.export.Appearance`, for .ply and .splat

    Raises
    ------
    UserError : as :func:`decode_file`
    """
    from gigascope.compression.decoding import export as formats
    from gigascope.compression.mixture import Mixture

    check_output(out, formats.SUFFIXES, "Gaussians", force)
    volume = _open(file, device)
    frame = _frame(volume, time, channel)
    decoder = volume.decoder
    mixture = decoder.whole(frame)
    if bake:
        mixture = _baked(volume, frame, mixture)
    low, high = (mixture.means.new_tensor(ends) for ends in zip(*_ends(parse_roi(roi, decoder.shape), decoder.shape)))
    mixture = mixture[((mixture.means >= low) & (mixture.means < high)).all(1)]
    found = formats.physical(
        Mixture(*mixture.tensors[:3], mixture.amplitudes * volume.header.intensity[frame].scale), volume.voxel_size_um
    )
    notes = [f"gigascope export of {file.name}, time {time}, channel {channel}, micrometres"]
    written = formats.export(out, found, formats.Appearance(**(look or {})), notes)
    dropped = len(found) - written
    for_viewers = out.suffix in (".ply", ".splat")
    print(f"wrote {out}: {written} Gaussians" + (f", {dropped} with negative amplitude left out" if dropped else ""))
    if for_viewers:
        print(f"note: {formats.ALPHA_NOTE}" + ("; --bake refits instead of leaving out" if dropped else ""))


def parse_roi(text: str | None, shape: Sequence[int]) -> tuple[slice, slice, slice]:
    """`z0:z1,y0:y1,x0:x1` as slices within a volume; none: all of it.

    Raises
    ------
    UserError : another form, or not within the volume
    """
    ranges = [":"] * 3 if text is None else text.replace(" ", "").split(",")
    matches = [_RANGE.fullmatch(r) for r in ranges]
    if len(matches) != 3 or None in matches:
        do = "Write --roi z0:z1,y0:y1,x0:x1, such as 0:64,128:192,: (first and last + 1 voxel)."
        raise UserError(f"{text!r} is no region of three ranges.", where="--roi", do=do)
    slices = []
    for match, n, name in zip(matches, shape, "zyx"):
        assert match is not None  # None is refused above
        start, stop = int(match[1] or 0), int(match[2] or n)
        if not 0 <= start < stop <= n:
            what = f"{start}:{stop} along {name} does not lie within the volume of {n} voxels (0:{n})."
            raise UserError(what, where="--roi", do="Give the first and the last + 1 voxel.")
        slices.append(slice(start, stop))
    return slices[0], slices[1], slices[2]


def parse_factor(text: str) -> tuple[int, int, int]:
    """`2` or `2,4,4` as factors (z, y, x).

    Raises
    ------
    UserError : not one or three integers of at least 1
    """
    parts = text.replace(" ", "").split(",")
    if len(parts) not in (1, 3) or not all(p.isdecimal() and int(p) >= 1 for p in parts):
        raise UserError(
            f"{text!r} is no factor.", where="--factor", do="Write one number or three: 2, or 1,4,4 (z,y,x)."
        )
    z, y, x = (int(p) for p in (parts * 3 if len(parts) == 1 else parts))
    return z, y, x


def _open(file: Path, device: str) -> GaussianVolume:
    from gigascope.compression.decoding.volume import GaussianVolume
    from gigascope.runtime.device import choose_device

    return GaussianVolume(file, choose_device(device))


def check_output(out: Path, suffixes: Sequence[str], what: str, force: bool) -> None:
    """Before any work: an ending that is written, a folder that exists, nothing in the way."""
    if out.suffix not in suffixes:
        raise UserError(f"{what} can be written as {', '.join(suffixes)}, not {out.suffix!r}.", where=out)
    if not out.absolute().parent.is_dir():
        raise UserError("there is no such folder.", where=out.absolute().parent, do="Make it, or write elsewhere.")
    if out.exists() and not force:
        raise UserError("is there already.", where=out, do="Remove it, write elsewhere, or give --force to replace it.")


def _key(
    volume: GaussianVolume, roi: tuple[slice, slice, slice], channel: int | None, time: int | None
) -> list[int | slice]:
    """Index of what is asked for, in samples of the volume's resolution."""
    key: list[int | slice] = []
    for name, chosen in (("t", time), ("c", channel)):
        n = volume.shape[volume.axes.index(name)] if name in volume.axes else 1
        if chosen is not None and not 0 <= chosen < n:
            raise UserError(f"there is no {chosen}: the file has {n}, from 0.", where=_OPTIONS[name])
        if name in volume.axes:
            key.append(slice(0, n) if chosen is None else chosen)
    return [*key, *(slice(r.start // f, -(-r.stop // f)) for r, f in zip(roi, volume.factor))]


_OPTIONS = {"t": "--time", "c": "--channel"}


def _frame(volume: GaussianVolume, time: int, channel: int) -> int:
    _key(volume, (slice(0, 1),) * 3, channel, time)
    return volume.frame(time, channel)


def _ends(roi: Sequence[slice], shape: Sequence[int]) -> list[tuple[float, float]]:
    """Where a mean may lie, voxel i reaching from i - 1/2 to i + 1/2; no end where the region goes to the border."""
    borders = ((r.start == 0, r.stop == n) for r, n in zip(roi, shape))
    return [(-np.inf if a else r.start - 0.5, np.inf if b else r.stop - 0.5) for r, (a, b) in zip(roi, borders)]


def _write_volume(volume: GaussianVolume, out: Path, key: Sequence[int | slice], options: dict[str, Any]) -> str:
    from gigascope.compression.decoding import decoded_files

    excerpt = decoded_files.Excerpt(volume, key)
    if out.suffix == ".zarr":
        decoded_files.write_ome_zarr(out, excerpt, _provenance(volume, options), report=_progress("decode"))
    else:
        decoded_files.write_tiff(out, excerpt, report=_progress("decode"))
    return f"{'x'.join(map(str, excerpt.shape))} {excerpt.dtype} ({''.join(excerpt.axes)})"


def _write_projection(volume: GaussianVolume, out: Path, key: Sequence[int | slice], kind: str, axis: str) -> str:
    from gigascope.compression.decoding import decoded_files, projections

    if axis not in projections.AXES:
        raise UserError(f"{axis!r} is none of z, y, x.", where="--axis")
    if kind not in ("max", "mean"):
        raise UserError(f"{kind!r} is none of max, mean.", where="--project")
    if kind == "mean" and volume.factor != (1, 1, 1):
        raise UserError("a mean projection is made at full resolution.", where="--factor", do="Leave it out.")
    z, y, x = (k for k in key[-3:] if isinstance(k, slice))
    frames, lengths = _frames(volume, key[:-3])
    pictures: list[NDArray] = []
    for frame in _progress("project")(frames, "frame"):
        if kind == "max":
            pictures.append(projections.max_projection(volume.decoder, frame, axis, volume.factor, (z, y, x)))
        else:
            n = (z, y, x)[projections.AXES.index(axis)]
            pictures.append(projections.sum_projection(volume.decoder, frame, axis, (z, y, x)) / (n.stop - n.start))
    picture = np.stack(pictures).reshape(*lengths, *pictures[0].shape)
    left = [a for a in projections.AXES if a != axis]
    spacing = {a: s for a, s in zip(projections.AXES, volume.voxel_size_um) if a != axis}
    # OME-TIFF knows the planes y, x only: a view along y or x is written as one
    names = [*(a for a, k in zip(volume.axes, key) if isinstance(k, slice))][: len(lengths)] + ["y", "x"]
    text = decoded_files.write_picture(out, picture, names, dict(zip(("y", "x"), (spacing[a] for a in left))))
    return f"{kind} along {axis}, rows {left[0]}, columns {left[1]}, {picture.shape[-2]} x {picture.shape[-1]}, {text}"


def _frames(volume: GaussianVolume, key: Sequence[int | slice]) -> tuple[list[int], list[int]]:
    """Frames that are picked, and the lengths of the axes of t and c that stay."""
    ranges = [range(k, k + 1) if isinstance(k, int) else range(k.start, k.stop) for k in key]
    lengths = [len(r) for r, k in zip(ranges, key) if isinstance(k, slice)]
    numbers = np.arange(max(1, int(np.prod(volume.shape[:-3])))).reshape(volume.shape[:-3])
    return [int(n) for n in numbers[np.ix_(*ranges)].reshape(-1)] if ranges else [0], lengths


def _baked(volume: GaussianVolume, frame: int, mixture: Any) -> Any:
    from gigascope.compression.decoding.bake import bake

    decoder = volume.decoder
    cuts = mixture.cuts(volume.header.c_max, volume.header.eps[frame]).to(decoder.device)
    steps = _progress("bake")
    baked = bake(mixture.to(decoder.device), cuts, decoder.shape, report=lambda items: steps(list(items), "iteration"))
    text = "baked %d Gaussians into %d, none negative; the field changes by %.1f %%"
    print(text % (len(mixture), len(baked.mixture), 100 * baked.misfit))
    return baked.mixture.to("cpu")


def _progress(what: str) -> Callable[[Sequence[Any], str], Iterable[Any]]:
    from gigascope.runtime.progress import Progress

    return lambda items, unit: Progress()(items, what=what, unit=unit)


def _provenance(volume: GaussianVolume, options: dict[str, Any]) -> dict[str, Any]:
    from gigascope.compression.decoding import decoded_files
    from gigascope.runtime import provenance
    from gigascope.runtime.context import file_digest
    from gigascope.runtime.device import describe
    from gigascope.runtime.fingerprint import fingerprint

    path = Path(volume.decoder.gmix.path)
    digest = file_digest(path) if path.is_file() else "directory"
    return provenance.record(
        stage="decode",
        dataset=path.stem,
        config={k: v for k, v in options.items() if v is not None},
        code=fingerprint(decoded_files.write_ome_zarr),
        inputs={"compressed": {"path": str(path), "digest": digest}},
        device=describe(volume.decoder.device),
        seed=0,
        command=["gigascope", *sys.argv[1:]],
    )
