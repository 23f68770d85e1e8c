"""A strict reading of a page: tags that close, unique ids, links that lead somewhere, nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Checked(HTMLParser):
    """Collects what is wrong with a page in `problems`, and its text and headings."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.problems: list[str] = []
        self.words: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.pictures: list[dict[str, str]] = []
        self.targets: list[str] = []
        self._quiet = 0
        self.feed(page)
        self.close()
        if self.open:
            self.problems.append(f"not closed: {self.open}")
        if len(set(self.ids)) != len(self.ids):
            self.problems.append("an id stands twice")
        self.problems += [f"link to nowhere: {t}" for t in self.targets if t not in self.ids]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if len(values) != len(attrs):
            self.problems.append(f"an attribute of {tag} stands twice")
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag in ("script", "iframe", "object", "embed"):
            self.problems.append(f"a page without scripts has <{tag}>")
        if tag == "img":
            self.pictures.append(values)
            if not values.get("alt"):
                self.problems.append("a picture without words")
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            target = values.get(name)
            if target is None:
                continue
            if target.startswith("#"):
                self.targets.append(target[1:])
            elif not target.startswith("data:"):
                self.problems.append(f"{tag} {name} leads outside: {target[:60]}")
        if tag in ("h1", "h2", "h3"):
            self.headings.append((int(tag[1]), ""))
        if tag == "style":
            self._quiet += 1

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]} ")
        else:
            self.open.pop()
        if tag == "style":
            self._quiet -= 1

    def handle_data(self, data: str) -> None:
        if self._quiet:
            if re.search(r"url\(|@import", data):
                self.problems.append("the style refers to something")
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            level, before = self.headings[-1]
            self.headings[-1] = (level, before + data)
