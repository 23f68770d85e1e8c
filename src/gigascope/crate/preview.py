"""The page of a crate for people: which stage made what, from what, when and how."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from gigascope.config.dataset import Dataset
from gigascope.crate.runs import Data, Run
from gigascope.crate.words import About, circumstances, leaves, title
from gigascope.runtime.memory import human_bytes

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; }
td:nth-child(-n + 4) { white-space: nowrap; }
tr + tr { border-top: 1px solid #ddd; } code { overflow-wrap: anywhere; } summary { cursor: pointer; }
"""


def preview_html(dataset: Dataset, runs: list[Run], about: About) -> str:
    """One page, complete in itself."""
    name = escape(title(dataset))
    agent = f" Run by {escape(about.agent[0])}." if about.agent else ""
    rows = "\n".join(_row(run) for run in runs)
    details = "\n".join(_details(run) for run in runs)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style></head>
<body>
<h1>{name}</h1>
<p>A <a href="https://w3id.org/ro/crate/1.1">RO-Crate</a> (profile
<a href="https://w3id.org/ro/wfrun/provenance/0.5">Provenance Run Crate 0.5</a>): <a href="ro-crate-metadata.json">its
metadata</a> say for programs what this page says for people. Licence: {escape(about.licence)}{agent}</p>
<table>
<tr><th>stage</th><th>ended (UTC)</th><th>took</th><th>memory</th><th>from</th><th>made</th></tr>
{rows}
</table>
<h2>How</h2>
{details}
</body>
</html>
"""


def _row(run: Run) -> str:
    cells = [
        escape(run.stage.name),
        f"{run.ended:%Y-%m-%d %H:%M:%S}",
        "" if run.wall_s is None else f"{run.wall_s:.1f} s",
        "" if run.peak_bytes is None else human_bytes(run.peak_bytes),
        _list((*run.inputs.values(), *run.raw)),
        _list(run.outputs.values()),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _list(data: Iterable[Data]) -> str:
    found = []
    for item in data:
        size = f", {human_bytes(item.n_bytes)}" if item.n_bytes is not None else ""
        found.append(f"{escape(item.file or str(item.path))} <small>({item.digest[:12]}{size})</small>")
    return "<br>".join(found)


def _details(run: Run) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in run.packages.items())
    config = "\n".join(f"{key} = {value}" for key, value in leaves(run.config))
    return (
        f"<details><summary>{escape(run.stage.name)}: {escape(run.stage.title)}</summary>"
        f"<p>{escape(circumstances(run))}</p><p>Code {escape(run.code)}, seed {run.seed}; {escape(packages)}</p>"
        f"<pre>{escape(config)}</pre></details>"
    )
