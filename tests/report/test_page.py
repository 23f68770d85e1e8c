"""Properties of the page builder: everything is escaped, numbers read well."""

from __future__ import annotations

import math

import pytest

from gigascope.report import page


def test_plain_text_is_escaped_everywhere():
    nasty = "<script>alert(\"x\")</script> & 'y'"
    made = page.Page(nasty, nasty, nasty, nasty)
    made.add("Section", page.paragraph(nasty), page.first_warnings([nasty]),
             page.tiles([page.Number(nasty, 1, nasty, nasty)]),
             page.table([nasty], [[nasty]], nasty), page.facts([(nasty, nasty, nasty)]), page.commands([nasty]),
             page.details(nasty, nasty), page.tag("p", title=nasty),
             page.figure(page.Html("<b></b>"), nasty))  # fmt: skip
    text = made.render()
    assert "<script" not in text
    assert '"x"' not in text


def test_html_is_not_escaped_twice():
    assert page.text(page.tag("b", "a & b")) == "<b>a &amp; b</b>"


def test_section_without_content_is_left_out():
    made = page.Page("t", "k", "s")
    made.add("Empty", page.Html(""), "")
    assert made.sections == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (1, "1"), (61, "61"), (0.0123456, "0.0123"), (-0.5, "−0.500"), (12.345, "12.3"), (123.45, "123"),
        (48213, "48\N{NARROW NO-BREAK SPACE}213"), (1.5e-7, "1.50×10⁻⁷"), (math.nan, "–"), (None, "–"), ("", "–"),
        (math.inf, "∞"), (True, "yes"), ("as it is", "as it is"),
    ],
)  # fmt: skip
def test_number_for_a_person(value, shown):
    assert page.number(value) == shown


def test_set_numbers_are_short():
    assert page.plain(-59.99999999999999, "°") == "−60°"
    assert page.plain(200000.0) == "2×10⁵"
    assert page.plain(-1e-7) == "−1×10⁻⁷"
    assert page.plain(1.5, "nm") == "1.5\N{NO-BREAK SPACE}nm"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "–"), (0.94, "0.9 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min")]
)
def test_duration(seconds, shown):
    assert page.duration(seconds) == shown


def test_numbers_stand_right_and_their_heading_with_them():
    made = page.table(["view", "why"], [[3, "dark"], [4, None]], "Views")
    assert '<th scope="col" class="n">view</th>' in made
    assert '<td class="n">3</td>' in made
