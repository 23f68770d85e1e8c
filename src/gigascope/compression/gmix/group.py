"""The group form: a folder that is a Zarr group, with the plain tables of level 0 and the payloads of level 1.

It is a store of gigascope, so every file has a digest in its table of checksums and every chunk a crc32c.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gigascope.compression.gmix import entropy, tables
from gigascope.compression.gmix.encoding import Encoded
from gigascope.compression.gmix.header import Header
from gigascope.compression.gmix.index import BrickIndex, BrickPlaces
from gigascope.compression.gmix.models import Models
from gigascope.compression.gmix.pages import PAGE, Pages
from gigascope.compression.gmix.spool import Spool
from gigascope.compression.mixture import Mixture
from gigascope.errors import UserError
from gigascope.store.checksum import content_digest, file_digest, read_checksums
from gigascope.store.create import StoreWriter, plan_of
from gigascope.store.open import open_store
from gigascope.store.plan import ShardPlan

if TYPE_CHECKING:
    import zarr

I64 = NDArray[np.int64]
ROWS = 2048
SHARD_BYTES = 1 << 24
# What zarr and its codecs throw at bytes that are not what they were.
_DAMAGE = (ValueError, RuntimeError, KeyError, TypeError, OSError, entropy.Damaged)


class GroupFile:
    """A group that is open for reading; its attributes, metadata and index are checked.

    Attributes and methods as of :class:`compact.CompactFile`.

    Raises
    ------
    UserError : it is no such group, is unfinished, or was cut off or altered
    """

    def __init__(self, path: Path) -> None:
        import zarr

        self.path = path
        try:
            store = open_store(path)
        except _DAMAGE as error:
            raise self.damaged(f"its attributes cannot be read ({error})") from error
        if "gmix" not in store.attributes:
            raise UserError("holds no Gaussians.", where=path, do="Choose the folder that compression.fit wrote.")
        self._store = _counted(path)
        try:
            self._group = zarr.open_group(self._store, mode="r", zarr_format=3)
            self._files = {file.file: file for file in read_checksums(self._group)}
            if content_digest(list(self._files.values()), store.attributes) != store.digest:
                raise self.damaged("its attributes or its list of files were altered")
            self._check_files()
            attributes = store.attributes["gmix"]
            self.header = Header.from_json(attributes)
            self.level_0: Mapping[str, Any] = attributes["level_0"]
            self._read()
        except _DAMAGE as error:
            raise self.damaged(f"it cannot be read ({error})") from error

    @property
    def n_read(self) -> int:
        """Bytes read of the data so far."""
        return int(self._store.n_read)

    def payload(self, start: int, stop: int) -> bytes:
        """Bytes of the payloads, checked by whole chunks."""
        return self._payload.part(start, stop)

    def residual(self, start: int, stop: int) -> bytes:
        """Bytes of the residual layer, checked by whole chunks."""
        return self._residual.part(start, stop)

    def table(self, start: int, stop: int) -> Mixture:
        """Rows of level 0, means relative to the first voxel of the brick."""
        try:
            pos, scl, rot, amp = (np.asarray(self._array(f"g/{n}")[start:stop]) for n in ("pos", "scl", "rot", "amp"))
        except _DAMAGE as error:
            raise self.damaged(f"the tables cannot be read ({error})") from error
        return tables.decode(pos, scl, rot, amp, self.header.brick, self.level_0["amplitude_scale"])

    def damaged(self, what: str) -> UserError:
        """The refusal of a group that is not as it was written."""
        return UserError(f"is damaged: {what}.", where=self.path, do="Copy or make the store again.")

    def bytes_by_component(self) -> dict[str, int]:
        """Every byte of the folder; `level_0` are the tables of Gaussians, `tables` the probabilities."""
        parts = {"tables": "p/tables/", "index": "index/", "background": "bg/", "payload": "p/data/", "level_0": "g/"}
        parts |= {"residual": "r/data/"}
        found = dict.fromkeys(["header", *parts], 0)
        for file in self.path.rglob("*"):
            name = file.relative_to(self.path).as_posix()
            if file.is_file():
                owner = [part for part, prefix in parts.items() if name.startswith(prefix) and "zarr.json" not in name]
                found[owner[0] if owner else "header"] += file.stat().st_size
        return found

    def close(self) -> None:
        """Nothing is held open."""

    def _check_files(self) -> None:
        for file in self._files.values():
            path = self.path / file.file
            if not path.is_file():
                raise self.damaged(f"{file.file} is missing")
            if path.stat().st_size != file.bytes:
                raise self.damaged(f"{file.file} has {path.stat().st_size} bytes, {file.bytes} were written")
            if path.name == "zarr.json" and file_digest(self.path, file.file) != file:
                raise self.damaged(f"{file.file} was altered")

    def _read(self) -> None:
        header = self.header
        places = BrickPlaces(header)
        stream = self._array("p/tables")[:].tobytes()  # type: ignore[union-attr]
        self.models = Models.of_columns(entropy.decode_integers(stream, Models.lengths(header.brick)))
        self.models.check()
        count, length, box = (self._in_order(places, name) for name in ("index/count", "p/length", "index/bbox"))
        residuals = np.zeros(len(places), np.int64)
        if header.residual is not None:
            residuals = self._in_order(places, "r/length")
        self.index = BrickIndex(count, length, box, residuals)
        sizes = {"p/data": int(length.sum()), "r/data": int(residuals.sum())}
        for name, size in sizes.items():
            if size and self._array(name).shape != (size,):
                raise self.damaged(f"{name} has another length than the index says")
        self._payload, self._residual = (Pages(n, functools.partial(self._bytes, name)) for name, n in sizes.items())
        self.background = list(np.asarray(self._array("bg")[:]).astype(np.int64))

    def _in_order(self, places: BrickPlaces, name: str) -> I64:
        grid = np.asarray(self._array(name)[:]).astype(np.int64)
        z, y, x = np.array(places.order, np.int64).reshape(-1, 3).T
        found = grid[:, z, y, x]
        return found.reshape(-1, *found.shape[2:])

    def _bytes(self, name: str, start: int, stop: int) -> bytes:
        try:
            return np.asarray(self._array(name)[start:stop]).tobytes()
        except _DAMAGE as error:
            raise self.damaged(f"{name} was altered ({error})") from error

    def _array(self, name: str) -> zarr.Array:
        return self._group[name]  # type: ignore[return-value]


def write(writer: StoreWriter, encoded: Encoded, columns: tables.Columns) -> None:
    """Fill an unfinished store."""
    header, index = encoded.header, encoded.index
    places = BrickPlaces(header)
    starts = np.concatenate(([0], np.cumsum(index.counts)[:-1]))
    residual = {"r/offset": (index.residual_offsets[:-1], np.uint64), "r/length": (index.residuals, np.uint32)}
    grids: dict[str, tuple[I64, Any]] = {
        "index/count": (index.counts, np.uint32),
        "index/start": (starts, np.uint64),
        "index/bbox": (index.boxes, np.int16),
        "p/offset": (index.offsets[:-1], np.uint64),
        "p/length": (index.lengths, np.uint32),
        **(residual if header.residual is not None else {}),
    }
    for name, (values, dtype) in grids.items():
        _write_grid(writer, name, _to_grid(places, values), dtype)
    _write_grid(writer, "bg", np.stack(encoded.background), np.uint16)
    stream = np.frombuffer(entropy.encode_integers(encoded.models.columns), np.uint8)
    _write_grid(writer, "p/tables", stream, np.uint8)
    _write_bytes(writer, "p/data", encoded.payload)
    if header.residual is not None:
        _write_bytes(writer, "r/data", encoded.residual)
    for name, dtype in (("pos", columns.position_dtype), ("scl", np.uint8), ("rot", np.uint32), ("amp", np.int16)):
        _write_column(writer, columns, name, dtype)
    law = tables.LEVEL_0
    level_0 = {
        "position_bits": law.position_bits,
        "sigma_table": [law.sigma_min, law.sigma_max, 1 << law.scale_bits],
        "rotation_bits": law.rotation_bits,
        "amplitude_bits": law.amplitude_bits,
        "amplitude_scale": columns.amplitude_scale,
    }
    # through JSON, so that what is read is what was written
    writer.group.attrs["gmix"] = json.loads(json.dumps({**header.to_json(), "levels": [0, 1], "level_0": level_0}))


def _to_grid(places: BrickPlaces, values: I64) -> I64:
    shape = (places.header.n_frames, *places.grid.counts, *values.shape[1:])
    grid = np.zeros(shape, np.int64)
    z, y, x = np.array(places.order, np.int64).reshape(-1, 3).T
    grid[:, z, y, x] = values.reshape(places.header.n_frames, -1, *values.shape[1:])
    return grid


def _write_grid(writer: StoreWriter, name: str, values: NDArray, dtype: Any) -> None:
    """An array of some numbers per brick; chunks of at most 64 along an axis, one shard."""
    chunks = tuple(max(1, min(n, 1 << 18 if values.ndim == 1 else 64)) for n in values.shape)
    shards = tuple(-(-max(1, n) // chunk) * chunk for n, chunk in zip(values.shape, chunks))
    array = writer.create_member(name, ShardPlan(values.shape, np.dtype(dtype).itemsize, chunks, shards), dtype)
    array[...] = values.astype(dtype)


def _write_bytes(writer: StoreWriter, name: str, spool: Spool) -> None:
    array = writer.create_member(name, _cut((spool.size,), 1, PAGE), np.uint8)
    for start, stop in _shards(array):
        array[start:stop] = np.frombuffer(spool.part(start, stop), np.uint8)


def _write_column(writer: StoreWriter, columns: tables.Columns, name: str, dtype: Any) -> None:
    shape = (columns.rows, 3) if name == "scl" else (columns.rows,)
    array = writer.create_member(f"g/{name}", _cut(shape, np.dtype(dtype).itemsize, ROWS), dtype)
    for start, stop in _shards(array):
        array[start:stop] = columns.piece(name, start, stop)


def _cut(shape: tuple[int, ...], itemsize: int, chunk: int) -> ShardPlan:
    """Chunks of so many rows, in shards of about 16 MiB, no larger than the array needs."""
    rows, rest = shape[0], shape[1:]
    most = max(1, SHARD_BYTES // (chunk * itemsize * math.prod(rest)))
    n_chunks = min(most, max(1, -(-rows // chunk)))
    return ShardPlan(shape, itemsize, (chunk, *rest), (chunk * n_chunks, *rest))


def _shards(array: zarr.Array) -> Iterator[tuple[int, int]]:
    step = plan_of(array).shards[0]
    for start in range(0, array.shape[0], step):
        yield start, min(start + step, array.shape[0])


def _counted(path: Path) -> Any:
    """A local Zarr store that counts the bytes read."""
    from zarr.storage import LocalStore, WrapperStore

    class Counted(WrapperStore):
        n_read = 0

        async def get(self, *arguments: Any, **options: Any) -> Any:
            value = await self._store.get(*arguments, **options)
            self.n_read += 0 if value is None else len(value)
            return value

        async def get_partial_values(self, *arguments: Any, **options: Any) -> Any:
            values = await self._store.get_partial_values(*arguments, **options)
            self.n_read += sum(len(value) for value in values if value is not None)
            return values

    return Counted(LocalStore(path, read_only=True))
