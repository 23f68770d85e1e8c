"""A self-contained HTML page: sections, numbers, tables, warnings. No script, no reference to anything outside.

Whatever is given as plain text is escaped; only :class:`Html`, made by the functions of this package, goes in as it is.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gigascope.report.style import CSS

Cell = "str | float | int | bool | None | Html"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
# Characters of a table's cell beyond which it runs over several lines.
LONG = 40
NBSP = "\N{NO-BREAK SPACE}"
# Warnings that have room at the top of the page.
SHOWN_FIRST = 2


class Html(str):
    """Text that is HTML already."""


def text(value: object) -> Html:
    """`value` for a place between tags or inside a quoted attribute: escaped unless it is :class:`Html`."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """One piece of HTML from several; plain ones are escaped."""
    return Html(between.join(text(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """`<name attribute="...">content</name>`; `class_` becomes class, other `_` become `-`, None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def number(value: object, digits: int = 3) -> str:
    """A number for a person: `digits` significant ones, thousands apart, a real minus; a dash if there is none."""
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    x = float(value)  # type: ignore[arg-type]
    if not math.isfinite(x):
        return DASH if math.isnan(x) else ("∞" if x > 0 else f"{MINUS}∞")
    if x == 0:
        return "0"
    exponent = math.floor(math.log10(abs(x)))
    if exponent < -4:
        mantissa, _, power = f"{x:.{digits - 1}e}".partition("e")
        return f"{mantissa}\N{MULTIPLICATION SIGN}10{_superscript(int(power))}".replace("-", MINUS)
    whole = float(x).is_integer() and exponent < 15
    shown = f"{x:,.0f}" if whole or exponent >= digits - 1 else f"{x:.{digits - 1 - exponent}f}"
    return shown.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def plain(value: float, unit: str = "", digits: int = 4) -> str:
    """A number that was set, not measured: as short as it can be written, with its unit."""
    mantissa, _, power = f"{float(value):.{digits}g}".replace("-", MINUS).partition("e")
    shown = mantissa + (f"\N{MULTIPLICATION SIGN}10{_superscript(int(power.replace(MINUS, '-')))}" if power else "")
    return f"{shown}{'' if unit in ('', '°') else NBSP}{unit}"


