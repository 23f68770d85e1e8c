"""`gigascope info`: what a result is, and how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigascope.errors import UserError
from gigascope.runtime.memory import human_bytes
from gigascope.store.open import StoreReader, open_store

# Images of a store of many that are listed.
_SHOWN = 20


def print_info(path: Path) -> None:
    """Print the provenance of one store, or of every store of a results folder.

    Raises
    ------
    UserError : there is no finished store
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    if (path / "zarr.json").is_file() or path.name == "zarr.json":
        _print_store(console, open_store(path))
        return
    found = sorted(path.glob("*.zarr")) if path.is_dir() else []
    if not found:
        raise UserError("no finished store here.", where=path, do="Give results/NAME, or one store in it.")
    readers = [open_store(store) for store in found]
    table = Table(title=str(path), title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("store", "axes", "shape", "type", "made by", "finished", "time", "memory"):
        table.add_column(column)
    for store, reader in zip(found, readers, strict=True):
        made = reader.provenance
        table.add_row(
            store.name,
            "".join(axis[0] for axis in reader.axes) if reader.has_image else "-",
            "x".join(map(str, reader.shape))
            if reader.has_image
            else f"{len(reader.images)} images"
            if reader.images
            else "tables only",
            str(reader.dtype) if reader.has_image else "-",
            made.get("stage", "?"),
            made.get("finished", "?"),
            f"{made.get('wall_s', 0):.1f} s",
            human_bytes(made.get("peak_memory_bytes", 0)),
        )
    console.print(table)
    _print_metrics(console, path / "metrics.json")
    console.print(f"More of one store: gigascope info {found[0]}", highlight=False)


def _print_metrics(console: Console, path: Path) -> None:
    if not path.is_file():
        return
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name, entry in metrics.items():
        if isinstance(entry, dict) and "value" in entry and entry["value"] is not None:
            label = entry.get("label", name)
            value = entry["value"]
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            console.print(f"  {escape(str(label))}: {text} {entry.get('unit', '')}", highlight=False)


def _print_store(console: Console, reader: StoreReader) -> None:
    made = reader.provenance
    rows = {
        **(_image_rows(reader) if reader.has_image else {}),
        **({"images": _ensemble_lines(reader)} if reader.images else {}),
        "content digest": reader.digest,
        "made by": f"{made.get('stage')} of {made.get('dataset')}, gigascope {made.get('gigascope')}, code "
        f"{made.get('code')}",
        "finished": f"{made.get('finished')} on {made.get('host')}, {made.get('device')}",
        "took": f"{made.get('wall_s')} s, peak memory {human_bytes(made.get('peak_memory_bytes', 0))}",
        "packages": ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items()),
        "inputs": "\n".join(
            f"{name}: {item['path']} ({item['digest'][:16]})" for name, item in made.get("inputs", {}).items()
        ),
        "config": json.dumps(made.get("config", {}), indent=2),
        "warnings": "\n".join(made.get("warnings", [])) or "none",
        "make it again": " ".join(made.get("command", [])),
    }
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, escape(str(text)))
    console.print(table)


def _image_rows(reader: StoreReader) -> dict[str, str]:
    size = "x".join(map(str, reader.shape))
    return {
        "image": f"{' '.join(reader.axes)}: {size} {reader.dtype}, {reader.n_levels} levels",
        "spacing": ", ".join(f"{axis} {step:g} {reader.unit}" for axis, step in reader.spacing.items()),
    }


def _ensemble_lines(reader: StoreReader) -> str:
    """One line for each of the first images of a store of many."""
    lines = []
    for name in reader.images[:_SHOWN]:
        image = reader.image(name)
        labels = f", labels {', '.join(image.labels)}" if image.labels else ""
        lines.append(f"{name}: {_image_rows(image)['image']}{labels}")
    more = len(reader.images) - _SHOWN
    return "\n".join([*lines, *([f"and {more} more"] if more > 0 else [])])
