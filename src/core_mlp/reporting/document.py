"""Reports as a list of blocks, rendered as Markdown, HTML or plain text."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

PAGE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Heading:
    """A heading; level 2 is that of the whole report."""

    text: str
    level: int = 3


@dataclass(frozen=True)
class Paragraph:
    """Plain text, after a part in bold if there is one."""

    text: str
    bold: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG and its text, as a block or as a cell, of which Markdown has the text."""

    png: bytes
    text: str


@dataclass(frozen=True)
class Table:
    """A table; all but the first column are aligned right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Picture]]


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away under a summary."""

    summary: str
    blocks: Sequence["Block"]


Block = Heading | Paragraph | Picture | Table | Details


def to_markdown(blocks: Sequence[Block], *, with_pictures: bool = False) -> str:
    """Renders blocks as GitHub's Markdown, which shows no picture of its own."""
    if not with_pictures:
        blocks = [block for block in blocks if not isinstance(block, Picture)]
    return "\n\n".join(_render(block, with_pictures) for block in blocks) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Renders blocks as a page that needs no network."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    body = markdown.render(to_markdown(blocks, with_pictures=True))
    page = PAGE.read_text(encoding="utf-8").replace("{title}", html.escape(title))
    return page.replace("{body}", body)


def to_text(blocks: Sequence[Block]) -> str:
    """Renders headings and paragraphs, for a terminal."""
    lines = []
    for block in blocks:
        if isinstance(block, Heading):
            lines.append(block.text)
        elif isinstance(block, Paragraph):
            lines.append(f"{block.bold} {block.text}".strip())
    return "\n".join(lines)


def escape(text: str) -> str:
    """Escapes text for Markdown, so that a name from outside is not markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#&~" else c for c in line)


def _render(block: Block, with_pictures: bool) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape(text)}"
        case Paragraph(text, bold):
            return f"**{escape(bold)}** {escape(text)}" if bold else escape(text)
        case Picture(png, text) if with_pictures:
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            return f'<img src="{source}" alt=""> {escape(text)}'
        case Picture(_, text):
            return escape(text)
        case Table(header, rows):
            rule = [":--"] + ["--:"] * (len(header) - 1)
            cells = [
                [
                    _render(cell, with_pictures)
                    if isinstance(cell, Picture)
                    else escape(cell)
                    for cell in row
                ]
                for row in rows
            ]
            lines = [map(escape, header), rule, *cells]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Details(summary, blocks):
            summary = f"<summary>{html.escape(summary)}</summary>"
            body = to_markdown(blocks, with_pictures=with_pictures)
            return f"<details>{summary}\n\n{body}\n</details>"


def count(number: int, noun: str) -> str:
    """Returns a number of things, such as "2,000 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_confidence(confidence: float) -> str:
    """Returns a probability with four decimals, never as if it were certain."""
    return "> 0.9999" if confidence > 0.9999 else f"{confidence:.4f}"


def format_p(p_value: float) -> str:
    """Returns a p-value with two significant digits and the sign before it."""
    return "< 0.0001" if p_value < 0.0001 else f"= {p_value:.2g}"
