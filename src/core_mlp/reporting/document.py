"""Fills the templates in templates/, as Markdown or as HTML pages."""

import base64
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from core_mlp.pipeline.text import visible
from core_mlp.reporting.significance import summarize

FOLDER = Path(__file__).with_name("templates")
MARKDOWN_CHARACTERS = "\\`*_{}[]<>|&~"
# Also what GitHub, or MathJax elsewhere, recognizes in text: @name, #1, GH-1, $x$,
# \(x\), ://, www., :emoji:
SPECIAL = re.compile(
    rf"[{re.escape(MARKDOWN_CHARACTERS)}@$#]|:(?=/|[\w+-]+:)|(?<=\bwww)\.|(?<=\bGH)-",
    re.IGNORECASE,
)


def escape(value: Any) -> Markup:
    r"""Escapes a value for Markdown, so that a name from outside is not markup.

    GitHub finds mentions, references and links in the rendered text, so a backslash
    does not prevent them. Wrapping a character in an element of its own does.

    >>> print(escape("*a* @b $c$ http://d"))
    \*a\* <span>@</span>b <span>$</span>c<span>$</span> http<span>:</span>//d
    """
    if isinstance(value, Markup):
        return value
    line = visible(" ".join(format_value(value).split()))
    return Markup(SPECIAL.sub(_escape_special, line))


def _escape_special(match: re.Match) -> str:
    character = match[0]
    if character in MARKDOWN_CHARACTERS:
        return f"\\{character}"
    if character == "#":  # May start a heading or a reference, such as #1.
        return "<span>\\#</span>"
    return f"<span>{character}</span>"


def render(template: str, **values: Any) -> str:
    """Fills a template of templates/; inserted values are escaped, except in text."""
    is_markdown = template.endswith(".md")
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=not template.endswith(".txt"),
        finalize=escape if is_markdown else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "plural": count,
        "confidence": format_confidence,
        "over_seeds": format_over_seeds,
    }
    return environment.get_template(template).render(values)


def to_html(title: str, markdown: str) -> str:
    """Turns Markdown into a page that needs no network."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    page = (FOLDER / "report.html").read_text(encoding="utf-8")
    values = {"title": html.escape(visible(title)), "body": parser.render(markdown)}
    # Both at once: a title may contain "{body}".
    return re.sub(r"\{(title|body)\}", lambda match: values[match[1]], page)


def picture(png: bytes) -> Markup:
    """Returns a PNG as a part of a page."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Markup(f'<img src="{source}" alt="">')


def count(number: int, noun: str) -> str:
    """Returns a number of things, such as "2,000 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_value(value: Any) -> str:
    """Returns a value as text; null, true and false as YAML writes them.

    >>> [format_value(value) for value in (None, True, 0.5, [3, 2])]
    ['null', 'true', '0.5', '[3, 2]']
    """
    is_word = value is None or isinstance(value, bool)
    return json.dumps(value) if is_word else str(value)


def format_confidence(confidence: float) -> str:
    """Returns a probability with four decimals, never rounded to certainty."""
    return "> 0.9999" if confidence > 0.9999 else f"{confidence:.4f}"


def format_over_seeds(values: float | Sequence[float] | None) -> str:
    """Returns a value, or the mean and standard deviation of several."""
    if np.size(values) > 1:
        summary = summarize(values)
        return f"{summary.mean:.4f} ± {summary.sd:.4f}"
    return "" if values is None else f"{np.mean(values):.4f}".removesuffix(".0000")