def quantity(value: object, unit: str = "", digits: int = 3) -> str:
    """A number with its unit, kept on one line."""
    shown = number(value, digits)
    if not unit or shown == DASH:
        return shown
    return f"{shown}{'' if unit == '°' else NBSP}{unit}"


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return (
        f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@dataclass(frozen=True)
class Number:
    """A figure with its unit that stands for itself.

    Parameters
    ----------
    label : what it is, a few words
    value : the figure, or a text in its place
    unit : of the figure
    note : how to read it, one short sentence
    """

    label: str
    value: float | int | str | None
    unit: str = ""
    note: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading, with an anchor."""

    title: str
    content: Html
    anchor: str


@dataclass
class Page:
    """The page, written out by :meth:`render`.

    Parameters
    ----------
    title : of the page and its first heading
    kind : what it is a report of, above the title
    summary : one or two sentences under the title
    footer : last line
    """

    title: str
    kind: str
    summary: str
    footer: str = ""
    sections: list[Section] = field(default_factory=list)

    def add(self, title: str, *content: object, anchor: str | None = None) -> None:
        """A section, unless there is nothing in it."""
        inside = join(part for part in content if part)
        if inside:
            self.sections.append(Section(title, inside, anchor or title.lower().replace(" ", "-")))

    def add_warnings(self, messages: Sequence[str]) -> None:
        """Those that are too many for the top of the page, in a section of their own; see :func:`first_warnings`."""
        if len(messages) > SHOWN_FIRST:
            self.add("What to know before trusting it", _warnings(messages), anchor="warnings")

    def render(self) -> str:
        """The whole page as HTML text."""
        links = [tag("a", s.title, href=f"#{s.anchor}") for s in self.sections]
        header = tag(
            "header",
            tag("p", self.kind, class_="kind"),
            tag("h1", self.title),
            tag("p", self.summary, class_="summary"),
            tag("nav", *links, aria_label="Sections"),
        )
        body = [
            tag(
                "section",
                tag("h2", s.title, id=f"{s.anchor}-title"),
                s.content,
                id=s.anchor,
                aria_labelledby=f"{s.anchor}-title",
            )
            for s in self.sections
        ]
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
            f"<title>{text(self.title)} · {text(self.kind)}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n"
            f"{header}\n{tag('main', Html(chr(10)), join(body, chr(10)), Html(chr(10)))}\n"
            f"{tag('footer', tag('p', self.footer))}\n</body>\n</html>\n"
        )


def paragraph(*content: object, class_: str | None = None) -> Html:
    """A paragraph."""
    return tag("p", *content, class_=class_)


def heading(title: str) -> Html:
    """A heading inside a section."""
    return tag("h3", title)


def grid(*content: object, columns: str = "two") -> Html:
    """Blocks side by side where the screen is wide enough; `columns`: two or three."""
    return tag("div", *[part for part in content if part], class_=f"grid {columns}")


def figure(content: Html, caption: object, class_: str | None = None) -> Html:
    """A picture or plot with its caption."""
    return tag("figure", content, tag("figcaption", caption), class_=class_)


def tiles(numbers: Sequence[Number]) -> Html:
    """Numbers to be seen first."""
    cells = [
        tag(
            "div",
            tag("dt", n.label),
            tag("dd", tag("span", number(n.value, n.digits), class_="value"), _unit(n), class_="figure"),
            tag("dd", n.note, class_="note") if n.note else "",
        )
        for n in numbers
    ]
    return tag("dl", *cells, class_="tiles") if cells else Html("")


def _unit(n: Number) -> Html:
    return tag("span", Html("" if n.unit == "°" else "&nbsp;"), n.unit, class_="unit") if n.unit else Html("")


def first_warnings(messages: Sequence[str]) -> Html:
    """At the top of the page: what the reader should know before trusting the result, or where it stands; see
    :meth:`Page.add_warnings`."""
    if not messages:
        return tag("p", "No stage had anything to warn of.", class_="fine")
    if len(messages) > SHOWN_FIRST:
        return tag("p", tag("a", f"{len(messages)} things to know before trusting it", href="#warnings"))
    return _warnings(messages)


def _warnings(messages: Sequence[str]) -> Html:
    return tag("ul", *[tag("li", message) for message in messages], class_="warnings")


def facts(rows: Sequence[tuple[str, object, str]]) -> Html:
    """What was chosen and why: name, value, reason."""
    cells = [
        tag("div", tag("dt", name), tag("dd", value, class_="chosen"), tag("dd", why, class_="note"))
        for name, value, why in rows
    ]
    return tag("dl", *cells, class_="facts") if cells else Html("")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str, *, digits: int = 3) -> Html:
    """A table; numbers are set right, and a narrow screen scrolls it sideways inside its frame."""
    if not rows:
        return Html("")
    right = [all(_is_number(row[i]) or row[i] is None for row in rows) for i in range(len(header))]
    head = tag("tr", *[tag("th", title, scope="col", class_="n" if n else None) for title, n in zip(header, right)])
    body = []
    for row in rows:
        cells = [
            tag("td", number(cell, digits), class_="n") if _is_number(cell)
            else tag("td", DASH if cell is None or cell == "" else cell, class_="wrap" if _is_long(cell) else None)
            for cell in row
        ]  # fmt: skip
        body.append(tag("tr", *cells))
    inside = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", inside, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _is_long(cell: object) -> bool:
    """Words that may run over several lines, so that a table stays on the page."""
    return isinstance(cell, str) and not isinstance(cell, Html) and len(cell) > LONG


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def details(summary: str, *content: object) -> Html:
    """Content behind a line that opens it."""
    return tag("details", tag("summary", summary), *content)


def commands(lines: Sequence[str]) -> Html:
    """Lines to be typed."""
    return tag("pre", tag("code", "\n".join(lines)), tabindex="0")


def stage_table(records: Sequence[Mapping[str, object]]) -> Html:
    """Stages with time, device and memory, from their provenance records."""
    rows = []
    for r in records:
        gpu = r.get("peak_gpu_memory_bytes")
        rows.append(
            [
                r.get("stage"),
                duration(_float(r.get("wall_s"))),
                r.get("device"),
                gibibytes(r.get("peak_memory_bytes")) + (f", {gibibytes(gpu)} on the GPU" if gpu else ""),
                f"{r.get('finished', '')}".replace("T", " ").replace("+00:00", " UTC"),
                r.get("host"),
                str(r.get("code", ""))[:12],
            ]
        )
    return table(
        ["stage", "time", "device", "peak memory", "finished", "host", "code"],
        rows,
        "Stages, in the order in which they ran",
    )


def gibibytes(count: object) -> str:
    """Bytes as MiB or GiB."""
    size = _float(count)
    if size is None:
        return DASH
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
