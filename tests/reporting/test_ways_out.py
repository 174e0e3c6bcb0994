"""Names from outside are only displayed in Markdown, pages and CSVs."""

import re
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt

from core_mlp.pipeline.files import write_csv
from core_mlp.pipeline.text import visible
from core_mlp.reporting.document import escape, to_html
from core_mlp.reporting.runs import _parse_rows
from core_mlp.results.evaluate import Confusion, Mistake


class Point(NamedTuple):
    """A row."""

    x: str
    y: float


class Label(NamedTuple):
    """A row."""

    label: str


HOSTILE = [
    "@name",
    "me@example.org",
    "#1",
    "GH-1",
    "http://example.org",
    "HTTPS://example.org",
    "www.example.org",
    "$x$",
    ":smile:",
    "<script>alert(1)</script>",
    "<img src=http://example.org>",
    "![x](http://example.org)",
    "[x](http://example.org)",
    "a|b",
    "`code`",
    "**bold**",
    "~~gone~~",
    "&lt;",
    "\\(x\\)",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is_and_does_nothing(name):
    text = str(escape(name))
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)

    # Without the elements around single characters, the text is the name.
    plain = re.sub(r"<span>(.)</span>", r"\1", html)
    for code, character in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("amp", "&")):
        plain = plain.replace(f"&{code};", character)
    assert plain == f"<p>{name}</p>\n"
    # GitHub looks for these in the text between elements.
    for part in re.split(r"<[^>]*>", html):
        assert not re.search(r"@\w|#\d|GH-\d|://|www\.|\$\w|:\w+:", part, re.I)


@pytest.mark.parametrize(
    "text", ["7", "0.97", "main~1", "2026-11-29", "epochs: 10 → 20", "日本", "a, b (c)"]
)
def test_ordinary_text_stays_as_it_is(text):
    assert str(escape(text)).replace("\\", "") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", r"a\x1b[31m"),
        ("a\u202eb", r"a\u202eb"),
        ("a\r\nb", r"a\r\nb"),
        ("a\u2028b", r"a\u2028b"),
        ("\udcff", r"\udcff"),
        ("\x9b1m", r"\x9b1m"),
        ("é 日本 😀", "é 日本 😀"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(text, shown):
    assert visible(text) == shown


def test_the_title_of_a_page_is_no_part_of_its_template():
    page = to_html("{body} <b>", "text")

    assert "<title>{body} &lt;b&gt;</title>" in page
    assert page.count("<p>text</p>") == 1


@pytest.mark.parametrize(
    "name", ["a,b", 'a"b', "a\rb", "a\nb", " a ", "", "a'b", "x < y", "<b>"]
)
def test_a_csv_gives_every_name_back(tmp_path, name):
    path = tmp_path / "confusion.csv"
    write_csv(path, [(name, "other", 3)], Confusion)

    content = path.read_bytes()
    assert _parse_rows(content.decode(), Confusion) == [Confusion(name, "other", 3)]


def test_a_csv_may_lack_a_column_that_is_not_always_there(tmp_path):
    path = tmp_path / "mistakes.csv"
    for mistake in (Mistake(1, "a", "b", 0.5), Mistake(1, "a", "b", 0.5, "a/1.png")):
        write_csv(path, [mistake], Mistake)

        assert _parse_rows(path.read_text(), Mistake) == [mistake]


def test_a_csv_has_the_same_bytes_on_every_python(tmp_path):
    """Python 3.13 quotes a carriage return, 3.11 does not."""
    rows = [Point("a\rb", 0.1234567), Point("c", 2)]

    write_csv(tmp_path / "a.csv", rows, Point)

    assert (tmp_path / "a.csv").read_bytes() == b'x,y\n"a\rb",0.123457\nc,2\n'


@pytest.mark.parametrize("name", ["</script>", "<SCRIPT>", "<!--", "</ScRiPt\t>"])
def test_a_csv_has_nothing_that_ends_or_begins_a_script(tmp_path, name):
    write_csv(tmp_path / "a.csv", [Label(name)], Label)

    text = (tmp_path / "a.csv").read_text()
    assert not re.search("<(/?script|!--)", text, re.I)
    assert text == f"label\n\u2039{name[1:]}\n"
