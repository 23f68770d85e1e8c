"""Complete a store and put it into place, so that whoever looks finds it whole or not at all.

:func:`finish` reads every shard once: it checks it, takes the statistics, digests the file and makes the next level
from it. The completion record is the last thing written. :func:`publish` then moves folders only.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from gigascope.errors import UserError
from gigascope.store import ngff, pyramid
from gigascope.store.checksum import (
    TABLE,
    Digester,
    content_digest,
    missing_shards,
    read_block,
    shard_file,
    shard_index,
    store_files,
    write_checksums,
)
from gigascope.store.create import VERSION, ImageWriter, StoreWriter, new_array, open_writer, plan_of
from gigascope.store.disk import disk_errors, remove, sweep_partial
from gigascope.store.ensemble import OF_IMAGES, EnsembleWriter, MemberWriter
from gigascope.store.open import open_store
from gigascope.store.plain_shard import check_shard, is_plain
from gigascope.store.plan import Region
from gigascope.store.statistics import Statistics, sample_step

if TYPE_CHECKING:
    import zarr

# Snakemake compares files by content below this size, by time above it.
ROOT_LIMIT = 1_000_000
_AGAIN = "Run the stage again."

Visit = Callable[[Region, NDArray], None]

_log = logging.getLogger(__name__)


def finish(store: StoreWriter | Path, provenance: Mapping[str, Any], *, allow_nan: bool = False) -> str:
    """Verify a written store, add pyramid, OME-Zarr metadata and checksums, and last its completion record.

    Parameters
    ----------
    store : as created, or its path (after parts were written by other jobs)
    provenance : JSON values; numpy scalars and arrays become numbers and lists, NaN and infinity null
    allow_nan : accept NaN and infinite values in the image, also one that was not created for them

    Returns
    -------
    digest of the content, hexadecimal; it does not depend on provenance or time

    Raises
    ------
    UserError : a shard is missing, unreadable or not fully written; a value is not finite; the disk is full
    ValueError : attributes that are no JSON, or too many for the root
    """
    writer = store if isinstance(store, StoreWriter) else open_writer(store)
    attrs, provenance = json_value(writer.attrs), json_value(provenance)
    with disk_errors(writer.path), Digester(writer.path) as digester:
        for stray in sweep_partial(writer.path):
            _log.info("removed %s, left by an interrupted write", stray)
        of_images = attrs.pop(OF_IMAGES, {})
        ensemble = _finish_images(writer, of_images, digester, allow_nan) if isinstance(writer, EnsembleWriter) else {}
        found = _finish_group(writer, digester, allow_nan)
        for file in store_files(writer.path):
            digester.add(file)
        files = digester.results()
        write_checksums(writer.group, files)
        root: dict[str, Any] = dict(writer.group.attrs)
        record: dict[str, Any] = {"version": VERSION, "complete": True, **found, "stage_attrs": attrs, **ensemble}
        root["gigascope"] = record
        record["digest"] = content_digest(files, root)
        record["provenance"] = provenance
        if len(json.dumps(root, indent=2)) > ROOT_LIMIT:
            raise ValueError(f"attributes of {writer.path} exceed {ROOT_LIMIT} bytes: keep long lists as tables")
        writer.group.attrs["gigascope"] = record
    return record["digest"]


def publish(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move finished stores and plain files from scratch into place, together.

    First everything old is moved to `.trash-*` beside it, then the new is moved in, so that old and new outputs never
    stand side by side; an interruption leaves an output old, new or missing, but never partial. On an error the old
    outputs are put back.

    Parameters
    ----------
    moves : (scratch path, final path) of each output; both on one file system

    Raises
    ------
    UserError : an output that is missing or unfinished, another file system, something foreign at a final path, a disk
        that may not be written
    """
    pairs = [(Path(scratch), Path(final)) for scratch, final in moves]
    for scratch, final in pairs:
        _check_move(scratch, final)
    trash = [(final, final.with_name(f".trash-{final.name}-{uuid4().hex[:8]}")) for _, final in pairs]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in [*((f, t) for f, t in trash if f.exists()), *pairs]:
            with disk_errors(target):
                os.rename(source, target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            with contextlib.suppress(OSError):
                os.rename(target, source)
        raise
    for _, final in pairs:
        for old in final.parent.glob(f".trash-{final.name}-*"):
            try:
                remove(old)
            except OSError as error:
                _log.warning("could not remove the replaced output %s: %s", old, error)


def json_value(value: Any) -> Any:
    """`value` as JSON can hold it: numpy scalars and arrays as numbers and lists, paths as text, NaN as null.

    Raises
    ------
    ValueError : anything else
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return json_value(value.tolist())
    if isinstance(value, float):
        # NaN in zarr.json is no JSON: a browser would not open the store
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"{value!r} of type {type(value).__name__} is no JSON value")


def _finish_images(
    writer: EnsembleWriter, attrs: Mapping[str, Any], digester: Digester, allow_nan: bool
) -> dict[str, Any]:
    """Complete each image of an ensemble in its own group; returns what the record of the whole says of them."""
    images = [writer.image(name) for name in writer.images]
    if not images:
        raise ValueError(f"{writer.path} is an ensemble without an image")
    for image in images:
        _require_shards(image, _members_of(image), [])
    for image in images:
        found = _finish_group(image, digester, allow_nan)
        own = attrs.get(image.key, {"attrs": {}, "properties": {}})
        for label, columns in own["properties"].items():
            ngff.write_label_properties(image.group[f"labels/{label}"], columns)  # type: ignore[arg-type]
        record = {"version": VERSION, "complete": True, **found, "stage_attrs": own["attrs"]}
        image.group.attrs["gigascope"] = {**record, "ensemble": writer.path.name, "side_folder": image.side_folder}
    names = [image.key for image in images]
    ngff.write_collection(writer.group, names)
    return {"ensemble": True, "images": names}


def _finish_group(writer: StoreWriter, digester: Digester, allow_nan: bool) -> dict[str, Any]:
    """Check all arrays of a group, complete its image; returns what the record says of them."""
    image = writer if isinstance(writer, ImageWriter) else None
    members = _members_of(writer)
    others = _other_arrays(writer) if image is None else []
    _require_shards(writer, members, others)
    for array in [*(writer.group[f"{writer.side_folder}/{name}"] for name in members["arrays"]), *others]:
        _read_through(writer.path, array, digester)
    if image is None:
        return {"image": None, "statistics": {}, "members": members}
    statistics = _finish_image(image, members["labels"], digester, allow_nan or image.allow_nan)
    if isinstance(image, MemberWriter) and statistics["mean"] is not None:
        # These lie in a file that is content, and the last digits of a sum depend on the processor.
        statistics["mean"] = float(f"{statistics['mean']:.6g}")
    described = {**image.group.attrs["gigascope"]["image"], "shape": list(image.shape), "dtype": image.dtype.name}  # type: ignore[index,call-overload,dict-item]
    return {"image": described, "statistics": statistics, "members": members}


def _members_of(writer: StoreWriter) -> dict[str, list[str]]:
    """Names of side arrays, label images and tables."""
    folders = {"arrays": writer.side_folder, "labels": "labels", "tables": "tables"}
    group = writer.group
    return {kind: sorted(group[at].keys()) if at in group else [] for kind, at in folders.items()}  # type: ignore[union-attr]


def _other_arrays(writer: StoreWriter) -> list[Any]:
    """Arrays that a format keeps at places of its own."""
    import zarr

    apart = writer.images if isinstance(writer, EnsembleWriter) else []
    known = ("arrays", "labels", "tables", TABLE, *apart)
    found = [member for path, member in writer.group.members(max_depth=None) if path.split("/")[0] not in known]
    return [member for member in found if isinstance(member, zarr.Array)]


def _require_shards(writer: StoreWriter, members: Mapping[str, list[str]], others: Sequence[Any]) -> None:
    """Refuse at once what would fail after a long pass over the data."""
    group = writer.group
    arrays = [*others, *(group[f"{writer.side_folder}/{name}"] for name in members["arrays"])]
    arrays += [group[f"labels/{name}/0"] for name in members["labels"]]
    arrays += [column for name in members["tables"] for column in group[f"tables/{name}"].array_values()]  # type: ignore[union-attr]
    if isinstance(writer, ImageWriter):
        arrays.append(writer.array)
    missing = [name for array in arrays for name in missing_shards(writer.path, array)]
    if missing:
        what = f"{len(missing)} shards were not written, the first is {missing[0]}."
        raise UserError(what, where=writer.path, do=_AGAIN)


def _finish_image(writer: ImageWriter, labels: Sequence[str], digester: Digester, allow_nan: bool) -> dict[str, Any]:
    """Pyramid and metadata of the image and its labels; returns the image's statistics."""
    step = sample_step(math.prod(writer.shape))
    blocks: dict[tuple[int, ...], Statistics] = {}

    def take_in(region: Region, block: NDArray) -> None:
        corner = [r.start for r in region]
        for first, part in _by_channel(writer, block):
            here = tuple(c + f for c, f in zip(corner, first))
            blocks[here] = found = Statistics.of(part, step)
            if found.first_bad is not None and not allow_nan:
                named = ", ".join(f"{axis} {c + i}" for axis, c, i in zip(writer.axes, here, found.first_bad))
                what = f"has the value {part[found.first_bad]} at {named}; only finite values may be kept."
                raise UserError(what, where=writer.path, do="Look at the stage's log and inputs.")

    _build_pyramid(writer, "0", writer.axes, pyramid.mean, digester, take_in)
    for name in labels:
        base = f"labels/{name}/0"
        _build_pyramid(writer, base, writer.label_axes, pyramid.mode, digester, lambda region, block: None)
    statistics = Statistics()
    of_channel = [Statistics() for _ in writer.channels or ()]
    for corner in sorted(blocks):  # threads finish in any order, the sum must not depend on it
        statistics.add(blocks[corner])
        if writer.channels is not None:
            of_channel[corner[writer.axes.index("c")]].add(blocks[corner])
    _write_ome(writer, labels, statistics, of_channel)
    return statistics.summary()


def _by_channel(writer: ImageWriter, block: NDArray) -> Iterator[tuple[tuple[int, ...], NDArray]]:
    """A block in one piece, or channel by channel where each is described; and where each piece begins in it."""
    axis = None if writer.channels is None else writer.axes.index("c")
    for n in range(1 if axis is None else block.shape[axis]):
        here = tuple(slice(n, n + 1) if k == axis else slice(None) for k in range(block.ndim))
        yield tuple(n if k == axis else 0 for k in range(block.ndim)), block[here]


def _write_ome(
    writer: ImageWriter, labels: Sequence[str], statistics: Statistics, of_channel: Sequence[Statistics]
) -> None:
    n_channels = writer.shape[writer.axes.index("c")] if "c" in writer.axes else 1
    channels = writer.channels or (ngff.Channel(writer.name, window=writer.window),) * n_channels
    found = of_channel or (statistics,) * n_channels
    windows = [channel.window or one.window() for channel, one in zip(channels, found)]
    extremes = [(one.lowest, one.highest) if one.n_finite else w for one, w in zip(found, windows)]
    display = ngff.omero(channels, extremes, windows)
    common: dict[str, Any] = {"spacing": writer.spacing, "unit": writer.unit}
    factors = pyramid.level_factors(writer.shape, writer.axes)
    ngff.write_image_metadata(
        writer.group, name=writer.name, display=display, axes=writer.axes, factors=factors, **common
    )
    kept = [axis in writer.label_axes for axis in writer.axes]
    factors = [tuple(itertools.compress(step, kept)) for step in factors]
    for name in labels:
        ngff.write_image_metadata(
            writer.group[f"labels/{name}"],  # type: ignore[arg-type]
            name=name,
            axes=writer.label_axes,
            factors=factors,
            **common,
        )
    if labels:
        ngff.write_label_list(writer.group["labels"], labels)  # type: ignore[arg-type]


def _build_pyramid(
    writer: ImageWriter, base: str, axes: Sequence[str], reduce: pyramid.Reduce, digester: Digester, visit: Visit
) -> None:
    """Read the full level `base` through, once, `visit` its blocks, and make all coarser levels beside it."""
    parent = base.rpartition("0")[0]
    array: zarr.Array = writer.group[base]  # type: ignore[assignment]
    for level, step in enumerate(pyramid.level_factors(array.shape, axes), start=1):
        plan = plan_of(array).coarser(pyramid.coarser_shape(array.shape, step))
        target = new_array(writer.group, f"{parent}{level}", plan, array.dtype, axes)
        read = functools.partial(_read, writer.path, array, digester, visit if level == 1 else None)
        pyramid.build_level(plan_of(array), target, step, reduce, read)
        array = target
    if array.path == writer.group[base].path:
        _read_through(writer.path, array, digester, visit)


def _read_through(root: Path, array: Any, digester: Digester, visit: Visit | None = None) -> None:
    if visit is None and is_plain(array):

        def check(region: Region) -> None:
            index = shard_index(array, region)
            digester.add(shard_file(array, index))
            check_shard(root, array, index)

        pyramid.for_each(check, plan_of(array).regions())
        return
    pyramid.for_each(functools.partial(_read, root, array, digester, visit), plan_of(array).blocks())


def _read(root: Path, array: zarr.Array, digester: Digester, visit: Visit | None, region: Region) -> NDArray:
    # begun before the block is decoded: the digest then finds the file in memory, or brings it there
    digester.add(shard_file(array, shard_index(array, region)))
    block = read_block(root, array, region)
    if visit is not None:
        visit(region, block)
    return block


def _check_move(scratch: Path, final: Path) -> None:
    if not scratch.exists():
        raise UserError("was not written.", where=scratch, do=_AGAIN)
    if scratch.is_dir():
        open_store(scratch)
        # Snakemake has removed the root zarr.json of a store that it is about to make again.
        if final.exists() and not (final.is_dir() and (final.suffix == ".zarr" or not any(final.iterdir()))):
            do = "Choose another output path; stores end in .zarr."
            raise UserError("is in the way and is no store.", where=final, do=do)
    elif final.is_dir():
        raise UserError("is a folder where a file is to be written.", where=final, do="Move it.")
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    if scratch.stat().st_dev != final.parent.stat().st_dev:
        what = f"and scratch folder {scratch.parent} are on different file systems: no output can be moved whole."
        raise UserError(what, where=final, do="Put the scratch folder below the results folder.")
