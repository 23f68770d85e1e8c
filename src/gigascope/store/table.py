"""Tables: in a store as one array per column, beside it as TSV for people and as Parquet for their programs.

A table is a group with one 1-D array per column, in the order of its attribute `columns`, with `units` by column name.
Columns hold numbers, bools or strings and have equal length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gigascope.errors import ShapeError, UserError
from gigascope.store.writers.whole_file import whole_file

if TYPE_CHECKING:
    import zarr

_HEADER = re.compile(r"(?P<name>.*?)(?: \[(?P<unit>[^\]]*)\])?")
_BOOLS = {"true": True, "false": False}


def write_table(
    parent: zarr.Group, name: str, columns: Mapping[str, ArrayLike], units: Mapping[str, str] | None = None
) -> None:
    """Write a table as group `name` of `parent`, in place of one that is there already.

    Raises
    ------
    ShapeError : columns that are not 1-D, not of one length or not of numbers, bools or strings; a unit of no column
    """
    from zarr.codecs import ZstdCodec

    arrays = _columns(columns)
    if bad := [column for column in arrays if not column.strip(".") or "/" in column]:
        raise ShapeError(f"column name {bad[0]!r} cannot name a Zarr array")
    table = parent.create_group(
        name, overwrite=True, attributes={"columns": list(arrays), "units": _units(arrays, units)}
    )
    for column, values in arrays.items():
        array = table.create_array(
            column,
            shape=values.shape,
            dtype="string" if values.dtype.kind == "T" else values.dtype,
            chunks=(max(1, values.size),),
            compressors=[ZstdCodec(checksum=True)],
            config={"write_empty_chunks": True},
        )
        array[:] = values


def read_table(table: zarr.Group) -> dict[str, NDArray]:
    """The columns of a table group, in their order; strings as numpy's StringDType."""
    return {column: table[column][:] for column in table.attrs["columns"]}  # type: ignore[index, union-attr, misc]


def write_tsv(path: Path, columns: Mapping[str, ArrayLike], units: Mapping[str, str] | None = None) -> None:
    """Write columns as tab-separated text with one header line, `name [unit]`.

    Numbers are written with as many digits as give them back exactly. A text that could be read as something else (a
    number, nothing at all, with tabs or line breaks) is written as a JSON string.

    Raises
    ------
    ShapeError : see :func:`write_table`
    UserError : the disk is full or may not be written
    """
    arrays = _columns(columns)
    known = _units(arrays, units)
    if bad := [name for name in arrays if re.search(r"[\t\n\r\[\]]", name) or not name]:
        raise ShapeError(f"column name {bad[0]!r} cannot stand in a TSV header")
    lines = ["\t".join(f"{name} [{known[name]}]" if name in known else name for name in arrays)]
    lines += ["\t".join(row) for row in zip(*([_text(value) for value in values] for values in arrays.values()))]
    with whole_file(Path(path)) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def write_parquet(path: Path, columns: Mapping[str, ArrayLike], units: Mapping[str, str] | None = None) -> None:
    """Write columns as a Parquet file, for tables too long for text; the unit of a column is in its field's metadata.

    Raises
    ------
    ShapeError : see :func:`write_table`
    UserError : the disk is full or may not be written
    """
    import pyarrow
    import pyarrow.parquet

    arrays = _columns(columns)
    known = _units(arrays, units)
    held = {n: pyarrow.array(v.tolist() if v.dtype.kind == "T" else v) for n, v in arrays.items()}
    fields = [pyarrow.field(n, v.type, metadata={"unit": known[n]} if n in known else None) for n, v in held.items()]
    table = pyarrow.Table.from_arrays(list(held.values()), schema=pyarrow.schema(fields))
    with whole_file(path, table.nbytes) as partial:
        pyarrow.parquet.write_table(table, str(partial), compression="zstd")


def read_tsv(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Read what :func:`write_tsv` wrote, or a like table of another program.

    Returns
    -------
    columns by name (bool, int64, float64 or StringDType, whichever fits all rows), and units by column name

    Raises
    ------
    UserError : missing, empty, or a row that does not have one cell per column
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("there is no such table.", where=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is no text in UTF-8 ({error}).", where=path) from None
    header, *lines = text.removesuffix("\n").split("\n")
    if not header.strip():
        raise UserError("is empty; a header line with the column names was expected.", where=path)
    names, units = _parse_header(header.rstrip("\r"), path)
    rows = []
    for number, line in enumerate(lines, start=2):
        cells = line.rstrip("\r").split("\t")
        if len(cells) != len(names):
            raise UserError(f"has {len(cells)} cells, the header names {len(names)}.", where=f"{path}, line {number}")
        rows.append(cells)
    columns: Iterable[Sequence[str]] = zip(*rows) if rows else [()] * len(names)
    return {name: _array(cells) for name, cells in zip(names, columns)}, units


def _columns(columns: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    for name, values in arrays.items():
        if values.ndim != 1 or values.size != next(iter(arrays.values())).size:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
            raise ShapeError(f"columns of a table are 1-D and of one length, got {shapes}")
        if values.dtype.kind in "UO" and all(isinstance(value, str) for value in values):
            arrays[name] = values.astype(np.dtypes.StringDType())
        elif values.dtype.kind not in "biufT":
            raise ShapeError(f"column {name} holds {values.dtype}; numbers, bools and strings can be kept")
    return arrays


def _units(arrays: Mapping[str, NDArray], units: Mapping[str, str] | None) -> dict[str, str]:
    if unknown := sorted(set(units or {}) - set(arrays)):
        raise ShapeError(f"unit given for column {unknown[0]}, the columns are {', '.join(arrays)}")
    return {name: units[name] for name in arrays if units and units.get(name)}


def _text(value: Any) -> str:
    if isinstance(value, str):
        plain = value and not re.search(r"[\t\n\r]", value) and not value.startswith('"')
        return value if plain and isinstance(_parse(value), str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    return str(value)


def _parse(cell: str) -> bool | int | float | str:
    if cell in _BOOLS:
        return _BOOLS[cell]
    if cell.startswith('"'):
        try:
            return str(json.loads(cell))
        except json.JSONDecodeError:
            return cell
    for kind in (int, float):
        try:
            # Python reads 1_000 as a number, other programs do not
            return cell if "_" in cell else kind(cell)
        except ValueError:
            pass
    return cell


def _array(cells: Sequence[str]) -> NDArray:
    values = [_parse(cell) for cell in cells]
    kinds = {type(value) for value in values}
    if kinds == {bool} or kinds == {int}:
        return np.array(values)
    if kinds <= {int, float}:
        return np.array(values, dtype=np.float64)
    return np.array([value if isinstance(value, str) else cell for value, cell in zip(values, cells)], dtype="T")


def _parse_header(header: str, path: Path) -> tuple[list[str], dict[str, str]]:
    matches = [_HEADER.fullmatch(cell) for cell in header.split("\t")]
    names = [match["name"] if match else "" for match in matches]
    if len(set(names)) != len(names) or "" in names:
        raise UserError(f"the header must name each column once, got {header!r}.", where=path)
    return names, {match["name"]: match["unit"] for match in matches if match and match["unit"]}
