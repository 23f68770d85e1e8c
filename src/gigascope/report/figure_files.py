"""The plots of a page as SVG files, and the tables beside it as CSV and Parquet, for papers and other programs."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path
from typing import Any

from gigascope.errors import UserError
from gigascope.report.plots import WIDTH
from gigascope.report.style import CSS
from gigascope.store.table import read_tsv

_PLOT = re.compile(
    r'<p class="plot-title">(?P<title>(?:(?!</p>).)*)</p>\s*(?:<ul class="legend">(?P<legend>(?:(?!</ul>).)*)</ul>)?\s*'
    r'<svg[^>]*viewBox="0 0 (?P<width>[\d.]+) (?P<height>[\d.]+)"[^>]*>(?P<drawn>.*?)</svg>',
    re.DOTALL,
)
_ENTRY = re.compile(r'<li class="k(\d)[^"]*">(.*?)</li>', re.DOTALL)
# Height of a line of the title and of the legend, and about the width of a letter, in units of a plot's width.
_LINE, _LETTER = 16.0, 5.6


def write_figures(page: Path, folder: Path) -> list[dict[str, Any]]:
    """Write every plot of a page as `figures/<number>_<title>.svg`, light on white, and tables of the page's folder.

    Tables become `tables/<name>.csv` and `tables/<name>.parquet`, whose columns carry their unit as metadata.

    Parameters
    ----------
    page : report.html of a dataset; tables (.tsv) lie beside it
    folder : that is written into

    Returns
    -------
    file and title, or rows, of each

    Raises
    ------
    UserError : no page
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not page.is_file():
        raise UserError("there is no report yet.", where=page, do="Run snakemake to its end first.")
    found: list[dict[str, Any]] = []
    (folder / "figures").mkdir(parents=True)
    for number, match in enumerate(_PLOT.finditer(page.read_text(encoding="utf-8")), start=1):
        title = _plain(match["title"])
        name = f"{number:02d}_{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')}.svg"
        (folder / "figures" / name).write_text(_alone(match), encoding="utf-8")
        found.append({"file": f"figures/{name}", "title": title})
    (folder / "tables").mkdir()
    for path in sorted(page.parent.glob("*.tsv")):
        columns, units = read_tsv(path)
        names = list(columns)
        with (folder / "tables" / f"{path.stem}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(zip(*(columns[name].tolist() for name in names)))
        fields = []
        arrays = [pa.array(columns[name].tolist(), None if len(columns[name]) else pa.null()) for name in names]
        for name, array in zip(names, arrays):
            fields.append(pa.field(name, array.type, metadata={"unit": units[name]} if units.get(name) else None))
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        pq.write_table(table, folder / "tables" / f"{path.stem}.parquet")
        found.append({"file": f"tables/{path.stem}.csv", "rows": len(columns[names[0]]) if names else 0})
    return found


def _alone(match: re.Match[str]) -> str:
    """A plot with its title and legend, whose look needs no style sheet of a page and no variables."""
    entries = [(int(k), _plain(words)) for k, words in _ENTRY.findall(match["legend"] or "")]
    top, at, lines = _LINE * 1.2, 0.0, []
    for colour, words in entries:
        width = 24 + _LETTER * len(words)
        if at and at + width > WIDTH:
            top, at = top + _LINE, 0.0
        lines.append(
            f'<line x1="{at:.1f}" y1="{top + 8:.1f}" x2="{at + 14:.1f}" y2="{top + 8:.1f}" class="line k{colour}"/>'
            f'<text x="{at + 18:.1f}" y="{top + 12:.1f}">{html.escape(words)}</text>'
        )
        at += width
    top += _LINE * bool(entries)
    width, height = float(match["width"]), float(match["height"]) + top
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">\n<style>{_STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="0" y="13" class="title">{html.escape(_plain(match["title"]))}</text>\n{"".join(lines)}\n'
        f'<g transform="translate(0 {top:g})">{match["drawn"]}</g>\n</svg>\n'
    )


def _plain(words: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", words))


def _style() -> str:
    """Colours of the page by day, as rules without variables."""
    light = dict(re.findall(r"--(\w+): (#[0-9a-f]+);", CSS.split("}", 1)[0]))
    rules = [
        f"text {{ fill: {light['soft']}; font: 10.5px sans-serif; }}",
        f".title {{ fill: {light['ink']}; font-size: 13px; }}",
        f".frame {{ fill: none; stroke: {light['line']}; }} .rule {{ stroke: {light['line']}; stroke-width: .8; }}",
        f".mark {{ stroke: {light['soft']}; stroke-dasharray: 2 3; }} .line {{ fill: none; stroke-width: 1.7; }}",
        ".wide { stroke-width: 6; opacity: .35; } .dashed { stroke-dasharray: 5 3.5; } .band { opacity: .2; }",
        ".point { stroke: #ffffff; stroke-width: .7; } .hollow { fill: #ffffff; stroke-width: 1.5; }",
    ]
    for n in range(5):
        colour = light[f"c{n}"]
        rules.append(f".line.k{n}, .hollow.k{n} {{ stroke: {colour}; }} .band.k{n}, .point.k{n} {{ fill: {colour}; }}")
    return " ".join(rules)


_STYLE = _style()
